"""``fitserve check`` and ``fitserve inspect`` of a folder of several models."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from sklearn.linear_model import LogisticRegression
from typer.testing import CliRunner

from fitserve.cli import build_cli

MODEL = pickle.dumps(LogisticRegression().fit([[0.0], [1.0]], [0, 1]))


@pytest.fixture
def models(tmp_path) -> Path:
    root = tmp_path / "our models"
    for path in ("churn/1.0.0/m.pkl", "churn/1.10.0/m.pkl", "churn/1.9.0/m.pkl", "iris_v2.pkl"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(MODEL)
    (root / "bad_v1.pkl").touch()
    return root


def fitserve(*words: object):
    return CliRunner().invoke(build_cli(), list(map(str, words)), env={"COLUMNS": "200", "NO_COLOR": "1"})


@pytest.mark.parametrize("command", ["check", "inspect"])
def test_the_models_of_a_repository_are_shown(models, command):
    run = fitserve(command, models)

    lines = [line.split("│")[1:-1] for line in run.stdout.splitlines() if "│" in line]
    assert [[cell.strip() for cell in line] for line in lines] == [
        ["churn", "1.10.0", "churn/1.10.0"],
        ["", "1.9.0", "churn/1.9.0"],
        ["", "1.0.0", "churn/1.0.0"],
        ["iris", "2", "iris_v2.pkl"],
    ]
    assert "skipped: bad_v1.pkl is empty" in run.stdout
    assert f"fitserve {command} '{models}/churn/1.10.0'" in run.output


def test_checking_a_repository_is_no_success_and_inspecting_it_is(models):
    check, inspect = fitserve("check", models), fitserve("inspect", models)

    assert (check.exit_code, inspect.exit_code) == (1, 0)
    assert "nothing was tried" in check.stderr


@pytest.mark.parametrize("command", ["check", "inspect"])
def test_the_models_of_a_repository_as_json(models, command):
    run = fitserve(command, models, "--json")

    assert json.loads(run.stdout) == {
        "models": {
            "churn": {v: {"path": f"churn/{v}", "is_labelled": True} for v in ("1.0.0", "1.9.0", "1.10.0")},
            "iris": {"2": {"path": "iris_v2.pkl", "is_labelled": True}},
        },
        "skipped": [{"path": "bad_v1.pkl", "why": "is empty: it is being written, or was cut off"}],
    }


def test_a_folder_without_a_model_tells_why(tmp_path):
    run = fitserve("inspect", tmp_path)

    assert run.exit_code == 1
    assert "no model was found: looked for" in run.stderr
