"""Buckets: ``s3://bucket/key``, ``gs://bucket/key``, ``az://container/key``, or a prefix of keys instead of one.

Credentials are those that the environment gives, by the names that each provider's own tools read; obstore looks for
them. Profiles of ``~/.aws`` it does not read: boto3 does, where it is installed.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fitserve.errors import ArtifactError, ArtifactNotFoundError, SettingsError
from fitserve.store.files import MAX_FILES
from fitserve.store.manifest import MANIFEST_SUFFIX
from fitserve.store.repository import SIGNATURE_SUFFIX, model_stem
from fitserve.store.sources.base import RemoteFile, Source, Tree
from fitserve.store.sources.reading import (
    DIGEST_SUFFIX,
    client_options,
    read_object,
    require_obstore,
    retries,
    tag_of,
    translated,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from obstore import ObjectMeta
    from obstore.store import ObjectStore

    from fitserve.store.sources.base import Reading
    from fitserve.urls import SourceUrl

_S3_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_ENDPOINTS = (*_S3_ENDPOINTS, "AZURE_ENDPOINT", "AZURE_STORAGE_ENDPOINT")
_AWS_IN_ENVIRONMENT = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_SKIP_SIGNATURE")

_AZURE = "AZURE_STORAGE_ACCOUNT_NAME, and AZURE_STORAGE_ACCOUNT_KEY or another credential"
_WANTED = {
    "s3": "AWS_REGION, and AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY or another credential",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS with the path of a file of credentials",
    "az": _AZURE,
    "abfs": _AZURE,
    "abfss": _AZURE,
}


class Bucket:
    """One object of a bucket with what lies beside it, or all below a prefix."""

    def __init__(self, url: SourceUrl, store: ObjectStore, key: str) -> None:
        """Take an opened bucket.

        Args:
            url: of the place, for errors.
            store: the bucket.
            key: of the object or the prefix; one that ends with ``/``, or is empty, is a prefix.
        """
        self._url = url
        self._store = store
        self._key = key

    def look(self) -> Tree:
        """Tell of the object of this key, or else of those below it."""
        if self._key and not self._key.endswith("/") and (found := self._head(self._key)) is not None:
            return self._one(found)
        return self._all_below(self._key.rstrip("/"))

    def read(self, file: RemoteFile, offset: int) -> Reading:
        """Read an object from an offset on."""
        return read_object(self._store, file, offset, self._url)

    def _one(self, found: ObjectMeta) -> Tree:
        folder, _, name = self._key.rpartition("/")
        manifest = model_stem(PurePosixPath(name)) + MANIFEST_SUFFIX
        files = [replace(_file(name, found), beside=self._beside(folder, name + DIGEST_SUFFIX))]
        files += [
            file for one in (manifest, name + SIGNATURE_SUFFIX) if (file := self._beside(folder, one)) is not None
        ]
        return Tree(name, tuple(files), is_folder=False)

    def _beside(self, folder: str, name: str) -> RemoteFile | None:
        """An object beside; a key that may not be read counts as absent, as it does to S3 where nobody may list."""
        try:
            meta = self._head(f"{folder}/{name}" if folder else name)
        except ArtifactError:
            return None
        return None if meta is None else _file(name, meta)

    def _head(self, key: str) -> ObjectMeta | None:
        import obstore

        try:
            with translated(self._url):
                return obstore.head(self._store, key)
        except ArtifactNotFoundError:
            return None

    def _all_below(self, prefix: str) -> Tree:
        import obstore

        metas: list[ObjectMeta] = []
        with translated(self._url):
            for batch in obstore.list(self._store, prefix or None):
                metas += batch
                if len(metas) > MAX_FILES:
                    msg = f"{self._url} has more than {MAX_FILES} objects below it: give the prefix of the models"
                    raise ArtifactError(msg)
        main = prefix.rpartition("/")[2] or urlsplit(self._url.url).netloc
        # An object "models/" is listed as "models", and stands for a folder: there is none of that name.
        metas = [meta for meta in metas if meta["size"] or self._head(meta["path"]) is not None]
        below = {meta["path"].removeprefix(prefix).lstrip("/"): meta for meta in metas}
        files = tuple(_tree_files(main, below))
        if not files:
            msg = f"{self._url}: there is no such object, and none below it"
            raise ArtifactNotFoundError(msg)
        signature = self._beside(prefix.rpartition("/")[0], main + SIGNATURE_SUFFIX) if prefix else None
        return Tree(main, (*files, signature) if signature else files, is_folder=True)


def _tree_files(main: str, below: dict[str, Any]) -> Iterable[RemoteFile]:
    """The objects below a prefix as files: not those that are hidden, or tell digests."""
    for path, meta in sorted(below.items()):
        partner = path.removesuffix(DIGEST_SUFFIX)
        if not path or any(part.startswith(".") for part in path.split("/")) or (partner != path and partner in below):
            continue
        beside = below.get(path + DIGEST_SUFFIX)
        file = _file(f"{main}/{path}", meta)
        yield replace(file, beside=_file(file.path + DIGEST_SUFFIX, beside)) if beside else file


def _file(path: str, meta: ObjectMeta) -> RemoteFile:
    return RemoteFile(path, meta["path"], meta["size"], tag_of(meta))


def _open(url: SourceUrl) -> Bucket:
    require_obstore(url.scheme)
    from obstore.store import from_url

    parts = urlsplit(url.url.partition("#")[0])
    if not parts.netloc or parts.query:
        msg = f"model_path: {url}: wanted {url.scheme}://BUCKET/KEY and nothing else; credentials and regions are "
        raise SettingsError(msg + "taken from the environment")
    options: dict[str, Any] = {
        "client_options": client_options(allows_http=_allows_http()),
        "retry_config": retries(),
    }
    if url.scheme == "s3":
        options |= _s3_options()
    try:
        store = from_url(f"{url.scheme}://{parts.netloc}", **options)
    except Exception:  # noqa: BLE001 - its errors have several bases, and tell values of the environment
        msg = f"model_path: {url} is not opened by what the environment says: wanted {_WANTED[url.scheme]}"
        raise SettingsError(msg) from None
    return Bucket(url, store, parts.path.removeprefix("/"))


def _allows_http() -> bool:
    """Whether the environment asks for buckets without TLS: by the endpoint of one, or in so many words.

    obstore would see it itself, if it were given no other options of its client.
    """
    return any(os.environ.get(name, "").startswith("http://") for name in _ENDPOINTS) or any(
        os.environ.get(f"{provider}_ALLOW_HTTP", "").lower() in {"1", "true"} for provider in ("AWS", "GOOGLE", "AZURE")
    )


def _s3_options() -> dict[str, Any]:
    """What obstore does not find by itself: one of the names of an endpoint, and the profiles of ``~/.aws``."""
    endpoint = next((os.environ[name] for name in _S3_ENDPOINTS if os.environ.get(name)), "")
    options: dict[str, Any] = {"endpoint": endpoint} if endpoint else {}
    if not any(os.environ.get(name) for name in _AWS_IN_ENVIRONMENT) and importlib.util.find_spec("boto3"):
        from boto3 import Session

        session = Session()
        if session.get_credentials() is not None:
            from obstore.auth.boto3 import Boto3CredentialProvider

            options["credential_provider"] = Boto3CredentialProvider(session)
            options |= {"region": session.region_name} if session.region_name else {}
    return options


SOURCE = Source(schemes=("s3", "gs", "az", "abfs", "abfss"), open=_open)
