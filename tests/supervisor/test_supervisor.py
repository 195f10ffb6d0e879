"""Workers are replaced when they die or when SIGHUP asks, and nobody outlives the supervisor."""

from __future__ import annotations

import contextlib
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import joblib
import pytest
from e2e import servers
from sklearn.linear_model import LogisticRegression

KIND = "fitserve, 2 workers"
ROW = {"features": [9, 9, 9, 9]}
QUICK = {"FITSERVE_LAME_DUCK_S": "0.5"}
"""Connections that clients keep open end soon."""


def test_a_killed_worker_is_replaced_and_the_service_goes_on(models, tmp_path):
    with servers.running(KIND, models / "iris_v1.2.3.joblib", tmp_path) as (client, process, log):
        servers.wait_until(lambda: "is served at" in log.read_text(), 30)  # told when all have started
        first = servers.children(process.pid)
        os.kill(first[0], signal.SIGKILL)

        servers.wait_until(lambda: len(set(servers.children(process.pid)) - {first[0]}) == 2, 30)
        servers.wait_until(lambda: client.get("/ready", headers={"Connection": "close"}).status_code == 200, 30)

        assert len(first) == 2
        assert "is gone: it was ended by signal 9" in log.read_text()


def all_replaced(process, first) -> bool:
    now = servers.children(process.pid)
    return len(now) == len(first) and not set(first) & set(now)


def test_sighup_replaces_every_worker_and_then_serves_the_changed_file(models, tmp_path):
    path = tmp_path / "model_v1.joblib"
    shutil.copy(models / "iris_v1.2.3.joblib", path)
    with servers.running(KIND, path, tmp_path, **QUICK) as (client, process, log):
        servers.wait_until(lambda: "is served at" in log.read_text(), 60)
        first = servers.children(process.pid)
        joblib.dump(LogisticRegression().fit([[0] * 4, [9] * 4], ["low", "high"]), path)

        process.send_signal(signal.SIGHUP)
        servers.wait_until(lambda: all_replaced(process, first), 60)
        fresh = {"Connection": "close"}
        servers.wait_until(lambda: client.post("/predict", json=ROW, headers=fresh).json()["prediction"] == "high", 60)
        predictions = {client.post("/predict", json=ROW, headers=fresh).json()["prediction"] for _ in range(20)}

    assert predictions == {"high"}


def test_sighup_while_it_starts_ends_in_as_many_workers(models, tmp_path):
    with servers.running(KIND, models / "iris_v1.2.3.joblib", tmp_path) as (_, process, log):
        process.send_signal(signal.SIGHUP)  # one is ready, the other may not be
        servers.wait_until(lambda: "SIGHUP: the workers" in log.read_text(), 30)

        servers.wait_until(lambda: "is served at" in log.read_text(), 30)
        servers.wait_until(lambda: len(servers.children(process.pid)) == 2, 60)
        assert process.poll() is None


def test_sighup_with_a_broken_file_replaces_the_workers_and_not_the_model(models, tmp_path):
    path = tmp_path / "model_v1.joblib"
    shutil.copy(models / "iris_v1.2.3.joblib", path)
    with servers.running(KIND, path, tmp_path, **QUICK) as (client, process, log):
        servers.wait_until(lambda: "is served at" in log.read_text(), 60)
        first = servers.children(process.pid)
        path.write_bytes(b"broken")

        process.send_signal(signal.SIGHUP)
        servers.wait_until(lambda: "reload of model failed" in log.read_text(), 60)

        assert all_replaced(process, first)
        assert client.post("/predict", json=ROW).json()["model_version"] == "1"


BROKEN = """
class Model:
    n_features_in_ = 4

    def predict(self, X):
        raise RuntimeError
"""


def test_sighup_with_a_model_that_answers_nothing_goes_on_with_the_one_before(models, tmp_path, monkeypatch):
    (tmp_path / "broken_model.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    import broken_model

    path = tmp_path / "model_v1.joblib"
    shutil.copy(models / "iris_v1.2.3.joblib", path)
    environ = {**QUICK, "FITSERVE_CODE_PATH": str(tmp_path), "FITSERVE_ALLOW": "broken_model.Model"}
    with servers.running(KIND, path, tmp_path, **environ) as (client, process, log):
        joblib.dump(broken_model.Model(), path)

        process.send_signal(signal.SIGHUP)
        servers.wait_until(lambda: "reload of model failed" in log.read_text(), 60)

        assert client.post("/predict", json=ROW).json()["model_version"] == "1"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_it_stops_when_its_terminal_is_closed(workers, models, tmp_path):
    ours, theirs = pty.openpty()
    command = [
        str(servers.BIN / "fitserve"),
        "run",
        str(models / "iris_v1.2.3.joblib"),
        "--port",
        "0",
        "--workers",
        workers,
    ]
    process = subprocess.Popen(
        ["setsid", "--ctty", *command], stdin=theirs, stdout=theirs, stderr=theirs, cwd=tmp_path
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while b"Ctrl-C" not in shown:
        shown += os.read(ours, 65536)
    os.close(ours)

    # 0 as on SIGTERM; 1 if it could not print any more; by the signal itself if it had not settled in yet.
    assert process.wait(30) in {0, 1, -signal.SIGHUP}


def tree(pid: int) -> list[int]:
    """A process, and all that were started by it or by those."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it has ended
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                parents.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for one in found:
        found += parents.get(one, [])
    return found


def named(pid: int, name: str) -> list[int]:
    """Of the processes of a server, those with this name."""
    return [one for one in tree(pid) if Path(f"/proc/{one}/comm").read_text().strip() == name]


def test_nothing_outlives_a_killed_supervisor(models, tmp_path):
    with servers.running(KIND, models / "iris_v1.2.3.joblib", tmp_path, **QUICK) as (_, process, log):
        servers.wait_until(lambda: "is served at" in log.read_text(), 60)
        all_of_it = tree(process.pid)
        process.kill()
        process.wait()

        servers.wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in all_of_it), 60)
    assert len(all_of_it) == 5  # supervisor, nursery and its template, two workers


def test_a_worker_whose_event_loop_is_stuck_is_killed_and_replaced(models, tmp_path):
    environ = {**QUICK, "FITSERVE_HEARTBEAT_TIMEOUT_S": "3"}
    with servers.running(KIND, models / "iris_v1.2.3.joblib", tmp_path, **environ) as (_, process, log):
        servers.wait_until(lambda: "is served at" in log.read_text(), 60)
        stuck, _ = servers.children(process.pid)
        os.kill(stuck, signal.SIGSTOP)

        servers.wait_until(lambda: f"worker {stuck} is killed: its event loop has not moved" in log.read_text(), 60)
        servers.wait_until(lambda: len(set(servers.children(process.pid)) - {stuck}) == 2, 60)


def test_a_worker_that_has_answered_enough_is_recycled_without_losing_a_request(models, tmp_path):
    environ = {**QUICK, "FITSERVE_RECYCLE_REQUESTS": "30"}
    with servers.running(KIND, models / "iris_v1.2.3.joblib", tmp_path, **environ) as (client, process, log):
        servers.wait_until(lambda: "is served at" in log.read_text(), 60)
        first = servers.children(process.pid)
        statuses = []

        def recycled() -> bool:
            statuses.append(client.post("/predict", json=ROW, headers={"Connection": "close"}).status_code)
            return len(set(first) & set(servers.children(process.pid))) == 0

        servers.wait_until(recycled, 60)

    assert set(statuses) == {200}
    assert "requests" in log.read_text()


def test_a_killed_nursery_is_made_anew_and_takes_no_worker_with_it(models, tmp_path):
    with servers.running(KIND, models / "iris_v1.2.3.joblib", tmp_path, **QUICK) as (_, process, log):
        servers.wait_until(lambda: "is served at" in log.read_text(), 60)
        workers = servers.children(process.pid)
        (nursery,) = named(process.pid, "fitserve-nurser")
        os.kill(nursery, signal.SIGKILL)

        servers.wait_until(lambda: log.read_text().count("has loaded the models") == 2, 60)
        assert servers.children(process.pid) == workers
        os.kill(workers[0], signal.SIGKILL)
        servers.wait_until(lambda: len(set(servers.children(process.pid)) - {workers[0]}) == 2, 60)


def is_refused(client) -> bool:
    try:
        client.get("/ready", headers={"Connection": "close"})
    except httpx2.TransportError:
        return True
    return False


STUCK = """
import time

class Stuck:
    n_features_in_ = 4

    def predict(self, X):
        if X[0][0] == 4711:
            time.sleep(600)
        return [0] * len(X)
"""


@pytest.mark.parametrize("kind", ["fitserve", KIND])
def test_ctrl_c_twice_ends_it_at_once(kind, tmp_path, monkeypatch):
    (tmp_path / "stuck_model.py").write_text(STUCK)
    monkeypatch.syspath_prepend(tmp_path)
    import stuck_model

    joblib.dump(stuck_model.Stuck(), tmp_path / "model_v1.joblib")
    monkeypatch.delitem(sys.modules, "stuck_model")
    environ = {"FITSERVE_CODE_PATH": str(tmp_path), "FITSERVE_ALLOW": "stuck_model.Stuck"}
    with (
        servers.running(kind, tmp_path / "model_v1.joblib", tmp_path, **environ) as (client, process, log),
        socket.create_connection((client.base_url.host, client.base_url.port)) as connection,
    ):
        body = b'{"features": [4711, 1, 1, 1]}'
        head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        connection.sendall(head % len(body) + body)
        servers.wait_until(lambda: "fitserve_in_flight 2" in client.get("/metrics").text, 60)
        process.send_signal(signal.SIGINT)
        servers.wait_until(lambda: is_refused(client), 60)
        process.send_signal(signal.SIGINT)

        assert process.wait(15) == 130, log.read_text()


OWN = """
import os

class Model:
    example = {"x": 1.0}

    def start(self):
        self.opened_in = os.getpid()

    def predict(self, rows):
        return [int(self.opened_in == os.getpid())] * len(rows)
"""


def test_a_class_of_ones_own_is_loaded_by_each_worker_for_itself(tmp_path):
    path = tmp_path / "model.py"
    path.write_text(OWN)
    with servers.running(KIND, path, tmp_path, FITSERVE_CODE_PATH=str(tmp_path), **QUICK) as (client, _, log):
        servers.wait_until(lambda: "is served at" in log.read_text(), 60)
        fresh = {"Connection": "close"}
        replies = [client.post("/predict", json={"features": {"x": 1}}, headers=fresh).json() for _ in range(20)]

    assert {reply["prediction"] for reply in replies} == {1}
    assert log.read_text().count("a class of your own may hold what cannot be copied") == 2


def test_workers_stop_with_a_killed_supervisor(models, tmp_path):
    with servers.running(KIND, models / "iris_v1.2.3.joblib", tmp_path, **QUICK) as (_, process, _):
        workers = servers.children(process.pid)
        process.kill()
        process.wait()

        servers.wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), 30)
