"""``app`` for ``uvicorn fitserve.asgi:app`` and ``gunicorn -k uvicorn_worker.UvicornWorker fitserve.asgi:app``.

Configured by the environment, ``.env`` and ``fitserve.toml`` only, and not before the server
starts it: importing this module reads nothing.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING

from fitserve.errors import FitserveError, SettingsError

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from fitserve.app import FitserveApp


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Build the application on the first call and pass this and every other call to it."""
    try:
        application = _application()
        if scope["type"] != "lifespan" and application.services.catalog.current is None:
            application.services.lifecycle.start()  # a server that runs no lifespan
    except FitserveError as exc:
        if scope["type"] != "lifespan":
            raise
        from fitserve.app import refuse_start
        from fitserve.observe.logs import choose_format, configure_logging

        configure_logging("info", choose_format("auto", sys.stderr), is_debug=False)
        await receive()
        await refuse_start(exc, send)
        return
    await application(scope, receive, send)


@cache
def _application() -> FitserveApp:
    from fitserve.estimators.threads import bound_pools, usable_cpus

    bound_pools(usable_cpus())
    from fitserve.app import FitserveApp, refuse_to_confine
    from fitserve.observe.logs import choose_format, configure_logging
    from fitserve.settings import read_settings

    settings, _ = read_settings()
    refuse_to_confine(settings)
    if settings.trust == "any" and not settings.trust_any_confirmed:
        msg = (
            "trust = any lets a model file run code, and which address this server listens on cannot be known here: "
            "pin the file, or set FITSERVE_TRUST_ANY_CONFIRMED=true in the environment"
        )
        raise SettingsError(msg)
    configure_logging(settings.log_level, choose_format(settings.log_format, sys.stderr), is_debug=settings.debug)
    application = FitserveApp(settings, settings.model_path, is_standalone=True)
    vars(app)["short_way"] = application.short_way  # for `uvicorn --http fitserve.server.protocol:HttpProtocol`
    return application
