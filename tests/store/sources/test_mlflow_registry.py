"""Versions of an MLflow registry: its own client, a registry in files, and models in files and in a bucket."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest
from buckets import s3

from fitserve.errors import ArtifactError, ArtifactNotFoundError, SettingsError
from fitserve.store.fetch import fingerprint, materialize
from fitserve.store.sources import open_source
from fitserve.urls import SourceUrl

MLMODEL = b"flavors:\n  python_function:\n    loader_module: x\n"


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """The client of an empty registry; ``register(name, place)`` makes the next version."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(tmp_path / "mlruns"))
    monkeypatch.delenv("MLFLOW_REGISTRY_URI", raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that registries should not be in files
        from mlflow import MlflowClient

        client = MlflowClient()

        def register(name: str, place: str) -> None:
            if not client.search_registered_models(f"name = '{name}'"):
                client.create_registered_model(name)
            client.create_model_version(name, place)

        client.register = register
        yield client


@pytest.fixture
def bring(tmp_path):
    return lambda url: materialize(SourceUrl(url), tmp_path / "sources", pause=lambda _: None)


def model(folder: Path, weights: bytes) -> str:
    (folder / "code").mkdir(parents=True)
    (folder / "MLmodel").write_bytes(MLMODEL)
    (folder / "model.skops").write_bytes(weights)
    (folder / "code" / "__init__.py").write_bytes(b"")
    return str(folder)


def tree(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_a_version_becomes_a_folder_of_its_name_and_number(registry, bring, tmp_path):
    registry.register("churn", model(tmp_path / "one", b"one"))
    registry.register("churn", model(tmp_path / "two", b"two"))

    snapshot = bring("models:/churn/2")

    assert snapshot.path.name == "churn_v2"
    assert tree(snapshot.path) == {"MLmodel": MLMODEL, "model.skops": b"two", "code/__init__.py": b""}
    assert bring("models:/churn/1").path.name == "churn_v1"
    assert bring("models:/churn/latest").path.name == "churn_v2"


def test_an_alias_that_is_moved_is_a_change(registry, bring, tmp_path):
    registry.register("churn", model(tmp_path / "one", b"one"))
    registry.register("churn", model(tmp_path / "two", b"two"))
    registry.set_registered_model_alias("churn", "champion", "1")
    url = "models:/churn@champion"
    first = bring(url)
    assert (first.path.name, first.fingerprint) == ("churn_v1", fingerprint(SourceUrl(url)))

    registry.set_registered_model_alias("churn", "champion", "2")

    assert fingerprint(SourceUrl(url)) != first.fingerprint
    assert bring(url).path.name == "churn_v2"
    assert bring(url).n_fetched_bytes == 0


def test_a_name_that_no_folder_can_have_is_made_one(registry, bring, tmp_path):
    registry.register("Churn model (EU)", model(tmp_path / "one", b"one"))

    assert bring("models:/Churn model (EU)/1").path.name == "Churn-model-EU-_v1"


def test_files_in_a_bucket_are_read_from_the_bucket(registry, bring, monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    with s3() as (client, environ):
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        for name, body in (("MLmodel", MLMODEL), ("model.skops", b"one")):
            client.put_object(Bucket="models", Key=f"runs/7/model/{name}", Body=body)
        registry.register("churn", "s3://models/runs/7/model")

        snapshot = bring("models:/churn/1")

    assert snapshot.path.name == "churn_v1"
    assert tree(snapshot.path) == {"MLmodel": MLMODEL, "model.skops": b"one"}


@pytest.mark.parametrize("url", ["models:/churn/7", "models:/churn@none", "models:/other/1", "models:/other/latest"])
def test_what_the_registry_does_not_know_is_not_found(registry, bring, tmp_path, url):
    registry.register("churn", model(tmp_path / "one", b"one"))

    with pytest.raises(ArtifactNotFoundError, match=r"models:/(churn|other).*: (the registry knows|there is) no"):
        bring(url)


def test_a_registry_that_is_away_cannot_be_reached(monkeypatch, bring):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    with pytest.raises(ArtifactError, match="models:/churn/1 cannot be reached: the registry"):
        bring("models:/churn/1")


@pytest.mark.parametrize(
    "url", ["models:/churn", "models:/churn/Production", "models:/a/b/c", "models:/churn@", "models:/"]
)
def test_a_url_of_no_version_is_a_wrong_setting(url):
    with pytest.raises(SettingsError, match="wanted models:/NAME@ALIAS"):
        open_source(SourceUrl(url))
