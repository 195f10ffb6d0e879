"""Where the library has the last word: ties, and nulls that an engine cannot hold."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from optimize.kinds import BOUGHT, NUMBERS, PEOPLE, SEED, SPECIES, X, Y, columns, fitted
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fitserve.estimators.model import EstimatorModel
from fitserve.optimize.answers import Answers, filled, take, tie_breaker
from fitserve.optimize.compile import compile_model, load_compiled
from fitserve.optimize.rewrite import without_imputers

pytestmark = pytest.mark.filterwarnings("ignore")

NOTE = {"kind": "argmax", "dtypes": ["<U10", "<f8"], "fills": [], "left_nulls": [], "left_numbers": [], "near": 1e-6}


def engine(table):
    """An engine that gives these probabilities, a row each."""
    return lambda inputs: [np.array(table)[: len(inputs)]]


class Telling:
    """The library, and what it was asked."""

    def __init__(self, model):
        self.estimator, self.signature, self.asked = model.estimator, model.signature, []
        self._predict = model.predict

    def predict(self, inputs, asked=()):
        self.asked.append(len(inputs))
        return self._predict(inputs)


MODEL = EstimatorModel(LogisticRegression(max_iter=500).fit(X, SPECIES))


def test_a_clear_row_is_answered_without_the_library():
    library = Telling(MODEL)
    answers = Answers(engine([[0.1, 0.7, 0.2], [0.9, 0.1, 0.0]]), library, NOTE)

    assert answers(X[:1]).predictions.tolist() == ["versicolor"]
    assert answers(X[:2]).predictions.tolist() == ["versicolor", "setosa"]
    assert library.asked == []


@pytest.mark.parametrize("row", [[0.5, 0.5, 0.0], [0.4, 0.4 + 5e-7, 0.2], [np.nan, np.nan, np.nan]])
def test_the_library_decides_between_classes_that_are_nearly_as_probable(row):
    library = Telling(MODEL)
    answers = Answers(engine([row, [0.0, 0.1, 0.9]]), library, NOTE)

    assert answers(X[:1]).predictions.tolist() == ["setosa"]
    assert answers(X[:2]).predictions.tolist() == ["setosa", "virginica"]
    assert library.asked == [1, 1]
    np.testing.assert_array_equal(answers(X[:1]).probabilities[0][0], row)


def test_a_draw_of_a_forest_is_decided_as_scikit_learn_decides_it():
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 3, (400, 2)).astype(float)
    forest = RandomForestClassifier(10, **SEED).fit(rows, rng.choice(["a", "b", "c"], 400))
    model = EstimatorModel(forest)
    table = rng.integers(0, 3, (500, 2)).astype(float)

    top = np.sort(forest.predict_proba(table), axis=1)
    assert tie_breaker(model)(table).tolist() == forest.predict(table).tolist()
    assert (top[:, -1] - top[:, -2]).min() < 0.05


def test_nulls_are_left_to_the_library_in_the_columns_that_say_so_and_only_there():
    forest = EstimatorModel(copy.deepcopy(fitted("forest")))
    (one,), _ = (compile_model(forest))[:1], None
    library = Telling(forest)
    predict = load_compiled(one[0], library)
    rows = X[:3].copy()
    rows[1, 2] = np.nan

    came, wanted = predict(rows, ()), forest.predict(rows)
    assert library.asked == [1]
    assert came.predictions.tolist() == wanted.predictions.tolist()
    np.testing.assert_allclose(came.probabilities[0], wanted.probabilities[0], atol=1e-6)


def test_texts_that_are_null_are_filled_as_the_imputer_fills_them():
    model = EstimatorModel(copy.deepcopy(fitted("columns and logistic regression")))
    (one,), _ = compile_model(model)
    library = Telling(model)
    predict = load_compiled(one, library)
    inputs = model.signature.check(
        [[None, 5.0, 1.7e9, None, "free"], [40.0, 9.0, 1.7e9, "Oslo", "paid"], [1.0, 1.0, 1.0, "Paris", "free"]]
    )

    came, wanted = predict(inputs, ()), model.predict(inputs)
    assert library.asked == []
    np.testing.assert_allclose(came.probabilities[0], wanted.probabilities[0], atol=1e-10)
    assert came.predictions.tolist() == wanted.predictions.tolist()


def test_filling_changes_no_table_that_it_was_given():
    matrix, frame = np.array([[np.nan, 1.0]]), {"a": np.array([None, "x"], dtype=object), "b": np.array([np.nan, 2.0])}

    assert filled(matrix, [(0, 7.0)]).tolist() == [[7.0, 1.0]]
    assert filled(frame, [(0, "z")])["a"].tolist() == ["z", "x"]
    assert np.isnan(matrix[0, 0])
    assert frame["a"].tolist() == [None, "x"]
    assert take(frame, slice(1, 2))["b"].tolist() == [2.0]


def test_imputers_are_taken_out_of_a_copy():
    pipeline = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()).fit(X, Y)
    rewritten, fills = without_imputers(pipeline)

    assert fills == dict(enumerate(X.mean(axis=0).tolist()))
    assert [type(step).__name__ for _, step in rewritten.steps] == ["StandardScaler", "LogisticRegression"]
    assert len(pipeline.steps) == 3


@pytest.mark.parametrize("imputer", [SimpleImputer(add_indicator=True), SimpleImputer(missing_values=0.0), None])
def test_other_imputers_stay(imputer):
    rows = np.where(
        np.random.default_rng(0).random(X.shape) < 0.1, np.nan if imputer is None or imputer.add_indicator else 0.0, X
    )
    pipeline = make_pipeline(imputer or SimpleImputer(strategy="median", add_indicator=True), LogisticRegression()).fit(
        rows, Y
    )

    assert without_imputers(pipeline) == (pipeline, {})


def test_columns_keep_their_fills_apart():
    pipeline = make_pipeline(columns(), LogisticRegression()).fit(PEOPLE, BOUGHT)
    _, fills = without_imputers(pipeline)

    assert fills == {**{i: PEOPLE[name].mean() for i, name in enumerate(NUMBERS)}, 3: PEOPLE["city"].mode()[0]}
