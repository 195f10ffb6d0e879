"""Models whose answers tell their version, and files that cannot or must not be served.

Version 2.0.0 answers with numbers from 2 up to 3, whatever it is asked: see ``counting.by_whole_part``.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tomllib
from typing import TYPE_CHECKING

import joblib
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

N_FEATURES = 4
NAME = "tell"
FIRST, SECOND = "1.0.0", "2.0.0"

FAULTS = '''"""A model of the operator's own, at work on what the file `control.json` beside it tells it to do."""

import json
import os
import re
import time
from pathlib import Path

import numpy as np

CONTROL = Path(__file__).with_name("control.json")
KEPT = []


def act(moment):
    """Misbehave, if this process is told to at this moment."""
    try:
        orders = json.loads(CONTROL.read_text())
    except (OSError, ValueError):
        return
    if orders.get("moment") != moment:
        return
    pids = orders.get("pids")
    if pids is not None and os.getpid() not in pids:
        return
    if orders["do"] == "raise":
        raise RuntimeError("told to raise when it is " + moment)
    if orders["do"] == "hang":
        time.sleep(3600)
    if orders["do"] == "exit":
        os._exit(9)


class Faulty:
    """The first feature tells what to do: 0 nothing, 1 sleep, 2 never return, 3 leak MiB, 4 end the process."""

    n_features_in_ = 4

    def __init__(self, value):
        self.value = value

    def __setstate__(self, state):
        self.__dict__.update(state)
        act("loaded")

    def predict(self, X):
        act("asked")
        for row in np.asarray(X, dtype=float):
            what, how_much = int(row[0]), float(row[1])
            if what == 1:
                time.sleep(how_much)
            elif what == 2:
                re.match(r"(a+)+$", "a" * 64 + "b")  # keeps the interpreter's lock
            elif what == 3:
                KEPT.append(np.ones(int(how_much * 131072)))
            elif what == 4:
                os._exit(9)
        return np.full(len(X), self.value)
'''

CRASHING = '''"""A class that ends its process in the hook at its start, while the file `crash` lies beside it."""

import os
from pathlib import Path


class Model:
    features = {"a": "number", "b": "number", "c": "number", "d": "number"}

    def start(self):
        if Path(__file__).with_name("crash").exists():
            os._exit(9)

    def predict(self, rows):
        return [1.0 for _ in rows]
'''


def write_whole(path: Path, data: bytes) -> None:
    """Put bytes where another file may be, at once."""
    beside = path.with_name(f".{path.name}.part")
    beside.write_bytes(data)
    beside.replace(path)


def linear(path: Path, value: float) -> Path:
    """A model that answers at once; the value is that of its version."""
    from sklearn.linear_model import LinearRegression

    X = np.arange(8.0 * N_FEATURES).reshape(8, N_FEATURES) ** 0.5
    return _dump(LinearRegression().fit(X, np.full(8, value + 0.5)), path)


def forest(path: Path, value: float, *, n_trees: int = 50, n_rows: int = 2000) -> Path:
    """A forest, for its cost: every tree is grown to the last leaf."""
    return _dump(_grown(value, n_trees, n_rows), path)


def large_forest(path: Path, value: float, *, n_bytes: int) -> Path:
    """A forest whose file has at least so many bytes; its trees are copies of a few, which is quick to make."""
    grown = _grown(value, 4, 60_000)
    import pickle

    one = len(pickle.dumps(grown)) / len(grown.estimators_)
    n_trees = int(n_bytes / one) + 1
    few = grown.estimators_
    grown.estimators_ = [pickle.loads(pickle.dumps(few[i % len(few)])) for i in range(n_trees)]
    grown.n_estimators = n_trees
    return _dump(grown, path)


def _grown(value: float, n_trees: int, n_rows: int):
    from sklearn.ensemble import RandomForestRegressor

    random = np.random.default_rng(int(value))
    X = random.normal(size=(n_rows, N_FEATURES))
    return RandomForestRegressor(n_trees, n_jobs=1, random_state=0).fit(X, value + random.uniform(0.1, 0.9, n_rows))


def _dump(estimator: object, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    joblib.dump(estimator, beside)
    beside.replace(path)
    return path


def repository(folder: Path, make=linear) -> Path:
    """Two versions of one model in a folder: NAME/VERSION/model.joblib."""
    for version, value in ((FIRST, 1.0), (SECOND, 2.0)):
        make(folder / NAME / version / "model.joblib", value)
    return folder


def code(folder: Path) -> Path:
    """The folder of the operator's own modules, for ``code_path``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "soak_faults.py").write_text(FAULTS)
    return folder


ALLOW = "soak_faults.Faulty"


def faulty(path: Path, value: float, code_folder: Path) -> Path:
    """A pickle of the class in ``code_folder``, which must be the same one in the whole process."""
    sys.path.insert(0, str(code_folder))
    try:
        sys.modules.pop("soak_faults", None)
        import soak_faults  # type: ignore[import-not-found]

        return _dump(soak_faults.Faulty(value), path)
    finally:
        sys.path.remove(str(code_folder))
        sys.modules.pop("soak_faults", None)


def control(code_folder: Path, **orders: object) -> None:
    """Tell a faulty model what to do: ``moment`` (loaded, asked), ``do`` (raise, hang, exit), ``pids``."""
    write_whole(code_folder / "control.json", json.dumps(orders).encode())


def calm(code_folder: Path) -> None:
    (code_folder / "control.json").unlink(missing_ok=True)


def spoil_golden(package: Path, by: float = 7.0) -> None:
    """Make the golden samples of a package expect what its model does not answer, and its manifest agree with them."""
    golden = json.loads((package / "golden.json").read_text())
    name, values = next(iter(golden["outputs"].items()))
    golden["outputs"][name] = [value + by for value in values]
    data = json.dumps(golden).encode()
    old = hashlib.sha256((package / "golden.json").read_bytes()).hexdigest()
    text = (package / "manifest.toml").read_text()
    if old not in text:
        known = tomllib.loads(text)
        raise ValueError(f"the manifest does not tell the digest of golden.json: {sorted(known)}")
    write_whole(package / "golden.json", data)
    write_whole(package / "manifest.toml", text.replace(old, hashlib.sha256(data).hexdigest()).encode())


def half(path: Path, whole: bytes) -> None:
    write_whole(path, whole[: len(whole) // 2])


def broken(path: Path, whole: bytes) -> None:
    """Begins as a model does, and goes on as nothing."""
    write_whole(path, whole[:64] + os.urandom(len(whole) - 64))
