"""Workers are replaced when they die or when SIGHUP asks, and nobody outlives the supervisor."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
from pathlib import Path

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


def test_workers_stop_with_a_killed_supervisor(models, tmp_path):
    with servers.running(KIND, models / "iris_v1.2.3.joblib", tmp_path, **QUICK) as (_, process, _):
        workers = servers.children(process.pid)
        process.kill()
        process.wait()

        servers.wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), 30)
