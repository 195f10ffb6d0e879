"""A process that fetches for those that may not connect: shared, confined to one URL, and gone when they are."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from web import File, Web

from fitserve.confine.sandbox import Sandbox, enter
from fitserve.errors import ArtifactError, ArtifactNotFoundError, SettingsError
from fitserve.settings import Settings
from fitserve.store.fetch import Progress
from fitserve.store.fetcher import Fetcher
from fitserve.urls import SourceUrl

BODY = os.urandom(2_000_000)


@pytest.fixture
def web():
    server = Web()
    server.files["/m_v1.joblib"] = File(BODY)
    yield server
    server.close()


@pytest.fixture
def start(web, tmp_path):
    """Start fetchers for paths of the server; each is ended."""
    started: list[Fetcher] = []

    def start(path: str = "/m_v1.joblib", **settings: object) -> Fetcher:
        url = path if ":" in path else web.url + path
        started.append(Fetcher.start(SourceUrl(url), Settings(**{"cache_dir": tmp_path / "cache", **settings})))
        return started[-1]

    yield start
    for fetcher in started:
        fetcher.close()


def wait_until(holds) -> bool:
    end_s = time.monotonic() + 60
    while not (found := holds()) and time.monotonic() < end_s:
        time.sleep(0.02)
    return found


def in_a_child(work) -> dict:
    """What a forked child says that it found: its return value as JSON."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            try:
                told = work()
            except Exception as exc:  # noqa: BLE001 - told to the test
                told = {"raised": f"{type(exc).__name__}: {exc}"}
            os.write(writing, json.dumps(told).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        told = file.read()
    os.waitpid(pid, 0)
    return json.loads(told)


def test_it_fetches_and_tells_how_far_it_is(start, tmp_path):
    seen: list[Progress] = []
    fetcher = start()

    snapshot = fetcher.fetch(progress=seen.append)

    assert snapshot.path.read_bytes() == BODY
    assert snapshot.path.is_relative_to(tmp_path / "cache" / "sources")
    assert snapshot.fingerprint == fetcher.fingerprint()
    assert {one.n_bytes for one in seen} == {len(BODY)}


def test_it_tells_of_a_change_without_fetching(start, web):
    fetcher = start()
    first = fetcher.fetch().fingerprint
    web.files["/m_v1.joblib"] = File(BODY + b"more")
    n_bodies = len(web.bodies("/m_v1.joblib"))

    assert fetcher.fingerprint() != first
    assert len(web.bodies("/m_v1.joblib")) == n_bodies


def test_its_errors_are_those_of_fetching(start):
    fetcher = start("/none.joblib")

    with pytest.raises(ArtifactNotFoundError, match=r"/none\.joblib: there is no such object"):
        fetcher.fetch()
    with pytest.raises(ArtifactNotFoundError):
        fetcher.fingerprint()


def test_a_url_of_no_source_is_a_wrong_setting(start):
    with pytest.raises(SettingsError, match="is of no kind that is known here"):
        start("ftp://h/x").fetch()


def test_nobody_sees_the_secrets_of_the_url_among_the_arguments(start, web):
    fetcher = start(f"http://anna:pa55word@{web.url.removeprefix('http://')}/m_v1.joblib?sig=5ecret")
    fetcher.fetch()

    arguments = Path(f"/proc/{fetcher._process.pid}/cmdline").read_bytes()

    assert b"5ecret" not in arguments
    assert b"pa55word" not in arguments


def test_several_threads_and_processes_share_it(start):
    fetcher = start()

    def work() -> dict:
        return {"bytes": len(fetcher.fetch().path.read_bytes())}

    with ThreadPoolExecutor(2) as threads:
        jobs = [threads.submit(work) for _ in range(4)]
        assert [job.result() for job in jobs] == [{"bytes": len(BODY)}] * 4
    assert [in_a_child(work) for _ in range(2)] == [{"bytes": len(BODY)}] * 2


def test_a_confined_process_has_things_fetched_and_reaches_nothing_itself(start, web):
    fetcher = start()

    def work() -> dict:
        enter(Sandbox())
        try:
            socket.create_connection(("127.0.0.1", int(web.url.rpartition(":")[2])), 5).close()
            reaches = "the server"
        except OSError:
            reaches = "nothing"
        return {"reaches": reaches, "bytes": len(fetcher.fetch().path.read_bytes())}

    assert in_a_child(work) == {"reaches": "nothing", "bytes": len(BODY)}


def test_another_program_takes_it_by_its_descriptor(start):
    fetcher = start()
    program = (
        "import sys; from fitserve.store.fetcher import Fetcher; from fitserve.urls import SourceUrl;"
        "print(Fetcher.of_descriptor(int(sys.argv[1]), SourceUrl(sys.argv[2])).fetch().path.stat().st_size)"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, str(fetcher.fileno()), str(fetcher.url)],
        pass_fds=(fetcher.fileno(),),
        capture_output=True,
        timeout=120,
        check=True,
    )

    assert int(done.stdout) == len(BODY)


def test_it_is_given_up_in_time_and_goes_on_the_next_time(start, web):
    web.files["/slow.joblib"] = File(BODY)
    fetcher = start("/slow.joblib")

    with pytest.raises(ArtifactError, match="was not fetched in time"):
        fetcher.fetch(timeout_s=3)
    web.hold.set()

    assert fetcher.fetch().path.read_bytes() == BODY


def test_orders_that_are_none_do_it_no_harm(start):
    fetcher = start()
    for order in (b"", b"{}\n", b"[1]\n", b"null\n", b"\xff\n", b"x" * 10_000):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            socket.send_fds(fetcher._control, [b"\1"], [theirs.fileno()])
            with suppress(OSError):
                ours.sendall(order)
    fetcher._control.send(b"\1")

    assert fetcher.fetch().path.read_bytes() == BODY


def test_it_ends_when_the_last_that_had_it_has_ended(start, web):
    web.files["/slow.joblib"] = File(BODY)
    fetcher = start("/slow.joblib")
    process = fetcher._process
    copy = Fetcher.of_descriptor(os.dup(fetcher.fileno()), fetcher.url)

    fetcher._control.close()
    assert process.poll() is None
    assert copy.fingerprint()
    copy.close()

    assert wait_until(lambda: process.poll() is not None)


def test_one_that_has_ended_is_told_of(start):
    fetcher = start()
    fetcher._process.kill()
    fetcher._process.wait()

    with pytest.raises(ArtifactError, match="does not run any more"):
        fetcher.fetch()


def test_where_nothing_can_be_kept_it_is_kept_as_long_as_it_runs(start, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    fetcher = start(cache_dir=tmp_path / "file")
    path = fetcher.fetch().path
    assert path.read_bytes() == BODY

    fetcher.close()

    assert not path.exists()
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_folder_that_others_reach_is_refused(start, tmp_path):
    (tmp_path / "cache" / "sources").mkdir(parents=True)
    (tmp_path / "cache" / "sources").chmod(0o777)

    with pytest.raises(SettingsError, match="others can reach"):
        start()
