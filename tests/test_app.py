"""The application as a whole: two doors with one answer, mounted in others, offline, never raising."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tomllib
from pathlib import Path

import pytest
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel
from starlette.middleware.base import BaseHTTPMiddleware

import fitserve
import fitserve.apidocs
from fitserve.apidocs import ASSETS
from fitserve.errors import ArtifactNotFoundError
from fitserve.shared_state.folder import server_folder

pytestmark = pytest.mark.anyio

ROW = {"features": [5.1, 3.5, 1.4, 0.2]}


class Body(BaseModel):
    number: int


def without_time(body: dict) -> dict:
    return {
        key: value
        for key, value in body.items()
        if key
        not in {"latency_ms", "timestamp", "uptime_seconds", "instance", "request_id", "loaded_at", "optimization"}
    }


class Marking(BaseHTTPMiddleware):
    async def dispatch(self, request, call_next):
        reply = await call_next(request)
        reply.headers["X-Marked"] = "yes"
        return reply


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/predict", ROW),
        ("POST", "/predict", {"features": ["a"]}),
        ("POST", "/predict/batch", {"instances": [ROW["features"]] * 3}),
        ("GET", "/health", None),
        ("GET", "/ready", None),
        ("GET", "/model/info", None),
        ("GET", "/nope", None),
        ("PUT", "/predict", None),
    ],
)
async def test_both_doors_give_the_same_answer_and_a_middleware_sees_all(make_app, client_of, method, path, body):
    short, long = make_app(), make_app()
    long.add_middleware(Marking)
    async with client_of(short) as one, client_of(long) as other:
        first = await one.request(method, path, json=body)
        second = await other.request(method, path, json=body)

    assert second.headers["X-Marked"] == "yes"
    assert (first.status_code, without_time(first.json())) == (second.status_code, without_time(second.json()))
    assert set(first.headers) == set(second.headers) - {"x-marked"}


async def test_it_is_mounted_below_a_path(make_app, client_of):
    parent = FastAPI()
    parent.mount("/ml", make_app())
    async with client_of(parent) as client:
        predict = await client.post("/ml/predict", json=ROW)
        missing = await client.get("/ml/nope")
        docs = await client.get("/ml/docs")
        asset = await client.get("/ml/docs/swagger-ui.css")
        schema = await client.get("/ml/openapi.json")

    assert predict.json()["prediction"] == 0
    assert predict.headers["X-Model-Version"] == "1.2.3"
    assert missing.json()["status_code"] == 404
    assert "/ml/docs lists" in missing.json()["detail"]
    assert "/ml/openapi.json" in docs.text
    assert asset.status_code == 200
    assert schema.json()["servers"] == [{"url": "/ml"}]


async def test_behind_a_proxy_that_takes_the_prefix_away(make_app, client_of):
    app = make_app(root_path="/ml")
    async with client_of(app) as client:
        stripped = await client.post("/predict", json=ROW)
        whole = await client.post("/ml/predict", json=ROW)
        docs = await client.get("/docs")

    assert stripped.status_code == whole.status_code == 200
    assert "/ml/docs/swagger-ui-bundle.js" in docs.text


async def test_the_owner_may_add_routes(make_app, client_of):
    app = make_app()

    @app.get("/own")
    async def own():
        return {"own": True}

    @app.post("/typed")
    async def typed(body: Body):
        return body

    @app.get("/teapot")
    async def teapot():
        raise HTTPException(418, "short and stout", headers={"X-Kind": "tea"})

    async with client_of(app) as client:
        assert (await client.get("/own")).json() == {"own": True}
        wrong = await client.post("/typed", json={"number": "x"})
        stout = await client.get("/teapot")
        paths = (await client.get("/openapi.json")).json()["paths"]

    assert wrong.status_code == 422
    assert wrong.json()["errors"][0]["column"] == "body.number"
    assert (stout.status_code, stout.json()["error"], stout.headers["X-Kind"]) == (418, "short and stout", "tea")
    assert {"/own", "/typed", "/predict"} <= set(paths)


@pytest.mark.parametrize("error", [RuntimeError("hunter2"), SystemExit("hunter2"), KeyboardInterrupt("hunter2")])
async def test_no_exception_of_a_route_reaches_the_server(make_app, client_of, error):
    app = make_app()

    @app.get("/fails")
    async def fails():
        raise error

    async with client_of(app) as client:  # the transport would raise what came out
        reply = await client.get("/fails")
        after = await client.post("/predict", json=ROW)

    assert reply.status_code == 500
    assert reply.json()["status_code"] == 500
    assert "hunter2" not in reply.text
    assert reply.headers["X-Request-ID"]
    assert after.status_code == 200


async def test_a_client_that_leaves_is_not_answered(make_app):
    app = make_app()
    sent = []

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    await app({"type": "http", "method": "POST", "path": "/predict", "headers": []}, receive, send)

    assert sent == []


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
async def test_the_pages_need_no_other_host(make_app, client_of, page):
    async with client_of(make_app()) as client:
        reply = await client.get(page)
        own = re.findall(r'(?:src|href)="([^"]+)"', reply.text)
        statuses = [(await client.get(url)).status_code for url in own]

    assert reply.status_code == 200
    assert own
    assert all(url.startswith("/docs/") for url in own)
    assert statuses == [200] * len(own)
    assert "http://" not in reply.text
    assert "https://" not in reply.text
    policy = reply.headers["Content-Security-Policy"]
    assert "http" not in policy
    assert "default-src 'self'" in policy


async def test_assets_have_their_types(make_app, client_of):
    async with client_of(make_app()) as client:
        for name, media_type in ASSETS.items():
            reply = await client.get(f"/docs/{name}")
            assert reply.headers["Content-Type"].startswith(media_type)
            assert len(reply.content) > 500


def test_vendored_files_are_those_that_were_written_down():
    folder = Path(fitserve.apidocs.__file__).parent / "assets"
    listed = tomllib.loads((folder / "vendored.toml").read_text())

    assert set(listed) == set(ASSETS)
    for name, facts in listed.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == facts["sha256"]


async def test_allowed_origins_and_no_others_may_read(make_app, client_of):
    preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    async with client_of(make_app(cors_origins=("https://app.example",), cors_credentials=True)) as client:
        allowed = await client.options("/predict", headers={"Origin": "https://app.example", **preflight})
        refused = await client.options("/predict", headers={"Origin": "https://evil.example", **preflight})
        reply = await client.post("/predict", json=ROW, headers={"Origin": "https://app.example"})
        error = await client.post("/predict", json={}, headers={"Origin": "https://app.example"})
        other = await client.post("/predict", json=ROW, headers={"Origin": "https://evil.example"})
    async with client_of(make_app()) as client:
        off = await client.post("/predict", json=ROW, headers={"Origin": "https://app.example"})

    assert allowed.status_code == 200
    assert allowed.headers["Access-Control-Allow-Origin"] == "https://app.example"
    assert refused.status_code == 403
    assert refused.json()["status_code"] == 403
    for readable in (reply, error):
        assert readable.headers["Access-Control-Allow-Origin"] == "https://app.example"
        assert readable.headers["Access-Control-Allow-Credentials"] == "true"
    for unreadable in (refused, other, off):
        assert "Access-Control-Allow-Origin" not in unreadable.headers


async def test_any_origin_may_read_without_credentials(make_app, client_of):
    async with client_of(make_app(cors_origins=("*",))) as client:
        reply = await client.post("/predict", json=ROW, headers={"Origin": "https://anybody.example"})

    assert reply.headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Credentials" not in reply.headers


def test_a_missing_file_raises_at_once(tmp_path):
    with pytest.raises(ArtifactNotFoundError):
        fitserve.create_app(tmp_path / "missing.joblib")


def test_the_public_names_are_those_listed():
    assert fitserve.__all__ == sorted(fitserve.__all__)
    for name in fitserve.__all__:
        assert getattr(fitserve, name) is not None
    assert set(fitserve.__all__) <= set(dir(fitserve))
    with pytest.raises(AttributeError, match="nonsense"):
        fitserve.nonsense  # noqa: B018


async def run_lifespan(app):
    """What a server does at the start; returns what the application said."""
    said = []
    inbox = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive():
        return inbox.pop(0)

    async def send(message):
        said.append(message)

    await app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)
    return said


async def test_a_start_without_a_model_fails_in_one_line(app_without_model, caplog):
    said = await run_lifespan(app_without_model)

    assert said == [{"type": "lifespan.startup.failed", "message": ""}]
    assert caplog.text.count("\n") == 1
    assert "MODEL_PATH" in caplog.text


async def test_a_start_with_a_model_succeeds(make_app):
    said = await run_lifespan(make_app())

    assert [message["type"] for message in said] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_compiling_begins_with_the_lifespan_or_with_the_first_request_and_only_once(
    make_app, client_of, monkeypatch
):
    app, mounted, parent, begun = make_app(), make_app(), FastAPI(), []
    for one in (app, mounted):
        monkeypatch.setattr(one.services.lifecycle, "join", lambda one=one: begun.append(one))
    parent.mount("/ml", mounted)

    assert begun == []
    async with client_of(parent) as client:
        for _ in range(3):
            await client.get("/ml/health")
    assert begun == [mounted]
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive():
        return next(messages)

    async def send(message):
        pass

    await app({"type": "lifespan", "app": app, "state": {}}, receive, send)
    assert begun == [mounted, app]


def test_applications_of_two_paths_below_one_parent_process_are_two_fleets(make_app, monkeypatch):
    monkeypatch.setenv("SERVER_SOFTWARE", "gunicorn/23.0")
    runtime = server_folder(os.getppid())
    try:
        apps = [make_app("iris_v1.2.3.joblib"), make_app("cancer_v2.joblib"), make_app("iris_v1.2.3.joblib")]

        served = [app.services.catalog.current.name for app in apps]
        boards = [app.services.lifecycle.fleet.board.folder for app in apps]
    finally:
        shutil.rmtree(runtime)

    assert served == ["iris", "cancer", "iris"]
    assert boards[0] == boards[2] != boards[1]
