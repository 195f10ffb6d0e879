"""Folders written by MLflow itself, loaded in the format of their flavour and under the same policy."""

from __future__ import annotations

import logging
import warnings
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from fitserve.errors import ArtifactError, InvalidInputError, UntrustedArtifactError
from fitserve.formats.mlflow import FORMAT, fields_of, load, matches, read_mlmodel
from fitserve.store.repository import read_artifact
from fitserve.trust.policy import TrustPolicy
from fitserve.types import Artifact

X = pd.DataFrame({"age": [20.0, 30.0, 40.0, 50.0], "visits": [1, 0, 1, 3]})
Y = np.array([0, 1, 1, 0])
DATA, PINNED, ANY = TrustPolicy("data"), TrustPolicy("pinned"), TrustPolicy("any")


def save(flavour: str, model: object, path: Path, **options: object) -> Path:
    """Write a folder as MLflow does; what is given as requirements spares it to look for them, which is slow."""
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = __import__(f"mlflow.{flavour}", fromlist=["save_model"])
        signature = mlflow.models.infer_signature(X, Y)
        arguments = {"signature": signature, "pip_requirements": ["x"], **options}
        if flavour == "pyfunc":
            module.save_model(path, python_model=model, **arguments)
        else:
            module.save_model(model, path, **arguments)
    return path


def fitted(flavour: str) -> object:
    match flavour:
        case "sklearn":
            return LogisticRegression().fit(X, Y)
        case "xgboost":
            import xgboost

            return xgboost.XGBClassifier(n_estimators=3, n_jobs=1).fit(X, Y)
        case "lightgbm":
            import lightgbm

            return lightgbm.LGBMClassifier(n_estimators=3, min_child_samples=1, n_jobs=1, verbose=-1).fit(X, Y)
        case "catboost":
            import catboost

            model = catboost.CatBoostClassifier(iterations=3, verbose=0, allow_writing_files=False, thread_count=1)
            return model.fit(X, Y)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, tuple[Path, object]]:
    """A folder of each flavour, with the model that is in it."""
    folder = tmp_path_factory.mktemp("mlflow")
    models = {flavour: fitted(flavour) for flavour in ("sklearn", "xgboost", "lightgbm", "catboost")}
    made = {flavour: (save(flavour, model, folder / flavour), model) for flavour, model in models.items()}
    pickled = save(
        "sklearn", models["sklearn"], folder / "pickled", serialization_format="pickle", input_example=X[1:2]
    )
    return {**made, "pickled": (pickled, models["sklearn"])}


DOUBLING = """
import mlflow
import numpy as np
import pandas as pd

class Doubling(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input: pd.DataFrame, params=None):
        assert model_input["visits"].dtype == np.int64
        return model_input["age"] * 2 + model_input["visits"]

mlflow.models.set_model(Doubling())
"""
"""A model of the author's own, as MLflow wants it: the file is stored, and run when the model is loaded."""


@pytest.fixture(scope="module")
def pyfunc(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pyfunc")
    (folder / "doubling.py").write_text(DOUBLING)
    return save("pyfunc", str(folder / "doubling.py"), folder / "own_v3")


@pytest.mark.parametrize("flavour", ["sklearn", "xgboost", "lightgbm", "catboost", "pickled"])
def test_each_flavour_answers_as_its_library_does(folders, flavour):
    path, model = folders[flavour]
    artifact = read_artifact(path)

    loaded = load(artifact, ANY)
    outputs = loaded.predict(loaded.signature.check(X.to_dict("records")))

    assert matches(artifact)
    assert outputs.predictions.tolist() == model.predict(X).tolist()
    assert np.allclose(outputs.probabilities[0], model.predict_proba(X), rtol=0, atol=1e-6)
    assert [field.name for field in loaded.signature.inputs] == ["age", "visits"]


def test_an_onnx_flavour_answers_as_its_library_does(folders, tmp_path):
    from skl2onnx import to_onnx

    model = LogisticRegression().fit(X.to_numpy(), Y)
    path = save("onnx", to_onnx(model, X.to_numpy()[:1], options={"zipmap": False}), tmp_path / "onnx", signature=None)

    loaded = load(read_artifact(path), DATA)

    outputs = loaded.predict(loaded.signature.check(X.to_numpy().tolist()))
    assert outputs.predictions.tolist() == model.predict(X.to_numpy()).tolist()


def test_signature_example_and_versions_are_taken_from_mlmodel(folders):
    path, _ = folders["pickled"]

    loaded = load(read_artifact(path), ANY)

    assert {field.learnt_from for field in loaded.signature.inputs} == {"mlflow"}
    assert loaded.signature.example == (30.0, 0)
    assert loaded.facts.libraries["scikit-learn"][0] is not None


def test_formats_without_code_load_where_only_data_is_trusted(folders):
    for flavour in ("xgboost", "catboost"):
        load(read_artifact(folders[flavour][0]), DATA)


def test_an_inner_pickle_is_judged_as_one_that_comes_alone(folders):
    artifact = read_artifact(folders["pickled"][0])

    with pytest.raises(UntrustedArtifactError) as refusal:
        load(artifact, DATA)

    assert refusal.value.digest == artifact.digest


def test_code_of_the_author_needs_somebody_to_vouch_for_it(pyfunc):
    artifact = read_artifact(pyfunc)

    for policy in (DATA, TrustPolicy(), PINNED, replace(PINNED, pins=frozenset({"0" * 64}))):
        with pytest.raises(UntrustedArtifactError) as refusal:
            load(artifact, policy)
        assert refusal.value.digest == artifact.digest

    for policy in (ANY, replace(PINNED, pins=frozenset({artifact.digest}))):
        loaded = load(artifact, policy)
        outputs = loaded.predict(loaded.signature.check(X.to_dict("records")))
        assert outputs.predictions.tolist() == (X["age"] * 2 + X["visits"]).tolist()
    assert not loaded.is_library_code


def test_a_column_of_integers_is_never_rounded(pyfunc):
    loaded = load(read_artifact(pyfunc), ANY)

    with pytest.raises(InvalidInputError, match="column 'visits': wanted integers"):
        loaded.predict(loaded.signature.check([{"age": 1, "visits": 1.5}]))


def test_the_copy_on_disk_is_of_the_bytes_that_were_checked_and_goes_with_the_model(pyfunc, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    artifact = read_artifact(pyfunc)

    loaded = load(artifact, ANY)
    (copy,) = tmp_path.iterdir()
    written = {str(path.relative_to(copy)): path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    is_private = copy.stat().st_mode & 0o077 == 0
    del loaded

    assert {name: data for name, data in written.items() if "__pycache__" not in name} == artifact.files
    assert is_private
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("types", "kinds"),
    [
        (["double", "float", "long", "integer"], ["number"] * 4),
        (["boolean", "string", "datetime"], ["boolean", "string", "datetime"]),
        (["double", "binary"], None),
        (["array"], None),
    ],
)
def test_types_of_mlflow_become_kinds(types, kinds):
    fields = fields_of([{"name": f"c{i}", "type": kind} for i, kind in enumerate(types)])

    assert (fields and [field.kind for field in fields]) == kinds


def test_what_is_not_required_may_be_null():
    columns = [{"name": "a", "type": "double", "required": False}, {"name": "b", "type": "double", "optional": True}]

    assert [field.is_nullable for field in fields_of([*columns, {"name": "c", "type": "double"}])] == [
        True,
        True,
        False,
    ]
    assert fields_of([{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 4]}}]) is None


def test_a_required_column_refuses_null_though_the_model_would_take_it(tmp_path):
    model = make_pipeline(SimpleImputer(), LogisticRegression()).fit(X, Y)
    columns = [mlflow.types.ColSpec("double", "age", required=False), mlflow.types.ColSpec("long", "visits")]
    signature = mlflow.models.ModelSignature(inputs=mlflow.types.Schema(columns))
    path = save("sklearn", model, tmp_path / "filled", signature=signature, serialization_format="cloudpickle")

    served = load(read_artifact(path), ANY)

    assert [field.is_nullable for field in served.signature.inputs] == [True, False]
    assert np.isnan(served.signature.check([{"age": None, "visits": 1}])[0, 0])
    with pytest.raises(InvalidInputError, match="column 'visits': .*came null"):
        served.signature.check([{"age": 1.0, "visits": None}])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", "without flavours"),
        (b"flavors: 3", "without flavours"),
        (b"flavors: {sklearn: 3}", "without flavours"),
        (b"a: [", "no YAML"),
        (b"!!python/object/apply:os.system ['true']", "no YAML"),
        (b"[" * 5000, "no YAML"),
        (b"a" * (4 * 2**20 + 1), "more than the limit"),
    ],
)
def test_a_wrong_mlmodel_is_refused_in_one_line(text, told):
    with pytest.raises(ArtifactError, match=told) as refusal:
        read_mlmodel(text)

    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"flavors": {"sklearn": {"pickled_model": "../model.pkl"}}},
            "names the file '../model.pkl', which is not there",
        ),
        ({"flavors": {"sklearn": {"pickled_model": None}}}, "names the file '', which is not there"),
        ({"flavors": {"sklearn": {"pickled_model": "conda.yaml"}}}, "file conda.yaml of the flavour sklearn that is"),
        ({"flavors": {"tensorflow": {"data": "x"}}}, "flavours tensorflow, none of which is served"),
        ({"signature": {"inputs": "["}}, "signature is not valid JSON"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(folders, changes, told):
    artifact = read_artifact(folders["xgboost"][0])
    data = yaml.safe_dump({**yaml.safe_load(artifact.data), **changes}).encode()

    with pytest.raises(ArtifactError, match=told):
        load(replace(artifact, data=data, files={**artifact.files, "MLmodel": data}), TrustPolicy())


def test_an_author_without_a_signature_is_asked_for_one(pyfunc):
    artifact = read_artifact(pyfunc)
    document = yaml.safe_load(artifact.data)
    del document["signature"]
    data = yaml.safe_dump(document).encode()

    with pytest.raises(ArtifactError, match="without a signature of named columns"):
        load(replace(artifact, data=data, files={**artifact.files, "MLmodel": data}), ANY)


def test_no_other_file_is_taken_for_one():
    assert not FORMAT.matches(Artifact("m", "1", "", b"flavors: {}", file_name="MLmodel"))


def test_a_number_of_base_sixty_without_end_is_refused_before_it_is_parsed(folders):
    artifact = read_artifact(folders["xgboost"][0])
    data = b"x: 1" + b":59" * 100_000 + b"\n" + artifact.data

    with pytest.raises(ArtifactError, match="a number of base 60 that no model has"):
        load(replace(artifact, data=data, files={**artifact.files, "MLmodel": data}), TrustPolicy())
