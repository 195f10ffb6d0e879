"""/models: many models, many versions."""

from __future__ import annotations

import asyncio

import pytest
from fastapi import FastAPI
from prometheus_client import parser

pytestmark = pytest.mark.anyio

ROW = {"features": [1.0, 2.0]}


class Passing:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        await self.app(scope, receive, send)


async def answers(client, path, body=ROW):
    """The prediction and the version in the body; the header must name the same."""
    reply = await client.post(path, json=body)
    assert reply.status_code == 200, reply.text
    assert reply.headers["X-Model-Version"] == reply.json()["model_version"]
    return reply.json()["prediction"], reply.json()["model_version"]


async def ordered(client, method, path, body=None):
    reply = await client.request(method, f"{path}?wait=true", json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


async def test_a_model_answers_by_its_name_a_version_and_an_alias(make_repository_app, client_of):
    async with client_of(make_repository_app(keep_loaded=("all",))) as client:
        await ordered(client, "PUT", "/models/price/aliases/champion", {"version": "1.10.0"})
        found = {
            path: await answers(client, path, body)
            for path, body in {
                "/predict": ROW,
                "/models/price/predict": ROW,
                "/models/price@champion/predict": ROW,
                "/models/price%40champion/predict": ROW,
                "/models/price/versions/1.0.0/predict": ROW,
                "/models/price/versions/@champion/predict": ROW,
                "/models/price@champion/versions/1.10.0/predict": ROW,
                "/models/churn/predict": {"features": [9]},
            }.items()
        }
        by_body = [
            await answers(client, path, {**ROW, "model_version": version})
            for path in ("/predict", "/models/price/predict")
            for version in ("1.0.0", "@champion")
        ]
        batch = await client.post("/models/churn/versions/1/predict/batch", json={"instances": [[0], [9]]})

    assert found == {
        "/predict": (2.0, "2.0.0"),
        "/models/price/predict": (2.0, "2.0.0"),
        "/models/price@champion/predict": (1.1, "1.10.0"),
        "/models/price%40champion/predict": (1.1, "1.10.0"),
        "/models/price/versions/1.0.0/predict": (1.0, "1.0.0"),
        "/models/price/versions/@champion/predict": (1.1, "1.10.0"),
        "/models/price@champion/versions/1.10.0/predict": (1.1, "1.10.0"),
        "/models/churn/predict": ("yes", "1"),
    }
    assert by_body == [(1.0, "1.0.0"), (1.1, "1.10.0")] * 2
    assert batch.json()["predictions"] == ["no", "yes"]


@pytest.mark.parametrize(
    ("path", "version", "status", "said"),
    [
        ("/models/prise/predict", None, 404, "did you mean 'price'?"),
        ("/models/price@nope/predict", None, 404, "no alias '@nope'"),
        ("/models/price/versions/3/predict", None, 404, "no model version '3'"),
        ("/models/price/predict", "3", 404, "no model version '3'"),
        ("/models/price/versions/1.0.0/predict", "2.0.0", 404, "no model version '2.0.0'; there is: 1.0.0"),
        ("/models/price%2Fpredict/predict", None, 404, "there is nothing at this path"),
        ("/models/%00/predict", None, 404, "no model"),
        (f"/models/{'x' * 2000}/predict", None, 404, "no model 'xxx"),
        ("/models/@/predict", None, 404, "no model ''"),
    ],
)
async def test_what_there_is_not_is_told(make_repository_app, client_of, path, version, status, said):
    async with client_of(make_repository_app()) as client:
        reply = await client.post(path, json={**ROW, "model_version": version})

    assert reply.status_code == status
    assert said in reply.json()["detail"]


async def test_a_version_that_is_not_in_memory_is_loaded_when_it_is_asked_for(make_repository_app, client_of):
    async with client_of(make_repository_app()) as client:
        before = (await client.get("/models/price/versions/1.0.0")).json()
        found = await asyncio.gather(*[answers(client, "/models/price/versions/1.0.0/predict") for _ in range(4)])
        after = (await client.get("/models/price/versions/1.0.0")).json()

    assert found == [(1.0, "1.0.0")] * 4
    assert (before["is_loaded"], after["is_loaded"]) == (False, True)
    assert "features" not in before
    assert len(after["features"]) == 2


async def test_without_memory_for_more_versions_the_caller_is_told_to_come_again(make_repository_app, client_of):
    async with client_of(make_repository_app(models_memory_bytes=0)) as client:
        reply = await client.post("/models/price/versions/1.0.0/predict", json=ROW)

    assert reply.status_code == 503
    assert reply.headers["Retry-After"] == "1"
    assert "models_memory_bytes" in reply.json()["detail"]


async def test_the_models_and_their_versions_are_listed(make_repository_app, client_of):
    async with client_of(make_repository_app()) as client:
        await ordered(client, "PUT", "/models/price/aliases/champion", {"version": "1.10.0"})
        await ordered(client, "POST", "/models/price/promote", {"version": "1.10.0"})
        listed = (await client.get("/models")).json()
        shown = await client.get("/models/price")
        by_alias = await client.get("/models/price@champion")
        version = (await client.get("/models/price/versions/@champion")).json()
        info = (await client.get("/model/info")).json()

    assert listed["default_model"] == "price"
    assert [model["name"] for model in listed["models"]] == ["churn", "price"]
    price = listed["models"][1]
    assert (price["serving"], price["previous"], price["aliases"]) == ("1.10.0", "2.0.0", {"champion": "1.10.0"})
    assert [one["version"] for one in price["versions"]] == ["1.0.0", "1.10.0", "2.0.0"]
    assert [one["is_serving"] for one in price["versions"]] == [False, True, False]
    assert shown.headers["X-Model-Version"] == by_alias.headers["X-Model-Version"] == "1.10.0"
    assert shown.json().items() >= price.items()
    assert shown.json()["features"] == info["features"]
    assert version["aliases"] == ["champion"]
    assert version["digest"] == price["versions"][1]["digest"]


async def test_an_error_names_no_version_of_another_model(make_repository_app, client_of):
    async with client_of(make_repository_app()) as client:
        unknown = await client.post("/models/nope/predict", json=ROW)
        wrong = await client.post("/models/churn/predict", json={"features": ["a"]})

    assert unknown.headers["X-Model-Version"] == "none"
    assert (wrong.status_code, wrong.headers["X-Model-Version"]) == (422, "1")


async def test_metrics_know_routes_by_their_templates_and_models_by_their_versions(make_repository_app, client_of):
    async with client_of(make_repository_app(keep_loaded=("all",))) as client:
        for name in ("price", "churn", "nope", "nothing"):
            await client.post(f"/models/{name}/predict", json={"features": [1]})
        text = (await client.get("/metrics")).text

    samples = [sample for family in parser.text_string_to_metric_families(text) for sample in family.samples]
    requests = [sample for sample in samples if sample.name == "fitserve_requests_total"]
    assert {sample.labels["route"] for sample in requests} == {"/models/{name}/predict"}
    assert [sample.value for sample in requests if sample.labels["status"] == "404"] == [2]
    assert "nope" not in text
    in_memory = [sample.labels for sample in samples if sample.name == "fitserve_model_info"]
    versions = {(labels["model"], labels["version"]) for labels in in_memory}
    assert versions == {("churn", "1"), ("price", "1.0.0"), ("price", "1.10.0"), ("price", "2.0.0")}


async def test_it_is_ready_when_each_model_has_answered(make_repository_app, client_of):
    app = make_repository_app()
    churn = app.services.catalog.loaded("churn", "1")
    async with client_of(app) as client:
        ready = await client.get("/ready")
        churn.trial.has_answered = False
        not_ready = await client.get("/ready")
        health = (await client.get("/health")).json()

    assert ready.status_code == 200
    assert not_ready.status_code == 503
    assert "the model churn has not answered a row yet" in not_ready.json()["detail"]
    assert health["status"] == "degraded"


async def test_methods_that_a_path_does_not_answer_are_refused(make_repository_app, client_of):
    async with client_of(make_repository_app()) as client:
        models = await client.post("/models")
        alias = await client.get("/models/price/aliases/champion")
        head = await client.head("/models/price")

    assert (models.status_code, set(models.headers["Allow"].split(", "))) == (405, {"GET", "HEAD"})
    assert (alias.status_code, set(alias.headers["Allow"].split(", "))) == (405, {"PUT", "DELETE"})
    assert head.status_code == 200


async def test_a_mount_below_a_path_with_parameters_keeps_them_apart(make_repository_app, client_of):
    app = make_repository_app()
    app.add_middleware(Passing)
    parent = FastAPI()
    parent.mount("/{name}/ml", app)
    async with client_of(parent) as client:
        default = await answers(client, "/churn/ml/predict")
        named = await answers(client, "/churn/ml/models/price/predict")

    assert default == named == (2.0, "2.0.0")
