"""A model of the operator's own opens its pools when it is loaded, and closes them when nobody uses it any more."""

from __future__ import annotations

import asyncio
import gc

import faulty
import pytest
from e2e import servers

from fitserve.errors import ArtifactError
from fitserve.fleet.lifecycle import Lifecycle
from fitserve.store.catalog import Catalog
from fitserve.store.verify import Verifier
from fitserve.trust.policy import TrustPolicy
from fitserve.types import ModelRef

POOLED = """
import faulty

class Model:
    example = {"x": 1.0}

    def start(self):
        self.is_open = True

    def stop(self):
        faulty.STOPPED.append("VERSION")

    def predict(self, rows):
        assert self.is_open
        return ["VERSION"] * len(rows)
"""


async def off_loop(call):
    return await asyncio.to_thread(call)


@pytest.fixture
def path(tmp_path):
    faulty.STOPPED.clear()
    (tmp_path / "model.py").write_text(POOLED.replace("VERSION", "one"))
    return tmp_path / "model.py"


@pytest.fixture
def lifecycle(path):
    found = Lifecycle(Catalog(), path, Verifier(TrustPolicy(code_path=(path.parent,))))
    found.start()
    return found


@pytest.mark.anyio
async def test_the_old_model_stops_when_its_last_request_has_let_go(lifecycle, path):
    lease = lifecycle._catalog.lease(ModelRef())
    await asyncio.to_thread(path.write_text, POOLED.replace("VERSION", "two"))

    await lifecycle.reload(off_loop)
    while_held = list(faulty.STOPPED)
    del lease
    gc.collect()
    await asyncio.to_thread(servers.wait_until, lambda: faulty.STOPPED == ["one"], 10)

    assert while_held == []


@pytest.mark.anyio
async def test_the_model_that_serves_stops_with_the_server(lifecycle):
    await lifecycle.stop(off_loop)

    assert faulty.STOPPED == ["one"]


def test_a_start_that_raises_is_told(path):
    path.write_text(POOLED.replace("self.is_open = True", "raise ConnectionError('no database')"))

    with pytest.raises(ArtifactError, match=r"start\(\).*ConnectionError"):
        Lifecycle(Catalog(), path, Verifier(TrustPolicy(code_path=(path.parent,)))).start()
