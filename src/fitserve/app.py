"""The composition root: settings in, a FastAPI application out. The only module that knows all the parts."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import importlib.metadata
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from functools import partial
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
from fitserve.fleet.lifecycle import Lifecycle
from fitserve.observe.logs import CLIENT_CLOSED, AccessLog, choose_format
from fitserve.observe.metrics import Metrics
from fitserve.plugins import discover
from fitserve.protocols import openapi
from fitserve.protocols.base import Handler, Protocol, Services, caught
from fitserve.protocols.document import described
from fitserve.protocols.document import document as document_of
from fitserve.protocols.exchange import EXCHANGE_KEY, OTHER_ROUTE, AsgiExchange, ClientGoneError, Exchange
from fitserve.protocols.metrics import note_models
from fitserve.protocols.paths import DEFAULT_MODEL, NO_PARAMETERS, Paths, ref_of
from fitserve.protocols.problems import STOPPING, answer, problem
from fitserve.protocols.router import EXCEPTION_HANDLERS, Cors, RoutedHandler
from fitserve.server.heads import Heads
from fitserve.server.short_way import ShortWay
from fitserve.server.terminal import has_terminal
from fitserve.settings import Settings, read_settings
from fitserve.shared_state.folder import server_folder
from fitserve.store.catalog import Catalog
from fitserve.store.engines_shared import ask_to_share
from fitserve.store.fetcher import Fetcher
from fitserve.store.takeover import Optimizer
from fitserve.store.verify import verifier_of
from fitserve.urls import SourceUrl, source_url

if TYPE_CHECKING:
    from os import PathLike

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from fitserve.server.heads import Hot

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
        model: the path of a model file or its URL, or a fitted estimator, of which a copy is served;
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
        place = settings.model_path if model is None else source_url(os.fspath(model)) or Path(model)
        app = FitserveApp(settings, place)
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
        model_path: Path | SourceUrl | None,
        *,
        is_standalone: bool = False,
        is_watching: bool = False,
        runtime_folder: Path | None = None,
        fetcher: Fetcher | None = None,
    ) -> None:
        """Build the application; the model is loaded by ``services.lifecycle.start``, or by the lifespan.

        Args:
            settings: of this application.
            model_path: of the file to serve, if it is one, or its URL.
            is_standalone: nothing else runs in this process: write access lines to standard error, and
                answer a request that is cancelled, which then can only be the server stopping.
            is_watching: reload when the file changes, as long as the lifespan runs.
            runtime_folder: private to this process and its siblings; looked for if there are some and it is not given.
            fetcher: of the URL; started here if it is not given.
        """
        self.services = _services(
            settings, model_path, runtime_folder, fetcher, is_watching=is_watching, is_standalone=is_standalone
        )
        self.access_log = AccessLog(
            choose_format(settings.log_format, sys.stderr),
            sys.stderr,
            is_enabled=is_standalone and settings.log_level in {"debug", "info"},
        )
        self._is_standalone = is_standalone
        self._has_siblings = runtime_folder is not None or _is_one_of_several()
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
        self._paths = Paths(route.path for route in self._own_routes)
        self._door: dict[tuple[str, str], Handler] = {}
        for path in dict.fromkeys(route.path for route in self._own_routes):
            handlers = {route.method: route.handler for route in self._own_routes if route.path == path}
            if "GET" in handlers:
                handlers["HEAD"] = handlers["GET"]
            self._door |= {(method, path): handler for method, handler in handlers.items()}
            endpoint = RoutedHandler(path, handlers, is_debug=settings.debug)
            methods = list(handlers)
            self.router.routes.append(StarletteRoute(path, endpoint, methods=methods, include_in_schema=False))
        add_pages(self)
        self._hot = {(route.method, route.path): route.inference for route in self._own_routes if route.inference}
        self._short_way = ShortWay(
            Heads(self._find_hot, settings.max_body_bytes),
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
        template, parameters = self._paths.find(route) or (OTHER_ROUTE, NO_PARAMETERS)
        exchange = AsgiExchange(scope, receive, send, template, parameters)
        if exchange.ref is DEFAULT_MODEL:
            self._note_model(exchange)
        metrics.in_flight(1)
        try:
            handler = self._door.get((exchange.method, template))
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

    def _note_model(self, exchange: Exchange) -> None:
        """Name what serves by default.

        A function of its own, since a local name of :meth:`_exchange` would hold the version as long as the request
        takes: a switch would wait for the very caller that waits for it.
        """
        current = self.services.catalog.current
        if current is not None:
            exchange.model_name, exchange.model_version = current.name, current.version

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

    def _find_hot(self, asked: tuple[str, str]) -> Hot | None:
        """The route of a method and a path, if it is one that is answered without ASGI."""
        method, path = asked
        root = self.services.settings.root_path
        for route in {path, path.removeprefix(root)}:
            template, parameters = self._paths.find(route) or (OTHER_ROUTE, NO_PARAMETERS)
            inference = self._hot.get((method, template))
            if inference is not None:
                return template, inference, ref_of(parameters)
        return None

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
                await self.services.lifecycle.stop()
            return message

        try:
            await super().__call__(scope, receive_again, send)
        finally:
            self.services.switch.stop()
            if self._is_standalone:
                logger.info("process %d has stopped", os.getpid())
            self.access_log.flush()

    def _begin_to_serve(self) -> None:
        """What must not happen before a fork: in the process that answers requests, on its event loop."""
        self._is_serving = True
        self.services.lifecycle.join()

    def _settle_in(self) -> None:
        """What only a process of our own may do: reload on SIGHUP, spare the collector what stays, tell the log."""
        current = self.services.catalog.current
        assert current is not None  # it has just been loaded
        is_main_thread = threading.current_thread() is threading.main_thread()
        if is_main_thread and not self._has_siblings:  # else the parent of the workers takes it
            had_terminal = has_terminal()

            def hang_up() -> None:
                if had_terminal and not has_terminal():
                    signal.raise_signal(signal.SIGTERM)  # somebody closed the window
                else:
                    self._tasks.add(task := asyncio.create_task(self.services.switch.reload_all("SIGHUP")))
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

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document: the owner's routes, and ours as the model that serves has them."""
        current = self.services.catalog.current
        key = (self.services.catalog.generation, current and current.model.signature, len(self.router.routes))
        if self._openapi_key != key:
            self.openapi_schema = None
            document = super().openapi()
            components = document.setdefault("components", {})
            models = described(self.services.catalog)
            own = document_of(self._own_routes, models, taken=components.get("schemas", {}))
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
    model_path: Path | SourceUrl | None,
    runtime_folder: Path | None,
    fetcher: Fetcher | None,
    *,
    is_watching: bool,
    is_standalone: bool,
) -> Services:
    if isinstance(model_path, SourceUrl) and fetcher is None:
        fetcher = Fetcher.start(model_path, settings)
    catalog = Catalog()
    verifier = verifier_of(settings)
    executor = Executor(settings.inference_threads or usable_cpus())
    folder = runtime_folder or _folder_of_siblings()
    metrics = Metrics(lambda: folder)
    lifecycle = Lifecycle(
        settings,
        catalog,
        model_path,
        verifier,
        optimizer=Optimizer(
            settings,
            verifier,
            model_path,
            preferred=lambda: catalog.current,
            ask_to_share=(lambda _: None) if runtime_folder is None else partial(ask_to_share, runtime_folder),
        ),
        runtime_folder=runtime_folder or _folder_of_fleet(folder, model_path),
        is_watching=is_watching,
        keeps_state=is_standalone,
        fetcher=fetcher,
    )

    def make_batcher() -> Batcher:
        return Batcher(executor, wait_s=settings.batch_wait_s, max_rows=settings.max_batch_size, metrics=metrics)

    return Services(
        settings=settings,
        catalog=catalog,
        lifecycle=lifecycle,
        switch=lifecycle.switch,
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


def _folder_of_siblings() -> Path | None:
    """The folder that the processes of one parent share; None where there are no siblings.

    Raises:
        SettingsError: there is no place for it: they could not agree on what serves.
    """
    if not _is_one_of_several():
        return None
    try:
        return server_folder(os.getppid())
    except OSError as exc:
        msg = f"several processes cannot serve together here: {exc.strerror or exc}"
        raise SettingsError(msg) from exc


def _folder_of_fleet(siblings: Path | None, model_path: Path | SourceUrl | None) -> Path | None:
    """The folder of those processes that serve one path; a host may have mounted applications for several.

    None for a process without siblings, and for a model that was handed over in memory: each has its own.
    """
    if siblings is None or model_path is None:
        return None
    place = model_path.key if isinstance(model_path, SourceUrl) else os.fspath(model_path.absolute())
    folder = siblings / f"fleet-{hashlib.sha256(os.fsencode(place)).hexdigest()[:16]}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


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
