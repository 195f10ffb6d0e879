"""JSON in and out: strict on what comes, exact in what goes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import orjson

from fitserve.errors import MalformedBodyError, ModelFailedError, UnsupportedMediaTypeError, clip

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from fitserve.protocols.exchange import Exchange

_SENT_BY_DEFAULT = frozenset({b"application/x-www-form-urlencoded", b"text/plain"})
"""Types that clients put on a JSON body unless told otherwise: ``curl -d``, a browser's ``fetch``."""

_BOM = b"\xef\xbb\xbf"
_SPACES = np.frombuffer(b" \t\n\r", dtype=np.uint8)


def require_json(origins: tuple[str, ...], exchange: Exchange) -> None:
    """Refuse a body that says that it is something else.

    ``origins`` are those whose pages may call.

    Raises:
        UnsupportedMediaTypeError: it is no JSON in UTF-8, it is compressed, or a page of another site may not send it.
    """
    headers = exchange.headers
    content_type = headers.get(b"content-type")
    if content_type != b"application/json" or b"content-encoding" in headers:
        _check_media_type(exchange, content_type or b"", origins)


def decode_json(body: bytes) -> Any:
    """Decode a body.

    NaN, Infinity and numbers too large for a float are no JSON and are refused with the rest.

    Raises:
        MalformedBodyError: it is not JSON, or an object names a key twice.
    """
    body = body.removeprefix(_BOM)
    if not body:
        msg = "the body is empty; wanted a JSON document"
        raise MalformedBodyError(msg)
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        msg = f"the body is not JSON: {exc}"
        raise MalformedBodyError(msg) from exc
    # A decoder keeps the last of two equal keys. Each member has a colon, so as many members
    # as colons means that none is lost; more colons mean that, or colons inside of strings.
    n_colons = body.count(b":")
    if n_colons == 1:
        return document
    n_members = _n_shallow_members(document)
    if n_colons != n_members and n_members != _n_colons_after_quotes(body) and n_colons != _n_members(document):
        _refuse_duplicate_keys(body)
    return document


def _check_media_type(exchange: Exchange, content_type: bytes, origins: tuple[str, ...]) -> None:
    coding = exchange.header(b"content-encoding")
    if coding and coding.strip().lower() != b"identity":
        msg = "the body has a content coding; send it plain"
        raise UnsupportedMediaTypeError(msg)
    essence, _, parameters = content_type.lower().partition(b";")
    essence = essence.strip()
    is_json = essence in {b"application/json", b"text/json"} or essence.endswith(b"+json")
    if not is_json and content_type and essence not in _SENT_BY_DEFAULT:
        msg = f"a body of type {clip(essence.decode('latin-1'))!r} is not read here; send application/json"
        raise UnsupportedMediaTypeError(msg)
    charset = parameters.partition(b"charset=")[2].partition(b";")[0].strip(b" \"'")
    if charset not in {b"", b"utf-8", b"utf8", b"us-ascii"}:
        msg = "JSON is UTF-8; another charset is not read here"
        raise UnsupportedMediaTypeError(msg)
    # A page of another site may send these types without asking first, JSON it may not.
    # Source: https://fetch.spec.whatwg.org/#simple-header
    if not is_json and is_cross_site(exchange, origins):
        msg = "a page of another site must send Content-Type: application/json"
        raise UnsupportedMediaTypeError(msg)


def is_cross_site(exchange: Exchange, origins: Iterable[str]) -> bool:
    """Whether a browser says that a page of a site that is not allowed sends this request."""
    origin = (exchange.header(b"origin") or b"").decode("latin-1")
    if origin and origin in origins:
        return False
    fetch_site = exchange.header(b"sec-fetch-site")
    if fetch_site is not None:
        return fetch_site not in {b"same-origin", b"none"}
    return bool(origin) and urlsplit(origin).netloc.encode("latin-1") != exchange.header(b"host")


def _n_colons_after_quotes(body: bytes) -> int:
    """At least the members that a document names: the colons behind a quotation mark, as times of day have none.

    -1 if white space before a colon may hide one.
    """
    characters = np.frombuffer(body, dtype=np.uint8)
    before = characters[np.flatnonzero(characters == ord(":")) - 1]
    if np.isin(before, _SPACES).any():
        return -1
    return int(np.count_nonzero(before == ord('"')))


def _n_shallow_members(document: Any) -> int:
    """The members of the document and of the objects in its lists: for most requests all there are, and cheap."""
    if not isinstance(document, dict):
        return 0
    n_members = len(document)
    for value in document.values():
        if isinstance(value, dict):
            n_members += len(value)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            n_members += sum(len(item) for item in value if isinstance(item, dict))
    return n_members


def _n_members(document: Any) -> int:
    """The members of all objects of a document. Not recursive: a document may be nested deeply."""
    n_members = 0
    waiting = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            n_members += len(value)
            value = value.values()
        elif not isinstance(value, list):
            continue
        waiting.extend(item for item in value if isinstance(item, dict | list))
    return n_members


def _refuse_duplicate_keys(body: bytes) -> None:
    def refuse(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                msg = f"the body names the key {clip(key)!r} twice in one object"
                raise MalformedBodyError(msg)
            seen.add(key)

    try:
        json.loads(body, object_pairs_hook=refuse, parse_int=len, parse_float=len)
    except RecursionError:
        msg = "the body is nested too deeply"
        raise MalformedBodyError(msg) from None


def plain(values: NDArray[Any]) -> list[Any]:
    """Turn what a model returned into what JSON can hold, a label being the label that it was.

    Raises:
        ModelFailedError: a value is of a type that JSON has no word for.
    """
    match values.dtype.kind:
        case "b" | "i" | "u" | "f" | "U":
            return values.tolist()  # type: ignore[no-any-return]
        case "S":
            return np.char.decode(values, "utf-8").tolist()  # type: ignore[no-any-return]
        case "M":
            return np.datetime_as_string(values).tolist()  # type: ignore[no-any-return]
        case "O":
            return [_plain(value) for value in values.tolist()]
        case _:
            msg = f"the model returned an array of {values.dtype}, which JSON cannot hold"
            raise ModelFailedError(msg)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value)
    msg = f"the model returned a {type(value).__name__}, which JSON cannot hold"
    raise ModelFailedError(msg)
