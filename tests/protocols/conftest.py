"""A repository of models whose answers tell the version."""

from __future__ import annotations

import joblib
import pytest
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import LogisticRegression

from fitserve.app import FitserveApp

ROW = {"features": [1.0, 2.0]}


@pytest.fixture(scope="session")
def constant():
    """Make a model of two features that always answers one number."""

    def make(answer: float) -> DummyRegressor:
        return DummyRegressor(strategy="constant", constant=answer).fit([[0, 0], [1, 1]], [0, 1])

    return make


@pytest.fixture
def repository(tmp_path, constant):
    """``price``, versions 1.0.0, 1.10.0 and 2.0.0, which answer 1, 1.1 and 2; and ``churn`` 1, of one feature."""
    folder = tmp_path / "models"
    folder.mkdir()
    for version, answer in (("1.0.0", 1.0), ("1.10.0", 1.1), ("2.0.0", 2.0)):
        joblib.dump(constant(answer), folder / f"price_v{version}.joblib")
    joblib.dump(LogisticRegression().fit([[0], [9]], ["no", "yes"]), folder / "churn_v1.joblib")
    return folder


@pytest.fixture
def make_repository_app(make_app, repository, tmp_path):
    """Build an application that serves the repository, ``price`` by default."""

    def make(**settings: object) -> FitserveApp:
        state = {"state_dir": tmp_path / "state", "cache_dir": tmp_path / "cache"}
        return make_app(repository, **{"default_model": "price", **state, **settings})

    return make
