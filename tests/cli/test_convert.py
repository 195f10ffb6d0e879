"""``fitserve convert``, as a person types it."""

from __future__ import annotations

import json
import subprocess

import joblib
import pytest
from e2e import servers
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier

ENVIRON = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "NO_COLOR": "1", "COLUMNS": "100"}


@pytest.fixture(scope="module")
def forest(tmp_path_factory):
    path = tmp_path_factory.mktemp("convert") / "iris.joblib"
    joblib.dump(RandomForestClassifier(5, random_state=0).fit(*load_iris(return_X_y=True)), path)
    return path


def convert(*words: object) -> subprocess.CompletedProcess:
    command = [str(servers.BIN / "fitserve"), "convert", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=ENVIRON)


def test_it_prints_what_was_compared_and_how_to_serve_it(forest):
    out = forest.with_name("iris.onnx")

    run = convert(forest, out)

    assert run.returncode == 0, run.stderr
    for told in (
        "301 rows compared: every one answered alike",
        "predict_proba: numbers differ by at most",
        f"run {out}",
    ):
        assert told in run.stdout
    assert "beside the thresholds of trees: none answered otherwise" in run.stdout
    assert out.stat().st_size > 1000


def test_it_prints_the_report_as_json(forest):
    run = convert(forest, forest.with_name("iris.skops"), "--json")

    report = json.loads(run.stdout)
    assert (report["format"], report["n_rows"], report["differences"]) == ("skops", 301, {"predict_proba": 0.0})


def test_it_leaves_with_1_and_the_reason(forest, tmp_path):
    run = convert(tmp_path / "nothing.joblib", tmp_path / "model.onnx")

    assert run.returncode == 1
    assert run.stderr == f"fitserve: {tmp_path / 'nothing.joblib'} does not exist\n"


def test_it_leaves_with_2_where_the_command_is_wrong(forest, tmp_path):
    run = convert(forest, tmp_path / "model.txt")

    assert run.returncode == 2
    assert "wanted a file name that ends with .onnx or .skops" in run.stderr
