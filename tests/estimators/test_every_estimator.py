"""Every estimator of scikit-learn that can be fitted on a plain table is served, and answers as itself."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.base import is_regressor
from sklearn.datasets import load_diabetes, load_iris
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.utils import all_estimators

from fitserve.store.lifecycle import adopt_model

N_ROWS = 50


def fitted_estimators():
    """As many as can be made with their defaults, or around a simple estimator."""
    X, y = load_iris(return_X_y=True)
    X_regression, y_regression = load_diabetes(return_X_y=True)
    for name, kind in all_estimators():
        if not hasattr(kind, "predict"):
            continue
        for arguments in ((), (LogisticRegression(),), (Ridge(),), (PAIR,), (PAIR_OF_REGRESSORS,)):
            try:
                estimator = kind(*arguments)
                features, target = (X_regression[:150], y_regression[:150]) if is_regressor(estimator) else (X, y)
                estimator.fit(features, target)
                if hasattr(estimator, "predict"):
                    yield name, estimator, features[:N_ROWS]
            except Exception:  # noqa: BLE001 - it needs other data: see below for how many do
                continue
            break


PAIR = [("a", LogisticRegression()), ("b", DecisionTreeClassifier())]
PAIR_OF_REGRESSORS = [("a", Ridge()), ("b", DecisionTreeRegressor())]

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    FITTED = list(fitted_estimators())


def test_most_estimators_are_tried():
    assert len(FITTED) >= 95


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("estimator", "X"), [case[1:] for case in FITTED], ids=[case[0] for case in FITTED])
def test_it_is_served_and_answers_as_itself(estimator, X):
    loaded = adopt_model(estimator, name="m", version="1")
    assert loaded.trial.has_answered, loaded.trial.failure

    outputs = loaded.model.predict(loaded.model.signature.check(X.tolist()))

    np.testing.assert_array_equal(outputs.predictions, estimator.predict(X))
    if hasattr(estimator, "predict_proba"):
        np.testing.assert_allclose(outputs.probabilities[0], estimator.predict_proba(X), rtol=0, atol=1e-12)
