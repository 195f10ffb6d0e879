"""What is learnt of each column, from the estimator alone, and what then happens to nulls and unknown categories."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from catboost import CatBoostClassifier
from estimators.corpus_parts import CAT, FORMS, LEVELS, LGBM, NUMBERS, SMALL, STRINGS, T, encoded
from estimators.tables import records, target
from lightgbm import LGBMClassifier
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, VotingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity, LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC
from xgboost import XGBClassifier

from fitserve.errors import InvalidInputError
from fitserve.formats.sklearn import snapshot

pytestmark = pytest.mark.filterwarnings("ignore")


def fields_of(model):
    return {field.name: field for field in snapshot(model).signature.inputs}


def told(field):
    return field.kind, field.is_nullable, field.categories, field.is_closed, field.learnt_from


def test_a_pipeline_of_columns_tells_all_of_each():
    fields = fields_of(make_pipeline(encoded("error"), LogisticRegression()).fit(FORMS, target()))

    assert told(fields["age"]) == (
        "number", True, None, False, "SimpleImputer of ColumnTransformer.num, StandardScaler of ColumnTransformer.num",
    )  # fmt: skip
    assert told(fields["sex"]) == (
        "string", True, ("female", "male"), True,
        "SimpleImputer of ColumnTransformer.cat, OneHotEncoder of ColumnTransformer.cat",
    )  # fmt: skip


BOOSTED = {
    "LightGBM": (LGBMClassifier(**LGBM), "pandas_categorical of LGBMClassifier", False),
    "XGBoost": (XGBClassifier(enable_categorical=True, **SMALL), "feature_types of XGBClassifier", True),
    "histogram": (HistGradientBoostingClassifier(max_iter=2), "categorical_features of HistGradientBoostingClassifier", False),
}  # fmt: skip


@pytest.mark.parametrize(("model", "origin", "is_closed"), BOOSTED.values(), ids=BOOSTED.keys())
def test_boosters_tell_their_categories(model, origin, is_closed):
    model.fit(LEVELS, target())
    served = snapshot(model)
    fields = {field.name: field for field in served.signature.inputs}
    rows = records(LEVELS[:20])

    assert told(fields["deck"]) == ("string", True, ("A", "B", "C"), is_closed, origin)
    assert told(fields["zone"]) == ("number", True, (1, 2, 5), is_closed, origin)
    as_floats = [{**row, "zone": float(row["zone"])} for row in rows]
    np.testing.assert_array_equal(
        served.predict(served.signature.check(as_floats)).probabilities[0], model.predict_proba(LEVELS[:20])
    )
    missing = LEVELS[:20].assign(deck=pd.Categorical([None] * 20, categories=list("ABC")))
    np.testing.assert_array_equal(
        served.predict(served.signature.check(records(missing))).probabilities[0], model.predict_proba(missing)
    )
    unknown = [{**row, "deck": "Z"} for row in rows]
    if is_closed:
        with pytest.raises(InvalidInputError, match="row 0, column 'deck': wanted one of: A, B, C"):
            served.signature.check(unknown)
    else:
        new = LEVELS[:20].assign(deck=pd.Categorical(["Z"] * 20))
        np.testing.assert_array_equal(
            served.predict(served.signature.check(unknown)).probabilities[0], model.predict_proba(new)
        )


@pytest.mark.parametrize("unknown", ["a", "g", "fitserve", "zebra"])
def test_xgboost_is_given_no_unknown_category_though_it_takes_some_for_others(unknown):
    sexes = pd.DataFrame({"fare": T.fare, "sex": T.sex.astype("category")})
    served = snapshot(XGBClassifier(enable_categorical=True, **SMALL).fit(sexes, target()))

    with pytest.raises(InvalidInputError, match="column 'sex': wanted one of: female, male; came an unknown category"):
        served.signature.check([{"fare": 1.0, "sex": unknown}])


def test_a_nullable_boolean_that_an_encoder_saw_as_floats_takes_booleans():
    table = pd.DataFrame({"b": pd.array([True, False, None, True] * 40, dtype="boolean")})
    model = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(table, target())
    served = snapshot(model)

    np.testing.assert_array_equal(
        served.predict(served.signature.check(records(table))).probabilities[0], model.predict_proba(table)
    )


def test_ordered_categories_of_lightgbm_find_their_columns():
    sizes = np.random.default_rng(1).choice(["small", "large", "huge"], len(T))
    ordered = pd.Categorical(sizes, categories=["small", "large", "huge"], ordered=True)
    table = T[["age", "pclass", "deck"]].assign(size=ordered)
    model = LGBMClassifier(**LGBM).fit(table, target())
    served = snapshot(model)

    assert served.signature.inputs[1].categories is None
    assert served.signature.inputs[3].categories == ("small", "large", "huge")
    np.testing.assert_array_equal(
        served.predict(served.signature.check(records(table))).probabilities[0], model.predict_proba(table)
    )


def test_categories_of_catboost_are_integers_and_strings_whatever_json_makes_of_them():
    table = T[["sex", "pclass", "fare"]]
    model = CatBoostClassifier(cat_features=["sex", "pclass"], **CAT).fit(table, target())
    served = snapshot(model)
    rows = records(table[:9])

    huge = served.signature.check([{**rows[0], "pclass": 1e30, "sex": -1e19}])
    assert len(served.predict(huge).predictions) == 1
    for spelt in (
        rows,
        [{**row, "pclass": float(row["pclass"])} for row in rows],
        [{**row, "pclass": str(row["pclass"])} for row in rows],
    ):
        found = served.predict(served.signature.check(spelt)).probabilities[0]
        np.testing.assert_array_equal(found, model.predict_proba(table[:9]))
    served.predict(served.signature.check([{**rows[0], "pclass": 1.5}]))  # no such category, and no failure
    with pytest.raises(InvalidInputError, match="row 0, column 'sex': wanted .*came null"):
        served.signature.check([{**rows[0], "sex": None}])


def test_an_encoder_that_was_fitted_with_missing_values_is_given_the_same_ones():
    for null in (None, np.nan):
        table = pd.DataFrame({"city": pd.Series(["a", "b", null] * 10, dtype=object)})
        model = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(table, [0, 0, 1] * 10)
        served = snapshot(model)

        outputs = served.predict(served.signature.check([[None], ["a"]]))

        assert outputs.predictions.tolist() == [1, 0]


def test_the_type_that_was_not_recorded_takes_booleans_by_name_and_not_by_position():
    frame = T[["fare", "alone"]]
    named = snapshot(make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, target()))
    bare = snapshot(make_pipeline(StandardScaler(), LogisticRegression()).fit(frame.to_numpy(float), target()))

    assert named.signature.is_numeric
    outputs = [named.predict(named.signature.check([[7.5, value]])).probabilities[0] for value in (True, 1, 1.0)]
    assert outputs[0].tolist() == outputs[1].tolist() == outputs[2].tolist()
    with pytest.raises(InvalidInputError, match="came a boolean"):
        bare.signature.check([[7.5, True]])


def year(frame):
    return pd.DataFrame({"day": frame["booked"].dt.day})


def length(frame):
    return frame.apply(lambda column: column.str.len())


@pytest.mark.parametrize(
    ("shift", "spelt"), [("0h", "2024-01-01"), ("8h", "2024-01-01T08:00:00"), ("1ms", "2024-01-01T00:00:00.001")]
)
def test_dates_that_an_encoder_keeps_are_spelt_no_longer_than_they_need(shift, spelt):
    table = T[["booked"]] + pd.Timedelta(shift)
    model = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()).fit(table, target())
    served = snapshot(model)

    assert served.signature.inputs[0].categories[0] == spelt
    np.testing.assert_array_equal(
        served.predict(served.signature.check(records(table))).probabilities[0], model.predict_proba(table)
    )


@pytest.mark.parametrize("zone", ["UTC", "Europe/Oslo"])
@pytest.mark.parametrize("unknown", ["ignore", "error"])
def test_dates_with_an_offset_are_one_instant_however_they_are_spelt(zone, unknown):
    table = pd.DataFrame({"at": T.booked.dt.tz_localize(zone), "sex": T.sex})
    model = make_pipeline(OneHotEncoder(handle_unknown=unknown), LogisticRegression()).fit(table, target())
    served = snapshot(model)
    in_utc = [
        {**row, "at": str(at.tz_convert("UTC").isoformat())}
        for row, at in zip(records(table), table["at"], strict=True)
    ]

    assert served.signature.inputs[0].kind == "datetime"
    for rows in (records(table), in_utc):
        outputs = served.predict(served.signature.check(rows))
        np.testing.assert_array_equal(outputs.probabilities[0], model.predict_proba(table))


def test_functions_that_read_dates_and_texts_are_found_out():
    columns = make_column_transformer(
        (FunctionTransformer(year), ["booked"]), (FunctionTransformer(length), ["sex"]), (SimpleImputer(), ["age"])
    )
    table = T[["booked", "sex", "age"]]
    model = make_pipeline(columns, LogisticRegression()).fit(table, target())
    served = snapshot(model)

    assert [field.kind for field in served.signature.inputs] == ["datetime", "string", "number"]
    np.testing.assert_array_equal(
        served.predict(served.signature.check(records(table))).predictions, model.predict(table)
    )


def test_the_strictest_part_of_a_vote_decides():
    parts = [
        ("a", make_pipeline(encoded(), LogisticRegression())),
        ("b", make_pipeline(encoded("error"), LogisticRegression())),
    ]
    model = VotingClassifier(parts).fit(FORMS, target())

    assert fields_of(model)["sex"].is_closed


class Tallied(LogisticRegression):
    tally: list = []  # noqa: RUF012 - of all copies together

    def predict(self, X):
        self.tally.append(1)
        return super().predict(X)


def test_nulls_are_found_out_by_column_with_few_trials_on_a_wide_table():
    names = [f"c{i}" for i in range(300)]
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 300)), columns=names)
    columns = make_column_transformer((SimpleImputer(), names[:200]), (StandardScaler(), names[200:]))
    model = make_pipeline(columns, Tallied()).fit(table, target()[:60])
    Tallied.tally.clear()

    fields = snapshot(model).signature.inputs

    assert [field.is_nullable for field in fields] == [True] * 200 + [False] * 100
    assert 3 <= len(Tallied.tally) < 20


OUTPUTS = {
    "a classifier": (SVC().fit(T[["fare"]], target()), ("predict", "decision_function")),
    "a cluster": (KMeans(2, n_init=1).fit(T[["fare"]]), ("predict", "transform")),
    "outliers": (LocalOutlierFactor(novelty=True).fit(T[["fare"]]), ("predict", "decision_function", "score_samples")),
    "a mixture": (GaussianMixture(2).fit(T[["fare"]]), ("predict", "predict_proba", "score_samples")),
    "a density": (KernelDensity().fit(T[["fare"]]), ("score_samples",)),
    "a transformer": (make_pipeline(StandardScaler(), PCA(1)).fit(T[["fare", "sibsp"]]), ("transform", "score_samples")),
    "a hard vote": (VotingClassifier([("a", LogisticRegression())]).fit(T[["fare"]], target()), ("predict", "transform")),
}  # fmt: skip


@pytest.mark.parametrize(("model", "outputs"), OUTPUTS.values(), ids=OUTPUTS.keys())
def test_what_can_be_asked_is_told(model, outputs):
    assert snapshot(model).signature.outputs == outputs


class Counted(RandomForestClassifier):
    calls: tuple = ()

    def predict(self, X):
        self.calls += ("predict",)
        return super().predict(X)

    def predict_proba(self, X):
        self.calls += ("predict_proba",)
        return super().predict_proba(X)

    def decision_function(self, X):
        self.calls += ("decision_function",)
        return np.zeros(len(X))

    def transform(self, X):
        raise NotImplementedError


def test_nothing_is_computed_that_was_not_asked_for():
    served = snapshot(Counted(2).fit(T[["fare"]].to_numpy(), target()))
    model = served._calls.estimator
    X = served.signature.check([[1.0]])

    model.calls = ()
    served.predict(X)
    without, model.calls = model.calls, ()
    outputs = served.predict(X, ("predict", "decision_function"))

    assert served.signature.outputs == ("predict", "predict_proba", "decision_function"), "transform raises"
    assert "decision_function" not in without
    assert model.calls.count("decision_function") == 1
    assert list(outputs.extras) == ["decision_function"]


def test_scores_of_pairs_are_not_taken_for_scores_of_classes():
    three, table = target("three"), T[["fare"]]

    assert snapshot(SVC().fit(table, three)).signature.has_score_per_class
    assert not snapshot(SVC(decision_function_shape="ovo").fit(table, three)).signature.has_score_per_class


def test_a_transformed_table_has_a_bound():
    wide = [f"w{i}" for i in range(70_000)]
    model = OneHotEncoder(handle_unknown="ignore").fit(pd.DataFrame({"word": wide}))
    served = snapshot(model)

    assert served.predict(served.signature.check([["w1"]])).predictions.shape == (1, 70_000)
    with pytest.raises(InvalidInputError, match="wanted at most 239 rows, since transform makes 70000 numbers of each"):
        served.predict(served.signature.check([["w1"]] * 240))


def test_an_example_is_made_of_what_imputers_and_encoders_keep():
    served = snapshot(make_pipeline(encoded(), LogisticRegression()).fit(FORMS, target()))
    row = dict(zip(served.signature.names, served.signature.example_row(), strict=True))

    assert row["age"] == pytest.approx(T["age"].median(), abs=2)
    assert row["sex"] in {"female", "male"}


def test_strings_and_numbers_are_named_in_the_order_of_fitting():
    table = T[[*STRINGS, *NUMBERS]]

    assert snapshot(make_pipeline(encoded(), LogisticRegression()).fit(table, target())).signature.names == tuple(table)
