"""Objects by obstore: what is common to buckets and web servers.

Source: https://developmentseed.org/obstore; its errors tell whole URLs, so none of their text is passed on.
"""

from __future__ import annotations

import contextlib
import re
from datetime import timedelta
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fitserve.errors import ArtifactError, ArtifactNotFoundError, SettingsError
from fitserve.store.sources.base import Reading, SourceChangedError, SourceInterruptedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from obstore import ObjectMeta
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

    from fitserve.store.sources.base import RemoteFile
    from fitserve.urls import SourceUrl

CHUNK_BYTES = 1 << 18
"""In what pieces bytes are taken. What has come of a piece is lost when the connection breaks off."""

SILENCE_S = 30
"""How long a source may say nothing in the middle of an answer."""

DIGEST_SUFFIX = ".sha256"
"""Ends the name of a file that tells the digest of another, as ``sha256sum`` writes it."""

MAX_DIGEST_BYTES = 4096
"""What a file ``NAME.sha256`` may hold."""

_STATUS = re.compile(r"status code: (\d{3}(?: [A-Z][A-Za-z -]*)?)")
_PASSING = {"408", "425", "429"}
"""Statuses after which it may be asked again, beside those of a server at fault."""

_FAULTS = {
    "Content-Length Header missing": "the server does not tell the length of the file",
    "invalid peer certificate": "its certificate is not valid",
    "dns error": "its host is not known",
    "refused": "the connection was refused",
    "TimedOut": "it timed out",
}
_HEX = re.compile(r"[0-9a-fA-F]{64}")


@cache
def require_obstore(scheme: str) -> None:
    """Look for the library.

    Raises:
        SettingsError: it is not installed.
    """
    try:
        import obstore  # noqa: F401 - whether it is there
    except ImportError as exc:
        msg = f"model_path: {scheme}: needs obstore: pip install 'fitserve[remote]'"
        raise SettingsError(msg) from exc


def client_options(*, allows_http: bool = False) -> ClientConfig:
    """How obstore's client behaves: patient with a long answer, not with silence."""
    return {
        "timeout": timedelta(days=1),  # of a whole answer; by default 30 s, which a large model exceeds
        "read_timeout": timedelta(seconds=SILENCE_S),
        "connect_timeout": timedelta(seconds=10),
        "allow_http": allows_http,
        "user_agent": f"fitserve/{version('fitserve')}",
    }


def retries() -> RetryConfig:
    """How often obstore itself asks again; what then still fails is tried again by :mod:`fitserve.store.fetch`."""
    return {"max_retries": 2, "retry_timeout": timedelta(seconds=20)}


def tag_of(meta: ObjectMeta) -> str:
    """What changes whenever the bytes of an object do; "" if the source does not tell.

    Listings and single answers spell the same ETag with quotes and without, and times with and without fractions.
    """
    if meta["e_tag"]:
        return meta["e_tag"].removeprefix("W/").strip('"')
    modified_s = int(meta["last_modified"].timestamp())
    return f"modified {modified_s}" if modified_s else ""


@contextlib.contextmanager
def translated(url: SourceUrl) -> Iterator[None]:
    """Errors of obstore in our words.

    Raises:
        ArtifactNotFoundError: there is no such object.
        ArtifactError: it may not be read, or the server does not do what is needed.
        SourceChangedError: it cannot be read from the middle on.
        SourceInterruptedError: the source is at fault, or cannot be reached.
    """
    from obstore.exceptions import (
        BaseError,
        InvalidPathError,
        NotSupportedError,
        PermissionDeniedError,
        UnauthenticatedError,
    )

    try:
        yield
    except FileNotFoundError:
        msg = f"{url}: there is no such object"
        raise ArtifactNotFoundError(msg) from None
    except (PermissionDeniedError, UnauthenticatedError):
        msg = f"{url} may not be read with the credentials that this process has"
        raise ArtifactError(msg) from None
    except InvalidPathError:
        msg = f"{url} has a name that no object can have"
        raise ArtifactError(msg) from None
    except NotSupportedError:
        raise SourceChangedError(str(url)) from None
    except (BaseError, ValueError, OSError) as exc:
        status = _STATUS.search(str(exc))
        if status is None or status[1][:3] in _PASSING or status[1].startswith("5"):
            raise SourceInterruptedError(_told(exc)) from None
        kind = ArtifactNotFoundError if status[1].startswith("404") else ArtifactError
        msg = f"{url}: the server answered {status[1].strip()}"
        raise kind(msg) from None


def _told(exc: Exception) -> str:
    """What may be told of an error of obstore: the status, or what kind of fault it is."""
    text = str(exc)
    if status := _STATUS.search(text):
        return f"the server answered {status[1].strip()}"
    for fault, words in _FAULTS.items():
        if fault.lower() in text.lower():
            return words
    return "the connection failed or broke off"


def read_object(store: ObjectStore, file: RemoteFile, offset: int, url: SourceUrl) -> Reading:
    """Read an object from an offset on, as :meth:`~fitserve.store.sources.base.Remote.read` has it."""
    import obstore

    try:
        with translated(url):
            if offset:
                result = obstore.get(store, file.key, options={"range": {"offset": offset}})
            else:  # a server may know no ranges
                result = obstore.get(store, file.key)
            meta = result.meta
    except ArtifactNotFoundError as exc:
        raise SourceChangedError(file.path) from exc
    if tag_of(meta) != file.tag or meta["size"] != file.size or result.range[0] != offset:
        raise SourceChangedError(file.path)
    told = {str(name).lower(): value for name, value in result.attributes.items()}.get("sha256", "")
    return Reading(_chunks(result, url), told.lower() if _HEX.fullmatch(told) else None)


def _chunks(result: Any, url: SourceUrl) -> Iterator[bytes]:
    with translated(url):
        for chunk in result.stream(min_chunk_size=CHUNK_BYTES):
            yield bytes(chunk)


def digest_in(text: bytes) -> str | None:
    """The digest that a file made by ``sha256sum`` tells, in hex."""
    found = _HEX.match(text[:MAX_DIGEST_BYTES].decode("ascii", "replace").lstrip("\\ \t\r\n"))
    return found[0].lower() if found else None
