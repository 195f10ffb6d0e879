"""``fitserve inspect``, as a person types it."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess

import joblib
import pandas as pd
from e2e import servers
from rich.console import Console
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from fitserve.cli.inspect import print_facts

ENVIRON = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "NO_COLOR": "1", "COLUMNS": "120"}


def fitserve(*words: object, cwd=None, **environ: str) -> subprocess.CompletedProcess:
    command = [str(servers.BIN / "fitserve"), *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, cwd=cwd, env={**ENVIRON, **environ}
    )


def printed(facts: dict) -> str:
    console = Console(file=io.StringIO(), width=160)
    print_facts(console, facts)
    return console.file.getvalue()


def facts(**changes: object) -> dict:
    feature = {
        "name": "plan",
        "kind": "string",
        "is_nullable": True,
        "categories": ["free", "pro"],
        "is_closed": True,
        "learnt_from": "OneHotEncoder of a, example rows",
    }
    model = {
        "model_type": "Ridge",
        "is_named": True,
        "features": [feature],
        "outputs": ["predict"],
        "classes": [["no", "yes"]],
        "example": ["free"],
        "libraries": {"scikit-learn": {"at_fit": "1.5.0", "now": "1.9.1"}},
        "warnings": ["fitted with another version"],
        "trial": {"rows": 5, "rows_are": "golden", "failure": None},
    }
    trust = {
        "level": "allowlist",
        "holds_code": True,
        "is_pinned": False,
        "refusal": None,
        "missing": [],
        "remedies": [],
    }
    return {
        "name": "churn",
        "version": "1.2",
        "digest": f"sha256:{'0' * 64}",
        "format": "pickle",
        "files": {"model.pkl": {"bytes": 1234, "sha256": "f" * 64}},
        "golden_rows": 5,
        "packed_with": {},
        "metadata": {"owner": "[bold]risk"},
        "trust": trust,
        "model": model,
        **changes,
    }


def test_everything_that_is_known_is_shown():
    text = printed(facts())

    for told in (
        "churn 1.2", "Ridge", "pickle", "0" * 64, "plan", "string", "yes", "only free, pro", "example rows",
        "outputs: predict", '["no", "yes"]', "scikit-learn 1.9.1 (fitted with 1.5.0)", "owner: [bold]risk",
        "warning: fitted with another version", "model.pkl", "1,234", "golden samples: 5 rows",
        "can run code when it is loaded; level allowlist", "5 golden rows: answered",
    ):  # fmt: skip
        assert told in text, told


def test_a_refusal_is_shown_with_what_to_do():
    trust = {**facts()["trust"], "refusal": "needs os.system", "remedies": ["fitserve run m.pkl --pin sha256:00"]}

    text = printed(facts(model=None, trust=trust))

    assert "not trusted: needs os.system" in text
    assert "  fitserve run m.pkl --pin sha256:00" in text
    assert "feature" not in text


def test_a_model_is_inspected_in_a_confined_child(models):
    path = models / "species_v1.0.pkl"

    run = fitserve("inspect", path, "--json")

    told = json.loads(run.stdout)
    assert run.returncode == 0, run.stderr
    assert told["digest"] == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    assert (told["name"], told["version"], told["format"]) == ("species", "1.0", "pickle")
    assert [feature["name"] for feature in told["model"]["features"]] == ["x0", "x1", "x2", "x3"]
    assert told["model"]["classes"] == [["setosa", "versicolor", "virginica"]]
    assert told["model"]["trial"] == {"rows": 1, "rows_are": "self-made", "failure": None}


def test_a_confined_model_may_write_where_it_is_told_to_only(tmp_path):
    code = "import pathlib, tempfile\n"
    code += "class Model:\n    def __init__(self):\n        tempfile.mkstemp()\n"
    code += "        pathlib.Path('marker').write_text('x')\n    def predict(self, rows): return [0 for _ in rows]\n"
    (tmp_path / "own.py").write_text(code)

    run = fitserve("inspect", "own.py", "--trust", "any", "--code-path", ".", cwd=tmp_path)

    assert run.returncode == 1
    assert "marker" in run.stderr or "Permission" in run.stderr or "Errno" in run.stderr
    assert not (tmp_path / "marker").exists()


def test_what_is_not_trusted_is_described_by_its_bytes(models):
    run = fitserve("inspect", models / "species_v1.0.pkl", "--trust", "data")

    assert run.returncode == 1
    assert "species 1.0" in run.stdout
    assert "not trusted" in run.stdout
    assert "--trust allowlist" in run.stdout


def test_what_is_no_model_is_told_in_one_line(tmp_path):
    (tmp_path / "empty").mkdir()

    missing, empty = fitserve("inspect", "none.pkl", cwd=tmp_path), fitserve("inspect", "empty", cwd=tmp_path)

    assert (missing.returncode, missing.stderr) == (1, "fitserve: none.pkl does not exist\n")
    assert empty.returncode == 1
    assert "empty is a folder in which no model was found" in empty.stderr


def test_what_a_model_says_does_not_steer_the_terminal(tmp_path):
    table = pd.DataFrame({"plan": ["\x1b]0;owned\x07free", "[bold]pro"] * 5})
    model = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(table, [0, 1] * 5)
    joblib.dump(model, tmp_path / "m_v1.joblib")

    shown = fitserve("inspect", tmp_path / "m_v1.joblib").stdout + fitserve("check", tmp_path / "m_v1.joblib").stdout

    assert "\x1b" not in shown
    assert "[bold]pro" in shown
