"""Where models are read from: a path as it is, a URL fetched; and what is noticed of a change."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys

import pytest
from web import File, Web

from fitserve.errors import ArtifactError, SettingsError
from fitserve.settings import Settings
from fitserve.store.fetcher import Fetcher
from fitserve.store.fetching import Progress
from fitserve.store.origin import TELLS_EACH_S, Origin, logged
from fitserve.urls import SourceUrl

pytestmark = pytest.mark.anyio

INTERVAL_S = 0.05


@pytest.fixture
def web():
    server = Web()
    server.files["/m_v1.joblib"] = File(b"one")
    yield server
    server.close()


@pytest.fixture
def origin(web, tmp_path):
    url = f"{web.url}/m_v1.joblib"
    fetcher = Fetcher.start(SourceUrl(url), Settings(cache_dir=tmp_path))
    yield Origin(SourceUrl(url), fetcher)
    fetcher.close()


async def first_of(changes) -> None:
    async with asyncio.timeout(60):
        async for _ in changes:
            return


def test_a_path_is_read_where_it_is(tmp_path):
    assert Origin(tmp_path).here() == tmp_path


def test_a_url_is_read_where_its_snapshot_is(origin, web):
    assert origin.here().read_bytes() == b"one"
    web.files["/m_v1.joblib"] = File(b"two")

    assert origin.here().read_bytes() == b"two"


def test_a_url_without_a_fetcher_is_refused():
    with pytest.raises(SettingsError, match="s3://b/k is a URL, and nobody has been started who fetches it"):
        Origin(SourceUrl("s3://b/k"))


def test_what_was_fetched_last_is_read_with_a_warning(origin, web, caplog):
    first = origin.here()
    web.close()

    with pytest.raises(ArtifactError, match="cannot be reached"):
        origin.here()
    assert origin.here(or_kept=True) == first
    assert "cannot be reached (the connection was refused): what was fetched last is read" in caplog.text


async def test_a_change_is_noticed_once_it_has_been_left_alone(origin, web):
    await asyncio.to_thread(origin.here)
    changes = origin.changes("poll", INTERVAL_S)
    waiting = asyncio.create_task(first_of(changes))
    async with asyncio.timeout(60):
        while len(web.asked) < 20:
            await asyncio.sleep(INTERVAL_S)
    assert not waiting.done()

    web.files["/m_v1.joblib"] = File(b"two")

    await waiting
    assert (await asyncio.to_thread(origin.here)).read_bytes() == b"two"


async def test_what_has_been_read_meanwhile_is_no_change(origin, web):
    await asyncio.to_thread(origin.here)
    web.files["/m_v1.joblib"] = File(b"two")
    await asyncio.to_thread(origin.here)
    web.asked.clear()

    waiting = asyncio.create_task(first_of(origin.changes("poll", INTERVAL_S)))
    async with asyncio.timeout(60):
        while len(web.asked) < 20:
            await asyncio.sleep(INTERVAL_S)

    assert not waiting.done()
    waiting.cancel()


async def test_a_source_that_is_away_is_told_of_once_and_asked_again(origin, web, caplog):
    await asyncio.to_thread(origin.here)
    file = web.files["/m_v1.joblib"]
    file.status = 403
    waiting = asyncio.create_task(first_of(origin.changes("poll", INTERVAL_S)))
    async with asyncio.timeout(60):
        while len(web.asked) < 30:
            await asyncio.sleep(INTERVAL_S)

    web.files["/m_v1.joblib"] = File(b"two")
    await waiting

    assert caplog.text.count("is asked again every") == 1


def test_the_log_tells_how_far_it_is_every_now_and_then(caplog):
    caplog.set_level(logging.INFO)
    times = iter([0.0, 1.0, TELLS_EACH_S, TELLS_EACH_S, TELLS_EACH_S + 1])
    tell = logged(SourceUrl("s3://b/k"), lambda: next(times))

    for n in range(3):
        tell(Progress(20_000_000, 5_000_000 * n, 2, 0))

    assert [record.getMessage() for record in caplog.records] == ["s3://b/k: 5 of 20 MB, 0 of 2 files"]


def test_nothing_is_imported_that_a_process_must_not_have_before_it_is_confined():
    """NumPy starts threads, which would not be confined."""
    program = "import sys, fitserve.store.fetcher, fitserve.store.origin, fitserve.cli.progress; print(*sys.modules)"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)

    assert {"numpy", "obstore", "mlflow"}.isdisjoint(done.stdout.split())
