"""Classes of the operator's own: which files are run, which class is served, what its rows and answers are."""

from __future__ import annotations

import datetime as dt
import hashlib
import sys

import numpy as np
import pandas as pd
import pytest

from fitserve.errors import ArtifactError, InvalidInputError, UntrustedArtifactError
from fitserve.estimators.user_class import array_of
from fitserve.formats.base import hooks_of
from fitserve.formats.python_class import FORMAT
from fitserve.signature import Field
from fitserve.trust.policy import TrustPolicy
from fitserve.types import Artifact, Declared

SUM = """
class Model:
    example = {"a": 1.0, "b": 2.0}

    def predict(self, rows):
        return [row["a"] + row["b"] for row in rows]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of the operator's modules; what is imported from it is forgotten afterwards."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def load(folder):
    def make(source: str, name: str = "served_model.py", *, policy: TrustPolicy | None = None, **declared):
        path = folder / name
        path.write_text(source)
        data = path.read_bytes()
        artifact = Artifact("m", "1", hashlib.sha256(data).hexdigest(), data, name, declared=Declared(**declared))
        assert FORMAT.matches(artifact)
        return FORMAT.load(artifact, policy or TrustPolicy(code_path=(folder,)))

    return make


def predicted(model, rows):
    return model.predict(model.signature.check(rows)).predictions.tolist()


def test_a_class_below_the_code_path_is_served(load):
    model = load(SUM)

    assert predicted(model, [{"a": 1, "b": 2}, [3, 4]]) == [3.0, 7.0]
    assert model.signature.names == ("a", "b")
    assert (model.facts.model_type, model.is_library_code) == ("Model", False)


@pytest.mark.parametrize("level", ["data", "allowlist", "pinned"])
def test_a_class_from_anywhere_else_is_refused_and_not_run(load, folder, level):
    marker = folder / "marker"
    source = f"open({str(marker)!r}, 'w')"

    with pytest.raises(UntrustedArtifactError, match="is Python code") as caught:
        load(source, policy=TrustPolicy(level=level, code_path=(folder / "other",)))

    assert caught.value.digest == hashlib.sha256(source.encode()).hexdigest()
    assert not marker.exists()


def test_the_refusal_says_what_to_give(load, folder):
    with pytest.raises(UntrustedArtifactError, match="name the folder that it lies in: --code-path DIR"):
        load(SUM, policy=TrustPolicy())


def test_bytes_that_are_not_those_of_the_code_path_are_refused(folder):
    (folder / "served_model.py").write_text(SUM)
    changed = SUM.replace("+", "-").encode()
    artifact = Artifact("m", "1", "0" * 64, changed, "served_model.py")

    with pytest.raises(UntrustedArtifactError):
        FORMAT.load(artifact, TrustPolicy(code_path=(folder,)))


@pytest.mark.parametrize("policy", [TrustPolicy(level="any"), None], ids=["any", "pinned"])
def test_a_class_that_is_vouched_for_otherwise_is_served(load, policy):
    digest = hashlib.sha256(SUM.encode()).hexdigest()

    model = load(SUM, policy=policy or TrustPolicy(level="pinned", pins=frozenset({digest})))

    assert predicted(model, [[1, 2]]) == [3.0]


def test_a_file_in_a_folder_of_the_code_path_is_found(folder):
    (folder / "models" / "sums").mkdir(parents=True)
    path = folder / "models" / "sums" / "served_model.py"
    path.write_text(SUM)
    artifact = Artifact("m", "1", "0" * 64, path.read_bytes(), path.name)

    model = FORMAT.load(artifact, TrustPolicy(code_path=(folder,)))

    assert predicted(model, [[1, 2]]) == [3.0]


def test_it_imports_what_lies_beside_it_in_the_code_path(load, folder):
    (folder / "sibling_of_model.py").write_text("FACTOR = 10")

    model = load("import sibling_of_model\n" + SUM.replace('row["b"]', "sibling_of_model.FACTOR"))

    assert predicted(model, [[1, 2]]) == [11.0]


def test_loading_it_again_replaces_it(load):
    load(SUM)

    model = load(SUM.replace("+", "*"))

    assert predicted(model, [[3, 4]]) == [12.0]


def test_a_dataclass_and_its_own_module_are_found(load):
    model = load(
        "import dataclasses, served_model\n"
        "@dataclasses.dataclass\nclass Model:\n    example = {'a': 1}\n    factor: float = 2.0\n"
        "    def predict(self, rows):\n        return [served_model.double(row['a']) for row in rows]\n"
        "def double(number: float): return 2 * number\n"
    )

    assert predicted(model, [[4]]) == [8.0]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("x = 1", "has no class with predict: write one into served_model.py"),
        ("class _M:\n    def predict(self, rows): ...", "has no class with predict"),
        ("from sklearn.svm import SVC", "has no class with predict"),
        ("class A:\n def predict(self, r): ...\nclass B(A): ...", r"several classes with predict \(A, B\): call the one"),
        ("import os\nimport no_such_module_here", "raised ModuleNotFoundError in line 2 of served_model.py: No module"),
        ("raise SystemExit(3)", "raised SystemExit in line 1 of served_model.py: 3"),
        ("def f(:\n  pass", "has a syntax error in line 1 of served_model.py"),
        ("class M:\n def __init__(self):\n  1/0\n def predict(self, r): ...", "raised ZeroDivisionError in line 3 of"),
        ("class M:\n def predict(self, r): ...", "does not tell its features: give the class an example"),
        ("class M:\n features = {'a': 'int'}\n def predict(self, r): ...", "'a' of kind 'int': wanted one of number"),
        ("class M:\n example = [1]\n def predict(self, r): ...", "has an example that is no row"),
        ("class M:\n example = {'a': b''}\n def predict(self, r): ...", "whose 'a' is a bytes"),
        ("class M:\n example={'a': 1}; features={'b': 'number'}\n def predict(self, r): ...", "must name each feature"),
        ("class M:\n example={'a': 'x'}; features={'a': 'number'}\n def predict(self, r): ...", "does not fit its features"),
        ("class M:\n example={'a': 1}\n def predict(self, r): return [1]\n predict_proba = predict", "but no classes_"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_served_says_why(load, source, text):
    with pytest.raises(ArtifactError, match=text):
        load(source)


@pytest.mark.parametrize("name", ["json.py", "my-model.py"])
def test_a_file_whose_name_is_taken_or_is_none_is_refused(load, name):
    with pytest.raises(ArtifactError, match="which is no name for a module here"):
        load(SUM, name)


def test_of_several_classes_the_one_called_model_is_served(load):
    model = load(
        "class Base:\n def predict(self, rows): return [0]\n" + SUM.replace("class Model", "class Model(Base)")
    )

    assert predicted(model, [[1, 2]]) == [3.0]


def test_features_tell_kinds_and_nulls(load):
    model = load(
        "class Seen:\n"
        "    features = {'age': 'number?', 'city': 'string', 'is_new': 'boolean', 'on': 'datetime?'}\n"
        "    def predict(self, rows):\n"
        "        self.rows = rows\n"
        "        return ['x'] * len(rows)\n"
    )
    rows = [
        {"age": 3, "city": "Oslo", "is_new": True, "on": "2026-01-31T12:00:00Z"},
        {"age": None, "city": "Rome", "is_new": False, "on": None},
    ]

    predicted(model, rows)

    seen = model._instance.rows
    assert seen == [{**rows[0], "on": dt.datetime(2026, 1, 31, 12)}, rows[1]]  # noqa: DTZ001 - UTC by contract
    assert type(seen[0]["age"]) is float
    with pytest.raises(InvalidInputError, match="city"):
        predicted(model, [{**rows[0], "city": None}])


def test_a_manifest_comes_before_what_the_class_says(load):
    model = load(SUM, fields=(Field("b", is_nullable=True), Field("a")), example={"a": 5.0, "b": None})

    assert model.signature.names == ("b", "a")
    assert model.signature.example_row() == (None, 5.0)


def test_probabilities_go_with_classes(load):
    model = load(
        SUM + "    classes_ = ['no', 'yes']\n    def predict_proba(self, rows): return [[0.25, 0.75] for _ in rows]\n"
    )
    outputs = model.predict(model.signature.check([[1, 2]]), ())

    assert model.signature.classes == (("no", "yes"),)
    assert model.signature.outputs == ("predict", "predict_proba")
    assert outputs.probabilities[0].tolist() == [[0.25, 0.75]]


def test_lists_make_a_model_of_several_outputs(load):
    model = load("class M:\n example = {'a': 1}\n def predict(self, rows): return [[1, 2, 3] for _ in rows]\n")

    assert model.signature.n_outputs == 3
    assert predicted(model, [[1]]) == [[1, 2, 3]]


HOOKED = """
class Model:
    example = {"a": 1.0}

    def __init__(self):
        self.calls = []

    def start(self):
        self.calls.append("start")

    def stop(self):
        self.calls.append("stop")

    def predict(self, rows):
        self.calls.append("predict")
        return [0.0 for _ in rows]
"""


def test_its_hooks_are_called_once_before_the_first_prediction_and_at_the_end(load):
    model = load(HOOKED)
    hooks = hooks_of(model)
    assert hooks is not None

    hooks.start()
    predicted(model, [[1]])
    hooks.stop()
    hooks.stop()

    assert model._instance.calls == ["start", "predict", "predict", "stop"]  # the first one is the trial


def test_a_start_that_failed_is_tried_again(load):
    source = HOOKED.replace('append("start")', 'append("start"); assert len(self.calls) > 1')
    model = load(source)

    assert predicted(model, [[1]]) == [0.0]
    assert model._instance.calls == ["start", "start", "predict"]


def test_a_class_without_hooks_has_none(load):
    assert hooks_of(load(SUM)) is None


@pytest.mark.parametrize(
    ("raw", "wanted", "kind"),
    [
        ([1, 2.5], [1.0, 2.5], "f"),
        ((1, 2), [1, 2], "i"),
        ([True, False], [True, False], "b"),
        (["a", "b"], ["a", "b"], "O"),
        ([1, "a", None, True], [1, "a", None, True], "O"),
        ([np.float32(0.5), np.int64(2)], [0.5, 2.0], "f"),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]], "i"),
        (pd.Series(["a", "b"]), ["a", "b"], "O"),
        (pd.DataFrame({"x": [1, 2], "y": ["a", "b"]}), [[1, "a"], [2, "b"]], "O"),
        ([[1, 2], [3]], [[1, 2], [3]], "O"),
        ([np.array([1.0, 2.0]), [3, 4]], [[1.0, 2.0], [3.0, 4.0]], "f"),
        ((number for number in [1, 2]), [1, 2], "i"),
        ([2**70], [2**70], "O"),
        ([{"a": 1}], [{"a": 1}], "O"),
    ],
)
def test_answers_keep_their_types(raw, wanted, kind):
    array = array_of(raw)

    assert array.tolist() == wanted
    assert array.dtype.kind == kind


def test_binary_files_called_py_are_none():
    assert not FORMAT.matches(Artifact("m", "1", "0" * 64, b"\x08\x00abc", "model.py"))
    assert not FORMAT.matches(Artifact("m", "1", "0" * 64, SUM.encode(), "model.txt"))
