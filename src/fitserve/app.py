"""The composition root: settings in, a FastAPI application out. The only module that knows all the parts."""

from __future__ import annotations

import asyncio
import gc
import importlib.metadata
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.routing import Route as StarletteRoute

import fitserve.protocols
from fitserve.apidocs import add_pages
from fitserve.cache import open_cache
from fitserve.engine.batcher import Batcher
from fitserve.engine.core import Engine
from fitserve.engine.executor import Executor
from fitserve.errors import FitserveError, ModelNotReadyError, SettingsError
from fitserve.estimators.threads import one_thread_here, usable_cpus
from fitserve.observe.logs import CLIENT_CLOSED, AccessLog, choose_format
from fitserve.observe.metrics import Metrics
from fitserve.observe.siblings import server_folder
from fitserve.plugins import discover
from fitserve.protocols import openapi
from fitserve.protocols.base import Handler, Protocol, Services, caught
from fitserve.protocols.exchange import EXCHANGE_KEY, OTHER_ROUTE, AsgiExchange, ClientGoneError, Exchange
from fitserve.protocols.metrics import note_models
from fitserve.protocols.problems import STOPPING, answer, problem
from fitserve.protocols.router import EXCEPTION_HANDLERS, Cors, RoutedHandler
from fitserve.server.heads import Heads
from fitserve.server.short_way import ShortWay
from fitserve.server.terminal import has_terminal
from fitserve.settings import Settings, read_settings
from fitserve.store.catalog import Catalog
from fitserve.store.lifecycle import Lifecycle
from fitserve.store.takeover import Optimizer
from fitserve.store.verify import verifier_of
from fitserve.store.watcher import changes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("fitserve")

GC_THRESHOLD = 20_000
"""So many new objects make the collector look for cycles. At 700 it took 12 % of a request's CPU time."""


def create_app(
    model: str | PathLike[str] | object | None = None,
    *,
    name: str = "model",
    version: str | None = None,
    settings: Settings | None = None,
) -> FitserveApp:
    """Build an application that serves a model, to be run, mounted or tested.

    The model is loaded before this returns, so the application also works where nobody runs
    its lifespan, as below ``parent.mount("/ml", create_app("churn_v1.0.0.joblib"))``.

    Args:
        model: the path of a model file, or a fitted estimator, of which a copy is served;
            ``settings.model_path`` by default.
        name: of a model that is not read from a file.
        version: of a model that is not read from a file; made of its digest by default.
        settings: by default read from the environment, ``.env`` and ``fitserve.toml``.

    Raises:
        ArtifactError: the model cannot be served.
        SettingsError: a setting is unknown or out of bounds.
    """
    settings = settings or read_settings()[0]
    refuse_to_confine(settings)
    if model is None or isinstance(model, str | Path) or hasattr(model, "__fspath__"):
        path = settings.model_path if model is None else Path(model)
        app = FitserveApp(settings, path)
        app.services.lifecycle.start()
        return app
    app = FitserveApp(settings, None)
    app.services.lifecycle.adopt(model, name=name, version=version)
    return app


class FitserveApp(FastAPI):
    """A FastAPI application whose own routes have a second door, in front of the router.

    A request meets the door first: the routes of the protocols are looked up in one table and
    answered without the router, which costs several times what a prediction does. All else goes
    to the router: the documentation pages, and routes that the owner adds. If the owner adds a
    middleware, the door is shut, so that every request passes it.
    """

    def __init__(
        self,
        settings: Settings,
        model_path: Path | None,
        *,
        is_standalone: bool = False,
        is_watching: bool = False,
        passed: Mapping[str, Mapping[str, Any]] | None = None,
        metrics_folder: Path | None = None,
    ) -> None:
        """Build the application; the model is loaded by ``services.lifecycle.start``, or by the lifespan.

        Args:
            settings: of this application.
            model_path: of the file to serve, if it is one.
            is_standalone: nothing else runs in this process: write access lines to standard error, and
                answer a request that is cancelled, which then can only be the server stopping.
            is_watching: reload when the file changes, as long as the lifespan runs.
            passed: reports of model files that have been tried already, as
                :attr:`~fitserve.store.verify.Verifier.passed` has them.
            metrics_folder: private to this process and its siblings; looked for if there are some and it is not given.
        """
        self.services = _services(settings, model_path, passed or {}, metrics_folder)
        self.access_log = AccessLog(
            choose_format(settings.log_format, sys.stderr),
            sys.stderr,
            is_enabled=is_standalone and settings.log_level in {"debug", "info"},
        )
        self._is_standalone = is_standalone
        self._is_watching = is_watching
        self._is_folder = model_path is not None and model_path.is_dir()
        self._openapi_key: Any = None
        self._is_serving = False
        self._tasks: set[asyncio.Task[None]] = set()  # the loop itself keeps none alive
        super().__init__(
            title="fitserve",
            version=importlib.metadata.version("fitserve"),
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
            exception_handlers=EXCEPTION_HANDLERS,
        )
        self._own_routes = [
            route
            for protocol in discover(fitserve.protocols, Protocol, "PROTOCOL")
            for route in protocol.routes(self.services)
        ]
        self._paths = frozenset(route.path for route in self._own_routes)
        self._door: dict[tuple[str, str], Handler] = {}
        for route in self._own_routes:
            methods = ["GET", "HEAD"] if route.method == "GET" else [route.method]
            self._door |= {(method, route.path): route.handler for method in methods}
            endpoint = RoutedHandler(route.handler, is_debug=settings.debug)
            self.router.routes.append(StarletteRoute(route.path, endpoint, methods=methods, include_in_schema=False))
        add_pages(self)
        prefixes = {"", settings.root_path}
        hot = {(r.method, p + r.path): (r.path, r.inference) for r in self._own_routes if r.inference for p in prefixes}
        self._short_way = ShortWay(
            Heads(hot, settings.max_body_bytes),
            self.services.catalog,
            self.services.metrics,
            self._observe,
            is_debug=settings.debug,
        )
        self._inner: ASGIApp = self._pass
        if settings.cors_origins:
            self._inner = Cors(
                self._pass,
                allow_origins=settings.cors_origins,
                allow_credentials=settings.cors_credentials,
                allow_methods=("GET", "HEAD", "POST"),
                allow_headers=("*",),
                expose_headers=("X-Process-Time", "X-Model-Version", "X-Request-ID", "X-Cache"),
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whatever happens: no exception reaches the server below."""
        if scope["type"] == "http":
            if not self._is_serving:  # nobody runs the lifespan of a mounted application
                self._begin_to_serve()
            await self._exchange(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    async def _exchange(self, scope: Scope, receive: Receive, send: Send) -> None:
        settings, metrics = self.services.settings, self.services.metrics
        path = scope["path"]
        prefix = scope.get("root_path") or settings.root_path  # it is mounted, or the server was told
        scope["root_path"] = prefix
        route = path.removeprefix(prefix) if prefix else path
        exchange = AsgiExchange(scope, receive, send, route if route in self._paths else OTHER_ROUTE)
        current = self.services.catalog.current
        if current is not None:
            exchange.model_name, exchange.model_version = current.name, current.version
        metrics.in_flight(1)
        try:
            handler = self._door.get((exchange.method, route))
            if handler is None or self.user_middleware or (settings.cors_origins and Cors.concerns(exchange)):
                scope[EXCHANGE_KEY] = exchange
                await self._inner(scope, receive, exchange.send)
            else:
                await exchange.reply(await handler(exchange))
        except ClientGoneError:
            pass
        except asyncio.CancelledError:
            if not self._is_standalone:
                raise
            if not exchange.is_started:
                stopping = ModelNotReadyError(STOPPING)
                await exchange.reply(problem(stopping, exchange, is_debug=False))
        except BaseException as exc:
            if not caught(exc):
                raise
            # The router answers an exception and raises it all the same: then it is logged already.
            if not exchange.is_started:
                await exchange.reply(problem(exc, exchange, is_debug=settings.debug))
        finally:
            self._observe(exchange)

    def _observe(self, exchange: Exchange) -> None:
        """Tell of an exchange that has ended, whichever way it went."""
        if exchange.status == 0:
            exchange.end(0)
        metrics = self.services.metrics
        metrics.in_flight(-1)
        metrics.request(
            exchange.route,
            exchange.status or CLIENT_CLOSED,
            exchange.model_name,
            exchange.model_version,
            exchange.took_ms / 1000,
        )
        if exchange.problem is not None:
            metrics.rejected(exchange.problem)
        if self.access_log.is_enabled:
            self.access_log.write(exchange)

    @property
    def short_way(self) -> ShortWay | None:
        """For our own protocol class, which answers without ASGI; None if an owner's middleware must be passed."""
        return None if self.user_middleware else self._short_way

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Through the door if the request is for a route of ours, else to the router."""
        exchange = scope[EXCHANGE_KEY]
        handler = None if self.user_middleware else self._door.get((exchange.method, exchange.route))
        if handler is None:
            await super().__call__(scope, receive, send)
        else:
            await exchange.reply(await answer(exchange, handler, is_debug=self.services.settings.debug), send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Load the model before the first request, and refuse the start with one line if it cannot be served."""
        first = await receive()
        try:
            if self.services.catalog.current is None:
                self.services.lifecycle.start()
        except FitserveError as exc:
            await refuse_start(exc, send)
            return

        note_models(self.services)
        if self._is_standalone:
            self._settle_in()
        self._begin_to_serve()
        messages = [first]

        async def receive_again() -> Message:
            if messages:
                return messages.pop()
            message = await receive()
            if message["type"] == "lifespan.shutdown":  # later the server below waits no longer
                await self.services.lifecycle.stop(self.services.executor.run)
            return message

        watching = asyncio.create_task(self._watch()) if self._is_watching else None
        try:
            await super().__call__(scope, receive_again, send)
        finally:
            if watching is not None:
                watching.cancel()
            if self._is_standalone:
                logger.info("process %d has stopped", os.getpid())
            self.access_log.flush()

    def _begin_to_serve(self) -> None:
        """What starts threads, and so must not happen before a fork: in the process that answers requests."""
        self._is_serving = True
        self.services.lifecycle.optimize()

    def _settle_in(self) -> None:
        """What only a process of our own may do: reload on SIGHUP, spare the collector what stays, tell the log."""
        current = self.services.catalog.current
        assert current is not None  # it has just been loaded
        is_main_thread = threading.current_thread() is threading.main_thread()
        if is_main_thread and not _is_one_of_several():  # else the parent of the workers takes it
            had_terminal = has_terminal()

            def hang_up() -> None:
                if had_terminal and not has_terminal():
                    signal.raise_signal(signal.SIGTERM)  # somebody closed the window
                else:
                    self._tasks.add(task := asyncio.create_task(self._reload()))
                    task.add_done_callback(self._tasks.discard)

            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hang_up)
        one_thread_here()
        # In each of its full rounds the collector would look through all that has been imported, and in each
        # of its small ones, after 700 new objects, through the requests in flight, which end without it.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)
        gc.enable()
        logger.info("process %d serves %s %s", os.getpid(), current.name, current.version)

    async def _watch(self) -> None:
        """Reload whenever the file has changed."""
        path = self.services.lifecycle.path
        assert path is not None  # only a file is watched
        async for _ in changes(path, is_folder=self._is_folder):
            await self._reload()

    async def _reload(self) -> None:
        """Reload; a file that cannot be served changes nothing, and the log tells why."""
        try:
            await self.services.lifecycle.reload(self.services.executor.run)
        except FitserveError as exc:
            logger.error("%s", exc)  # noqa: TRY400 - a user's mistake has no trace

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document: the owner's routes, and ours as the model that serves has them."""
        current = self.services.catalog.current
        key = (self.services.catalog.generation, current and current.model.signature, len(self.router.routes))
        if self._openapi_key != key:
            self.openapi_schema = None
            document = super().openapi()
            components = document.setdefault("components", {})
            own = openapi.document(self._own_routes, current, taken=components.get("schemas", {}))
            document["paths"] |= own["paths"]
            for kind, found in own["components"].items():
                components.setdefault(kind, {}).update(found)
            document.setdefault("tags", []).extend({"name": tag} for tag in openapi.TAGS)
            if current:
                document["info"] |= {"title": current.name, "version": current.version}
            self._openapi_key = key
        assert self.openapi_schema is not None
        return self.openapi_schema


def _services(
    settings: Settings,
    model_path: Path | None,
    passed: Mapping[str, Mapping[str, Any]],
    metrics_folder: Path | None,
) -> Services:
    catalog = Catalog()
    verifier = verifier_of(settings, passed)
    executor = Executor(settings.inference_threads or usable_cpus())
    metrics = Metrics(lambda: metrics_folder or (server_folder(os.getppid()) if _is_one_of_several() else None))

    def make_batcher() -> Batcher:
        return Batcher(executor, wait_s=settings.batch_wait_s, max_rows=settings.max_batch_size, metrics=metrics)

    return Services(
        settings=settings,
        catalog=catalog,
        lifecycle=Lifecycle(
            catalog,
            model_path,
            verifier,
            is_one_of_several=_is_one_of_several(),
            optimizer=Optimizer(settings, verifier, model_path),
        ),
        engine=Engine(
            catalog,
            make_batcher,
            open_cache(settings.cache),
            metrics,
            is_nonfinite_error=settings.nonfinite == "error",
        ),
        executor=executor,
        metrics=metrics,
        started_monotonic_s=time.monotonic(),
    )


def _is_one_of_several() -> bool:
    """Whether a process manager runs this process, which may then have siblings that serve the same file."""
    return multiprocessing.parent_process() is not None or "gunicorn" in os.environ.get("SERVER_SOFTWARE", "")


def refuse_to_confine(settings: Settings) -> None:
    """Refuse a setting that only `fitserve run` keeps: the process of another program is not ours to confine.

    Raises:
        SettingsError: ``confine = require``.
    """
    if settings.confine == "require":
        msg = "confine = require is kept by `fitserve run` alone: this process belongs to another program"
        raise SettingsError(msg)


async def refuse_start(error: FitserveError, send: Send) -> None:
    """Tell why the server does not start, in one line, and tell the server below to stop."""
    logger.error("%s", error)
    await send({"type": "lifespan.startup.failed", "message": ""})
