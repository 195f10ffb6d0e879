"""The probes."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

pytestmark = pytest.mark.anyio


async def test_a_served_model_is_healthy_ready_and_started(make_app, client_of):
    async with client_of(make_app()) as client:
        health, ready, started = [await client.get(path) for path in ("/health", "/ready", "/started")]

    assert health.status_code == ready.status_code == started.status_code == 200
    body = health.json()
    assert set(body) == {"status", "model_loaded", "model_version", "uptime_seconds", "timestamp"}
    assert (body["status"], body["model_loaded"], body["model_version"]) == ("healthy", True, "1.2.3")
    assert body["uptime_seconds"] >= 0
    assert datetime.fromisoformat(body["timestamp"]).utcoffset() == timedelta(0)
    assert ready.json()["status"] == "ready"
    assert started.json()["status"] == "started"


async def test_without_a_model_the_process_is_alive_but_not_ready(client_of, app_without_model):
    async with client_of(app_without_model) as client:
        replies = {path: await client.get(path) for path in ("/health", "/ready", "/started", "/model/info")}
        predict = await client.post("/predict", json={"features": [1]})

    health = replies.pop("/health")
    assert health.status_code == 200
    assert (health.json()["status"], health.json()["model_loaded"], health.json()["model_version"]) == (
        "degraded",
        False,
        None,
    )
    for reply in (*replies.values(), predict):
        assert reply.status_code == 503
        assert reply.headers["Retry-After"] == "1"
        assert reply.headers["X-Model-Version"] == "none"


async def test_probes_may_ask_for_the_head_only(make_app, client_of):
    async with client_of(make_app()) as client:
        assert (await client.head("/health")).status_code == 200
        assert (await client.head("/ready")).status_code == 200


async def test_a_reload_does_not_reset_the_uptime(make_app, client_of):
    async with client_of(make_app()) as client:
        before = (await client.get("/health")).json()["uptime_seconds"]
        await client.post("/model/reload")
        after = (await client.get("/health")).json()["uptime_seconds"]

    assert after >= before
