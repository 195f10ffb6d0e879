"""One file of a web server: ``https://host/path/churn_v1.2.3.joblib``, presigned URLs and those with a password too."""

from __future__ import annotations

import base64
import contextlib
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

from fitserve.errors import ArtifactError, SettingsError
from fitserve.settings import LOOPBACK
from fitserve.store.manifest import MANIFEST_SUFFIX
from fitserve.store.repository import SIGNATURE_SUFFIX, model_stem
from fitserve.store.sources.base import RemoteFile, Source, SourceInterruptedError, Tree
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
    from urllib.parse import SplitResult

    from obstore import ObjectMeta
    from obstore.store import HTTPStore

    from fitserve.store.sources.base import Reading
    from fitserve.urls import SourceUrl


class WebFile:
    """A file of a web server with what lies beside it: its manifest, signature and digest.

    Nothing is looked for beside a URL that has a query: it may be a signature, of this path alone.
    """

    def __init__(self, url: SourceUrl, parts: SplitResult) -> None:
        """Take a checked URL."""
        self._url = url
        self._parts = parts
        self._name = unquote(PurePosixPath(parts.path).name)

    def look(self) -> Tree:
        """Ask for the length and the tag of the file, and for what lies beside it."""
        meta = self._ask(self._parts.path)
        main = RemoteFile(self._name, self._parts.path, meta["size"], tag_of(meta))
        if self._parts.query:
            return Tree(self._name, (main,), is_folder=False)
        stem = model_stem(PurePosixPath(self._name))
        beside = [self._beside(stem + MANIFEST_SUFFIX), self._beside(self._name + SIGNATURE_SUFFIX)]
        main = replace(main, beside=self._beside(self._name + DIGEST_SUFFIX))
        return Tree(self._name, (main, *filter(None, beside)), is_folder=False)

    def read(self, file: RemoteFile, offset: int) -> Reading:
        """Read a file from an offset on."""
        return read_object(self._store(file.key), replace(file, key=""), offset, self._url)

    def _beside(self, name: str) -> RemoteFile | None:
        from urllib.parse import quote

        path = f"{self._parts.path.rpartition('/')[0]}/{quote(name)}"
        try:
            meta = self._ask(path)
        except (ArtifactError, SourceInterruptedError):  # a server may answer anything where there is nothing
            return None
        return RemoteFile(name, path, meta["size"], tag_of(meta))

    def _ask(self, path: str) -> ObjectMeta:
        """Size and tag. A URL may be signed for GET alone, and a server may know no HEAD: then the body is left."""
        import obstore

        store = self._store(path)
        if not self._parts.query:
            with contextlib.suppress(ArtifactError, SourceInterruptedError), translated(self._url):
                return obstore.head(store, "")
        with translated(self._url):
            return obstore.get(store, "").meta

    def _store(self, path: str) -> HTTPStore:
        from obstore.store import HTTPStore

        parts = self._parts
        options = client_options(allows_http=parts.scheme == "http")
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            options["default_headers"] = {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
        host = parts.netloc.rpartition("@")[2]
        url = urlunsplit((parts.scheme, host, path, parts.query, ""))
        return HTTPStore(url, client_options=options, retry_config=retries())


def _open(url: SourceUrl) -> WebFile:
    require_obstore(url.scheme)
    try:
        parts = urlsplit(url.url)
        is_whole = bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_whole = False
    if not is_whole or not PurePosixPath(parts.path).name or parts.path.endswith("/"):
        msg = f"model_path: {url}: wanted the URL of one file: a web server cannot tell what is in a folder"
        raise SettingsError(msg)
    if parts.scheme == "http" and parts.hostname not in LOOPBACK and "sha256=" not in parts.fragment:
        msg = (
            f"model_path: {url}: whoever is on the way can change what http:// brings: use https://, or add "
            "#sha256= and the digest of the file"
        )
        raise SettingsError(msg)
    return WebFile(url, parts)


SOURCE = Source(schemes=("https", "http"), open=_open)
