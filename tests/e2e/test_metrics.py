"""The metrics of several real processes are one sum, whichever is asked and whatever becomes of them."""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from e2e import servers
from prometheus_client import parser

FRESH = {"Connection": "close"}
GOOD = {"features": [5.1, 3.5, 1.4, 0.2]}

SEVERAL = ["fitserve, 2 workers", "uvicorn, 2 workers", "gunicorn"]


@contextmanager
def only(pid: int, pids: list[int]):
    """Hold the other workers, so that this one answers."""
    others = [other for other in pids if other != pid]
    for other in others:
        os.kill(other, signal.SIGSTOP)
    try:
        yield
    finally:
        for other in others:
            os.kill(other, signal.SIGCONT)


def send(client, n_good: int, n_bad: int, n_elsewhere: int) -> None:
    for i in range(n_good):
        assert client.post("/predict", json=GOOD, headers=FRESH if i % 2 else {}).status_code == 200
    for _ in range(n_bad):
        assert client.post("/predict", json={"features": ["x"]}).status_code == 422
    for i in range(n_elsewhere):
        assert client.get(f"/elsewhere/{i}", headers=FRESH).status_code == 404


def scrape(client) -> dict[str, float]:
    """What a scrape by a new connection says of what :func:`send` has sent, and of the processes."""
    reply = client.get("/metrics", headers=FRESH)
    assert reply.status_code == 200
    found: dict[str, float] = {}
    for family in parser.text_string_to_metric_families(reply.text):
        for sample in family.samples:
            labels = sample.labels
            if sample.name == "fitserve_requests_total" and labels["route"] in {"/predict", "other"}:
                found[labels["status"]] = sample.value
            elif sample.name == "fitserve_request_seconds_count" and labels["route"] == "/predict":
                found["timed"] = sample.value
            elif sample.name in {"fitserve_workers", "fitserve_in_flight", "fitserve_model_info"}:
                found[sample.name] = sample.value
    return found


def assert_scrape(client, wanted: dict[str, float], pid: int, pids: list[int]) -> None:
    """This worker says so, as soon as the others have counted what they answered last."""
    deadline = time.monotonic() + 5
    found = None
    while found != wanted and time.monotonic() < deadline:
        with only(pid, pids):
            found = scrape(client)

    assert found == wanted


def expected(n_good: int, n_bad: int, n_elsewhere: int, n_workers: int = 2) -> dict[str, float]:
    return {
        "200": n_good,
        "422": n_bad,
        "404": n_elsewhere,
        "timed": n_good + n_bad,
        "fitserve_workers": n_workers,
        "fitserve_in_flight": 1,
        "fitserve_model_info": 1,
    }


def folders(process) -> list[Path]:
    pattern = f"fitserve-run-{os.geteuid()}-{process.pid}-*"
    return [*Path("/dev/shm").glob(pattern), *Path("/tmp").glob(pattern)]


@pytest.mark.parametrize("kind", SEVERAL)
def test_a_scrape_says_exactly_what_was_sent_whoever_answers_and_whoever_has_ended(kind, models, tmp_path):
    with servers.running(kind, models / "iris_v1.2.3.joblib", tmp_path) as (client, process, log):
        servers.wait_until(lambda: log.read_text().count(" serves iris") == 2, servers.START_TIMEOUT_S, log)
        workers = servers.children(process.pid)
        for n, pid in enumerate(workers, start=1):
            client.get("/ready", headers=FRESH)  # or its connection could lead to one that is held
            with only(pid, workers):
                send(client, 10 * n, 2 * n, n)
                client.get("/ready", headers=FRESH)

        for pid in workers * 2:
            assert_scrape(client, expected(30, 6, 3), pid, workers)

        os.kill(workers[0], signal.SIGKILL)
        servers.wait_until(lambda: len(set(servers.children(process.pid)) - {workers[0]}) == 2, 30, log)
        servers.wait_until(lambda: log.read_text().count(" serves iris") == 3, 30, log)
        workers = servers.children(process.pid)
        assert_scrape(client, expected(30, 6, 3), workers[0], workers)
        send(client, 4, 2, 1)
        for pid in workers:
            assert_scrape(client, expected(34, 8, 4), pid, workers)
        assert len(folders(process)) == 1
        if kind.startswith("fitserve"):
            process.send_signal(signal.SIGHUP)
            servers.wait_until(lambda: not set(workers) & set(servers.children(process.pid)), 60, log)
            servers.wait_until(lambda: scrape(client)["fitserve_workers"] == 2, 10, log)
            workers = servers.children(process.pid)
            assert_scrape(client, expected(34, 8, 4), workers[0], workers)
            left = [path for path in folders(process)[0].iterdir() if path.suffix in {".cells", ".names"}]
            assert len(left) <= 4, "two files a worker: what has ended is added up"

    assert (folders(process) == []) == kind.startswith("fitserve")
    for folder in folders(process):
        shutil.rmtree(folder)
    assert "metrics of process" not in log.read_text()
