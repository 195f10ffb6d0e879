"""The longer way: what goes through FastAPI's router, and what the router refuses or raises, in our own words."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from fitserve.errors import ForbiddenError, InputIssue, InvalidInputError, clip
from fitserve.protocols.exchange import EXCHANGE_KEY, AsgiExchange, Exchange, Reply
from fitserve.protocols.paths import parameters_of
from fitserve.protocols.problems import answer, http_problem, problem

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from starlette.datastructures import Headers
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from fitserve.protocols.base import Handler


class RoutedHandler:
    """The handlers of one path, by method, as an endpoint of the router: the same answers by the longer way."""

    def __init__(self, path: str, handlers: Mapping[str, Handler], *, is_debug: bool) -> None:
        self._handlers = handlers
        self._parameters = parameters_of(path)
        self._is_debug = is_debug

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer through ``receive`` and ``send``, which a middleware of the owner's may have wrapped."""
        exchange: AsgiExchange = scope[EXCHANGE_KEY]
        exchange.receive = receive
        if self._parameters:  # a mount above may have some too, by the same names
            exchange.take({name: scope["path_params"][name] for name in self._parameters})
        await exchange.reply(await answer(exchange, self._handlers[scope["method"]], is_debug=self._is_debug), send)


class Cors(CORSMiddleware):
    """Starlette's, refusing a preflight in our own words."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass that no browser asks about."""
        if self.concerns(scope[EXCHANGE_KEY]):
            await super().__call__(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    @staticmethod
    def concerns(exchange: Exchange) -> bool:
        """Whether there is something to allow, or to tell a cache.

        Without Origin there is nothing to allow, and the reply to a POST is in no cache that Vary could concern.
        """
        return exchange.method != "POST" or b"origin" in exchange.headers

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer a preflight.

        Raises:
            ForbiddenError: the origin, the method or a header is not allowed.
        """
        response = super().preflight_response(request_headers)
        if response.status_code >= HTTPStatus.BAD_REQUEST:
            msg = "this origin, method or header is not allowed (cors_origins)"
            raise ForbiddenError(msg)
        return response


async def answer_http_exception(request: Request, exc: Exception) -> Response:
    """Answer what the router refused, or what a route of the owner's raised with a status."""
    assert isinstance(exc, HTTPException)
    exchange = request.scope[EXCHANGE_KEY]
    detail = str(exc.detail)
    if exc.status_code == HTTPStatus.NOT_FOUND and detail == HTTPStatus.NOT_FOUND.phrase:
        detail = f"there is nothing at this path; {request.scope.get('root_path', '')}/docs lists what there is"
    if exc.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        detail = f"this path does not answer {clip(request.method, 20)}; allowed: {(exc.headers or {}).get('Allow')}"
    headers = tuple((k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in (exc.headers or {}).items())
    return _response(http_problem(exc.status_code, detail, exchange, headers))


async def answer_validation_error(request: Request, exc: Exception) -> Response:
    """Answer a wrong call of a route that the owner added, with the same body as ours."""
    assert isinstance(exc, RequestValidationError)
    issues = [
        InputIssue("what this route takes", clip(error["msg"], 100), column=".".join(map(str, error["loc"])))
        for error in exc.errors()
    ]
    return await answer_exception(request, InvalidInputError(issues))


async def answer_exception(request: Request, exc: Exception) -> Response:
    """Answer any other exception of a route."""
    is_debug = request.app.services.settings.debug
    return _response(problem(exc, request.scope[EXCHANGE_KEY], is_debug=is_debug))


EXCEPTION_HANDLERS: dict[int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]] = {
    HTTPException: answer_http_exception,
    RequestValidationError: answer_validation_error,
    Exception: answer_exception,
}


def _response(reply: Reply) -> Response:
    response = Response(reply.body, reply.status, media_type=reply.media_type.decode())
    response.raw_headers += reply.headers
    return response
