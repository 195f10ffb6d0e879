"""Rows that come together are checked and computed as one table, and none is harmed by another."""

from __future__ import annotations

import asyncio
import gc

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from fitserve.engine.job import Job
from fitserve.signature import Signature

pytestmark = pytest.mark.anyio

X, Y = load_iris(return_X_y=True)


async def together(client, bodies):
    """The replies to requests that come in one turn of the loop."""
    return await asyncio.gather(*(client.post("/predict", json=body) for body in bodies))


def answers(replies):
    assert {reply.status_code for reply in replies} == {200}
    return [(body["prediction"], body["probabilities"]) for body in (reply.json() for reply in replies)]


@pytest.fixture
def tables(monkeypatch):
    """How many rows each call of the batcher had."""
    from fitserve.engine.batcher import Batcher

    seen, submit = [], Batcher.submit

    def note(self, job, **options):
        seen.append(job.n_rows)
        submit(self, job, **options)

    monkeypatch.setattr(Batcher, "submit", note)
    return seen


async def test_rows_that_come_together_are_one_table_and_each_gets_its_own_answer(make_app, client_of, tables):
    app = make_app()
    async with client_of(app) as client:
        alone = [answers([await client.post("/predict", json={"features": list(row)})])[0] for row in X[::10]]
        tables.clear()
        assert answers(await together(client, [{"features": list(row)} for row in X[::10]])) == alone
    assert tables == [len(alone)]


async def test_a_wrong_row_is_refused_alone(make_app, client_of):
    bodies = [{"features": list(row)} for row in X[:5]]
    bodies[2] = {"features": [1.0, "two", 3.0, 4.0]}
    async with client_of(make_app()) as client:
        replies = await together(client, bodies)
    assert [reply.status_code for reply in replies] == [200, 200, 422, 200, 200]
    assert replies[2].json()["errors"][0] | {"hint": None} == {
        "row": None, "column": "x1", "wanted": "a finite number", "came": "a string", "hint": None,
    }  # fmt: skip


class Moody(LogisticRegression):
    """Fails on a row that it does not like, and all that come with it."""

    def predict_proba(self, X):
        if (np.asarray(X)[:, 0] == 13).any():
            raise RuntimeError
        return super().predict_proba(X)


async def test_a_row_on_which_the_model_fails_fails_alone(make_app, client_of, caplog):
    bodies = [{"features": list(row)} for row in X[:6]]
    bodies[3]["features"][0] = 13
    async with client_of(make_app(Moody(max_iter=1000).fit(X, Y))) as client:
        replies = await together(client, bodies)
    assert [reply.status_code for reply in replies] == [200, 200, 200, 500, 200, 200]


async def test_a_row_that_gives_nan_fails_alone_where_nan_is_an_error(make_app, client_of, caplog):
    class Logarithm:
        n_features_in_ = 1

        def predict(self, X):
            with np.errstate(all="ignore"):
                return np.log(np.asarray(X)[:, 0])

    app = make_app(Logarithm(), nonfinite="error")
    async with client_of(app) as client:
        replies = await together(client, [{"features": [value]} for value in (1.0, -1.0, 2.0)])
    assert [reply.status_code for reply in replies] == [200, 500, 200]


async def test_rows_of_several_forms_and_of_mixed_columns_are_answered_as_alone(make_app, client_of):
    table = pd.DataFrame({"age": [1.0, 2.0, 3.0, 4.0] * 5, "city": ["a", "b", "c", "a"] * 5})
    model = make_pipeline(
        make_column_transformer((StandardScaler(), ["age"]), (OneHotEncoder(handle_unknown="ignore"), ["city"])),
        LogisticRegression(),
    ).fit(table, [0, 1, 0, 1] * 5)
    bodies = [
        {"features": {"age": 2.5, "city": "a"}},
        {"features": {"city": "z", "age": 1}},
        {"features": [3.5, "b"]},
        {"features": [{"name": "age", "value": 9}, {"name": "city", "value": "c"}]},
    ]
    async with client_of(make_app(model)) as client:
        alone = [answers([await client.post("/predict", json=body)])[0] for body in bodies]
        assert answers(await together(client, bodies)) == alone


async def test_who_has_gone_costs_nobody_else_an_answer(make_app, client_of):
    app = make_app()
    engine, done = app.services.engine, []
    lease = app.services.catalog.current
    jobs = [engine.begin_row(lease, row.tolist(), done.append) for row in X[:4]]
    jobs[1].cancel()
    while len(done) < 3:
        await asyncio.sleep(0)
    assert done == [jobs[0], jobs[2], jobs[3]]
    assert [int(engine.outputs(job).predictions[job.index]) for job in done] == [0, 0, 0]


async def test_a_request_that_is_cancelled_while_its_table_waits_costs_nobody_else_an_answer(
    make_app, client_of, caplog
):
    async with client_of(make_app()) as client:
        tasks = [asyncio.create_task(client.post("/predict", json={"features": row.tolist()})) for row in X[:4]]
        await asyncio.sleep(0)  # all are submitted, and the table is not yet computed
        tasks[1].cancel()
        async with asyncio.timeout(30):
            found = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(found.pop(1), asyncio.CancelledError)
    assert [reply.status_code for reply in found] == [200, 200, 200]
    assert not caplog.records


async def test_a_callback_that_raises_costs_nobody_else_an_answer(make_app, caplog):
    app = make_app()
    engine, lease, done = app.services.engine, app.services.catalog.current, []

    def fail(job):
        done.append(job)
        raise RuntimeError

    for row in ([1, 2, 3, 4], [1, 2, 3, "four"], [1, 2, 3, 5]):
        engine.begin_row(lease, row, fail)
    for row in ([1, 2, 3, 4], [1, 2, 3, 5]):
        engine.begin_row(lease, row, fail)
    await asyncio.sleep(0.01)
    assert len(done) == 5
    assert "the callback of a job raised" in caplog.text


async def test_a_fault_of_the_check_is_told_to_the_row_that_met_it(make_app, client_of, monkeypatch, caplog):
    check = Signature.check

    def faulty(self, table, **options):
        if any(row[0] == 13 for row in table):
            raise RuntimeError
        return check(self, table, **options)

    monkeypatch.setattr(Signature, "check", faulty)
    async with client_of(make_app()) as client, asyncio.timeout(30):
        replies = await together(client, [{"features": [first, 2, 3, 4]} for first in (1, 13, 3)])
        alone = await client.post("/predict", json={"features": [13, 2, 3, 4]})
    assert [reply.status_code for reply in [*replies, alone]] == [200, 500, 200, 500]


async def test_a_prediction_that_json_cannot_hold_fails_alone(make_app, client_of, caplog):
    class Odd:
        n_features_in_ = 1

        def predict(self, X):
            found = np.empty(len(X), dtype=object)
            found[:] = [{"thirteen"} if value == 13 else value for value in np.asarray(X)[:, 0].tolist()]
            return found

    async with client_of(make_app(Odd())) as client:
        replies = await together(client, [{"features": [value]} for value in (1, 13, 3)])
    assert [reply.status_code for reply in replies] == [200, 500, 200]
    assert [reply.json().get("prediction") for reply in replies] == [1, None, 3]


async def test_a_table_on_which_the_model_fails_is_halved_until_the_row_is_found(make_app, client_of, caplog):
    calls = []

    class Noted(DecisionTreeClassifier):
        def predict_proba(self, X):
            calls.append(len(X))
            if (np.asarray(X)[:, 0] == 13).any():
                raise RuntimeError
            return super().predict_proba(X)

    bodies = [{"features": row.tolist()} for row in X[:32]]
    bodies[20]["features"][0] = 13
    app = make_app(Noted().fit(X, Y))
    calls.clear()
    async with client_of(app) as client:
        replies = await together(client, bodies)
    assert [reply.status_code for reply in replies] == [500 if i == 20 else 200 for i in range(32)]
    assert len(calls) < 20


def on_the_border(model):
    """Rows between two of different label, to the last bit."""
    labels = model.predict(X)
    low = X[labels == 0][:30]
    high = np.resize(X[labels != 0], low.shape)
    for _ in range(60):
        middle = (low + high) / 2
        is_low = (model.predict(middle) == 0)[:, None]
        low, high = np.where(is_low, middle, low), np.where(is_low, high, middle)
    return np.vstack([low, high])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    "model", [LogisticRegression(max_iter=1000), MLPClassifier((30,), max_iter=50, random_state=0), RidgeClassifier()]
)
@pytest.mark.parametrize("optimize", ["off", "auto"])
async def test_no_label_hangs_on_who_asks_at_the_same_time(make_app, client_of, model, optimize, tmp_path, monkeypatch):
    monkeypatch.setattr("fitserve.store.company.BUDGET_S", 60.0)  # so that a busy machine compares as many rows
    app = make_app(model.fit(X, Y), optimize=optimize, cache_dir=tmp_path)
    bodies = [{"features": row} for row in on_the_border(model).tolist()]
    async with client_of(app) as client:
        while optimize == "auto" and (await client.get("/model/info")).json()["optimization"]["state"] == "running":
            await asyncio.sleep(0.05)
        alone = [(await client.post("/predict", json=body)).json()["prediction"] for body in bodies]
        for n in (2, 7, 31):
            replies = [one for i in range(0, len(bodies), n) for one in await together(client, bodies[i : i + n])]
            assert [reply.json()["prediction"] for reply in replies] == alone


def n_jobs():
    return sum(isinstance(one, Job) for one in gc.get_objects())


async def test_requests_leave_no_work_to_the_collector(make_app):
    app = make_app()
    engine, lease, done = app.services.engine, app.services.catalog.current, []
    gc.collect()
    gc.disable()
    try:
        before = n_jobs()
        for n_rows in (1, 2, 30) * 5:
            for row in X[:n_rows]:
                engine.begin_row(lease, row.tolist(), lambda job: done.append(engine.outputs(job) is not None))
            await asyncio.sleep(0.01)
        assert len(done) == 33 * 5
        await asyncio.sleep(0)
        assert n_jobs() == before
    finally:
        gc.enable()
