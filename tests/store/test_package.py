"""Packing: what is learnt, written, and proved by reading it back."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from fitserve.errors import ArtifactError
from fitserve.formats import identify
from fitserve.store.files import write_folder
from fitserve.store.golden import replay
from fitserve.store.message import artifact_message, policy_message
from fitserve.store.package import Wanted, pack
from fitserve.store.repository import read_artifact
from fitserve.store.verify import Verifier
from fitserve.trust.policy import TrustPolicy


class Here(Verifier):
    """Runs a task in this process, its request and answer having been JSON on the way; nothing is confined."""

    def run(self, task, artifact, **request):
        message, blobs = artifact_message(artifact)
        request |= {"artifact": message, "policy": policy_message(self.policy)}
        module, _, name = task.partition(":")
        function = getattr(importlib.import_module(module), name)
        return json.loads(json.dumps(function(json.loads(json.dumps(request)), list(map(memoryview, blobs)))))


def packed(source: Path, out: Path, *, examples: Path | None = None, policy=None, **wanted: object) -> dict:
    return pack(source, out, examples=examples, wanted=Wanted(**wanted), verifier=Here(policy or TrustPolicy()))


@pytest.fixture(scope="module")
def churn(tmp_path_factory) -> Path:
    """A mixed table's model, and rows for it as CSV."""
    folder = tmp_path_factory.mktemp("churn")
    rng = np.random.default_rng(0)
    table = pd.DataFrame({
        "age": rng.integers(18, 80, 60).astype(float),
        "zip": rng.choice(["00123", "01000"], 60),
        "is_new": rng.random(60) > 0.5,
    })  # fmt: skip
    table.loc[::7, "age"] = np.nan
    y = np.where(table["age"].fillna(30) > 40, "yes", "no")
    columns = make_column_transformer((SimpleImputer(), ["age"]), (OneHotEncoder(), ["zip"]), remainder="passthrough")
    joblib.dump(make_pipeline(columns, LogisticRegression()).fit(table, y), folder / "churn_v1.2.joblib")
    table.assign(target=y).to_csv(folder / "rows.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def iris(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("iris") / "iris.joblib"
    joblib.dump(LogisticRegression().fit([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]], [0, 1, 1]), path)
    return path


def test_a_package_holds_the_model_its_signature_and_golden_samples(churn, tmp_path):
    written = packed(
        churn / "churn_v1.2.joblib", tmp_path / "out", examples=churn / "rows.csv", metadata={"owner": "risk"}, n_rows=5
    )
    artifact = read_artifact(tmp_path / "out")

    assert set(written["files"]) == {"churn_v1.2.joblib", "golden.json", "manifest.toml"}
    assert (artifact.name, artifact.version, artifact.metadata) == ("churn", "1.2", {"owner": "risk"})
    assert artifact.data == (churn / "churn_v1.2.joblib").read_bytes()
    assert written["digest"] == f"sha256:{artifact.digest}"
    fields = {field.name: field for field in artifact.declared.fields}
    assert (fields["age"].kind, fields["age"].is_nullable) == ("number", True)
    assert (fields["zip"].kind, fields["zip"].categories, fields["zip"].is_closed) == (
        "string",
        ("00123", "01000"),
        True,
    )
    assert (fields["is_new"].kind, fields["is_new"].learnt_from.endswith("example rows")) == ("boolean", True)
    assert len(artifact.golden.rows) == 5
    assert set(artifact.golden.outputs) == {"predict", "predict_proba", "decision_function"}
    assert written["left_out"] == ["target"]
    assert artifact.declared.libraries["scikit-learn"] is not None


def test_the_golden_outputs_are_those_of_the_library(churn, tmp_path):
    packed(churn / "churn_v1.2.joblib", tmp_path / "out", examples=churn / "rows.csv")
    golden = read_artifact(tmp_path / "out").golden
    table = pd.DataFrame(golden.rows).astype({"age": float, "is_new": bool})

    pipeline = joblib.load(churn / "churn_v1.2.joblib")

    assert golden.outputs["predict"] == pipeline.predict(table).tolist()
    assert np.allclose(golden.outputs["predict_proba"], pipeline.predict_proba(table), rtol=0, atol=1e-12)


def test_golden_rows_are_spread_over_the_file(churn, tmp_path):
    packed(churn / "churn_v1.2.joblib", tmp_path / "out", examples=churn / "rows.csv", n_rows=3)
    ages = pd.read_csv(churn / "rows.csv")["age"].replace({np.nan: None}).tolist()

    assert [row["age"] for row in read_artifact(tmp_path / "out").golden.rows] == [ages[0], ages[20], ages[40]]


def test_a_package_of_another_model_with_the_same_golden_samples_is_found_out(iris, tmp_path):
    packed(iris, tmp_path / "out")
    artifact = read_artifact(tmp_path / "out")
    other = LogisticRegression().fit([[0.0, 1.0], [1.0, 0.0]], [1, 0])
    joblib.dump(other, tmp_path / "other.joblib")

    changed = read_artifact(tmp_path / "other.joblib")
    report = replay(identify(changed).load(changed, TrustPolicy()), artifact.golden)

    assert not report.is_ok


def test_without_examples_the_rows_are_self_made(iris, tmp_path):
    written = packed(iris, tmp_path / "out")
    artifact = read_artifact(tmp_path / "out")

    assert written["rows_are"] == "self-made"
    assert len(artifact.golden.rows) == written["n_rows"] >= 1
    assert artifact.declared.fields is None
    assert artifact.version == read_artifact(iris).version


def test_names_version_and_classes_are_the_authors(iris, tmp_path):
    (tmp_path / "rows.csv").write_text("width,height\n1,2\n0.5,1\n")

    packed(iris, tmp_path / "out", examples=tmp_path / "rows.csv", name="iris-2", version="9", classes=("no", "yes"))
    artifact = read_artifact(tmp_path / "out")

    assert (artifact.name, artifact.version) == ("iris-2", "9")
    assert artifact.declared.classes == ("no", "yes")
    assert [field.name for field in artifact.declared.fields] == ["width", "height"]
    assert artifact.golden.rows == [{"width": 1, "height": 2}, {"width": 0.5, "height": 1}]
    assert set(artifact.golden.outputs["predict"]) <= {"no", "yes"}


def test_packing_a_package_again_gives_the_same_package(churn, tmp_path):
    packed(churn / "churn_v1.2.joblib", tmp_path / "one", examples=churn / "rows.csv")

    packed(tmp_path / "one", tmp_path / "two", examples=churn / "rows.csv")

    one, two = (read_artifact(tmp_path / name) for name in ("one", "two"))
    assert (one.name, one.version, one.data, one.declared, one.golden) == (
        two.name, two.version, two.data, two.declared, two.golden,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ("age,zip\n1,00123\n", "their file lacks the column 'is_new' of the model"),
        (
            "age,zip,is_new\nold,00123,true\n",
            "cannot take the example rows: their file has a text in row 0, column .age.: wanted a number",
        ),
        ("age,zip,is_new\n1,99999,true\n", "column 'zip': wanted one of: 00123, 01000"),
        ("age,zip,is_new\n1,,true\n", "column 'zip'"),
    ],
)
def test_examples_that_do_not_fit_are_told(churn, tmp_path, rows, told):
    (tmp_path / "rows.csv").write_text(rows)

    with pytest.raises(ArtifactError, match=told):
        packed(churn / "churn_v1.2.joblib", tmp_path / "out", examples=tmp_path / "rows.csv")

    assert not (tmp_path / "out").exists()


def test_external_data_of_onnx_is_packed_and_nothing_else_of_its_folder(tmp_path):
    from onnx import TensorProto, helper

    tensor = TensorProto(name="c", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="weights.bin")
    sides = ([helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2])] for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "c"], ["y"])], "g", *sides, initializer=[tensor])
    opsets = [helper.make_opsetid("", 18)]
    folder = tmp_path / "net"
    folder.mkdir()
    (folder / "net_v2.onnx").write_bytes(
        helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    )
    (folder / "weights.bin").write_bytes(np.array([10, 20], dtype=np.float32).tobytes())
    (folder / "customers.csv").write_text("secret")

    with pytest.raises(ArtifactError, match="another file"):
        packed(folder / "net_v2.onnx", tmp_path / "out")
    written = packed(folder, tmp_path / "out")
    artifact = read_artifact(tmp_path / "out")

    assert set(written["files"]) == {"net_v2.onnx", "weights.bin", "golden.json", "manifest.toml"}
    assert (artifact.name, artifact.version) == ("net", "2")
    assert artifact.golden.outputs["predict"][0] == [10.0, 20.0]


def test_a_place_that_is_taken_is_not_overwritten(iris, tmp_path):
    packed(iris, tmp_path / "out", version="1")
    (tmp_path / "home").mkdir()
    (tmp_path / "home/thesis.txt").touch()
    (tmp_path / "file").touch()

    with pytest.raises(ArtifactError, match="is a package already: --force replaces it"):
        packed(iris, tmp_path / "out")
    for place in ("home", "file"):
        with pytest.raises(ArtifactError, match="is in the way"):
            packed(iris, tmp_path / place, is_forced=True)
    packed(iris, tmp_path / "out", version="2", is_forced=True)

    assert read_artifact(tmp_path / "out").version == "2"
    assert (tmp_path / "home/thesis.txt").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "home", "out"]


def test_a_package_that_cannot_be_written_leaves_the_one_before(iris, tmp_path):
    packed(iris, tmp_path / "out", version="1")

    with pytest.raises(ArtifactError, match="cannot be written"):
        write_folder(tmp_path / "out", {"a": b"", "a/b": b""}, is_replacing=True)
    with pytest.raises(ArtifactError, match="cannot be written"):
        write_folder(tmp_path / "out", {"a": b""}, is_replacing=False)

    assert read_artifact(tmp_path / "out").version == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_package_is_served_as_the_model_was(iris, tmp_path):
    packed(iris, tmp_path / "out")
    artifact, original = read_artifact(tmp_path / "out"), read_artifact(iris)

    one, two = (identify(known).load(known, TrustPolicy()) for known in (artifact, original))

    rows = one.signature.check([[0.3, 0.4], [2.0, 1.0]])
    assert np.array_equal(one.predict(rows).probabilities[0], two.predict(rows).probabilities[0])
    assert one.signature == two.signature
