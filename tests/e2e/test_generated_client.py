"""openapi-python-client makes a typed client of the document, and the client predicts."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import httpx2
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

import fitserve

TABLE = pd.DataFrame(
    {
        "age": [20.0, 30.0, None, 50.0] * 10,
        "city": ["Bern", "Ulm", None, "Linz"] * 10,
        "plan": ["free", "pro", "team plus", "pro"] * 10,
        "is_new": [True, False] * 20,
    }
)
LABELS = np.array(["stays", "leaves", "unsure", "stays"] * 10)


@pytest.fixture(scope="module")
def pipeline():
    """A classifier over numbers, texts, categories, booleans and nulls."""
    columns = ColumnTransformer(
        [
            ("number", make_pipeline(SimpleImputer(), StandardScaler()), ["age"]),
            ("open", OneHotEncoder(handle_unknown="ignore"), ["city"]),
            ("closed", OrdinalEncoder(), ["plan"]),
        ],
        remainder="passthrough",
    )
    return make_pipeline(columns, LogisticRegression()).fit(TABLE, LABELS)


@contextmanager
def generated(url: str, folder: Path, name: str):
    """The package that openapi-python-client makes, imported; nothing may be left out of it."""
    document, config = folder / "openapi.json", folder / "config.json"
    document.write_text(httpx2.get(f"{url}/openapi.json").text)
    config.write_text(json.dumps({"post_hooks": []}))
    command = [
        Path(sys.executable).parent / "openapi-python-client", "generate", "--path", document, "--config", config,
        "--output-path", folder / name, "--meta", "none", "--fail-on-warning",
    ]  # fmt: skip
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stdout + run.stderr

    sys.path.insert(0, str(folder))
    try:
        for part in (
            "models",
            "client",
            "api.predictions.predict",
            "api.predictions.predict_batch",
            "api.model.model_info",
        ):
            importlib.import_module(f"{name}.{part}")
        yield sys.modules[name]
    finally:
        sys.path.remove(str(folder))
        for module in [module for module in sys.modules if module.partition(".")[0] == name]:
            del sys.modules[module]


def test_a_typed_client_predicts_what_scikit_learn_does(pipeline, tmp_path):
    rows = [(33, "Ulm", "pro", True), (None, None, "team plus", False), (50.5, "Basel", "free", True)]
    table = pd.DataFrame(rows, columns=TABLE.columns).astype({"age": float})
    expected, proba = pipeline.predict(table), pipeline.predict_proba(table)
    with fitserve.serve(pipeline) as served, generated(served.url, tmp_path, "typed_client") as package:
        models, api = package.models, package.api.predictions
        features = [
            models.Features(age=age, city=city, plan=models.Plan(plan), is_new=is_new)
            for age, city, plan, is_new in rows
        ]
        with package.client.Client(base_url=served.url) as client:
            asked = [models.OutputName.DECISION_FUNCTION, models.OutputName.PREDICT_PROBA]
            one = api.predict.sync(client=client, body=models.PredictRequest(features=features[0], outputs=asked))
            as_list = api.predict.sync(
                client=client, body=models.PredictRequest(features=[33, "Ulm", models.Plan.PRO, True])
            )
            many = api.predict_batch.sync(client=client, body=models.BatchRequest(instances=features, outputs=asked))
            wrong = api.predict.sync(
                client=client, body=models.PredictRequest(features=[33, "Ulm", "gold", True], model_version=None)
            )
            info = package.api.model.model_info.sync(client=client)

    assert one.prediction == expected[0]
    assert isinstance(one.prediction, models.Label)
    assert one.probabilities.to_dict() == pytest.approx(dict(zip(pipeline.classes_, proba[0], strict=True)))
    assert one.outputs.predict_proba == one.probabilities
    decision = one.outputs.decision_function.additional_properties
    assert decision == pytest.approx(dict(zip(pipeline.classes_, pipeline.decision_function(table)[0], strict=True)))
    assert as_list.prediction == one.prediction
    assert many.predictions == expected.tolist()
    assert many.probabilities == pytest.approx(proba.max(axis=1).tolist())
    assert [row.leaves for row in many.outputs.predict_proba] == pytest.approx(proba[:, 0].tolist())
    assert isinstance(wrong, models.Problem)
    assert wrong.errors[0].column == "plan"
    assert [(field.name, field.kind) for field in info.features][2] == ("plan", "string")
    assert info.features[2].categories == ["free", "pro", "team plus"]


NAMES = {
    "words of Python and of the client": ["class", "1st", "größe", "日本", "self", "x/y", "type", "features", "Problem", "None"],
    "one identifier for three": ["a b", "a_b", "a.b", "c"],
    "variables of the client": ["d", "cls", "to_dict", "cast", "src_dict"],
    "no letters": ["", "-", "$ref"],
}  # fmt: skip


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES.keys())
def test_whatever_the_columns_are_called_the_client_is_whole(names, tmp_path):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(30, len(names))), columns=names)
    model = LogisticRegression().fit(table, rng.integers(0, 2, 30).astype(bool))
    row = table.iloc[0].to_dict()
    with fitserve.serve(model) as served, generated(served.url, tmp_path, "odd_client") as package:
        models, api = package.models, package.api.predictions
        with package.client.Client(base_url=served.url) as client:
            reply = api.predict.sync(client=client, body=models.PredictRequest(features=models.Features.from_dict(row)))

    assert reply.prediction == model.predict(table[:1])[0]


def test_categories_that_are_alike_are_told_apart(tmp_path):
    table = pd.DataFrame(
        {
            "word": ["a b", "a_b", "A B", "", "-", "7"] * 5,
            "size": [1.0, 2.0, 3.0] * 10,
            "part": [0.5, 1.5] * 15,
        }
    )
    columns = ColumnTransformer([("closed", OrdinalEncoder(), ["word", "size", "part"])])
    model = make_pipeline(columns, LogisticRegression()).fit(table, [0, 1, 2] * 10)
    with fitserve.serve(model) as served, generated(served.url, tmp_path, "alike_client") as package:
        models, api = package.models, package.api.predictions
        features = [
            models.Features(word=models.Word(word), size=models.Size(size), part=part)
            for word, size, part in table[:6].itertuples(index=False)
        ]
        with package.client.Client(base_url=served.url) as client:
            reply = api.predict_batch.sync(client=client, body=models.BatchRequest(instances=features))

    assert reply.predictions == model.predict(table[:6]).tolist()
