"""The OpenAPI document says of the served model exactly what is true."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from datetime import UTC, datetime

import joblib
import jsonschema_rs
import numpy as np
import pytest
from pydantic import BaseModel
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

import fitserve
from fitserve.signature import Field, Signature
from fitserve.store.catalog import LoadedModel
from fitserve.store.cost import Cost
from fitserve.store.forms import NATIVE, Form, Forms
from fitserve.store.trial import Trial
from fitserve.types import ModelFacts, Outputs

KINDS = ("number", "numeric", "string", "boolean", "datetime", "any")
CATEGORIES = {"number": (1.0, 2.5, 3.0), "string": ("a b", "a_b", "A B", ""), "any": ("a", 1, 2.5, True)}
EVERY_KIND = Signature(
    inputs=(
        *(Field(kind, kind) for kind in KINDS),
        *(Field(f"{kind} or null", kind, is_nullable=True) for kind in KINDS),
        *(Field(f"known {kind}", kind, True, values, is_closed=True) for kind, values in CATEGORIES.items()),
        *(Field(f"seen {kind}", kind, categories=values) for kind, values in CATEGORIES.items()),
        Field("small", largest=1e6),
    ),
    is_named=True,
)


class Features(BaseModel):
    """Of the owner of the application, called as one of ours."""

    number: int


class Constant:
    """A model of any signature, which gives zeros."""

    is_library_code = True
    facts = ModelFacts("Constant", {})

    def __init__(self, signature):
        self.signature = signature

    def predict(self, inputs, asked=()):
        return Outputs(np.zeros(len(next(iter(inputs.values())) if isinstance(inputs, dict) else inputs)))


def loaded(signature):
    model = Constant(signature)
    return LoadedModel(
        name="constant", version="7", digest="0" * 64, size_bytes=1, format="fake", model=model, metadata={}, verification={},
        loaded_at=datetime.now(UTC), loaded_monotonic_s=time.monotonic(), forms=Forms(Form(NATIVE, model.predict, Cost())), trial=Trial(has_answered=True),
    )  # fmt: skip


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


def scaler():
    """No predictor: its prediction is the transformed row."""
    return StandardScaler().fit(np.random.default_rng(0).normal(size=(40, 3)))


MODELS = {
    "iris": "iris_v1.2.3.joblib",
    "labels": "species_v1.0.pkl",
    "forest": "cancer_v2.joblib",
    "names": "diabetes.joblib",
    "mixed": mixed_columns,
    "two outputs": two_outputs,
    "several values": several_values,
    "transformer": scaler,
}


def assert_schemathesis_finds_nothing(url, folder, *options):
    """All checks and phases of its own command, against a real socket; return the number of operations."""
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json",
        "--checks=all", "--phases=examples,coverage,fuzzing,stateful", "--mode=all",
        "--max-examples=40", "--continue-on-failure", "--suppress-health-check=all", "--seed=7", "--no-color",
        *options,
    ]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=folder)

    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    found = re.search(r"(\d+) selected / (\d+) total", run.stdout)
    assert found, run.stdout[:2000]
    return int(found[1])


OF_A_MODEL = "--include-path-regex=predict|info"
"""The operations that differ from model to model."""


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_schemathesis_finds_nothing(models, model, tmp_path):
    source = models / model if isinstance(model, str) else model()

    with fitserve.serve(source, max_batch_size=20, state_dir=tmp_path) as served:
        n_operations = assert_schemathesis_finds_nothing(served.url, tmp_path, OF_A_MODEL)

    assert n_operations == 7


def test_schemathesis_finds_nothing_in_orders_and_what_is_told_of_models(repository, tmp_path):
    state = {"state_dir": tmp_path / "state", "cache_dir": tmp_path / "cache", "keep_loaded": ("all",)}
    with fitserve.serve(repository, default_model="price", **state) as served:
        n_operations = assert_schemathesis_finds_nothing(
            served.url, tmp_path, "--exclude-path-regex=predict", "--max-examples=15"
        )

    assert n_operations == 19


def test_schemathesis_finds_nothing_in_columns_of_every_kind(tmp_path):
    with fitserve.serve(two_outputs(), max_batch_size=20) as served:  # of no file, so that it cannot be reloaded
        served.app.services.catalog.switch(loaded(EVERY_KIND))

        assert_schemathesis_finds_nothing(served.url, tmp_path, OF_A_MODEL)


@pytest.mark.anyio
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
async def test_every_example_fits_the_schema_and_is_answered(make_app, client_of, models, model):
    app = make_app(model if isinstance(model, str) else model())
    async with client_of(app) as client:
        document = (await client.get("/openapi.json")).json()
        for path, names in {"/predict": {"list", "object", "pairs"}, "/predict/batch": {"list", "object"}}.items():
            media = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
            schema = {**media["schema"], "components": document["components"]}
            assert set(media["examples"]) == names
            for example in media["examples"].values():
                reply = await client.post(path, json=example["value"])

                assert jsonschema_rs.is_valid(schema, example["value"])
                assert reply.status_code == 200


@pytest.mark.anyio
async def test_a_switch_to_a_model_of_other_fields_changes_the_document(make_app, client_of):
    app = make_app()
    async with client_of(app) as client:
        before = (await client.get("/openapi.json")).json()
        app.services.catalog.switch(loaded(Signature(inputs=(Field("age"), Field("plan", "string")), is_named=True)))
        after = (await client.get("/openapi.json")).json()

    assert list(before["components"]["schemas"]["Features"]["properties"]) == ["x0", "x1", "x2", "x3"]
    assert list(after["components"]["schemas"]["Features"]["properties"]) == ["age", "plan"]
    assert (after["info"]["title"], after["info"]["version"]) == ("constant", "7")
    example = after["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["examples"]["object"]
    assert example["value"] == {"features": {"age": 0.0, "plan": ""}}


@pytest.mark.anyio
async def test_a_component_of_the_owners_keeps_its_name(make_app, client_of):
    app = make_app()

    @app.post("/own")
    async def own(features: Features) -> Features:
        return features

    async with client_of(app) as client:
        schemas = (await client.get("/openapi.json")).json()["components"]["schemas"]

    assert list(schemas["Features"]["properties"]) == ["number"]
    assert list(schemas["Features2"]["properties"]) == ["x0", "x1", "x2", "x3"]


@pytest.mark.anyio
async def test_the_document_of_five_hundred_columns_stays_small(app_without_model, client_of):
    fields = tuple(Field(f"feature {i}", KINDS[i % 6], is_nullable=i % 4 == 0) for i in range(500))

    async with client_of(app_without_model) as client:
        await client.get("/started")
        app_without_model.services.catalog.switch(loaded(Signature(inputs=fields, is_named=True)))
        size = len((await client.get("/openapi.json")).content)

    assert size < 500 * 600


@pytest.mark.anyio
async def test_each_of_several_models_has_requests_and_replies_of_its_own(make_repository_app, client_of):
    app = make_repository_app(keep_loaded=("all",))
    async with client_of(app) as client:
        await client.put("/models/price/aliases/champion?wait=true", json={"version": "1.0.0"})
        document = (await client.get("/openapi.json")).json()
        paths, schemas = document["paths"], document["components"]["schemas"]

        def fits(schema, value):
            return jsonschema_rs.is_valid({**schema, "components": document["components"]}, value)

        for name, row in {"price": [1.0, 2.0], "churn": [3.0]}.items():
            for path in (f"/models/{name}/predict", f"/models/{name}/versions/{{version}}/predict"):
                operation = paths[path]["post"]
                media = operation["requestBody"]["content"]["application/json"]
                told = operation["responses"]["200"]["content"]["application/json"]["schema"]
                asked = [parameter["schema"]["enum"] for parameter in operation.get("parameters", [])]
                for version in asked[0] if asked else [""]:
                    body = {"features": row}
                    reply = await client.post(path.replace("{version}", version), json=body)

                    assert reply.status_code == 200
                    assert [fits(media["schema"], {"features": other}) for other in (row, [*row, 1.0])] == [True, False]
                    assert fits(told, reply.json())

    versions = paths["/models/price/versions/{version}/predict"]["post"]["parameters"][0]["schema"]["enum"]
    assert versions == ["1.0.0", "1.10.0", "2.0.0", "@champion"]
    assert {"Features", "ChurnFeatures", "PredictReply", "ChurnPredictReply", "Number", "Problem"} <= set(schemas)
    assert not {"ChurnNumber", "ChurnProblem", "PriceFeatures"} & set(schemas)
    operations = [operation["operationId"] for path in paths.values() for operation in path.values()]
    assert len(set(operations)) == len(operations)
    assert "/models/{name}/predict" not in paths
    with_examples = {path for path, item in paths.items() if "examples" in json.dumps(item)}
    assert with_examples == {"/predict", "/predict/batch", "/models/churn/predict", "/models/churn/predict/batch"}


@pytest.mark.anyio
async def test_a_version_that_takes_something_else_is_not_described_as_the_one_that_serves(
    make_repository_app, client_of, repository
):
    joblib.dump(LinearRegression().fit([[0, 0, 0]], [1]), repository / "price_v0.9.0.joblib")
    app = make_repository_app(keep_loaded=("all",))
    async with client_of(app) as client:
        paths = (await client.get("/openapi.json")).json()["paths"]

    versions = paths["/models/price/versions/{version}/predict"]["post"]["parameters"][0]["schema"]["enum"]
    assert versions == ["1.0.0", "1.10.0", "2.0.0"]


@pytest.mark.anyio
async def test_models_whose_names_become_one_identifier_keep_apart(make_app, client_of, tmp_path, constant):
    for name in ("a-b", "a.b", "A_b", "batch", "a_b_version"):
        joblib.dump(constant(1.0), tmp_path / f"{name}_v1.joblib")
    async with client_of(make_app(tmp_path, state_dir=tmp_path / ".state")) as client:
        paths = (await client.get("/openapi.json")).json()["paths"]

    found = [operation["operationId"] for path in paths.values() for operation in path.values()]
    assert len({name.lower() for name in found}) == len(found)
