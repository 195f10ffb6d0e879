"""From error to reply: one table, one shape.

The shape is that of RFC 9457 with the members that the clients of older servers look for.
Source: https://www.rfc-editor.org/rfc/rfc9457
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson

from fitserve.errors import (
    ArtifactError,
    BodyTooLargeError,
    ConflictError,
    DeadlineExceededError,
    FitserveError,
    ForbiddenError,
    InputIssue,
    InvalidInputError,
    MalformedBodyError,
    ModelFailedError,
    ModelNotFoundError,
    ModelNotReadyError,
    UnsupportedMediaTypeError,
    clip,
)
from fitserve.protocols.base import caught
from fitserve.protocols.exchange import ClientGoneError, Reply

if TYPE_CHECKING:
    from fitserve.protocols.base import Handler
    from fitserve.protocols.exchange import AsgiExchange, Exchange

logger = logging.getLogger(__name__)

STATUS: dict[type[FitserveError], tuple[int, str]] = {
    MalformedBodyError: (400, "Malformed body"),
    ForbiddenError: (403, "Forbidden"),
    ModelNotFoundError: (404, "No such model version"),
    ConflictError: (409, "Conflict"),
    BodyTooLargeError: (413, "Body too large"),
    UnsupportedMediaTypeError: (415, "Unsupported media type"),
    InvalidInputError: (422, "Invalid input"),
    ArtifactError: (422, "Model file refused"),
    ModelFailedError: (500, "Model failed"),
    ModelNotReadyError: (503, "Not ready"),
    DeadlineExceededError: (504, "Deadline exceeded"),
}
"""What each error of ours becomes; one that is not here is looked up by its bases, else is a 500."""

_PHRASES = {status.value: status.phrase for status in HTTPStatus}

PROBLEM_JSON = b"application/problem+json"
MAX_PROBLEM_BYTES = 8192

STOPPING = "the server is stopping and did not wait any longer for this request"

_FAULT = "the server failed to answer this request; its log tells why, under the request id"


async def answer(exchange: AsgiExchange, handler: Handler, *, is_debug: bool) -> Reply:
    """Run a handler and return its reply, or the problem that it raised.

    Raises:
        ClientGoneError: there is nobody to answer.
    """
    try:
        return await handler(exchange)
    except ClientGoneError:
        raise
    except BaseException as exc:
        if not caught(exc):
            raise
        return problem(exc, exchange, is_debug=is_debug)


def problem(
    exc: BaseException, exchange: Exchange, *, is_debug: bool, operation: dict[str, Any] | None = None
) -> Reply:
    """Answer an error: the caller's own mistake in full, a fault of the server without its details.

    A fault is logged here with its traceback; its text, which may hold values, only if ``is_debug``.
    ``operation`` is the one that failed, as JSON, where one did.
    """
    for kind in type(exc).__mro__:
        if kind in STATUS:
            status, title = STATUS[kind]
            break
    else:
        status, title = 500, "Internal server error"
    if status == 500:  # noqa: PLR2004
        _log_fault(exc, exchange, is_debug=is_debug)
        cause = exc.__cause__ or exc
        detail = f"{type(cause).__name__}: {cause}" if is_debug else _FAULT
    else:
        detail = str(exc)
    issues = exc.issues if isinstance(exc, InvalidInputError) else None
    headers = ((b"retry-after", b"1"),) if status == 503 else ()  # noqa: PLR2004
    return problem_reply(status, title, detail, exchange, issues=issues, headers=headers, operation=operation)


def problem_reply(
    status: int,
    title: str,
    detail: str,
    exchange: Exchange,
    *,
    issues: tuple[InputIssue, ...] | None = None,
    headers: tuple[tuple[bytes, bytes], ...] = (),
    operation: dict[str, Any] | None = None,
) -> Reply:
    """Build the error body; at most ``MAX_PROBLEM_BYTES`` long, whatever was sent."""
    detail = clip(detail, 1000)
    exchange.problem = title.lower().replace(" ", "-")
    body: dict[str, Any] = {
        "type": f"urn:fitserve:error:{exchange.problem}",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": f"urn:fitserve:request:{exchange.request_id}",
        "error": detail,
        "status_code": status,
        "timestamp": datetime.now(UTC),
        "request_id": exchange.request_id,
    }
    if issues is not None:
        body["errors"] = [_issue(issue) for issue in issues]
    droppable = body.get("errors", [])
    if operation is not None:
        # Those that failed come first: they tell most, and the last ones are left out.
        droppable = sorted(operation["workers"], key=lambda worker: worker["error"] is None)
        body["operation"] = {**operation, "workers": droppable}
    encoded = _encode(body)
    while len(encoded) > MAX_PROBLEM_BYTES and droppable:
        droppable.pop()
        encoded = _encode(body)
    return Reply(encoded, status, PROBLEM_JSON, headers)


def http_problem(status: int, detail: str, exchange: Exchange, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Reply:
    """Answer what the router or a host application's own route refused."""
    title = _PHRASES.get(status, "Error")
    return problem_reply(status, title.capitalize(), detail, exchange, headers=headers)


def _issue(issue: InputIssue) -> dict[str, Any]:
    return {
        "row": issue.row,
        "column": None if issue.column is None else clip(issue.column),
        "wanted": clip(issue.wanted, 300),
        "came": clip(issue.came, 100),
        "hint": issue.hint,
    }


def _encode(body: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError:  # a lone surrogate in a name that a host application gave us
        return orjson.dumps(_without_surrogates(body))


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {key: _without_surrogates(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    return value


def _log_fault(exc: BaseException, exchange: Exchange, *, is_debug: bool) -> None:
    """Log where it happened, whoever formats the line; what the error says only if ``is_debug``."""
    cause = exc.__cause__ or exc
    kind = type(cause).__name__
    shown = cause if is_debug else ModelFailedError(f"{kind}, whose text may hold values: debug = true shows it")
    logger.error(
        "%s %s failed: %s",
        exchange.method,
        clip(exchange.path, 256),
        str(exc) if isinstance(exc, ModelFailedError) else type(exc).__name__,
        exc_info=(type(shown), shown, cause.__traceback__),
        extra={"request_id": exchange.request_id, "model_version": exchange.model_version},
    )
