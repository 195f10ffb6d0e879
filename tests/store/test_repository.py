"""A model file's name, version and manifest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fitserve.errors import ArtifactError, ArtifactNotFoundError
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
