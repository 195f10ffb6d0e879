"""Servers of models that lie at URLs: fetched at the start, fetched again by a reload, confined all the same."""

from __future__ import annotations

import io
import os
import subprocess
from pathlib import Path

import joblib
import pytest
from buckets import s3
from e2e import servers
from sklearn.dummy import DummyRegressor
from web import File, Web


def model(value: float) -> bytes:
    file = io.BytesIO()
    joblib.dump(DummyRegressor(strategy="constant", constant=value).fit([[0.0]], [0.0]), file)
    return file.getvalue()


@pytest.fixture
def web():
    server = Web()
    server.files["/models/answer_v1.0.0.joblib"] = File(model(1.0))
    yield server
    server.close()


def answer(client) -> tuple[float, str]:
    reply = client.post("/predict", json={"features": [0.0]})
    assert reply.status_code == 200, reply.text
    return reply.json()["prediction"], reply.headers["X-Model-Version"]


def reload(client) -> None:
    reply = client.post("/model/reload", params={"wait": "true"})
    assert reply.status_code == 200, reply.text


@pytest.mark.parametrize("kind", ["fitserve", "fitserve, 2 workers", "uvicorn, 2 workers"])
def test_a_file_of_a_web_server_is_served_and_fetched_again_by_a_reload(kind, web, tmp_path):
    url = f"http://anna:pa55word@{web.url.removeprefix('http://')}/models/answer_v1.0.0.joblib"

    with servers.running(kind, url, tmp_path, FITSERVE_OPTIMIZE="off", FITSERVE_STATE_DIR=str(tmp_path)) as server:
        client, _, log = server
        assert answer(client) == (1.0, "1.0.0")
        web.files["/models/answer_v1.0.0.joblib"] = File(model(2.0))

        reload(client)

        assert {answer(client)[0] for _ in range(20)} == {2.0}
        assert answer(client)[1].startswith("1.0.0+")
    assert "pa55word" not in log.read_text()
    assert "Traceback" not in log.read_text()


def test_a_bucket_is_a_repository_whose_new_version_a_watcher_takes(tmp_path):
    with s3() as (bucket, environ):
        for version, value in (("1.9.0", 1.9), ("1.10.0", 1.1)):
            bucket.put_object(Bucket="models", Key=f"prod/answer/{version}/model.joblib", Body=model(value))
        settings = {
            "FITSERVE_OPTIMIZE": "off",
            "FITSERVE_WATCH": "poll",
            "FITSERVE_WATCH_INTERVAL_S": "0.2",
            "FITSERVE_STATE_DIR": str(tmp_path / "state"),
        }
        with servers.running("fitserve, 2 workers", "s3://models/prod", tmp_path, **settings, **environ) as server:
            client, _, log = server
            assert answer(client) == (1.1, "1.10.0")

            bucket.put_object(Bucket="models", Key="prod/answer/2.0.0/model.joblib", Body=model(2.0))

            servers.wait_until(lambda: answer(client) == (2.0, "2.0.0"), 90, log)
    assert "5ecret" not in log.read_text()


def test_a_server_starts_with_what_was_fetched_last_while_the_source_is_away(web, tmp_path):
    url = f"{web.url}/models/answer_v1.0.0.joblib"
    with servers.running("fitserve", url, tmp_path, FITSERVE_OPTIMIZE="off"):
        pass
    web.close()

    with servers.running("fitserve", url, tmp_path, FITSERVE_OPTIMIZE="off") as (client, _, log):
        assert answer(client) == (1.0, "1.0.0")
        assert client.post("/model/reload", params={"wait": "true"}).status_code == 422
        assert answer(client) == (1.0, "1.0.0")

    assert "what was fetched last is read" in log.read_text()


def test_a_server_whose_model_cannot_be_fetched_says_so_and_ends(web, tmp_path):
    process, _, log = servers.start("fitserve, 2 workers", f"{web.url}/none.joblib?sig=5ecret", tmp_path)

    assert process.wait(120) == 1
    assert log.read_text().strip().endswith("/none.joblib: there is no such object")


@pytest.mark.parametrize("kind", ["fitserve", "fitserve, 2 workers"])
def test_the_process_that_fetches_ends_with_its_server_however_it_ends(kind, web, tmp_path):
    url = f"{web.url}/models/answer_v1.0.0.joblib"
    with servers.running(kind, url, tmp_path, FITSERVE_OPTIMIZE="off") as (_, process, _):
        (fetcher,) = fetchers_of(process.pid)

        process.kill()
        process.wait(60)

        servers.wait_until(lambda: not Path(f"/proc/{fetcher}").exists(), 60)


def fetchers_of(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and "fetcher_program" in (entry / "cmdline").read_text():
                found.append(int(entry.name))
        except (OSError, IndexError, ValueError):
            continue
    return found


@pytest.mark.parametrize("command", ["check", "inspect"])
def test_a_model_at_a_url_is_looked_at_before_it_is_served(command, web, tmp_path):
    place = f"http://anna:pa55word@{web.url.removeprefix('http://')}/models/answer_v1.0.0.joblib"
    environ = {**os.environ, "FITSERVE_CACHE_DIR": str(tmp_path / "cache")}

    done = subprocess.run(
        [servers.BIN / "fitserve", command, place],
        check=False,
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
    )

    assert done.returncode == 0, done.stderr
    assert "answer" in done.stdout
    assert "pa55word" not in done.stdout + done.stderr
