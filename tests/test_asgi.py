"""The application for other servers."""

from __future__ import annotations

import asyncio

import pytest
import uvicorn

from fitserve import asgi
from fitserve.server.protocol import HttpProtocol

pytestmark = pytest.mark.anyio


async def test_uvicorn_may_be_given_our_protocol_class(models, monkeypatch):
    monkeypatch.setenv("MODEL_PATH", str(models / "iris_v1.2.3.joblib"))
    monkeypatch.setattr("fitserve.observe.logs.configure_logging", lambda *_, **__: None)
    monkeypatch.setattr("fitserve.estimators.threads.bound_pools", lambda *_: None)
    asgi._application.cache_clear()
    config = uvicorn.Config("fitserve.asgi:app", http="fitserve.server.protocol:HttpProtocol", log_config=None)
    config.load()
    try:
        application = await asyncio.to_thread(asgi._application)
        assert config.http_protocol_class is HttpProtocol
        protocol = HttpProtocol(config, uvicorn.Server(config).server_state, {})
        assert protocol._short is application.short_way is not None
    finally:
        asgi._application.cache_clear()
        vars(asgi.app).pop("short_way", None)
