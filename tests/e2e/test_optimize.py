"""Compiled engines in real servers: they take over while requests are answered, and are kept for the next start."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import joblib
import numpy as np
import pytest
from e2e import servers
from sklearn.ensemble import RandomForestClassifier

from fitserve.store.engines import INDEX

ROWS = np.random.default_rng(1).normal(size=(40, 6)).round(3).tolist()


@pytest.fixture(scope="module")
def forest(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("forest") / "forest_v1.joblib"
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 6))
    joblib.dump(RandomForestClassifier(60, random_state=0).fit(X, np.where(X[:, 0] * X[:, 1] > 0, "yes", "no")), path)
    return path


def optimization(client) -> dict:
    return client.get("/model/info").json()["optimization"]


def engines(told: dict) -> list[str]:
    return [form["name"] for form in told["forms"]][1:]


def settled(client, log: Path) -> dict:
    servers.wait_until(lambda: optimization(client)["state"] != "running", 120, log)
    return optimization(client)


def answers(client) -> tuple[list, np.ndarray]:
    """Labels and probabilities of all rows, each asked for by itself."""
    replies = [client.post("/predict", json={"features": row}).json() for row in ROWS]
    return [reply["prediction"] for reply in replies], np.array([list(r["probabilities"].values()) for r in replies])


def test_an_engine_takes_over_while_it_serves_and_the_next_start_has_it_at_hand(forest, tmp_path):
    with servers.running("fitserve", forest, tmp_path) as (client, _, log):
        first = client.post("/predict", json={"features": ROWS[0]})
        at_first = optimization(client)["state"]
        before = answers(client)
        told = settled(client, log)
        after = answers(client)

    assert first.status_code == 200
    assert at_first == "running"
    assert (told["state"], told["source"], len(engines(told))) == ("done", "compiled", 1)
    assert before[0] == after[0]
    assert np.allclose(before[1], after[1], rtol=0, atol=1e-6)
    assert f"forest 1 is computed by {engines(told)[0]}" in log.read_text()

    (index,) = (tmp_path / "cache").glob(f"engines/*/*/{INDEX}")
    with servers.running("fitserve", forest, tmp_path) as (client, _, log):
        again = settled(client, log)
        kept = answers(client)
    assert (again["source"], engines(again)) == ("cache", engines(told))
    assert kept[0] == before[0]

    data = index.with_name(f"{engines(told)[0]}.bin")
    data.write_bytes(data.read_bytes()[:-1] + b"?")
    with servers.running("fitserve", forest, tmp_path) as (client, _, log):
        rebuilt = settled(client, log)
        assert answers(client)[0] == before[0]
    assert (rebuilt["source"], engines(rebuilt)) == ("compiled", engines(told))


def test_of_two_workers_one_compiles(forest, tmp_path):
    with servers.running("fitserve, 2 workers", forest, tmp_path) as (client, _, log):

        def have_both() -> bool:
            return log.read_text().count("forest 1 is computed by") == 2

        servers.wait_until(have_both, 120, log)
        sources = set()
        for _ in range(60):  # each with a connection of its own, so that both are asked
            client.headers["Connection"] = "close"
            sources.add(optimization(client)["source"])

    assert len(list((tmp_path / "cache").glob(f"engines/*/*/{INDEX}"))) == 1
    assert sources == {"compiled", "cache"}


def test_it_serves_where_nothing_can_be_kept(forest, tmp_path):
    (tmp_path / "file").write_bytes(b"")

    with servers.running("fitserve", forest, tmp_path, FITSERVE_CACHE_DIR=str(tmp_path / "file")) as (client, _, log):
        told = settled(client, log)
        labels, _ = answers(client)

    assert (told["state"], told["source"]) == ("done", "compiled")
    assert set(labels) == {"yes", "no"}


@pytest.mark.parametrize("kind", ["uvicorn", "gunicorn"])
def test_servers_of_others_have_engines_too(kind, forest, tmp_path):
    with servers.running(kind, forest, tmp_path) as (client, _, log):
        servers.wait_until(lambda: "forest 1 is computed by" in log.read_text(), 120, log)
        labels, _ = answers(client)

    assert set(labels) == {"yes", "no"}


def test_a_server_that_requires_an_engine_does_not_start_without(tmp_path):
    (tmp_path / "own.py").write_text(
        "class Model:\n    example = {'x': 1.0}\n    def predict(self, rows):\n        return [1] * len(rows)\n"
    )
    command = [servers.BIN / "fitserve", "run", "own.py", "--port", "0", "--code-path", ".", "--optimize", "require"]
    environ = {"PATH": os.environ["PATH"], "FITSERVE_CACHE_DIR": str(tmp_path / "cache"), "FITSERVE_LOG_LEVEL": "error"}

    run = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60, check=False)

    assert run.returncode == 1
    assert run.stderr.count("\n") == 1
    assert "the model own has no compiled engine, and optimize = require" in run.stderr


def test_a_server_that_requires_an_engine_has_it_at_its_first_request(forest, tmp_path):
    with servers.running("fitserve", forest, tmp_path, FITSERVE_OPTIMIZE="require") as (client, _, _):
        told = optimization(client)

    assert (told["state"], len(engines(told))) == ("done", 1)
