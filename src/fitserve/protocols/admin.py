"""What changes the server: reload, promote, roll back, aliases; and what has been changed. For callers on this machine.

Each order begins an operation, which another request may look at: 202 says where. With ``?wait=true`` the reply comes
when it is over.
"""

from __future__ import annotations

import re
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING

import orjson

from fitserve.errors import DeadlineExceededError, InputIssue, InvalidInputError, ModelNotFoundError
from fitserve.protocols import admin_operations as described
from fitserve.protocols.base import Protocol, Route
from fitserve.protocols.exchange import Reply
from fitserve.protocols.local import caller, require_local
from fitserve.protocols.orders import asked_limit, asked_to_wait, change_json, operation_json, read_order
from fitserve.protocols.problems import http_problem, problem
from fitserve.store.manifest import IDENTIFIER

if TYPE_CHECKING:
    from fitserve.fleet.operations import Kind, Operation
    from fitserve.protocols.base import Services
    from fitserve.protocols.exchange import AsgiExchange

SLACK_S = 60.0
"""How long a caller waits besides the time for trying a file and loading it in every process."""

MOST_CHANGES = 1000
"""So many changes of a history are told at once."""


def _routes(services: Services) -> list[Route]:
    orders = [
        Route(
            "POST", f"{place}/{name}", partial(handler, services), partial(described.describe_order, name, is_default)
        )
        for place, is_default in (("/model", True), ("/models/{name}", False))
        for name, handler in (("reload", reload), ("promote", promote), ("rollback", roll_back))
    ]
    alias = "/models/{name}/aliases/{alias}"
    return [
        *orders,
        Route("PUT", alias, partial(set_alias, services), described.describe_set_alias),
        Route("DELETE", alias, partial(remove_alias, services), described.describe_remove_alias),
        Route("GET", "/models/{name}/history", partial(history, services), described.describe_history),
        Route("GET", "/operations", partial(operations, services), described.describe_operations),
        Route("GET", "/operations/{id}", partial(operation, services), described.describe_operation),
    ]


PROTOCOL = Protocol(name="admin", routes=_routes)


async def reload(services: Services, exchange: AsgiExchange) -> Reply:
    """Look at the configured path again, and switch to what should serve by it."""
    return await _ordered(services, exchange, "reload", ("reason",))


async def promote(services: Services, exchange: AsgiExchange) -> Reply:
    """Let another version of a model serve."""
    return await _ordered(services, exchange, "promote", ("version", "reason"), ("version",))


async def roll_back(services: Services, exchange: AsgiExchange) -> Reply:
    """Let the version serve that did before."""
    return await _ordered(services, exchange, "rollback", ("reason",))


async def set_alias(services: Services, exchange: AsgiExchange) -> Reply:
    """Let an alias stand for a version."""
    return await _ordered(services, exchange, "alias", ("version", "reason"), ("version",))


async def remove_alias(services: Services, exchange: AsgiExchange) -> Reply:
    """Let an alias stand for nothing any more."""
    return await _ordered(services, exchange, "alias", ("reason",))


async def _ordered(
    services: Services, exchange: AsgiExchange, kind: Kind, known: tuple[str, ...], required: tuple[str, ...] = ()
) -> Reply:
    """Begin an operation, and wait for its end if the caller does."""
    require_local(exchange)
    is_waiting = asked_to_wait(exchange)
    order = await read_order(exchange, known, required)
    name, alias = exchange.parameters.get("name"), exchange.parameters.get("alias")
    if alias is not None and not re.fullmatch(IDENTIFIER, alias):
        wanted = "an alias of up to 64 letters, digits and ._+-, which begins with a letter or a digit"
        raise InvalidInputError([InputIssue(wanted, "other characters, or more")])
    _note_served(services, exchange, name)
    version = order.get("version")
    begun = await services.switch.begin(
        kind,
        name,
        version=None if version is None else _label(services, name, version),
        alias=alias,
        reason=order.get("reason", ""),
        who=caller(exchange),
    )
    if is_waiting and not begun.is_over:
        begun = await services.switch.wait(begun.id, 2 * services.settings.load_timeout_s + SLACK_S)
    _note_served(services, exchange, begun.model)
    return _reply(services, exchange, begun, is_waiting=is_waiting)


def _label(services: Services, name: str | None, version: str) -> str:
    """The version that an order names, by its label or by ``@alias``.

    Raises:
        ModelNotFoundError: there is no such alias.
    """
    if not version.startswith("@"):
        return version
    assignment = services.catalog.assignment
    model = assignment.models.get(assignment.default if name is None else name)
    aliases = {} if model is None else model.aliases
    if version[1:] not in aliases:
        raise ModelNotFoundError(version, [f"@{alias}" for alias in aliases], kind="alias")
    return aliases[version[1:]]


def _note_served(services: Services, exchange: AsgiExchange, name: str | None) -> None:
    """Name the version that serves now in the headers of the reply."""
    assignment = services.catalog.assignment
    model = assignment.models.get(assignment.default if name is None else name)
    if model is not None:
        exchange.model_name, exchange.model_version = model.name, model.serving


def _reply(services: Services, exchange: AsgiExchange, operation: Operation, *, is_waiting: bool) -> Reply:
    body = operation_json(operation)
    if operation.state == "failed":
        return problem(operation.failure, exchange, is_debug=services.settings.debug, operation=body)
    if operation.is_over:
        if operation.kind == "reload":
            body |= {"model_version": operation.to_version, "previous_version": operation.from_version}
        return Reply(orjson.dumps(body))
    if is_waiting:
        late = DeadlineExceededError("it takes longer than a caller is kept waiting; it goes on")
        return problem(late, exchange, is_debug=False, operation=body)
    place = f"{exchange.scope.get('root_path', '')}/operations/{operation.id}".encode()
    return Reply(orjson.dumps(body), HTTPStatus.ACCEPTED, headers=((b"location", place),))


async def history(services: Services, exchange: AsgiExchange) -> Reply:
    """Tell what was changed of a model: when, by whom, from what to what, and why."""
    require_local(exchange)
    limit = asked_limit(exchange, 100, MOST_CHANGES)
    name = exchange.parameters["name"]
    models = services.catalog.assignment.models
    if name not in models:
        raise ModelNotFoundError(name, list(models), kind="model")
    _note_served(services, exchange, name)
    changes = await services.switch.history(name, limit)
    return Reply(orjson.dumps({"model": name, "changes": [change_json(change) for change in changes]}))


async def operations(services: Services, exchange: AsgiExchange) -> Reply:
    """Tell of the operations that are under way, and of those that have ended lately."""
    require_local(exchange)
    found = await services.switch.operations()
    return Reply(orjson.dumps({"operations": [operation_json(one) for one in found]}))


async def operation(services: Services, exchange: AsgiExchange) -> Reply:
    """Tell of one operation."""
    require_local(exchange)
    found = await services.switch.operation(exchange.parameters["id"])
    if found is None:
        return http_problem(HTTPStatus.NOT_FOUND, "there is no such operation, or it has long been over", exchange)
    return Reply(orjson.dumps(operation_json(found)))
