"""The OpenAPI document says of the served model exactly what is true."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

import fitserve


def mixed_columns():
    """A pipeline over a table of numbers, strings and nulls."""
    import pandas as pd

    table = pd.DataFrame(
        {
            "age": [20.0, 30.0, None, 50.0] * 5,
            "city": ["Bern", "Ulm", None, "Linz"] * 5,
            "plan": ["a", "b"] * 10,
            "is_new": [True, False] * 10,
        }
    )
    columns = ColumnTransformer(
        [
            ("number", SimpleImputer(), ["age"]),
            ("open", OneHotEncoder(handle_unknown="ignore"), ["city"]),
            ("closed", OrdinalEncoder(), ["plan"]),
        ],
        remainder="passthrough",
    )
    return make_pipeline(columns, LogisticRegression()).fit(table, ["no", "yes"] * 10)


def two_outputs():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 3))
    return RandomForestClassifier(3, random_state=0).fit(X, (X[:, :2] > 0).astype(int))


def several_values():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 3))
    return LinearRegression().fit(X, X[:, :2])


MODELS = {
    "iris": "iris_v1.2.3.joblib",
    "labels": "species_v1.0.pkl",
    "forest": "cancer_v2.joblib",
    "names": "diabetes.joblib",
    "mixed": mixed_columns,
    "two outputs": two_outputs,
    "several values": several_values,
}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_schemathesis_finds_nothing(models, model, tmp_path):
    """All checks and phases of schemathesis's own command, against a real socket."""
    source = models / model if isinstance(model, str) else model()
    with fitserve.serve(source, max_batch_size=20) as served:
        command = [
            sys.executable, "-m", "schemathesis.cli", "run", f"{served.url}/openapi.json",
            "--checks=all", "--phases=examples,coverage,fuzzing,stateful", "--mode=all",
            "--max-examples=40", "--continue-on-failure", "--suppress-health-check=all", "--seed=7", "--no-color",
        ]  # fmt: skip
        run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path)

    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert "7 selected / 7 total" in run.stdout, run.stdout[:2000]
