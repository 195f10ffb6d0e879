"""Folders that other programs have written, read without conversion."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from sklearn.linear_model import LogisticRegression

from fitserve.errors import ArtifactError
from fitserve.store.repository import read_artifact

MODEL = pickle.dumps(LogisticRegression().fit([[0.0], [1.0]], [0, 1]))


def named(tmp_path: Path, files: dict[str, bytes | str | dict], name: str = "given") -> Path:
    for path, content in files.items():
        target = tmp_path / name / path
        target.parent.mkdir(parents=True, exist_ok=True)
        data = json.dumps(content) if isinstance(content, dict) else content
        target.write_bytes(data.encode() if isinstance(data, str) else data)
    return tmp_path / name


def test_the_highest_version_of_tf_serving_is_taken(tmp_path):
    path = named(tmp_path, {"2/model.pkl": MODEL + b"2", "10/model.pkl": MODEL, "notes.txt": "x"}, "churn")

    artifact = read_artifact(path)

    assert (artifact.name, artifact.version, artifact.data) == ("churn", "10", MODEL)


def test_triton_tells_the_name(tmp_path):
    config = 'platform: "onnx"\n  name: "credit"\nmax_batch_size: 8\n'
    path = named(tmp_path, {"1/model.pkl": MODEL, "config.pbtxt": config})

    artifact = read_artifact(path)

    assert (artifact.name, artifact.version, artifact.file_name) == ("credit", "1", "model.pkl")


def test_a_version_may_be_a_folder_of_another_layout(tmp_path):
    path = named(tmp_path, {"0003/MLmodel": "flavors: {}", "0003/model.pkl": MODEL}, "churn")

    artifact = read_artifact(path)

    assert (artifact.name, artifact.version) == ("churn", "3")
    assert set(artifact.files) == {"MLmodel", "model.pkl"}


@pytest.mark.parametrize("uri", ["./model.pkl", "model.pkl", None, "."])
def test_mlserver_tells_name_version_and_inputs(tmp_path, uri):
    settings = {
        "name": "credit",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"version": "v0.1.0", **({"uri": uri} if uri else {})},
        "inputs": [
            {"name": "age", "datatype": "INT64", "shape": [-1]},
            {"name": "plan", "datatype": "BYTES", "shape": [-1, 1]},
            {"name": "is_new", "datatype": "BOOL", "shape": [-1, 1]},
        ],
    }
    path = named(tmp_path, {"model-settings.json": settings, "model.pkl": MODEL})

    artifact = read_artifact(path)

    assert (artifact.name, artifact.version, artifact.data) == ("credit", "v0.1.0", MODEL)
    told = [(field.name, field.kind, field.learnt_from) for field in artifact.declared.mlflow_fields]
    assert told == [
        ("age", "number", "model-settings.json"),
        ("plan", "string", "model-settings.json"),
        ("is_new", "boolean", "model-settings.json"),
    ]


def test_an_mlserver_input_that_is_a_matrix_names_no_columns(tmp_path):
    settings = {"name": "m", "inputs": [{"name": "predict", "datatype": "FP32", "shape": [-1, 4]}]}
    path = named(tmp_path, {"model-settings.json": settings, "model.pkl": MODEL})

    assert read_artifact(path).declared.mlflow_fields is None


def test_mlserver_may_point_to_an_mlflow_folder(tmp_path):
    settings = {"name": "m", "parameters": {"uri": "./inner"}}
    path = named(tmp_path, {"model-settings.json": settings, "inner/MLmodel": "x: 1", "inner/model.pkl": MODEL})

    assert set(read_artifact(path).files) == {"MLmodel", "model.pkl"}


@pytest.mark.parametrize("uri", ["../other.pkl", "/etc/passwd", "s3://bucket/model", 3])
def test_mlserver_points_nowhere_else(tmp_path, uri):
    settings = {"name": "m", "parameters": {"uri": uri}}

    with pytest.raises(ArtifactError, match="is no path below the folder"):
        read_artifact(named(tmp_path, {"model-settings.json": settings, "model.pkl": MODEL}))


@pytest.mark.parametrize(
    ("settings", "told"),
    [("{", "not valid JSON"), ("[]", "no JSON object"), ({"parameters": {"version": "1 2"}}, "states the version")],
)
def test_wrong_mlserver_settings_are_told(tmp_path, settings, told):
    with pytest.raises(ArtifactError, match=told):
        read_artifact(named(tmp_path, {"model-settings.json": settings, "model.pkl": MODEL}))


def test_a_folder_of_one_model_file_is_that_file(tmp_path):
    folder = named(tmp_path, {"churn_v2.pkl": MODEL, "churn_v2.manifest.toml": '[metadata]\na = "b"'})

    artifact = read_artifact(folder)

    assert artifact == read_artifact(folder / "churn_v2.pkl")
    assert (artifact.name, artifact.version, artifact.metadata) == ("churn", "2", {"a": "b"})


def test_a_folder_of_several_model_files_is_refused(tmp_path):
    folder = named(tmp_path, {"a.pkl": MODEL, "b.pkl": MODEL})

    with pytest.raises(ArtifactError, match=r"several model files: a\.pkl, b\.pkl: give the path"):
        read_artifact(folder)


def test_a_folder_without_a_model_tells_what_was_looked_for(tmp_path):
    with pytest.raises(ArtifactError, match="looked for manifest.toml .*MLmodel .*came: deeper/a.pkl"):
        read_artifact(named(tmp_path, {"deeper/a.pkl": MODEL}))
