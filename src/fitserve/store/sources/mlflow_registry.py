"""Versions of an MLflow registry: ``models:/churn@champion``, ``models:/churn/3``, ``models:/churn/latest``.

``MLFLOW_TRACKING_URI`` (or ``MLFLOW_REGISTRY_URI``) in the environment says where the registry is, and the variables
of MLflow hold its credentials. Where the files lie in a bucket they are read from there, else MLflow fetches them.
Source: https://mlflow.org/docs/latest/ml/model-registry.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fitserve.errors import ArtifactError, ArtifactNotFoundError, SettingsError
from fitserve.store.files import MAX_FILES
from fitserve.store.sources import object_store
from fitserve.store.sources.base import Reading, RemoteFile, Source, SourceInterruptedError, Tree
from fitserve.urls import SourceUrl, without_secrets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fitserve.store.sources.base import Remote

_URL = re.compile(r"models:/(?P<name>[^/@]+)(@(?P<alias>[^/@]+)|/(?P<version>\d+|latest))", re.IGNORECASE)
_PIECE = 1 << 18
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")
_DENIED = ("PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED")


class Registered:
    """The files of one version of a registered model, in a folder that says its name and version."""

    def __init__(self, url: SourceUrl, name: str, alias: str | None, version: str) -> None:
        """Take what the URL says.

        Args:
            url: for errors.
            name: of the registered model.
            alias: which version, if it is named so.
            version: a number or ``latest``, if not.
        """
        self._url = url
        self._name = name
        self._alias = alias
        self._version = version
        self._inner: Remote | None = None
        self._artifacts: Any = None

    def look(self) -> Tree:
        """Ask the registry for the version, and where it lies for its files."""
        with _translated(self._url):
            version, place = self._resolve()
        main = f"{_component(self._name)}_v{version}"
        if place.partition(":")[0].lower() in object_store.SOURCE.schemes:
            self._inner = object_store.SOURCE.open(SourceUrl(place))
            inner = self._inner.look()
            files = [replace(file, path=main + file.path.removeprefix(inner.main)) for file in inner.files]
            return Tree(main, tuple(file for file in files if file.path.startswith(f"{main}/")), is_folder=True)
        with _translated(self._url):
            return Tree(main, tuple(self._list(main, version, place)), is_folder=True)

    def read(self, file: RemoteFile, offset: int) -> Reading:
        """Read a file from an offset on. MLflow fetches whole files only."""
        if self._inner is not None:
            return self._inner.read(file, offset)
        return Reading(self._chunks(file, offset))

    def _resolve(self) -> tuple[str, str]:
        """The number of the version, and where its files lie."""
        from mlflow import MlflowClient

        client = MlflowClient()
        if self._alias is not None:
            version = str(client.get_model_version_by_alias(self._name, self._alias).version)
        elif self._version.isdigit():
            version = str(int(self._version))
        else:
            found = client.search_model_versions(f"name = '{self._name.replace(chr(39), chr(39) * 2)}'")
            if not found:
                msg = f"{self._url}: there is no version of that model in the registry"
                raise ArtifactNotFoundError(msg)
            version = str(max(int(one.version) for one in found))
        return version, str(client.get_model_version_download_uri(self._name, version))

    def _list(self, main: str, version: str, place: str) -> Iterator[RemoteFile]:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        self._artifacts = get_artifact_repository(place)
        # What a version's files are does not change once it is registered: MLflow tells nothing that would.
        tag = f"{without_secrets(place)} {version}"
        folders, n_files = [""], 0
        while folders:
            for found in self._artifacts.list_artifacts(folders.pop() or None):
                n_files += 1
                if n_files > MAX_FILES:
                    msg = f"{self._url} has more than {MAX_FILES} files"
                    raise ArtifactError(msg)
                if found.is_dir:
                    folders.append(found.path)
                elif not any(part.startswith(".") for part in found.path.split("/")):
                    yield RemoteFile(f"{main}/{found.path}", found.path, int(found.file_size or 0), tag)

    def _chunks(self, file: RemoteFile, offset: int) -> Iterator[bytes]:
        with tempfile.TemporaryDirectory(prefix="fitserve-mlflow-") as folder:
            with _translated(self._url):
                path = Path(self._artifacts.download_artifacts(file.key, folder))
            with path.open("rb") as whole:
                whole.seek(offset)
                while piece := whole.read(_PIECE):
                    yield piece


@contextlib.contextmanager
def _translated(url: SourceUrl) -> Iterator[None]:
    """Errors of MLflow in our words. Of its text, which tells addresses, nothing is passed on."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as exc:
        code = str(exc.error_code)
        if code in _ABSENT:
            msg = f"{url}: the registry knows no such model, version or alias"
            raise ArtifactNotFoundError(msg) from None
        if code in _DENIED:
            msg = f"{url}: the registry does not let it be read with the credentials that this process has"
            raise ArtifactError(msg) from None
        msg = f"the registry answered {code}"
        raise SourceInterruptedError(msg) from None
    except OSError as exc:  # also what requests raises
        msg = f"the registry, or the place of its files: {type(exc).__name__}"
        raise SourceInterruptedError(msg) from None


def _component(name: str) -> str:
    """A registered name as the name of a folder."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", name).lstrip(".-") or "model"


def _open(url: SourceUrl) -> Registered:
    match = _URL.fullmatch(url.url.partition("#")[0])
    if match is None:
        msg = f"model_path: {url}: wanted models:/NAME@ALIAS, models:/NAME/VERSION or models:/NAME/latest"
        raise SettingsError(msg)
    try:
        import mlflow  # noqa: F401 - whether it is there
    except ImportError as exc:
        msg = "model_path: models: needs MLflow's client: pip install 'fitserve[mlflow]'"
        raise SettingsError(msg) from exc
    return Registered(url, match["name"], match["alias"], match["version"] or "")


SOURCE = Source(schemes=("models",), open=_open)
