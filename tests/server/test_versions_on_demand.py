"""A version that has to be loaded first: what the short way hands to the longer one."""

from __future__ import annotations

import asyncio
import re

import joblib
import pytest
from server.raw import WAYS, Connection, post
from sklearn.dummy import DummyRegressor

from fitserve.app import create_app
from fitserve.settings import Settings

pytestmark = pytest.mark.anyio

OLD, NEW = b"/models/price/versions/1/predict", b"/models/price/predict"


@pytest.fixture
def app(tmp_path):
    """Serves version 2 of a model; version 1 is there and not in memory."""
    for version in (1, 2):
        model = DummyRegressor(strategy="constant", constant=float(version)).fit([[0] * 4], [0])
        joblib.dump(model, tmp_path / f"price_v{version}.joblib")
    return create_app(tmp_path, settings=Settings(state_dir=tmp_path / ".state", cache_dir=tmp_path / ".cache"))


@pytest.mark.parametrize("way", WAYS)
async def test_it_is_loaded_and_answers_in_its_turn(app, way):
    connection = Connection(way, app)
    await connection.feed(post(path=NEW))
    await connection.feed(post(path=OLD) + post(path=NEW) + post(path=OLD))
    await answered(connection, 4)  # it is tried in a child first
    await connection.feed(post(path=OLD))
    replies = await answered(connection, 5)
    await connection.drop()

    assert [reply.status for reply in replies] == [200] * 5
    assert re.findall(rb'"prediction":(\S+?),', b"".join(reply.body for reply in replies)) == [
        b"2.0", b"1.0", b"2.0", b"1.0", b"1.0",
    ]  # fmt: skip
    assert app.services.metrics._cells[app.services.metrics._in_flight] == 0


async def answered(connection, n_replies):
    async with asyncio.timeout(60):
        while connection.transport.written.count(b"HTTP/1.1 ") < n_replies:
            await asyncio.sleep(0.001)
    return (await connection.quiet(n_replies)).replies
