"""From a path to an artifact: its bytes, name, version and manifest, and what is refused on the way."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from fitserve.errors import ArtifactError, ArtifactNotFoundError
from fitserve.store import files
from fitserve.store.repository import model_stem, parse_name, read_artifact


@pytest.mark.parametrize(
    ("file", "name", "version"),
    [
        ("model_v1.2.3.pkl", "model", "1.2.3"),
        ("model_v1.2.3.joblib", "model", "1.2.3"),
        ("model_v2.pkl.gz", "model", "2"),
        ("my_vision_v2.pkl", "my_vision", "2"),
        ("my_vision.pkl", "my_vision", None),
        ("a_v1_v2.0.pkl", "a_v1", "2.0"),
        ("churn_v1.0.0-rc.1+build.5.joblib", "churn", "1.0.0-rc.1+build.5"),
        ("model_v.pkl", "model_v", None),
        ("model_vision_v.joblib", "model_vision_v", None),
        ("_v1.pkl", "v1", None),
        ("model_v1 (copy).pkl", "model_v1-copy", None),
        ("größe v1.pkl", "gr-e-v1", None),
        ("model.1.2.pkl", "model.1.2", None),
        ("model_v1.2.ubj", "model", "1.2"),
        ("plain", "plain", None),
        (".pkl", "pkl", None),
        ("日本.pkl", "model", None),
    ],
)
def test_name_and_version_are_read_from_the_file_name(file, name, version):
    assert parse_name(model_stem(Path(file))) == (name, version)


def test_the_same_bytes_have_the_same_version(tmp_path):
    for name in ("one.pkl", "two.pkl"):
        (tmp_path / name).write_bytes(b"bytes")

    one, two = (read_artifact(tmp_path / name) for name in ("one.pkl", "two.pkl"))

    assert one.version == two.version == f"sha256-{one.digest[:12]}"
    assert (one.name, two.name) == ("one", "two")


def test_the_manifest_wins_over_the_file_name(tmp_path):
    (tmp_path / "model_v1.0.pkl").write_bytes(b"bytes")
    (tmp_path / "model_v1.0.manifest.toml").write_text(
        'name = "churn"\nversion = "7.1"\n[example]\na = 1\n[metadata]\nowner = "risk"\n'
    )

    artifact = read_artifact(tmp_path / "model_v1.0.pkl")

    assert (artifact.name, artifact.version) == ("churn", "7.1")
    assert artifact.declared.example == {"a": 1}
    assert artifact.metadata == {"owner": "risk"}


@pytest.mark.parametrize(
    ("manifest", "told"),
    [
        ("name = ", "not valid TOML"),
        ('nmae = "x"', "unknown key 'nmae'; did you mean 'name'\\?"),
        ('version = "1 2"', "version: wanted letters, digits"),
        ('version = "1\\n2"', "version: wanted letters, digits"),
        ('[[inputs]]\nname = "a"\nnulable = true', "unknown key 'inputs.0.nulable'; did you mean 'nullable'\\?"),
        ('[[inputs]]\nname = "a"\nkind = "text"', "inputs.0.kind: Input should be 'number'"),
        ('[[inputs]]\nname = "a"\ncategories = [nan]', "wanted a finite number"),
        ('classes = ["only"]', "classes: .*at least 2"),
    ],
)
def test_a_wrong_manifest_is_refused(tmp_path, manifest, told):
    (tmp_path / "m.pkl").write_bytes(b"bytes")
    (tmp_path / "m.manifest.toml").write_text(manifest)

    with pytest.raises(ArtifactError, match=told):
        read_artifact(tmp_path / "m.pkl")


def test_what_is_no_model_file_is_refused(tmp_path):
    (tmp_path / "empty.pkl").touch()
    (tmp_path / "folder.pkl").mkdir()
    os.mkfifo(tmp_path / "pipe.pkl")

    with pytest.raises(ArtifactNotFoundError, match="does not exist"):
        read_artifact(tmp_path / "missing.pkl")
    with pytest.raises(ArtifactError, match="is empty"):
        read_artifact(tmp_path / "empty.pkl")
    with pytest.raises(ArtifactError, match="is a folder"):
        read_artifact(tmp_path / "folder.pkl")
    with pytest.raises(ArtifactError, match="no regular file"):
        read_artifact(tmp_path / "pipe.pkl")
    with pytest.raises(ArtifactError, match="no regular file"):
        read_artifact(Path("/dev/zero"))


def test_a_manifest_states_inputs_classes_and_format(tmp_path):
    (tmp_path / "m.pkl").write_bytes(b"bytes")
    (tmp_path / "m.manifest.toml").write_text(
        'format = "pickle"\nclasses = ["no", "yes"]\n[[inputs]]\nname = "plan"\nkind = "string"\n'
        'nullable = true\ncategories = ["free", "pro"]\nclosed = true\n'
    )

    declared = read_artifact(tmp_path / "m.pkl").declared

    assert declared.format == "pickle"
    assert declared.classes == ("no", "yes")
    (column,) = declared.fields
    assert (column.name, column.kind, column.is_nullable) == ("plan", "string", True)
    assert (column.categories, column.is_closed, column.learnt_from) == (("free", "pro"), True, "manifest")


def test_the_digest_of_a_folder_is_what_the_shell_says(tmp_path):
    mlflow_folder(tmp_path / "churn_v2.1")

    artifact = read_artifact(tmp_path / "churn_v2.1")
    line = "find * -type f | xargs sha256sum | LC_ALL=C sort | sha256sum"
    told = subprocess.run(line, shell=True, cwd=tmp_path / "churn_v2.1", capture_output=True, text=True, check=True)

    assert told.stdout.split()[0] == artifact.digest
    assert (artifact.name, artifact.version) == ("churn", "2.1")
    assert artifact.files == {"MLmodel": b"flavors: {}", "code/a.py": b"", "model.pkl": b"bytes"}
    assert artifact.data is artifact.files["MLmodel"]


def mlflow_folder(folder: Path) -> Path:
    (folder / "code").mkdir(parents=True)
    (folder / "MLmodel").write_bytes(b"flavors: {}")
    (folder / "model.pkl").write_bytes(b"bytes")
    (folder / "code/a.py").touch()
    return folder


def test_a_path_is_resolved_once_so_that_links_to_models_work(tmp_path):
    (tmp_path / "releases/3").mkdir(parents=True)
    (tmp_path / "releases/3/model.pkl").write_bytes(b"three")
    (tmp_path / "current").symlink_to(tmp_path / "releases/3")
    (tmp_path / "churn_v3.pkl").symlink_to("current/model.pkl")

    artifact = read_artifact(tmp_path / "churn_v3.pkl")

    assert artifact.data == b"three"
    assert (artifact.name, artifact.version) == ("churn", "3")
    assert read_artifact(tmp_path / "current/model.pkl").data == b"three"


def test_a_kubernetes_volume_is_read_as_a_folder(tmp_path):
    mlflow_folder(tmp_path / "..2026_11_24")
    (tmp_path / "..data").symlink_to("..2026_11_24")
    for name in ("MLmodel", "model.pkl"):
        (tmp_path / name).symlink_to(f"..data/{name}")

    artifact = read_artifact(tmp_path)

    assert artifact.files == {"MLmodel": b"flavors: {}", "model.pkl": b"bytes"}


@pytest.mark.parametrize(
    "target",
    ["../outside.pkl", "/etc/hostname", "code/../../outside.pkl", "../models/model.pkl", "round", "up/outside.pkl"],
)
def test_no_link_below_a_folder_leads_out(tmp_path, target):
    (tmp_path / "outside.pkl").write_bytes(b"secret")
    folder = mlflow_folder(tmp_path / "models")
    (folder / "round").symlink_to("round") if target == "round" else None
    (folder / "up").symlink_to("..") if target == "up/outside.pkl" else None
    (folder / "link.pkl").symlink_to(target)

    with pytest.raises(ArtifactError, match="leads out of the folder") as caught:
        read_artifact(folder)

    assert str(tmp_path) not in str(caught.value)


def test_a_folder_holds_regular_files_only(tmp_path):
    os.mkfifo(mlflow_folder(tmp_path / "models") / "code/pipe")

    with pytest.raises(ArtifactError, match="file code/pipe that is no regular file"):
        read_artifact(tmp_path / "models")


def test_a_folder_is_bounded(tmp_path, monkeypatch):
    folder = mlflow_folder(tmp_path / "models")
    (folder / "more").write_bytes(b"x" * 100)

    monkeypatch.setattr(files, "MAX_FILE_BYTES", 50)
    with pytest.raises(ArtifactError, match="file more that has 100 bytes, more than the limit"):
        read_artifact(folder)
    monkeypatch.setattr(files, "MAX_FILES", 3)
    with pytest.raises(ArtifactError, match="more than 3 files"):
        read_artifact(folder)
    monkeypatch.setattr(files, "MAX_DEPTH", 0)
    with pytest.raises(ArtifactError, match="more than 0 folders within each other"):
        read_artifact(folder)


def test_what_is_loaded_is_what_was_checked_whatever_is_swapped_meanwhile(tmp_path):
    path = tmp_path / "model.pkl"
    path.write_bytes(b"good")
    artifact = read_artifact(path)
    (tmp_path / "evil").write_bytes(b"evil")
    (tmp_path / "evil").rename(path)

    assert hashlib.sha256(artifact.data).hexdigest() == artifact.digest == hashlib.sha256(b"good").hexdigest()


def test_a_folder_swapped_while_it_is_read_stays_the_one_that_was_opened(tmp_path):
    opened = files.open_path(mlflow_folder(tmp_path / "models"))
    (tmp_path / "models").rename(tmp_path / "old")
    (tmp_path / "models").mkdir()
    (tmp_path / "models/model.pkl").write_bytes(b"evil")

    with opened as folder:
        assert folder.read("model.pkl") == b"bytes"
        (tmp_path / "old/model.pkl").write_bytes(b"evil")
        assert folder.read("model.pkl") == b"bytes"


def test_a_file_swapped_for_a_link_after_the_listing_is_not_followed(tmp_path):
    (tmp_path / "outside").write_bytes(b"secret")
    opened = files.open_path(mlflow_folder(tmp_path / "models"))
    (tmp_path / "models/model.pkl").unlink()
    (tmp_path / "models/model.pkl").symlink_to("../outside")

    with opened as folder, pytest.raises(ArtifactError, match="leads out"):
        folder.read("model.pkl")


def test_no_descriptor_stays_open(tmp_path):
    folder = mlflow_folder(tmp_path / "models")
    (folder / "link.pkl").symlink_to("code/../model.pkl")
    bad = mlflow_folder(tmp_path / "bad")
    (bad / "link.pkl").symlink_to("../outside")
    read_artifact(folder)
    before = sorted(Path("/proc/self/fd").iterdir())

    read_artifact(folder)
    for path in (bad, tmp_path / "none", Path("/dev/null")):
        with pytest.raises(ArtifactError):
            read_artifact(path)

    assert sorted(Path("/proc/self/fd").iterdir()) == before
