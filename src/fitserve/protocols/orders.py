"""What an order to change the server says, in its query and its body; and an operation as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from fitserve.errors import InputIssue, InvalidInputError, MalformedBodyError, clip, did_you_mean
from fitserve.protocols.json_body import decode_json, require_json
from fitserve.signature import describe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fitserve.fleet.operations import Operation
    from fitserve.protocols.exchange import AsgiExchange
    from fitserve.shared_state.journal import Change

MAX_ORDER_BYTES = 65536

LONGEST = {"version": 64, "reason": 500}
"""The most characters that each member may have."""


async def read_order(exchange: AsgiExchange, known: Sequence[str], required: Sequence[str] = ()) -> dict[str, str]:
    """Read the body of an order: an object of texts, or nothing at all where nothing is ``required``.

    Raises:
        RequestError: it is anything else.
    """
    require_json((), exchange)
    body = await exchange.read_body(MAX_ORDER_BYTES)
    document = decode_json(body) if body or required else {}
    if not isinstance(document, dict):
        raise InvalidInputError([InputIssue("an object", describe(document))])
    issues = [
        InputIssue(
            f"only {' and '.join(map(repr, known))}", f"the member {clip(name)!r}", hint=did_you_mean(name, known)
        )
        for name in document
        if name not in known
    ]
    issues += [InputIssue(f"the member {name!r}", "nothing") for name in required if name not in document]
    given = {
        name: value for name, value in document.items() if name in known and (value is not None or name in required)
    }
    for name, value in given.items():
        if not isinstance(value, str):
            issues.append(InputIssue(f"a string in {name!r}", describe(value)))
        elif not (name == "reason" or value) or len(value) > LONGEST[name]:
            issues.append(InputIssue(f"up to {LONGEST[name]} characters in {name!r}", f"{len(value)} of them"))
        elif any("\ud800" <= character <= "\udfff" for character in value):
            msg = f"{name!r} holds half of a character"
            raise MalformedBodyError(msg)
    if issues:
        raise InvalidInputError(issues)
    return given


def read_query(exchange: AsgiExchange, known: Sequence[str]) -> dict[str, str]:
    """The parameters of a query.

    Raises:
        InvalidInputError: one is not known, or is there twice.
    """
    found: dict[str, str] = {}
    for name, value in parse_qsl(exchange.scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True):
        if name not in known:
            wanted = f"only {' and '.join(known)} behind the question mark"
            raise InvalidInputError([InputIssue(wanted, f"{clip(name)!r}", hint=did_you_mean(name, known))])
        if name in found:
            raise InvalidInputError([InputIssue(f"{name} once", "twice")])
        found[name] = value
    return found


def asked_to_wait(exchange: AsgiExchange) -> bool:
    """Whether the caller wants to wait for the end of what it orders: ``?wait=true``.

    Raises:
        InvalidInputError: the query says something else.
    """
    value = read_query(exchange, ("wait",)).get("wait", "false")
    if value not in {"true", "false"}:
        raise InvalidInputError([InputIssue("wait=true or wait=false", "another value")])
    return value == "true"


def asked_limit(exchange: AsgiExchange, default: int, most: int) -> int:
    """How many items the caller wants: ``?limit=N``.

    Raises:
        InvalidInputError: it is no such number.
    """
    text = read_query(exchange, ("limit",)).get("limit", str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(most)) and 1 <= int(text) <= most):
        raise InvalidInputError([InputIssue(f"limit=1 to limit={most}", "another value")])
    return int(text)


def operation_json(operation: Operation) -> dict[str, Any]:
    """An operation as callers see it."""
    status = "reloaded" if (operation.kind, operation.status) == ("reload", "switched") else operation.status
    return {
        "id": operation.id,
        "kind": operation.kind,
        "model": operation.model,
        **({"alias": operation.alias} if operation.alias is not None else {}),
        "from": operation.from_version,
        "to": operation.to_version,
        "reason": operation.reason,
        "who": operation.who,
        "state": operation.state,
        "status": status,
        "error": operation.error,
        "started_at": operation.started_at,
        "ended_at": operation.ended_at,
        "workers": [
            {"pid": worker.pid, "state": worker.state, "progress": worker.progress, "error": worker.error}
            for worker in operation.workers
        ],
    }


def change_json(change: Change) -> dict[str, Any]:
    """A change of the history as callers see it."""
    return {
        "at": change.at,
        "who": change.who,
        "action": change.action,
        **({"alias": change.alias} if change.alias is not None else {}),
        "from": change.from_version,
        "to": change.to_version,
        "reason": change.reason,
        "operation": change.operation,
    }
