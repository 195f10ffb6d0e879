"""The manifest of a package: written, read again, and its files checked."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime

import pytest

from fitserve.errors import ArtifactError
from fitserve.store.manifest import InputEntry, Manifest, PackageManifest, parse_manifest
from fitserve.store.repository import read_artifact

GOLDEN = b'{"schema": 1, "rtol": 1e-6, "atol": 1e-9, "rows": [[1.0]], "outputs": {"predict": [2.0]}}'
FILES = {"model.pkl": b"bytes", "golden.json": GOLDEN}


def manifest(**changes: object) -> PackageManifest:
    fields = {
        "schema": 1,
        "name": "churn",
        "version": "1.2",
        "format": "pickle",
        "model": "model.pkl",
        "golden": "golden.json",
        "packed_at": datetime(2026, 11, 24, tzinfo=UTC),
        "libraries": {"scikit-learn": "1.9.1"},
        "metadata": {"owner": "risk"},
        "example": {"plan": "free"},
        "classes": ("no", "yes"),
        "inputs": (InputEntry(name="plan", kind="string", nullable=True, categories=("free", "pro"), closed=True),),
        "files": {path: hashlib.sha256(data).hexdigest() for path, data in FILES.items()},
    }
    return PackageManifest(**{**fields, **changes})


def package(folder, files=FILES, text=None):
    folder.mkdir()
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    (folder / "manifest.toml").write_text(text or manifest().toml())
    return folder


def test_what_is_written_is_read_again():
    written = manifest()

    assert parse_manifest(written.toml().encode(), "manifest.toml", PackageManifest) == written


def test_a_package_is_read_as_its_manifest_says(tmp_path):
    artifact = read_artifact(package(tmp_path / "any_v9"))

    assert (artifact.name, artifact.version, artifact.data) == ("churn", "1.2", b"bytes")
    assert artifact.declared.format == "pickle"
    assert artifact.declared.classes == ("no", "yes")
    assert artifact.declared.libraries == {"scikit-learn": "1.9.1"}
    assert artifact.declared.fields[0].categories == ("free", "pro")
    assert artifact.golden.rows == [[1.0]]
    assert artifact.metadata == {"owner": "risk"}
    assert set(artifact.files) == {"model.pkl", "golden.json", "manifest.toml"}


@pytest.mark.parametrize("path", ["model.pkl", "golden.json"])
def test_a_file_that_has_changed_is_refused(tmp_path, path):
    folder = package(tmp_path / "package")
    (folder / path).write_bytes(b"other")
    was, came = (hashlib.sha256(data).hexdigest() for data in (FILES[path], b"other"))

    told = f"{path} that has changed since it was packed: wanted sha256:{was}, came sha256:{came}"
    with pytest.raises(ArtifactError, match=re.escape(told)):
        read_artifact(folder)


def test_a_file_that_is_missing_or_added_is_refused(tmp_path):
    missing, added = package(tmp_path / "missing"), package(tmp_path / "added")
    (missing / "model.pkl").unlink()
    (added / "code.py").touch()

    with pytest.raises(ArtifactError, match=r"lacks the file model\.pkl"):
        read_artifact(missing)
    with pytest.raises(ArtifactError, match=r"a file code\.py that was not packed"):
        read_artifact(added)


def test_the_digest_of_a_package_covers_its_manifest(tmp_path):
    one = read_artifact(package(tmp_path / "one"))
    two = read_artifact(package(tmp_path / "two", text=manifest(metadata={"owner": "other"}).toml()))

    assert one.digest != two.digest


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"model": "../model.pkl"}, "no plain path below the folder"),
        ({"model": "/model.pkl"}, "no plain path below the folder"),
        ({"golden": "a//b"}, "no plain path below the folder"),
        ({"files": {"../up": "0" * 64}}, "no plain path below the folder"),
        ({"files": {"model.pkl": "0" * 63}}, "files"),
        ({"files": {}}, "files"),
        ({"schema": 2}, "schema"),
    ],
)
def test_a_package_names_nothing_outside_of_it(tmp_path, changed, told):
    import tomli_w

    document = {**manifest().model_dump(by_alias=True, exclude_none=True), **changed}
    document.pop("inputs")

    with pytest.raises(ArtifactError, match=told):
        read_artifact(package(tmp_path / "package", text=tomli_w.dumps(document)))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "the key 'schema' is missing"),
        ("shcema = 1", "unknown key 'shcema'"),
        ("[[inputs]]\nnmae = 'a'", "did you mean 'name'"),
    ],
)
def test_a_manifest_that_is_no_package_says_why(tmp_path, text, told):
    with pytest.raises(ArtifactError, match=told):
        parse_manifest(text.encode(), "manifest.toml", PackageManifest)


def test_golden_samples_that_are_named_must_be_there(tmp_path):
    files = {"model.pkl": b"bytes"}
    digests = {"model.pkl": hashlib.sha256(b"bytes").hexdigest()}

    with pytest.raises(ArtifactError, match=r"golden samples golden\.json which are not there"):
        read_artifact(package(tmp_path / "package", files, manifest(files=digests).toml()))


def test_dates_of_toml_become_text():
    read = parse_manifest(b"[metadata]\nsince = 2026-11-24\n[example]\nday = 2026-01-31T08:00:00Z", "m", Manifest)

    assert read.metadata == {"since": "2026-11-24"}
    assert read.example == {"day": "2026-01-31T08:00:00+00:00"}


def test_a_manifest_is_bounded():
    with pytest.raises(ArtifactError, match="more than the limit"):
        parse_manifest(b"#" * (2**24 + 1), "m", Manifest)


@pytest.mark.parametrize("key", ["a" + ".a" * 20_000, "a" + ' . "a"' * 20_000, "'a'" + ".a" * 20_000])
def test_a_key_of_many_parts_is_refused_before_it_is_parsed(key):
    with pytest.raises(ArtifactError, match="a key of more than 100 parts"):
        parse_manifest(f"{key} = 1".encode(), "m.toml", Manifest)


def test_many_numbers_in_a_line_are_no_long_key():
    text = f"[metadata]\nnumbers = [{', '.join(['1.5'] * 500)}]\nword = '{'a' * 100_000}'"

    assert len(parse_manifest(text.encode(), "m.toml", Manifest).metadata["numbers"]) == 500


def test_a_number_of_thousands_of_digits_is_refused():
    with pytest.raises(ArtifactError, match="is not valid TOML"):
        parse_manifest(b"[metadata]\nx = " + b"9" * 5000, "m.toml", Manifest)
