"""What is served and asked: models trained on the spot, and the requests for them."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

N_BODIES = 50
"""How many different requests are sent in turn, so that none is answered from a cache."""

N_CUSTOMERS = 2000


@dataclass(frozen=True)
class Model:
    """What both servers load; ``train`` gives the estimator and the table that requests take their rows from."""

    name: str
    title: str
    train: Callable[[], tuple[Any, Any]]
    has_named_columns: bool = False


@dataclass(frozen=True)
class Scenario:
    """A model, a kind of request, and how many clients ask at once. A round lasts ``least_s`` or more."""

    name: str
    model: Model
    connections: int
    n_rows: int = 1
    workers: int = 1
    least_s: float = 0.0
    has_open_loop: bool = False

    @property
    def is_batch(self) -> bool:
        return self.n_rows > 1

    @property
    def path(self) -> str:
        return "/predict/batch" if self.is_batch else "/predict"

    @property
    def title(self) -> str:
        parts = [self.model.title, _count(self.n_rows, "row"), _count(self.connections, "connection")]
        return ", ".join(parts if self.workers == 1 else [*parts, _count(self.workers, "worker")])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def logistic():
    X, y = load_iris(return_X_y=True)
    return LogisticRegression(max_iter=1000).fit(X, y), X


def forest():
    return _on_breast_cancer(RandomForestClassifier(n_estimators=100, random_state=0))


def boosting():
    return _on_breast_cancer(GradientBoostingClassifier(n_estimators=100, random_state=0))


def histogram_boosting():
    return _on_breast_cancer(HistGradientBoostingClassifier(random_state=0))


def _on_breast_cancer(estimator):
    X, y = load_breast_cancer(return_X_y=True)
    return estimator.fit(X, y), X


def mixed():
    """Will a customer stay? Four columns of numbers, some of them missing at fit, and four of strings."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "age": rng.integers(18, 90, N_CUSTOMERS).astype(float),
            "income": np.round(rng.lognormal(10.5, 0.5, N_CUSTOMERS), 2),
            "tenure_months": rng.integers(0, 120, N_CUSTOMERS).astype(float),
            "balance": np.round(rng.normal(1500, 900, N_CUSTOMERS), 2),
            "city": rng.choice(["Bern", "Ulm", "Graz", "Lyon", "Porto", "Turku"], N_CUSTOMERS),
            "plan": rng.choice(["free", "pro", "team"], N_CUSTOMERS),
            "device": rng.choice(["phone", "tablet", "laptop", "desktop"], N_CUSTOMERS),
            "channel": rng.choice(["web", "shop", "partner"], N_CUSTOMERS),
        }
    )
    score = table["tenure_months"] / 60 + (table["plan"] != "free") + rng.normal(0, 1, N_CUSTOMERS)
    numbers, texts = list(table.columns[:4]), list(table.columns[4:])
    with_gaps = table.copy()
    with_gaps.loc[rng.random(N_CUSTOMERS) < 0.05, "income"] = np.nan
    estimator = make_pipeline(
        make_column_transformer(
            (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), numbers),
            (OneHotEncoder(handle_unknown="ignore"), texts),
        ),
        LogisticRegression(max_iter=1000),
    )
    return estimator.fit(with_gaps, (score > 1.5).astype(int)), table


IRIS = Model("iris", "Iris logistic regression", logistic)
FOREST = Model("forest", "Breast cancer forest of 100 trees", forest)
BOOSTING = Model("gb", "Breast cancer gradient boosting of 100 trees", boosting)
HISTOGRAM = Model("hist", "Breast cancer histogram boosting", histogram_boosting)
MIXED = Model("mixed", "Pipeline of 4 numbers and 4 strings", mixed, has_named_columns=True)

SCENARIOS = (
    Scenario("iris", IRIS, 32, has_open_loop=True),
    Scenario("iris-1", IRIS, 1),
    Scenario("iris-8", IRIS, 8),
    Scenario("iris-128", IRIS, 128),
    Scenario("forest", FOREST, 32, least_s=2, has_open_loop=True),
    Scenario("forest-1", FOREST, 1),
    Scenario("forest-8", FOREST, 8, least_s=2),
    Scenario("forest-128", FOREST, 128, least_s=3),
    Scenario("forest-100rows-8", FOREST, 8, n_rows=100, least_s=2),
    Scenario("forest-1000rows", FOREST, 32, n_rows=1000, least_s=4),
    Scenario("gb", BOOSTING, 32, has_open_loop=True),
    Scenario("hist", HISTOGRAM, 32),
    Scenario("mixed", MIXED, 32, least_s=2, has_open_loop=True),
    Scenario("iris-2workers", IRIS, 32, workers=2),
    Scenario("forest-2workers", FOREST, 32, workers=2, least_s=2),
)
"""Neighbours of the same model and number of workers are asked of the same running servers."""


def save(model: Model, folder: Path) -> tuple[Path, Any]:
    """Train and save the model; return its path and the table of rows."""
    estimator, table = model.train()
    model_path = folder / f"{model.name}_v1.0.0.joblib"
    joblib.dump(estimator, model_path)
    return model_path, table


def write_bodies(scenario: Scenario, table: Any, folder: Path) -> Path:
    """Write the bodies of the requests, one a line; the same ones in every run."""
    rng = np.random.default_rng(0)
    path = folder / f"{scenario.name}.jsonl"
    path.write_text("".join(f"{json.dumps(_body(scenario, table, rng))}\n" for _ in range(N_BODIES)), encoding="ascii")
    return path


def _body(scenario: Scenario, table: Any, rng: np.random.Generator) -> dict[str, Any]:
    chosen = rng.integers(len(table), size=scenario.n_rows)
    is_frame = scenario.model.has_named_columns
    rows = table.iloc[chosen].to_dict(orient="records") if is_frame else table[chosen].tolist()
    return {"instances": rows} if scenario.is_batch else {"features": rows[0]}
