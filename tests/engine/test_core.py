"""The straight line: whatever a model does, the server stays up and tells the truth."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from fitserve.store.cost import Cost
from fitserve.store.forms import NATIVE, Form, Forms

pytestmark = pytest.mark.anyio

X, Y = load_iris(return_X_y=True)
ROW = [5.1, 3.5, 1.4, 0.2]
SECRET = "postgres://svc:hunter2@10.0.0.7/srv/app/secret.py"


class Odd:
    """Not scikit-learn's: four numbers in, and the first decides what happens."""

    n_features_in_ = 4

    def predict(self, X):
        what = int(X[0][0])
        if what == 1:
            raise ValueError(SECRET)
        if what == 2:
            raise SystemExit(SECRET)
        if what == 3:
            raise KeyboardInterrupt
        if what == 4:
            return np.array([np.nan] * len(X))
        if what == 5:
            return np.array([np.inf] * len(X))
        if what == 6:
            return np.zeros(len(X) + 1)
        if what == 7:
            return np.array([object()] * len(X), dtype=object)
        if what == 8:
            return self.predict(X)
        if what == 9:
            return np.float64(1)
        if what == 10:
            return np.array([1j] * len(X))
        if what == 11:
            raise StopIteration
        if what == 12:
            raise asyncio.CancelledError
        return np.zeros(len(X))


@pytest.mark.parametrize("what", [1, 2, 3, 6, 7, 8, 9, 10, 11, 12])
@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
async def test_a_models_fault_is_a_500_without_its_text(make_app, client_of, caplog, what, path):
    row = [what, 0, 0, 0]
    body = {"features": row} if path == "/predict" else {"instances": [row]}
    async with client_of(make_app(Odd())) as client:
        reply = await client.post(path, json=body)
        again = await client.post("/predict", json={"features": [0, 0, 0, 0]})
        health = await client.get("/health")

    assert reply.status_code == 500
    assert reply.json()["title"] in {"Model failed", "Internal server error"}
    assert "hunter2" not in reply.text
    assert "hunter2" not in caplog.text
    assert "Traceback" in caplog.text, "where it happened is told"
    assert reply.headers["X-Request-ID"] in [getattr(record, "request_id", None) for record in caplog.records]
    assert again.status_code == health.status_code == 200


async def test_debug_shows_the_text(make_app, client_of, caplog):
    async with client_of(make_app(Odd(), debug=True)) as client:
        reply = await client.post("/predict", json={"features": [1, 0, 0, 0]})

    assert SECRET in reply.json()["detail"]
    assert "Traceback" not in reply.text
    assert SECRET in caplog.text


@pytest.mark.parametrize("what", [4, 5])
async def test_nan_and_infinity_are_null_or_an_error_as_set(make_app, client_of, what):
    row = [what, 0, 0, 0]
    async with client_of(make_app(Odd())) as client:
        null = await client.post("/predict", json={"features": row})
        nulls = await client.post("/predict/batch", json={"instances": [row, row]})
    async with client_of(make_app(Odd(), nonfinite="error")) as client:
        error = await client.post("/predict", json={"features": row})

    assert (null.status_code, null.json()["prediction"]) == (200, None)
    assert (nulls.status_code, nulls.json()["predictions"]) == (200, [None, None])
    assert error.status_code == 500


class Gated(LogisticRegression):
    """Waits in predict_proba until it is let go."""

    gate = threading.Event()
    entered = threading.Event()

    def predict_proba(self, X):
        type(self).entered.set()
        assert type(self).gate.wait(30)
        return super().predict_proba(X)


async def test_health_answers_while_a_model_runs(make_app, client_of):
    Gated.gate.set()
    app = make_app(Gated(max_iter=1000).fit(X, Y))
    Gated.gate.clear()
    Gated.entered.clear()
    async with client_of(app) as client:
        predictions = [asyncio.create_task(client.post("/predict", json={"features": ROW})) for _ in range(4)]
        await asyncio.to_thread(Gated.entered.wait, 30)
        health = await client.get("/health")
        still_running = not any(task.done() for task in predictions)
        Gated.gate.set()
        replies = await asyncio.gather(*predictions)

    assert still_running
    assert health.status_code == 200
    assert [reply.status_code for reply in replies] == [200] * 4


async def test_a_cheap_library_model_runs_on_the_loop_and_a_users_own_never(make_app, client_of):
    threads = []

    class Telling(LogisticRegression):
        def predict_proba(self, X):
            threads.append(threading.current_thread())
            return super().predict_proba(X)

    app = make_app(Telling(max_iter=1000).fit(X, Y))
    threads.clear()
    async with client_of(app) as client:
        await client.post("/predict", json={"features": ROW})

    assert threads[0] is not threading.current_thread()
    assert make_app(LogisticRegression(max_iter=1000).fit(X, Y)).services.catalog.current.model.is_library_code
    assert not app.services.catalog.current.model.is_library_code


class Scoring:
    """Of library code, as it says; tells what it is asked for, and by which thread."""

    is_library_code = True

    def __init__(self, model):
        self.facts, self._model = model.facts, model
        self.signature = replace(model.signature, outputs=("predict", "score_samples"))
        self.calls = []

    def predict(self, inputs, asked=()):
        self.calls.append((tuple(asked), threading.current_thread() is threading.main_thread()))
        outputs = self._model.predict(inputs)
        return replace(outputs, extras={name: np.zeros(len(inputs)) for name in asked if len(inputs) < 3})


async def test_what_is_asked_besides_runs_on_a_thread_and_teaches_the_cost_nothing(make_app, client_of):
    app = make_app()
    catalog = app.services.catalog
    model = Scoring(catalog.current.model)
    cost = Cost(fixed_s=1e-6)
    catalog.switch(replace(catalog.current, model=model, forms=Forms(Form(NATIVE, model.predict, cost))))
    async with client_of(app) as client:
        await client.post("/predict", json={"features": ROW, "outputs": ["score_samples", "predict"]})
        after = cost.expected_s(1)
        await client.post("/predict", json={"features": ROW, "outputs": ["predict"]})

    assert model.calls == [(("score_samples",), False), ((), True)]
    assert after == 1e-6


async def test_an_output_that_is_offered_and_not_given_is_a_fault(make_app, client_of, caplog):
    app = make_app()
    catalog = app.services.catalog
    catalog.switch(replace(catalog.current, model=Scoring(catalog.current.model)))
    async with client_of(app) as client:
        reply = await client.post("/predict/batch", json={"instances": [ROW] * 3, "outputs": ["score_samples"]})

    assert reply.status_code == 500
    assert "offers score_samples and did not return it" in caplog.text


async def test_a_model_that_tells_no_features_is_ready_once_it_has_answered(make_app, client_of):
    class Bare:
        def predict(self, X):
            return X.sum(axis=1)

    async with client_of(make_app(Bare())) as client:
        before = await client.get("/ready")
        health = await client.get("/health")
        reply = await client.post("/predict", json={"features": [1, 2, 3]})
        after = await client.get("/ready")

    assert (before.status_code, after.status_code) == (503, 200)
    assert health.json()["status"] == "degraded"
    assert health.json()["model_loaded"] is True
    assert before.json()["error"]
    assert reply.json()["prediction"] == 6


async def test_a_model_that_fails_every_prediction_is_never_ready(make_app, client_of, caplog):
    class Broken:
        n_features_in_ = 1

        def predict(self, X):
            raise RuntimeError(SECRET)

    async with client_of(make_app(Broken())) as client:
        reply = await client.post("/predict", json={"features": [1]})
        ready = await client.get("/ready")

    assert reply.status_code == 500
    assert ready.status_code == 503
    assert "hunter2" not in ready.text + caplog.text


async def test_a_version_switched_meanwhile_does_not_mix_into_a_reply(make_app, client_of):
    """The reply names the version that computed it, in body and header, whatever serves by then."""
    from fitserve.store.loading import adopt_model

    class Versioned(Gated):
        gate, entered = threading.Event(), threading.Event()

    Versioned.gate.set()
    app = make_app(Versioned(max_iter=1000).fit(X, Y))
    old_model, new_model = Versioned(max_iter=1000).fit(X, Y), LogisticRegression(max_iter=1000).fit(X, (Y + 1) % 3)
    app.services.catalog.switch(await asyncio.to_thread(adopt_model, old_model, name="m", version="1"))
    new = await asyncio.to_thread(adopt_model, new_model, name="m", version="2")
    Versioned.gate.clear()
    Versioned.entered.clear()
    async with client_of(app) as client:
        old = asyncio.create_task(client.post("/predict", json={"features": ROW}))
        await asyncio.to_thread(Versioned.entered.wait, 30)
        app.services.catalog.switch(new)
        after = await client.post("/predict", json={"features": ROW})
        Versioned.gate.set()
        before = await old

    assert (before.json()["model_version"], before.headers["X-Model-Version"], before.json()["prediction"]) == (
        "1",
        "1",
        0,
    )
    assert (after.json()["model_version"], after.headers["X-Model-Version"], after.json()["prediction"]) == (
        "2",
        "2",
        1,
    )


def asked(client_of, app, row) -> int:
    """The status of one request, from an event loop of its own."""

    async def ask() -> int:
        async with client_of(app) as client, asyncio.timeout(60):
            return (await client.post("/predict", json={"features": row})).status_code

    return asyncio.run(ask())


@pytest.mark.parametrize("cost", [Cost(1e-6), Cost(1.0)], ids=["inline", "thread"])
@pytest.mark.parametrize("cache", ["", "memory://?max_bytes=2000"])
def test_many_event_loops_at_once_are_answered(make_app, client_of, cost, cache):
    app = make_app(cache=cache)
    catalog = app.services.catalog
    native = catalog.current.forms.native
    catalog.switch(replace(catalog.current, forms=Forms(replace(native, cost=cost))))
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda row: asked(client_of, app, row), X[:80].tolist()))
    assert found == [200] * 80


@pytest.mark.parametrize("cost", [Cost(1e-6), Cost(1.0)], ids=["inline", "thread"])
@pytest.mark.parametrize("cache", ["", "memory://"])
def test_what_waits_on_an_event_loop_that_has_ended_holds_nobody_up(make_app, client_of, cost, cache):
    app = make_app(cache=cache)
    catalog, engine = app.services.catalog, app.services.engine
    native = catalog.current.forms.native
    catalog.switch(replace(catalog.current, forms=Forms(replace(native, cost=cost))))
    loop = asyncio.new_event_loop()

    def leave() -> None:
        engine.begin_row(catalog.current, ROW, lambda _: None)
        loop.stop()  # before its next turn

    loop.call_soon(leave)
    loop.run_forever()
    loop.close()
    assert asked(client_of, app, ROW) == 200
