"""Where a model lies that must be fetched before it can be read, and its URL without what must not be told."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/(/|.)", re.DOTALL)
_MODELS = "models:/"
_USERINFO = re.compile(r"(://)[^/\s?#]*@")
_QUERY = re.compile(r"(://[^\s?#\"'<>]*)\?[^\s\"'<>]*")


@dataclass(frozen=True, slots=True, repr=False)
class SourceUrl:
    """The URL of a model file, of a folder of models, or of a version in a registry.

    Its text is the URL without user, password, query and fragment, so that a log line or an error that names it
    tells no secret: a presigned URL holds its signature in the query. Two that differ in these alone look alike.

    Attributes:
        url: the whole of it, secrets included. For whoever opens it, and for nobody else.
    """

    url: str

    def __str__(self) -> str:
        return without_secrets(self.url.partition("#")[0])

    def __repr__(self) -> str:
        return f"SourceUrl({str(self)!r})"

    @property
    def scheme(self) -> str:
        """Such as ``s3``, in small letters."""
        return self.url.partition(":")[0].lower()

    @property
    def key(self) -> str:
        """16 hex digits that tell this place from others, whoever's name and password it is asked for in."""
        place = _USERINFO.sub(r"\1", self.url.partition("#")[0], count=1)
        return hashlib.sha256(place.rstrip("/").encode()).hexdigest()[:16]


def source_url(text: str) -> SourceUrl | None:
    """The URL that a text is; None for a path of this machine."""
    if "://" not in text and not text.startswith(_MODELS):
        return None
    return SourceUrl(text) if _URL.match(text) else None


def without_secrets(text: str) -> str:
    """A text in which no URL tells a user, a password or a query: for logs and errors."""
    return _QUERY.sub(r"\1", _USERINFO.sub(r"\1", text))
