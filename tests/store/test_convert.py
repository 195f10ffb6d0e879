"""Conversion of pickles: the same answers out of ONNX and skops, or a reason and no file."""

from __future__ import annotations

import importlib

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_diabetes, load_iris
from sklearn.ensemble import GradientBoostingRegressor, IsolationForest, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from fitserve.errors import ArtifactError, SettingsError, UntrustedArtifactError
from fitserve.estimators.model import EstimatorModel
from fitserve.formats import identify
from fitserve.optimize.edges import edge_rows
from fitserve.optimize.parity import compare
from fitserve.optimize.rows import parity_rows
from fitserve.store.convert import convert
from fitserve.store.convert_onnx import load_onnx, to_onnx
from fitserve.store.repository import read_artifact
from fitserve.store.verify import Verifier
from fitserve.trust.policy import TrustPolicy

IRIS = load_iris(as_frame=True)
SPECIES = IRIS.target_names[IRIS.target]
X, Y = IRIS.data.to_numpy(), IRIS.target.to_numpy()
DIABETES = load_diabetes(as_frame=True)
TABLE = pd.DataFrame(
    {"city": ["Rome", "Oslo", "Bonn", "Rome"] * 20, "age": np.arange(80.0) % 17, "rooms": np.arange(80.0) % 5}
)
SOLD = np.arange(80) % 3 == 0


def mixed(encoder, *steps):
    columns = make_column_transformer(
        (encoder, ["city"]), (make_pipeline(SimpleImputer(), StandardScaler()), ["age", "rooms"])
    )
    return make_pipeline(columns, *steps).fit(TABLE, SOLD)


ESTIMATORS = {
    "labels and names": lambda: LogisticRegression(max_iter=1000).fit(IRIS.data, SPECIES),
    "matrix": lambda: make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y),
    "booleans": lambda: LogisticRegression().fit(X, Y == 1),
    "forest": lambda: RandomForestClassifier(10, random_state=0).fit(X, SPECIES),
    "boosting": lambda: GradientBoostingRegressor(n_estimators=10, random_state=0).fit(DIABETES.data, DIABETES.target),
    "regressor": lambda: Ridge().fit(DIABETES.data, DIABETES.target),
    "regressors": lambda: Ridge().fit(X[:, :2], X[:, 2:]),
    "neighbours": lambda: KNeighborsClassifier().fit(X, Y),
    "several outputs": lambda: MultiOutputClassifier(LogisticRegression(max_iter=1000)).fit(X, np.c_[Y, Y % 2]),
    "outliers": lambda: IsolationForest(n_estimators=5, random_state=0).fit(X),
    "clusters": lambda: KMeans(3, random_state=0, n_init=1).fit(X),
    "scores": lambda: SVC().fit(X, Y),
    "scaler": lambda: StandardScaler().fit(X),
    "open categories": lambda: mixed(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()),
    "closed categories": lambda: mixed(OneHotEncoder(), RandomForestClassifier(5, random_state=0)),
}


@pytest.fixture
def convert_to(tmp_path):
    def make(estimator, suffix: str, *, policy: TrustPolicy | None = None):
        source, out = tmp_path / "model.joblib", tmp_path / f"model{suffix}"
        joblib.dump(estimator, source)
        report = convert(source, out, verifier=Verifier(policy or TrustPolicy()))
        artifact = read_artifact(out)
        level = "data" if suffix == ".onnx" else "allowlist"
        return report, identify(artifact).load(artifact, TrustPolicy(level, frozenset(report["needs_allow"])))

    return make


@pytest.mark.parametrize("name", ESTIMATORS)
def test_onnx_has_the_same_signature_and_answers(convert_to, name):
    estimator = ESTIMATORS[name]()
    original = EstimatorModel(ESTIMATORS[name]())

    report, converted = convert_to(estimator, ".onnx")

    assert [(f.name, f.kind, f.categories, f.is_closed) for f in converted.signature.inputs] == [
        (f.name, f.kind, f.categories, f.is_closed) for f in original.signature.inputs
    ]
    assert converted.signature.is_named == original.signature.is_named
    assert converted.signature.classes == original.signature.classes
    assert converted.signature.n_outputs == original.signature.n_outputs
    assert converted.signature.has_probabilities == original.signature.has_probabilities
    assert {*report["outputs"], *report["outputs_left_out"]} == set(original.signature.outputs)
    rows = parity_rows(original, estimator, seed=1)
    found = compare(original, converted, rows)
    assert (found.n_unequal, found.n_ties) == (0, 0)
    assert report["n_rows"] >= 300


def test_labels_keep_their_types(convert_to):
    _, booleans = convert_to(ESTIMATORS["booleans"](), ".onnx")

    outputs = booleans.predict(booleans.signature.check([[5.0, 3.0, 1.0, 0.0]]))

    assert outputs.predictions.tolist() in ([True], [False])
    assert booleans.signature.classes == ((False, True),)


def test_names_are_kept_in_the_file(convert_to):
    _, converted = convert_to(ESTIMATORS["labels and names"](), ".onnx")

    assert converted.signature.names == tuple(IRIS.feature_names)


def test_other_outputs_are_kept_where_they_agree(convert_to):
    report, outliers = convert_to(ESTIMATORS["outliers"](), ".onnx")

    assert report["outputs"] == ["predict", "decision_function"]
    assert report["outputs_left_out"] == ["score_samples"]
    assert outliers.signature.outputs == ("predict", "decision_function")


def test_trees_are_compared_on_their_thresholds_and_beside_them():
    estimator = ESTIMATORS["forest"]()
    model = EstimatorModel(estimator)
    rows = edge_rows(model, estimator, parity_rows(model, estimator))

    values = {value for row in rows for value in row}
    thresholds = [t for tree in estimator.estimators_ for t in tree.tree_.threshold[tree.tree_.feature >= 0].tolist()]

    assert all({t, np.nextafter(t, np.inf), np.nextafter(t, -np.inf)} <= values for t in thresholds)


def test_a_forest_answers_alike_even_there(convert_to):
    report, _ = convert_to(ESTIMATORS["forest"](), ".onnx")

    assert report["n_edges"] > 100
    assert report["n_edges_unequal"] == 0


def test_float32_is_taken_for_trees_whose_float64_form_answers_otherwise_beside_a_threshold(convert_to):
    report, _ = convert_to(ESTIMATORS["forest"](), ".onnx")

    assert report["floats"] == "float32"


def test_float64_is_taken_for_sums(convert_to):
    report, _ = convert_to(ESTIMATORS["matrix"](), ".onnx")

    assert report["floats"] == "float64"
    assert report["differences"]["predict_proba"] < 1e-12


def test_nulls_are_kept_where_they_are_answered_alike(convert_to):
    report, converted = convert_to(mixed(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()), ".onnx")
    original = EstimatorModel(mixed(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()))
    rows = [[None, 3.0, 1.0], ["Rome", None, 1.0], [None, None, None]]

    wanted = original.predict(original.signature.check(rows)).probabilities[0]
    came = converted.predict(converted.signature.check(rows)).probabilities[0]

    assert report["nulls_refused"] == []
    np.testing.assert_allclose(came, wanted, atol=1e-6)  # float32


def test_nulls_are_refused_where_they_are_answered_otherwise(convert_to):
    report, converted = convert_to(ESTIMATORS["forest"](), ".onnx")

    assert "x2" in report["nulls_refused"]  # the runtime's trees go another way on NaN
    assert not converted.signature.inputs[2].is_nullable


def test_trees_that_split_on_missing_values_are_refused(convert_to):
    gaps = X.copy()
    gaps[::5, 2:] = np.nan

    with pytest.raises(ArtifactError, match="has trees that split on missing values"):
        convert_to(RandomForestClassifier(5, random_state=0).fit(gaps, Y), ".onnx")


@pytest.mark.parametrize("name", ["labels and names", "forest", "open categories"])
def test_skops_answers_exactly_alike(convert_to, name):
    report, converted = convert_to(ESTIMATORS[name](), ".skops")

    assert report["format"] == "skops"
    assert set(report["differences"].values()) <= {0.0}
    assert converted.signature.names == EstimatorModel(ESTIMATORS[name]()).signature.names


def test_what_cannot_be_converted_says_so_and_writes_nothing(convert_to, tmp_path):
    estimator = make_pipeline(FunctionTransformer(np.square), Ridge()).fit(X, Y)

    with pytest.raises(ArtifactError, match=r"model.joblib cannot be converted to ONNX: .*a .skops file holds"):
        convert_to(estimator, ".onnx", policy=TrustPolicy(level="any"))
    assert [path.name for path in tmp_path.iterdir()] == ["model.joblib"]


def test_a_conversion_that_answers_otherwise_is_refused():
    estimator = RandomForestClassifier(10, random_state=0).fit(X, Y)
    another = EstimatorModel(RandomForestClassifier(10, random_state=0).fit(X, 2 - Y))

    with pytest.raises(ArtifactError, match="is not the same as ONNX: .* rows were answered otherwise"):
        to_onnx(estimator, another, parity_rows(another, estimator, seed=1))


@pytest.mark.parametrize(("package", "way"), [("xgboost", "model.ubj"), ("lightgbm", "model.txt")])
def test_boosters_are_pointed_to_their_own_files(convert_to, package, way):
    library = importlib.import_module(package)
    kind = library.XGBClassifier if package == "xgboost" else library.LGBMClassifier
    options = {} if package == "xgboost" else {"verbose": -1}

    with pytest.raises(ArtifactError, match=f"holds a model of {package}.*{way}"):
        convert_to(kind(n_estimators=2, **options).fit(X, Y), ".onnx", policy=TrustPolicy(level="any"))


class Own(Ridge):
    """Of no library."""


def test_a_pickle_that_the_policy_refuses_is_not_loaded(convert_to):
    with pytest.raises(UntrustedArtifactError, match="model.joblib") as caught:
        convert_to(Own().fit(X, Y), ".onnx")

    assert any(name.endswith(".Own") for name in caught.value.missing)


def test_a_file_that_is_no_pickle_is_refused(convert_to, tmp_path):
    convert_to(ESTIMATORS["regressor"](), ".onnx")

    with pytest.raises(ArtifactError, match="is of the format 'onnx': only joblib and pickle files"):
        convert(tmp_path / "model.onnx", tmp_path / "again.skops", verifier=Verifier())


def test_a_file_that_is_there_is_replaced_only_if_that_is_asked(tmp_path):
    source, out = tmp_path / "model.joblib", tmp_path / "model.onnx"
    joblib.dump(ESTIMATORS["regressor"](), source)
    out.write_bytes(b"mine")

    with pytest.raises(ArtifactError, match="exists: give another name, or --force"):
        convert(source, out, verifier=Verifier())
    assert out.read_bytes() == b"mine"
    report = convert(source, out, verifier=Verifier(), is_forced=True)

    assert load_onnx(out.read_bytes()).signature.n_features == 10
    assert report["size_bytes"] == out.stat().st_size


@pytest.mark.parametrize("name", ["model.txt", "model"])
def test_another_kind_of_file_is_refused(tmp_path, name):
    with pytest.raises(SettingsError, match=r"ends with .onnx or .skops"):
        convert(tmp_path / "model.joblib", tmp_path / name, verifier=Verifier())


def test_it_works_in_a_confined_child(tmp_path):
    source, out = tmp_path / "model.joblib", tmp_path / "model.onnx"
    joblib.dump(ESTIMATORS["open categories"](), source)

    report = convert(source, out, verifier=Verifier())

    assert report["n_rows"] >= 300
    assert load_onnx(out.read_bytes()).signature.names == ("city", "age", "rooms")
