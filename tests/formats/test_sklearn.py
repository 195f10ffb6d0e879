"""scikit-learn files: what loads, what is refused and why, and that answers are scikit-learn's own."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris, make_classification
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, PolynomialFeatures, StandardScaler
from sklearn.utils import all_estimators
from threadpoolctl import threadpool_limits

from fitserve.errors import ArtifactError, InvalidInputError
from fitserve.estimators.calls import ARGMAX_CLASSIFIERS
from fitserve.formats.sklearn import load, snapshot
from fitserve.signature import MAX_MAGNITUDE
from fitserve.trust.policy import TrustPolicy
from fitserve.types import Artifact, Declared

X, Y = load_iris(return_X_y=True)
ANY = TrustPolicy(level="any")


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Threads that wait for each other would take most of the time on a busy machine."""
    with threadpool_limits(1):
        yield


def artifact(data: bytes, **more) -> Artifact:
    return Artifact(name="m", version="1", digest="", data=data, **more)


def dumped(model: object) -> bytes:
    file = io.BytesIO()
    joblib.dump(model, file)
    return file.getvalue()


@pytest.mark.parametrize("name", sorted(ARGMAX_CLASSIFIERS))
@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_shortcut_gives_the_labels_that_predict_gives(name, n_classes):
    """On random rows, and on rows between two of different label: where rounding could tip them over."""
    kind = dict(all_estimators("classifier"))[name]
    options = {"loss": "log_loss"} if name == "SGDClassifier" else {}
    features, labels = make_classification(
        300, 4, n_informative=3, n_redundant=0, n_classes=n_classes, n_clusters_per_class=1, random_state=1
    )
    if name in {"CategoricalNB", "ComplementNB", "MultinomialNB"}:
        features = np.digitize(features, [-1, 0, 1]).astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator = kind(**options).fit(features, labels)
    model = snapshot(estimator)
    assert model._calls.is_argmax

    table = features
    if name != "CategoricalNB":
        labels_now = estimator.predict(features)
        low = features[labels_now == 0][:40]
        high = np.resize(features[labels_now != 0], low.shape)
        for _ in range(60):  # bisect each pair to the border between its labels, to the last bit
            middle = (low + high) / 2
            is_low = (estimator.predict(middle) == 0)[:, None]
            low, high = np.where(is_low, middle, low), np.where(is_low, high, middle)
        table = np.vstack([features, low, high, np.nextafter(low, high), np.nextafter(high, low)])
    outputs = model.predict(table)

    if model._calls.plain is None:
        np.testing.assert_array_equal(outputs.predictions, estimator.predict(table))
        np.testing.assert_array_equal(outputs.probabilities[0], estimator.predict_proba(table))
    else:  # scikit-learn's own label of a row on the border hangs on its company: here it is that of the row alone
        alone = np.concatenate([estimator.predict(table[i : i + 1]) for i in range(len(table))])
        np.testing.assert_array_equal(outputs.predictions, alone)
        np.testing.assert_allclose(outputs.probabilities[0], estimator.predict_proba(table), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "model", [DummyClassifier(strategy="prior"), KNeighborsClassifier(), GridSearchCV(KNeighborsClassifier(), {})]
)
def test_other_classifiers_are_asked_for_both(model):
    served = snapshot(model.fit(X, Y))

    outputs = served.predict(X)

    assert not served._calls.is_argmax
    np.testing.assert_array_equal(outputs.predictions, model.predict(X))


def test_a_subclass_is_not_trusted_to_be_its_base():
    class Contrary(LogisticRegression):
        def predict(self, X):
            return 2 - super().predict(X)

    model = Contrary(max_iter=1000).fit(X, Y)

    np.testing.assert_array_equal(snapshot(model).predict(X).predictions, model.predict(X))


def test_a_search_and_a_pipeline_are_looked_through():
    search = GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression()), {"logisticregression__C": [1, 2]}).fit(
        X, Y
    )
    served = snapshot(search)

    assert served.facts.model_type == "LogisticRegression"
    assert served._calls.is_argmax
    np.testing.assert_array_equal(served.predict(X).predictions, search.predict(X))


def test_names_are_learnt_and_no_frame_is_built_for_a_numeric_library_model():
    table = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(table, Y)
    served = load(artifact(dumped(model)), TrustPolicy())

    outputs = served.predict(served.signature.check(X.tolist()))  # warnings are errors here

    assert served.signature.names == ("a", "b", "c", "d")
    assert not served.is_framed
    np.testing.assert_allclose(outputs.probabilities[0], model.predict_proba(table), rtol=0, atol=1e-12)


def test_a_numeric_model_with_names_is_served_without_pandas(models):
    script = (
        "import sys\n"
        "class NoPandas:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'pandas': raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, NoPandas())\n"
        "from pathlib import Path; from fitserve.store.loader import load_model\n"
        f"loaded = load_model(Path({str(models / 'diabetes.joblib')!r}))\n"
        "assert loaded.trial.has_answered\n"
        "assert any(loaded.model.signature.example_row()), 'made of the means of the scaler, as with pandas'"
    )

    subprocess.run([sys.executable, "-c", script], check=True)


def by_name(frame):
    return frame[["b"]] * 2


def test_a_model_that_needs_names_is_given_a_frame():
    table = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    model = make_pipeline(FunctionTransformer(by_name), LinearRegression()).fit(table, Y)
    served = snapshot(model)

    outputs = served.predict(served.signature.check(X.tolist()))

    assert not served.is_library_code
    np.testing.assert_allclose(outputs.predictions, model.predict(table))


def test_a_live_model_is_copied():
    model = LogisticRegression(max_iter=1000).fit(X, Y)
    served = snapshot(model)
    before = served.predict(X).predictions

    model.fit(X, (Y + 1) % 3)

    np.testing.assert_array_equal(served.predict(X).predictions, before)


def test_columns_of_a_table_are_learnt_from_their_transformers():
    table = pd.DataFrame(
        {"age": [1.0, None, 3.0, 4.0], "size": [1.0, 2, 3, 4], "city": ["a", "b", "a", None], "free": [1, 2, 3, 4]}
    )
    columns = ColumnTransformer(
        [
            ("filled", SimpleImputer(), ["age"]),
            ("scaled", StandardScaler(), ["size"]),
            ("coded", OneHotEncoder(handle_unknown="ignore"), ["city"]),
        ]
    )
    served = snapshot(make_pipeline(columns, LogisticRegression()).fit(table, [0, 1, 0, 1]))
    fields = {field.name: field for field in served.signature.inputs}

    assert (fields["age"].kind, fields["age"].is_nullable) == ("number", True)
    assert (fields["size"].kind, fields["size"].is_nullable) == ("numeric", False), "NaN would reach the classifier"
    assert (fields["city"].kind, fields["city"].categories, fields["city"].is_nullable) == ("string", ("a", "b"), True)
    assert (fields["free"].kind, fields["free"].is_nullable) == ("any", True), (
        "a column that is dropped may be anything"
    )
    assert fields["age"].learnt_from == "SimpleImputer of ColumnTransformer.filled"
    assert fields["city"].learnt_from == "OneHotEncoder of ColumnTransformer.coded"


def test_a_column_that_is_passed_to_a_numeric_model_takes_numbers_and_booleans():
    table = pd.DataFrame({"text": ["good x", "bad y"] * 4, "flag": [True, False] * 4, "size": [1.0, 2.0] * 4})
    columns = ColumnTransformer([("words", TfidfVectorizer(), "text")], remainder="passthrough")
    served = snapshot(make_pipeline(columns, LogisticRegression()).fit(table, [0, 1] * 4))

    assert [field.kind for field in served.signature.inputs] == ["string", "numeric", "numeric"]
    outputs = served.predict(served.signature.check([["good", True, 1], ["bad", 0, 2.5]]))
    assert outputs.predictions.tolist() == [0, 1]


def test_nulls_are_taken_where_the_model_takes_them():
    assert snapshot(HistGradientBoostingClassifier(max_iter=5).fit(X, Y)).signature.inputs[0].is_nullable
    assert not snapshot(LogisticRegression(max_iter=1000).fit(X, Y)).signature.inputs[0].is_nullable
    assert not snapshot(make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)).signature.inputs[0].is_nullable


def test_finite_values_that_overflow_inside_are_the_callers():
    model = make_pipeline(StandardScaler(), RandomForestClassifier(3)).fit(X * 1e-6, Y)
    served = snapshot(model)
    table = np.array([[1, 2, 3e38, 4]])  # which the signature would have refused

    with (
        np.errstate(all="ignore"),
        pytest.raises(InvalidInputError, match="column 'x2'.*becomes NaN or infinite inside"),
    ):
        served.predict(table)


@pytest.mark.parametrize(
    ("model", "largest"),
    [
        (LogisticRegression(max_iter=1000), MAX_MAGNITUDE),
        (RandomForestClassifier(3), MAX_MAGNITUDE),
        (make_pipeline(StandardScaler(), RandomForestClassifier(3)), 1e30),
        (make_pipeline(PolynomialFeatures(20), LinearRegression()), 1e15),
    ],
)
def test_numbers_are_bounded_where_the_model_answers(model, largest):
    served = snapshot(model.fit(X[:, :1], Y))

    with np.errstate(all="ignore"):
        served.predict(served.signature.check([[largest], [-largest]]))

    with pytest.raises(InvalidInputError):
        served.signature.check([[largest * 1.01]])


def test_a_logarithm_is_tried_with_ones_and_refuses_a_negative_number():
    served = snapshot(make_pipeline(FunctionTransformer(np.log), LogisticRegression(max_iter=1000)).fit(X, Y))

    assert served.signature.example_row() == (1.0, 1.0, 1.0, 1.0)
    with np.errstate(all="ignore"), pytest.raises(InvalidInputError, match="becomes NaN or infinite inside"):
        served.predict(served.signature.check([[1, 1, 1, -1]]))


def test_the_example_is_like_the_data_where_the_model_keeps_any():
    scaled = snapshot(make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y))
    forest = snapshot(RandomForestClassifier(5, random_state=0).fit(X, Y))

    neighbours = snapshot(KNeighborsClassifier().fit(X, Y))

    assert scaled.signature.example_row() == neighbours.signature.example_row() == (5.843, 3.057, 3.758, 1.199)
    assert neighbours.signature.example_row() not in X.tolist(), "a row of the data may be somebody's"
    assert all(X[:, i].min() < value < X[:, i].max() for i, value in enumerate(forest.signature.example_row()))


def test_a_text_classifier_takes_one_text():
    texts = ["good film", "bad film", "good play", "bad play"]
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, ["up", "down"] * 2)
    served = snapshot(model)

    outputs = served.predict(served.signature.check([["a good one"], {"text": "bad"}]))

    assert [field.name for field in served.signature.inputs] == ["text"]
    assert outputs.predictions.tolist() == ["up", "down"]
    np.testing.assert_array_equal(outputs.probabilities[0], model.predict_proba(["a good one", "bad"]))


def test_components_of_a_mixture_are_its_classes():
    served = snapshot(GaussianMixture(3, random_state=0).fit(X))

    assert served.signature.classes == ((0, 1, 2),)


def test_labels_of_bytes_are_text():
    served = snapshot(RandomForestClassifier(3).fit(X, np.array([b"a", b"b", b"c"])[Y]))

    assert served.signature.classes == (("a", "b", "c"),)


def test_a_broken_model_is_not_the_callers():
    model = make_pipeline(PolynomialFeatures(1), LogisticRegression(max_iter=1000)).fit(X, Y)
    served = snapshot(model)
    served._calls.estimator[-1].coef_ = served._calls.estimator[-1].coef_[:, :2]

    with pytest.raises(ValueError, match="mismatch"):
        served.predict(X)


def test_the_warning_of_another_version_becomes_a_fact():
    data = dumped(LogisticRegression(max_iter=1000).fit(X, Y))
    import sklearn

    older = data.replace(sklearn.__version__.encode(), b"1.0.2")
    assert older != data

    facts = load(artifact(older), TrustPolicy()).facts

    assert facts.libraries["scikit-learn"] == ("1.0.2", sklearn.__version__)
    assert "fitted with scikit-learn 1.0.2" in facts.warnings[0]


class Ends:
    def __reduce__(self):
        return sys.exit, (3,)


REFUSED = {
    "a dictionary": (dumped({"model": 1}), "holds an object of type dict, which has no predict or transform"),
    "a class": (dumped(LogisticRegression), "holds the class LogisticRegression"),
    "an unfitted model": (dumped(LogisticRegression()), "type LogisticRegression that is not fitted"),
    "an unfitted pipeline": (dumped(make_pipeline(StandardScaler(), LogisticRegression())), "not fitted"),
    "a truncated file": (dumped(LogisticRegression(max_iter=1000).fit(X, Y))[:500], "truncated"),
    "a text": (b"import numpy as np\n", "damaged, or no joblib or pickle file"),
    "noise": (bytes(range(256)), "damaged, or no joblib or pickle file"),
    "a call of exit": (pickle.dumps(Ends()), "SystemExit"),
    "a missing package": (
        b"\x80\x04cno_such_package.module\nModel\n.",
        "package 'no_such_package', which is not installed",
    ),
}


@pytest.mark.parametrize(("data", "told"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_served_is_refused_in_words(data, told):
    with pytest.raises(ArtifactError, match=told):
        load(artifact(data), ANY)


def test_a_class_of_main_is_named(tmp_path):
    script = (
        "import joblib\nfrom sklearn.linear_model import LogisticRegression\n"
        "class Mine(LogisticRegression): pass\n"
        f"joblib.dump(Mine().fit([[0],[1]],[0,1]), {str(tmp_path / 'm.joblib')!r})"
    )
    subprocess.run([sys.executable, "-c", script], check=True)

    with pytest.raises(ArtifactError, match=r"uses Mine, defined in a notebook or script .*move it into a module"):
        load(artifact((tmp_path / "m.joblib").read_bytes()), TrustPolicy())


def test_the_example_of_the_manifest_is_the_test_row():
    model = LogisticRegression(max_iter=1000).fit(pd.DataFrame(X, columns=list("abcd")), Y)

    served = load(artifact(dumped(model), declared=Declared(example={"b": 2, "a": 1, "d": 4, "c": 3})), TrustPolicy())

    assert served.signature.example_row() == (1, 2, 3, 4)
    with pytest.raises(ArtifactError, match="must name each feature once: a, b, c, d"):
        load(artifact(dumped(model), declared=Declared(example={"a": 1})), TrustPolicy())
    with pytest.raises(ArtifactError, match="example does not fit the model: column 'c': wanted a finite number"):
        load(artifact(dumped(model), declared=Declared(example={"b": 2, "a": 1, "d": 4, "c": "3"})), TrustPolicy())


class Bare:
    def predict(self, X):
        return X[:, 0] - X[:, 1]


def test_the_example_names_the_features_that_a_model_does_not_tell():
    served = load(artifact(pickle.dumps(Bare()), declared=Declared(example={"gain": 2, "loss": 0.5})), ANY)

    assert served.signature.names == ("gain", "loss")
    assert served.predict(served.signature.check([{"loss": 1, "gain": 5}])).predictions.tolist() == [4]


class Plan:
    def predict(self, X):
        return [row[0] for row in X]


def test_the_example_also_tells_their_kinds():
    served = load(
        artifact(pickle.dumps(Plan()), declared=Declared(example={"plan": "pro", "is_new": True, "age": 3})),
        ANY,
    )

    assert [field.kind for field in served.signature.inputs] == ["string", "boolean", "number"]
    assert served.predict(served.signature.check([["basic", False, 7]])).predictions.tolist() == ["basic"]


def test_plain_and_compressed_pickles_load():
    model = LogisticRegression(max_iter=1000).fit(X, Y)
    file = io.BytesIO()
    joblib.dump(model, file, compress=("gzip", 3))

    for data in (pickle.dumps(model), file.getvalue()):
        np.testing.assert_array_equal(load(artifact(data), TrustPolicy()).predict(X).predictions, model.predict(X))
