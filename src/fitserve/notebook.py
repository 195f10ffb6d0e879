"""Serve a model from a notebook or a script, in the background."""

from __future__ import annotations

import atexit
import html
import threading
from typing import TYPE_CHECKING, Any, Self

from fitserve.app import create_app
from fitserve.errors import FitserveError, SettingsError
from fitserve.server.listen import base_url, listen, release
from fitserve.server.serve import make_server
from fitserve.settings import read_settings

if TYPE_CHECKING:
    from os import PathLike
    from types import TracebackType

OF_PROCESSES = ("model_path", "workers", "log_level", "log_format")
"""Settings of a process of our own; here the host program has its own."""

_START_TIMEOUT_S = 30.0
_POLL_S = 0.01


def serve(
    model: str | PathLike[str] | object,
    *,
    name: str = "model",
    version: str | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    **settings: Any,
) -> ServedModel:
    """Serve a fitted estimator or a model file in a background thread, and return at once.

    The thread has its own event loop and touches no signal handlers, so it runs beside a
    notebook's own loop. A live estimator is copied: refitting it changes nothing here.

    Args:
        model: a fitted estimator, or the path of a model file.
        name: of a live estimator.
        version: of a live estimator; made of its digest by default.
        host: the address to listen on.
        port: 0 takes a free one.
        settings: any other of :class:`~fitserve.Settings` that concerns requests. ``debug`` is on
            unless the address can be reached from other machines.

    Returns:
        A handle with ``url`` and ``stop()``, which is also a context manager.

    Raises:
        ArtifactError: the model cannot be served.
        SettingsError: a setting is wrong, or the port is taken.
    """
    for name_of_other in OF_PROCESSES:
        if name_of_other in settings:
            msg = f"{name_of_other} does not apply: the model is served by a thread of this process"
            raise SettingsError(msg)
    if host in {"127.0.0.1", "localhost", "::1"}:
        settings.setdefault("debug", True)
    chosen, _ = read_settings({"host": host, "port": port, **settings}, flags_are="the call of serve")
    app = create_app(model, name=name, version=version, settings=chosen)
    return ServedModel(app, chosen)


class ServedModel:
    """A model that is being served by a thread of this process."""

    def __init__(self, app: Any, settings: Any) -> None:
        self.app = app
        self._settings = settings
        listener = listen(settings)
        self.url = base_url(listener)
        self._server = make_server(app, settings)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listener]}, name="fitserve", daemon=True
        )
        self._thread.start()
        waited_s = 0.0
        while not self._server.started:
            self._thread.join(_POLL_S)
            waited_s += _POLL_S
            if not self._thread.is_alive() or waited_s > _START_TIMEOUT_S:
                listener.close()
                msg = "the server did not start; the log tells why"
                raise FitserveError(msg)
        atexit.register(self.stop)

    @property
    def is_running(self) -> bool:
        """Whether it still answers."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Finish what is in flight and stop. May be called again."""
        self._server.should_exit = True
        self._thread.join()
        release(self._settings)
        atexit.unregister(self.stop)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "running" if self.is_running else "stopped"
        return f"<ServedModel {self._name} at {self.url}, {state}>"

    def _repr_html_(self) -> str:
        url = html.escape(self.url)
        state = "" if self.is_running else " (stopped)"
        return (
            f"<b>{html.escape(self._name)}</b>{state} is served at <a href='{url}/docs'>{url}</a><br>"
            f"<code>POST {url}/predict</code> · <a href='{url}/model/info'>model info</a>"
        )

    @property
    def _name(self) -> str:
        current = self.app.services.catalog.current
        return f"{current.name} {current.version}"
