"""A model of the operator's own opens its pools when it is loaded, and closes them when nobody uses it any more."""

from __future__ import annotations

import asyncio
import gc

import faulty
import pytest
from e2e import servers
from fleet.fleets import Member, members, settings_of

from fitserve.errors import ArtifactError
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


@pytest.fixture
def path(tmp_path):
    faulty.STOPPED.clear()
    (tmp_path / "model.py").write_text(POOLED.replace("VERSION", "one"))
    return tmp_path / "model.py"


@pytest.mark.anyio
async def test_the_old_model_stops_when_its_last_request_has_let_go(path, tmp_path):
    async with members(path, tmp_path, code_path=(tmp_path,), rollback_hold_s=0.0) as (member,):
        lease = member.catalog.lease(ModelRef())
        await asyncio.to_thread(path.write_text, POOLED.replace("VERSION", "two"))

        await member.ended("reload")
        while_held = list(faulty.STOPPED)
        del lease
        gc.collect()
        await asyncio.to_thread(servers.wait_until, lambda: faulty.STOPPED == ["one"], 10)

    assert while_held == []


@pytest.mark.anyio
async def test_a_model_that_is_held_for_a_roll_back_is_not_stopped(path, tmp_path):
    async with members(path, tmp_path, code_path=(tmp_path,)) as (member,):
        await asyncio.to_thread(path.write_text, POOLED.replace("VERSION", "two"))
        await member.ended("reload")
        gc.collect()

        back = await member.ended("rollback")

    assert back.state == "done"
    assert faulty.STOPPED == []


@pytest.mark.anyio
async def test_the_model_that_serves_stops_with_the_server(path, tmp_path):
    async with members(path, tmp_path, code_path=(tmp_path,)) as (member,):
        await member.lifecycle.stop()

    assert faulty.STOPPED == ["one"]


def test_a_start_that_raises_is_told(path, tmp_path):
    path.write_text(POOLED.replace("self.is_open = True", "raise ConnectionError('no database')"))

    with pytest.raises(ArtifactError, match=r"start\(\).*ConnectionError"):
        Member(path, settings_of(tmp_path, code_path=(tmp_path,)), None).lifecycle.start()
