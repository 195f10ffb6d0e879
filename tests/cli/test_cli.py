"""The commands, as a person types them."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import threading

import httpx2
import joblib
import pytest
from e2e import servers
from sklearn.linear_model import LogisticRegression

ENVIRON = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "NO_COLOR": "1", "COLUMNS": "100", "FITSERVE_OPTIMIZE": "off"}


def fitserve(*words: object, cwd=None, **environ: str) -> subprocess.CompletedProcess:
    command = [str(servers.BIN / "fitserve"), *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, cwd=cwd, env={**ENVIRON, **environ}
    )


@pytest.mark.parametrize(
    "command",
    [[], ["run"], ["dev"], ["check"], ["inspect"], ["pack"], ["convert"], ["demo"], ["config"], ["config", "show"]],
)
def test_every_command_has_help(command):
    run = fitserve(*command, "--help")

    assert run.returncode == 0
    assert "Usage: fitserve" in run.stdout
    assert run.stderr == ""


def test_run_has_a_flag_for_every_setting():
    from fitserve.settings import ENVIRONMENT_ONLY, Settings

    text = fitserve("run", "--help").stdout

    assert [name for name in Settings.model_fields if f"--{name.replace('_', '-')}" not in text] == [
        "model_path",
        *ENVIRONMENT_ONLY,
    ]


def test_check_prints_the_schema(models):
    run = fitserve("check", models / "species_v1.0.pkl")

    assert run.returncode == 0
    for told in ("species 1.0", "LogisticRegression", "x0", "number", "setosa", "it answered", "tried confined: "):
        assert told in run.stdout


def test_check_prints_facts_as_json(models):
    run = fitserve("check", models / "species_v1.0.pkl", "--json")

    facts = json.loads(run.stdout)
    assert facts["version"] == "1.0"
    assert facts["example"] == {"features": [0.0, 0.0, 0.0, 0.0]}


def test_check_compiles_the_model_and_tells_how_its_engines_compare(models, tmp_path):
    words = ["check", models / "cancer_v2.joblib", "--optimize", "auto", "--cache-dir", tmp_path]

    shown = fitserve(*words)
    told = json.loads(fitserve(*words, "--json").stdout)["optimization"]

    assert re.search(r"native +│ +│ +│ [\d,]+ µs", shown.stdout)
    assert re.search(r"onnx-float32 +│ used +│ \S+ +│ [\d.]+ µs", shown.stdout)
    assert "engines were compared with the library on" in shown.stdout
    assert (told["state"], told["source"]) == ("done", "cache")
    assert [entry["verdict"] for entry in told["report"]] == ["used"]


def test_check_leaves_with_the_reason(tmp_path):
    (tmp_path / "model.joblib").write_bytes(b"nonsense")

    missing, broken = fitserve("check", tmp_path / "no.joblib"), fitserve("check", tmp_path / "model.joblib")

    assert (missing.returncode, broken.returncode) == (1, 1)
    assert missing.stderr == f"fitserve: {tmp_path}/no.joblib does not exist\n"
    assert broken.stderr.count("\n") == 1
    assert "damaged" in broken.stderr


def test_check_refuses_a_model_that_fails_its_test_row(tmp_path):
    (tmp_path / "refusing.py").write_text(
        "class Model:\n    n_features_in_ = 2\n    def predict(self, X):\n        raise RuntimeError('secret')\n"
    )
    script = f"import joblib, refusing; joblib.dump(refusing.Model(), {str(tmp_path / 'm_v1.joblib')!r})"
    subprocess.run([str(servers.BIN / "python"), "-c", script], check=True, cwd=tmp_path)

    run = fitserve("check", tmp_path / "m_v1.joblib", "--allow", "refusing.Model", "--code-path", tmp_path)

    assert run.returncode == 1
    assert "has not answered a test row: it raised RuntimeError" in run.stderr
    assert "secret" not in run.stdout + run.stderr


def test_config_show_tells_values_and_origins(tmp_path):
    (tmp_path / "fitserve.toml").write_text("workers = 3")

    table = fitserve("config", "show", "--origin", cwd=tmp_path, PORT="8123")
    shown = json.loads(fitserve("config", "show", "--origin", "--json", cwd=tmp_path, PORT="8123").stdout)
    plain = json.loads(fitserve("config", "show", "--json", cwd=tmp_path).stdout)

    assert "environment PORT" in table.stdout
    assert shown["port"] == {"value": 8123, "origin": "environment PORT"}
    assert shown["workers"] == {"value": 3, "origin": "fitserve.toml"}
    assert shown["host"] == {"value": "127.0.0.1", "origin": "default"}
    assert plain["workers"] == 3


@pytest.mark.parametrize(
    ("words", "environ", "status", "told"),
    [
        (["run"], {}, 1, "no model given"),
        (["run", "x.joblib", "--port", "many"], {}, 2, "port: input should be a valid integer"),
        (["run", "x.joblib"], {"FITSERVE_PROT": "1"}, 2, "did you mean 'FITSERVE_PORT'?"),
        (["run", "x.joblib", "--cors-origins", "*", "--cors-credentials"], {}, 2, "any site act for your users"),
        (["config", "show"], {"WORKERS": "0"}, 2, "workers:"),
        (["run", "x.joblib", "--host", "no.such.host.invalid"], {}, 2, "cannot listen on no.such.host.invalid"),
    ],
)
def test_a_wrong_call_is_told_in_one_line(tmp_path, words, environ, status, told):
    run = fitserve(*words, cwd=tmp_path, **environ)

    assert run.returncode == status
    assert told in run.stderr
    assert run.stderr.count("\n") == 1


def test_a_port_in_use_is_told(models):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        run = fitserve("run", models / "iris_v1.2.3.joblib", "--port", taken.getsockname()[1])

    assert run.returncode == 2
    assert "is in use" in run.stderr
    assert "--port 0" in run.stderr


def test_demo_prints_a_line_that_works(tmp_path):
    process = subprocess.Popen(
        [str(servers.BIN / "fitserve"), "demo", "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=ENVIRON, cwd=tmp_path,
    )  # fmt: skip
    try:
        shown = []
        while not shown or not shown[-1].startswith("curl"):
            shown.append(process.stdout.readline())
            assert shown[-1], "".join(shown)
        words = shlex.split(shown[-1])
        reply = httpx2.post(words[2], content=words[-1], headers={"Content-Type": "application/json"})
    finally:
        servers.stop(process)
        process.stdout.close()

    text = "".join(shown)
    for told in ("iris 1.0.0", "petal_length_cm", "versicolor", "/docs", "/ready"):
        assert told in text
    assert reply.status_code == 200
    assert reply.json()["prediction"] in {"setosa", "versicolor", "virginica"}
    assert process.returncode == 0


def test_dev_serves_a_changed_file_and_outlives_a_broken_one(tmp_path, models):
    path = tmp_path / "model_v1.joblib"
    path.write_bytes((models / "iris_v1.2.3.joblib").read_bytes())
    port = servers.free_port()
    log = (tmp_path / "log").open("w+")
    process = subprocess.Popen(
        [str(servers.BIN / "fitserve"), "dev", str(path), "--port", str(port)],
        stdout=log, stderr=subprocess.STDOUT, env=ENVIRON, cwd=tmp_path,
    )  # fmt: skip
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            servers.wait_until(lambda: servers.is_ready(client, process, tmp_path / "log"), 60)
            path.write_bytes(b"broken")
            servers.wait_until(lambda: "what served before goes on" in (tmp_path / "log").read_text(), 30)
            before = client.post("/predict", json={"features": [5.1, 3.5, 1.4, 0.2]}).json()
            joblib.dump(LogisticRegression().fit([[0] * 4, [9] * 4], ["low", "high"]), path)

            def is_new() -> bool:
                return client.post("/predict", json={"features": [9, 9, 9, 9]}).json()["prediction"] == "high"

            servers.wait_until(is_new, 30)
    finally:
        servers.stop(process)
        log.close()

    assert before["prediction"] == 0


def test_from_a_notebook():
    import fitserve

    model = LogisticRegression().fit([[0] * 4, [9] * 4], ["low", "high"])
    with fitserve.serve(model, name="mine", version="0.1") as served:
        reply = httpx2.post(f"{served.url}/predict", json={"features": [9, 9, 9, 9]})
        shown = served._repr_html_()
        assert served.is_running
        assert threading.main_thread() is threading.current_thread()

    assert reply.json()["prediction"] == "high"
    assert reply.headers["X-Model-Version"] == "0.1"
    assert served.url in shown
    assert not served.is_running
    assert "stopped" in repr(served)
    with pytest.raises(httpx2.TransportError):
        httpx2.get(served.url)


def test_a_notebook_hears_what_is_wrong():
    import fitserve

    with pytest.raises(fitserve.ArtifactError, match="not fitted"):
        fitserve.serve(LogisticRegression())
    with pytest.raises(fitserve.SettingsError, match="did you mean"):
        fitserve.serve(LogisticRegression(), prot=1)
    with pytest.raises(fitserve.SettingsError, match="workers does not apply"):
        fitserve.serve(LogisticRegression(), workers=3)


class Failing:
    n_features_in_ = 1

    def predict(self, X):
        msg = "the reason"
        raise RuntimeError(msg)


def test_a_notebook_is_shown_the_fault_of_its_model(caplog):
    import fitserve

    with fitserve.serve(Failing()) as served:
        reply = httpx2.post(f"{served.url}/predict", json={"features": [1]})

    assert "the reason" in reply.json()["detail"]
    assert "raise RuntimeError(msg)" in caplog.text
