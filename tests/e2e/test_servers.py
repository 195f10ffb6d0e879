"""Each server as a real process: every endpoint, and scikit-learn's own answers on 200 rows."""

from __future__ import annotations

import json
import signal
import sys
import threading
from pathlib import Path

import httpx2
import joblib
import numpy as np
import pandas as pd
import pytest
from e2e import servers
from sklearn.linear_model import LogisticRegression

FILES = {
    "iris_v1.2.3": "iris_v1.2.3.joblib",
    "cancer_v2": "cancer_v2.joblib",
    "diabetes": "diabetes.joblib",
    "species_v1.0": "species_v1.0.pkl",
}


@pytest.mark.parametrize("kind", ["fitserve", "uvicorn", "gunicorn"])
@pytest.mark.parametrize("stem", FILES)
def test_every_endpoint_answers_as_scikit_learn_does(kind, stem, models, datasets, tmp_path):
    path = models / FILES[stem]
    X = datasets[stem]
    estimator = joblib.load(path)
    table = pd.DataFrame(X, columns=estimator.feature_names_in_) if hasattr(estimator, "feature_names_in_") else X
    expected = estimator.predict(table)
    proba = estimator.predict_proba(table) if hasattr(estimator, "predict_proba") else None

    with servers.running(kind, path, tmp_path) as (client, _, log):
        names = [feature["name"] for feature in client.get("/model/info").json()["features"]]
        singles = []
        for i, row in enumerate(X.tolist()):
            forms = (
                row,
                dict(zip(names, row, strict=True)),
                [{"name": n, "value": v} for n, v in zip(names, row, strict=True)],
            )
            reply = client.post("/predict", json={"features": forms[i % 3]})
            assert reply.status_code == 200, reply.text
            singles.append(reply.json())
        batch = client.post("/predict/batch", json={"instances": X.tolist()}).json()
        statuses = {
            url: client.get(url).status_code
            for url in ("/health", "/ready", "/started", "/docs", "/redoc", "/openapi.json", "/model/info")
        }
        reload = client.post("/model/reload?wait=true")

    check_outputs([one["prediction"] for one in singles], expected)
    check_outputs(batch["predictions"], expected)
    if proba is None:
        assert batch["probabilities"] is None
        assert all(one["probability"] is one["probabilities"] is None for one in singles)
    else:
        # One row and 200 rows may be added up in another order: rounding only.
        np.testing.assert_allclose([list(one["probabilities"].values()) for one in singles], proba, rtol=0, atol=1e-12)
        np.testing.assert_allclose([one["probability"] for one in singles], proba.max(axis=1), rtol=0, atol=1e-12)
        np.testing.assert_allclose(batch["probabilities"], proba.max(axis=1), rtol=0, atol=1e-12)
        assert all(list(one["probabilities"]) == [str(label) for label in estimator.classes_] for one in singles)
    assert set(statuses.values()) == {200}
    assert (reload.status_code, reload.json()["status"]) == (200, "unchanged")
    lines = [line for line in log.read_text().splitlines() if '"/predict"' in line or " /predict " in line]
    assert len(lines) == 200, "one access line a request, and none of the server's own"
    assert all(json.loads(line)["model_version"] == batch["model_version"] for line in lines)


def check_outputs(outputs, expected):
    if expected.dtype.kind == "f":
        np.testing.assert_allclose(outputs, expected, rtol=1e-12)
    else:
        assert outputs == expected.tolist()


@pytest.mark.parametrize("kind", servers.COMMANDS)
@pytest.mark.parametrize("fault", ["missing", "truncated", "wrong"])
def test_a_start_that_cannot_succeed_says_why_in_one_line(kind, fault, models, tmp_path):
    path = tmp_path / "model_v1.0.joblib"
    whole = (models / "iris_v1.2.3.joblib").read_bytes()
    if fault == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif fault == "wrong":
        joblib.dump({"not": "a model"}, path)

    process, _, log = servers.start(kind, path, tmp_path)
    # uvicorn with several workers starts a failed one again for ever; there only the line can be asked for.
    is_endless = kind == "uvicorn, 2 workers"
    try:
        if is_endless:
            servers.wait_until(lambda: str(path) in log.read_text(), servers.START_TIMEOUT_S, log)
        else:
            assert process.wait(servers.START_TIMEOUT_S) != 0
    finally:
        servers.stop(process)

    text = log.read_text()
    told = {"missing": "does not exist", "truncated": "is truncated", "wrong": "holds an object of type dict"}[fault]
    lines = [line for line in text.splitlines() if str(path) in line]
    assert lines
    assert all(told in line for line in lines)
    assert len(lines) == 1 or "2 workers" in kind or kind == "gunicorn", "a line a worker at most"
    # gunicorn's arbiter shows one of its own when two workers fail at once; none may be of ours.
    assert "Traceback" not in text or (kind == "gunicorn" and "src/fitserve" not in text)


@pytest.mark.parametrize("kind", servers.COMMANDS)
def test_sigterm_ends_it_with_0_and_nothing_left(kind, models, tmp_path):
    with servers.running(kind, models / "iris_v1.2.3.joblib", tmp_path) as (_, process, log):
        workers = servers.children(process.pid)

        assert servers.stop(process) in ({0, -signal.SIGTERM} if kind.startswith("uvicorn") else {0}), log.read_text()

    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


GATED = """
import os, pathlib, time, uuid
import numpy as np

class Gated:
    n_features_in_ = 1

    def predict(self, X):
        folder = pathlib.Path(os.environ["GATE"])
        if X[0][0] - 1 == 0:  # a text is refused
            for _ in X:  # of two requests that came together, there may be one call
                (folder / f"entered-{uuid.uuid4()}").touch()
            while not (folder / "open").exists():
                time.sleep(0.01)
        return np.zeros(len(X))
"""


UNCONFINED = {"FITSERVE_ALLOW": "gated_model.Gated", "FITSERVE_CONFINE": "off"}
"""The gate is made of files, which a confined process may not write."""


@pytest.fixture
def gated_model(tmp_path, monkeypatch):
    """A model that, asked with one, waits until the file ``open`` is there."""
    (tmp_path / "gated_model.py").write_text(GATED)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "gated_model", raising=False)
    import gated_model as module

    joblib.dump(module.Gated(), tmp_path / "gated_v1.joblib")
    return tmp_path / "gated_v1.joblib"


def in_background(client, n_calls: int) -> tuple[list[threading.Thread], list[int]]:
    statuses: list[int] = []
    calls = [
        threading.Thread(target=lambda: statuses.append(client.post("/predict", json={"features": [1]}).status_code))
        for _ in range(n_calls)
    ]
    for call in calls:
        call.start()
    return calls, statuses


def n_entered(folder: Path) -> int:
    return len(list(folder.glob("entered-*")))


def is_refused(client) -> bool:
    try:
        client.get("/ready", headers={"Connection": "close"})
    except httpx2.TransportError:
        return True
    return False


@pytest.mark.parametrize("kind", ["fitserve", "fitserve, 2 workers"])
def test_what_is_in_flight_is_answered_when_it_stops(kind, gated_model, tmp_path):
    environ = {**UNCONFINED, "PYTHONPATH": str(tmp_path), "GATE": str(tmp_path), "FITSERVE_INFERENCE_THREADS": "2"}
    with servers.running(kind, gated_model, tmp_path, **environ) as (client, process, _):
        calls, statuses = in_background(client, 2)
        servers.wait_until(lambda: n_entered(tmp_path) == 2, 30)
        process.send_signal(signal.SIGTERM)
        with httpx2.Client(base_url=client.base_url) as other:
            servers.wait_until(lambda: is_refused(other), 30)
        (tmp_path / "open").touch()
        for call in calls:
            call.join()
        status = process.wait(30)

    assert statuses == [200] * 2
    assert status == 0


def test_health_answers_while_a_slow_model_runs(gated_model, tmp_path):
    environ = {**UNCONFINED, "PYTHONPATH": str(tmp_path), "GATE": str(tmp_path)}
    with servers.running("fitserve", gated_model, tmp_path, **environ) as (client, _, _):
        calls, statuses = in_background(client, 2)
        servers.wait_until(lambda: n_entered(tmp_path) >= 1, 30)

        healths = [client.get("/health").status_code for _ in range(5)]
        still_running = not statuses
        (tmp_path / "open").touch()
        for call in calls:
            call.join()

    assert still_running
    assert healths == [200] * 5
    assert statuses == [200] * 2


@pytest.mark.parametrize("kind", ["fitserve", "uvicorn"])
def test_sighup_reloads_a_single_process(kind, models, tmp_path):
    path = tmp_path / "model_v1.joblib"
    path.write_bytes((models / "iris_v1.2.3.joblib").read_bytes())
    with servers.running(kind, path, tmp_path) as (client, process, log):
        joblib.dump(LogisticRegression().fit([[0] * 4, [9] * 4], ["low", "high"]), path)
        process.send_signal(signal.SIGHUP)
        servers.wait_until(lambda: "reload of" in log.read_text() and "serves, before" in log.read_text(), 30)
        prediction = client.post("/predict", json={"features": [9, 9, 9, 9]}).json()["prediction"]
        path.write_bytes(b"broken")
        process.send_signal(signal.SIGHUP)
        servers.wait_until(lambda: "what served before goes on" in log.read_text(), 30)
        again = client.post("/predict", json={"features": [9, 9, 9, 9]}).json()["prediction"]

    assert prediction == again == "high"


def test_a_model_that_never_returns_does_not_keep_a_server_from_stopping(gated_model, tmp_path):
    environ = {**UNCONFINED, "PYTHONPATH": str(tmp_path), "GATE": str(tmp_path), "FITSERVE_SHUTDOWN_TIMEOUT_S": "1"}
    with servers.running("fitserve", gated_model, tmp_path, **environ) as (client, process, log):
        calls, statuses = in_background(client, 1)
        servers.wait_until(lambda: n_entered(tmp_path) == 1, 30)

        assert servers.stop(process) == 0
        for call in calls:
            call.join()

    assert statuses == [503]
    assert "Traceback" not in log.read_text()
