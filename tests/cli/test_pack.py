"""``fitserve pack``, as a person types it."""

from __future__ import annotations

import json
import subprocess

import pytest
from e2e import servers

from fitserve.store.repository import read_artifact

ENVIRON = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "NO_COLOR": "1", "COLUMNS": "100", "FITSERVE_OPTIMIZE": "off"}


def fitserve(*words: object, cwd=None, **environ: str) -> subprocess.CompletedProcess:
    command = [str(servers.BIN / "fitserve"), *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, cwd=cwd, env={**ENVIRON, **environ}
    )


def test_a_model_is_packed_in_a_confined_child(models, tmp_path):
    (tmp_path / "rows.csv").write_text("a,b,c,d\n5.1,3.5,1.4,0.2\n6.0,,4.0,1.0\n".replace(",,", ",3.0,"))
    words = ["--out", tmp_path / "out", "--examples", tmp_path / "rows.csv", "--metadata", "owner=botany"]

    run = fitserve("pack", models / "species_v1.0.pkl", *words)
    artifact = read_artifact(tmp_path / "out")

    assert run.returncode == 0, run.stderr
    for told in (
        "species 1.0",
        "manifest.toml",
        "2 golden samples, of your example rows",
        f"--pin sha256:{artifact.digest}",
    ):
        assert told in run.stdout
    assert artifact.golden.outputs["predict"][0] == "setosa"
    assert artifact.metadata == {"owner": "botany"}


def test_what_was_written_is_printed_as_json(models, tmp_path):
    run = fitserve("pack", models / "iris_v1.2.3.joblib", "-o", "out", "--version", "2", "--json", cwd=tmp_path)

    written = json.loads(run.stdout)
    assert written["version"] == "2"
    assert written["golden"]["is_ok"]
    assert set(written["files"]) == {"iris_v1.2.3.joblib", "golden.json", "manifest.toml"}


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["--metadata", "owner"], 2, "wanted KEY=VALUE, came 'owner'"),
        (["--version", "1 2"], 2, "--version: '1 2' is none"),
        (["--classes", "only"], 2, "at least two different labels"),
        (["--examples", "none.csv"], 1, "none.csv does not exist"),
        (["--trust", "everything"], 2, "trust: "),
    ],
)
def test_a_wrong_call_is_told_in_one_line(models, tmp_path, words, status, told):
    run = fitserve("pack", models / "iris_v1.2.3.joblib", "--out", "out", *words, cwd=tmp_path)

    assert run.returncode == status
    assert told in run.stderr
    assert run.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_not_trusted_is_told_with_what_would_let_it(models, tmp_path):
    run = fitserve("pack", models / "iris_v1.2.3.joblib", "--out", "out", "--trust", "data", cwd=tmp_path)

    assert run.returncode == 1
    assert "which can run code when it is loaded" in run.stderr
    assert "--trust allowlist" in run.stderr
    assert not (tmp_path / "out").exists()


def test_a_class_of_the_notebook_is_told_with_what_to_do(tmp_path):
    script = (
        "import joblib\n"
        "from sklearn.linear_model import LogisticRegression\n"
        "class Mine(LogisticRegression): pass\n"
        "joblib.dump(Mine().fit([[0.], [1.]], [0, 1]), 'mine.joblib')\n"
    )
    subprocess.run([str(servers.BIN / "python"), "-c", script], check=True, cwd=tmp_path)

    run = fitserve("pack", "mine.joblib", "--out", "out", cwd=tmp_path)

    assert run.returncode == 1
    assert "__main__" in run.stderr
    assert "Mine" in run.stderr
    assert "--code-path DIR" in run.stderr


def test_a_class_that_a_pickle_carries_along_is_warned_of(tmp_path):
    script = (
        "import cloudpickle\n"
        "from sklearn.linear_model import LogisticRegression\n"
        "class Mine(LogisticRegression):\n"
        "    pass\n"
        "open('mine.pkl', 'wb').write(cloudpickle.dumps(Mine().fit([[0], [1]], [0, 1])))\n"
    )
    subprocess.run([str(servers.BIN / "python"), "-c", script], check=True, cwd=tmp_path)

    run = fitserve("pack", "mine.pkl", "--out", "out", "--trust", "any", "--json", cwd=tmp_path)

    (warning,) = json.loads(run.stdout)["warnings"]
    assert "holds Mine, defined in a notebook or script" in warning
    assert "fitserve convert mine.pkl OUT.onnx" in warning
