"""What trying a model in a confined child shows, and what it stops."""

from __future__ import annotations

import dataclasses
import hashlib

import hostile_formats
import joblib
import pytest

from fitserve.errors import ArtifactError, UntrustedArtifactError
from fitserve.store.repository import read_artifact
from fitserve.store.verify import Verifier, identity
from fitserve.trust.policy import TrustPolicy
from fitserve.types import Artifact, Declared


def artifact_of(data: bytes) -> Artifact:
    return Artifact("m", "1", hashlib.sha256(data).hexdigest(), data, "m.onnx")


@pytest.fixture
def iris(models) -> Artifact:
    return read_artifact(models / "iris_v1.2.3.joblib")


def test_a_report_tells_what_the_model_is_and_how_it_was_tried(iris):
    report = Verifier().verify(iris)

    assert (report["model"]["name"], report["model"]["version"]) == ("iris", "1.2.3")
    assert report["model"]["is_ready"]
    assert report["n_self_made_rows"] >= 1
    assert report["golden"] is None
    assert report["failure"] is None
    assert report["peak_memory_bytes"] > 2**20
    assert "seccomp" in report["confinement"] or "off" in report["confinement"]


def test_what_another_process_has_tried_is_not_tried_again(iris):
    known = {"model": {"name": "tried before"}}

    assert Verifier(passed={identity(iris): known}).verify(iris) is known
    changed = dataclasses.replace(iris, declared=Declared(classes=("a", "b", "c")))
    assert Verifier(passed={identity(iris): known}).verify(changed)["model"]["classes"] == ["a", "b", "c"]


def test_a_model_that_would_take_all_memory_for_a_row_is_refused():
    with pytest.raises(ArtifactError, match=r"needs more than \d+ MiB to answer a row"):
        Verifier().verify(artifact_of(hostile_formats.onnx_files()["tebibyte"]))


def test_a_model_that_never_answers_is_refused_at_the_deadline():
    with pytest.raises(ArtifactError, match="within 2 s"):
        Verifier(deadline_s=2.0).verify(artifact_of(hostile_formats.onnx_files()["endless"]))


def test_a_pin_is_looked_at_before_a_child_is_made(iris):
    verifier = Verifier(TrustPolicy("pinned", pins=frozenset({"0" * 64})), passed={identity(iris): {}})

    with pytest.raises(UntrustedArtifactError, match="is not what was pinned"):
        verifier.verify(iris)


def test_a_file_that_is_no_model_is_refused_with_its_reason(tmp_path):
    joblib.dump({"not": "a model"}, tmp_path / "m.joblib")

    with pytest.raises(ArtifactError, match="holds an object of type dict"):
        Verifier().verify(read_artifact(tmp_path / "m.joblib"))
