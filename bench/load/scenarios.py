"""What is served and asked: a model trained on the spot, and the requests for it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

N_BODIES = 50
"""How many different requests are sent in turn, so that none is answered from a cache."""

BATCH_ROWS = 100


@dataclass(frozen=True)
class Scenario:
    """A model, a kind of request, and how many clients ask at once."""

    name: str
    title: str
    connections: int
    model: Callable[[], tuple[Any, np.ndarray]]
    is_batch: bool = False

    @property
    def path(self) -> str:
        return "/predict/batch" if self.is_batch else "/predict"


def logistic():
    X, y = load_iris(return_X_y=True)
    return LogisticRegression(max_iter=1000).fit(X, y), X


def forest():
    X, y = load_breast_cancer(return_X_y=True)
    return RandomForestClassifier(n_estimators=100, random_state=0).fit(X, y), X


SCENARIOS = (
    Scenario("iris", "Iris logistic regression, 1 row, 32 connections", 32, logistic),
    Scenario("iris-1", "Iris logistic regression, 1 row, 1 connection", 1, logistic),
    Scenario("forest", "Breast cancer forest of 100 trees, 1 row, 32 connections", 32, forest),
    Scenario("forest-batch", "Breast cancer forest of 100 trees, 100 rows, 32 connections", 32, forest, is_batch=True),
)


def prepare(scenario: Scenario, folder: Path) -> tuple[Path, Path]:
    """Train and save the model, write the bodies one a line; return both paths."""
    estimator, X = scenario.model()
    model_path = folder / f"{scenario.name}_v1.0.0.joblib"
    joblib.dump(estimator, model_path)
    rng = np.random.default_rng(0)
    bodies_path = folder / f"{scenario.name}.jsonl"
    bodies_path.write_text("".join(f"{json.dumps(body)}\n" for body in _bodies(scenario, X, rng)), encoding="ascii")
    return model_path, bodies_path


def _bodies(scenario, X, rng):
    for _ in range(N_BODIES):
        if scenario.is_batch:
            yield {"instances": X[rng.choice(len(X), BATCH_ROWS, replace=False)].tolist()}
        else:
            yield {"features": X[rng.integers(len(X))].tolist()}
