"""Applications of each kind, and servers over both protocol classes."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import pytest
import uvicorn
import uvloop
from server.raw import TIMEOUT_S, WAYS
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from fitserve.app import FitserveApp, create_app
from fitserve.server.listen import listen
from fitserve.server.serve import make_server
from fitserve.settings import Settings
from fitserve.store.assignment import to_json
from fitserve.store.cost import Cost
from fitserve.store.forms import NATIVE, Form, Forms

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from fitserve.shared_state.board import Board
    from fitserve.shared_state.slot import Slot

RAISES, WAITS = 66.0, 77.0
"""First features at which the model of the tests raises, and waits for its gate."""


class KnownCost(Cost):
    """One that learns nothing, so that it is known where a call runs."""

    def learn(self, n_rows, seconds):
        pass


class Gate:
    """Where calls of a model wait until the test lets them go on."""

    def __init__(self) -> None:
        self.is_open = threading.Event()
        self.has_come = threading.Semaphore(0)

    def wait(self) -> None:
        self.has_come.release()
        assert self.is_open.wait(TIMEOUT_S)

    def await_call(self) -> None:
        assert self.has_come.acquire(timeout=TIMEOUT_S)


KINDS = {
    "inline": {},
    "executor": {},
    "cors": {"cors_origins": ("https://app.example.org",)},
    "prefix": {"root_path": "/ml"},
}
"""The kinds of applications, with their settings."""


@pytest.fixture(scope="session")
def iris() -> LogisticRegression:
    return LogisticRegression(max_iter=1000).fit(*load_iris(return_X_y=True))


@pytest.fixture(scope="session")
def make_kind(iris):
    """Build an application of a kind; its model raises and waits where it is told to."""

    def make(kind: str = "inline", gate: Gate | None = None, **settings: object) -> FitserveApp:
        app = create_app(
            iris, name="iris", version="1.2.3", settings=Settings(**{"max_body_bytes": 4096, **KINDS[kind], **settings})
        )
        catalog = app.services.catalog
        predict = catalog.current.forms.native.predict

        def at(inputs: np.ndarray, asked):
            if RAISES in inputs[:, 0]:
                raise ValueError("no such flower")
            if WAITS in inputs[:, 0]:
                gate.wait()
            return predict(inputs, asked)

        cost = KnownCost(1.0) if kind == "executor" else KnownCost(1e-6)
        catalog.prepare(dataclasses.replace(catalog.current, forms=Forms(Form(NATIVE, at, cost))))
        fleet = app.services.lifecycle.fleet
        fleet.board.commit(to_json(catalog.assignment))
        fleet.load_assignment()
        return app

    return make


@contextmanager
def serving(
    way: str,
    app: FitserveApp,
    *,
    listener: socket.socket | None = None,
    board: Board | None = None,
    slot: Slot | None = None,
    settings: Mapping[str, object] = MappingProxyType({}),
    **config: object,
):
    """A server in a thread; yields it and its address, and stops it."""
    chosen = Settings(port=0, **settings)
    listener = listener or listen(chosen)
    server = make_server(app, chosen, board, slot)
    if way == "uvicorn":
        server = uvicorn.Server(server.config)
    server.config.http = WAYS[way]
    server.config.loop = "uvloop"
    for name, value in config.items():
        setattr(server.config, name, value)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    address = listener.getsockname()
    thread.start()
    try:
        deadline_s = time.monotonic() + TIMEOUT_S
        while not server.started or not server.server_state.default_headers:
            assert thread.is_alive()
            assert time.monotonic() < deadline_s
            time.sleep(0.005)
        yield server, address
    finally:
        server.should_exit = True
        thread.join(TIMEOUT_S)
        listener.close()
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def addresses(make_kind):
    """The address of a server of each kind and each way, started when it is first asked for."""
    started = {}

    def address(kind: str, way: str) -> tuple[str, int]:
        if (kind, way) not in started:
            context = serving(way, make_kind(kind))
            started[kind, way] = context, context.__enter__()[1]
        return started[kind, way][1]

    yield address
    for context, _ in started.values():
        context.__exit__(None, None, None)


@pytest.fixture(scope="module")
def runner():
    """Runs coroutines on one event loop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner


@pytest.fixture(scope="module")
def apps(make_kind):
    """An application of each kind and each way, for connections without a socket."""
    made = {}

    def app(kind: str, way: str) -> FitserveApp:
        if (kind, way) not in made:
            made[kind, way] = make_kind(kind)
        return made[kind, way]

    return app
