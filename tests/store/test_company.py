"""Only a model that is shown to answer rows in company as alone gets rows of several callers at once."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_iris
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures, StandardScaler

from fitserve.formats.sklearn import snapshot
from fitserve.signature import Field, Signature
from fitserve.store.company import try_company
from fitserve.store.trial import try_model
from fitserve.types import Outputs

X, Y = load_iris(return_X_y=True)
TABLE = pd.DataFrame({"city": ["Oslo", "Rome", "Oslo", "Bern"] * 5, "age": range(20)})


def is_row_wise(estimator):
    return try_model(snapshot(estimator))[1].is_row_wise


@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(max_iter=1000).fit(X, Y),
        make_pipeline(StandardScaler(), MLPClassifier((50,), max_iter=3, random_state=0)),
        RandomForestRegressor(5).fit(X, Y),
        HistGradientBoostingClassifier(max_iter=3).fit(X, Y),
        IsolationForest(n_estimators=5).fit(X),
        SGDClassifier().fit(X, Y),
        StandardScaler().fit(X),
        make_pipeline(CountVectorizer(), LogisticRegression()).fit(["a good day", "a bad day"], [1, 0]),
        make_pipeline(
            make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["city"]), ("passthrough", ["age"])),
            LogisticRegression(),
        ).fit(TABLE, [0, 1] * 10),
    ],
    ids=lambda estimator: type(getattr(estimator, "steps", [("", estimator)])[-1][1]).__name__,
)
@pytest.mark.filterwarnings("ignore")
def test_models_of_libraries_are_row_wise(estimator):
    if hasattr(estimator, "steps") and not hasattr(estimator[-1], "classes_"):
        estimator.fit(X, Y)

    assert is_row_wise(estimator)


@pytest.mark.parametrize(
    ("estimator", "keeps"),
    [
        (LogisticRegression(max_iter=1000), True),  # in its plain form
        (RandomForestClassifier(5), True),
        (HistGradientBoostingClassifier(max_iter=3), True),
        (
            MLPRegressor(hidden_layer_sizes=(20,), max_iter=3),
            True,
        ),  # numbers only: no label can hang on their last digits
        (MLPClassifier((100, 50), max_iter=3, random_state=0), False),
        (make_pipeline(PolynomialFeatures(3), LogisticRegression(max_iter=3)), False),
        (RidgeClassifier(), False),
    ],
    ids=lambda value: type(getattr(value, "steps", [("", value)])[-1][1]).__name__,
)
@pytest.mark.filterwarnings("ignore")
def test_a_label_that_could_hang_on_its_company_is_not_kept(estimator, keeps, monkeypatch):
    monkeypatch.setattr("fitserve.store.company.BUDGET_S", 60.0)  # so that a busy machine compares as many rows
    _, trial = try_model(snapshot(estimator.fit(X, Y)))

    assert trial.is_row_wise
    assert trial.keeps_labels == keeps


class Odd:
    """Three numbers in; what it makes of them is said by ``kind``."""

    n_features_in_ = 3

    def __init__(self, kind):
        self.kind = kind

    def predict(self, X):
        X = np.asarray(X)
        match self.kind:
            case "scales by the mean of the batch":
                return X[:, 0] - X[:, 0].mean() + 1.0
            case "ranks":
                return X[:, 0].argsort().argsort()
            case "answers the first row only":
                return np.full(len(X), X[0, 0])
            case "raises in company" if len(X) not in {1, 64}:
                raise ValueError("one row at a time")
            case "loses a row" if len(X) not in {1, 64}:
                return X[1:, 0]
            case "another type in company":
                return X[:, 0] if len(X) > 1 else X[:, 0].astype(int)
            case "the last digits differ":
                return X[:, 0] * (1 + 1e-15 * len(X))
        return X[:, 0]


@pytest.mark.parametrize(
    "kind",
    [
        "scales by the mean of the batch",
        "ranks",
        "answers the first row only",
        "raises in company",
        "loses a row",
        "another type in company",
    ],
)
def test_a_model_whose_rows_hang_on_each_other_is_not(kind):
    assert not is_row_wise(Odd(kind))


@pytest.mark.parametrize("kind", ["is as it should be", "the last digits differ"])
def test_the_last_digits_may_differ(kind):
    assert is_row_wise(Odd(kind))


class Told:
    """A model that is asked for another output besides."""

    is_library_code = True

    def __init__(self, extra):
        self.signature = Signature(inputs=(Field("a"),), outputs=("predict", "score_samples"))
        self._extra = extra

    def predict(self, inputs, asked=()):
        return Outputs(inputs[:, 0], None, {name: self._extra(inputs[:, 0]) for name in asked})


def test_each_output_that_is_offered_is_compared():
    assert try_company(Told(lambda a: a * 2)) is not None
    assert try_company(Told(lambda a: a - a.mean())) is None


def test_a_model_without_two_different_rows_is_not_known_to_be_row_wise():
    class Constant(Told):
        def __init__(self):
            super().__init__(lambda a: a)
            self.signature = Signature(inputs=(Field("a", kind="datetime"),), example=("2026-01-01T00:00:00Z",))

        def predict(self, inputs, asked=()):
            return Outputs(np.zeros(len(inputs["a"])))

    assert try_company(Constant()) is None


def test_a_model_that_tells_no_features_or_failed_is_not():
    class Bare:
        def predict(self, X):
            return X.sum(axis=1)

    class Broken:
        n_features_in_ = 1

        def predict(self, X):
            raise RuntimeError

    assert not is_row_wise(Bare())
    assert not is_row_wise(Broken())


def test_of_a_slow_model_it_is_learnt_what_rows_cost():
    class Slow:
        n_features_in_ = 1

        def predict(self, X):
            time.sleep(0.06 * len(X))
            return X[:, 0]

    cost, trial = try_model(snapshot(Slow()))

    assert trial.is_row_wise
    assert cost.per_row_s > 0.03
