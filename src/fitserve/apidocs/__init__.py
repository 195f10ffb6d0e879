"""The documentation pages: Swagger UI and ReDoc from this package's own files, so that they work offline."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from starlette.responses import HTMLResponse, Response

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request

ASSETS = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "redoc.standalone.js": "text/javascript",
    "favicon.png": "image/png",
}

# The pages' own inline script starts the viewer; nothing is fetched from elsewhere.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; worker-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'"
)


def add_pages(app: FastAPI) -> None:
    """Serve ``/docs``, ``/redoc`` and their files, below whatever path the app is mounted at."""

    async def docs(request: Request) -> Response:
        root = request.scope.get("root_path", "").rstrip("/")
        page = get_swagger_ui_html(
            openapi_url=f"{root}{app.openapi_url}",
            title=app.openapi()["info"]["title"],
            swagger_js_url=f"{root}/docs/swagger-ui-bundle.js",
            swagger_css_url=f"{root}/docs/swagger-ui.css",
            swagger_favicon_url=f"{root}/docs/favicon.png",
            swagger_ui_parameters={"validatorUrl": None, "tryItOutEnabled": True},
        )
        return _guarded(page)

    async def redoc(request: Request) -> Response:
        root = request.scope.get("root_path", "").rstrip("/")
        page = get_redoc_html(
            openapi_url=f"{root}{app.openapi_url}",
            title=app.openapi()["info"]["title"],
            redoc_js_url=f"{root}/docs/redoc.standalone.js",
            redoc_favicon_url=f"{root}/docs/favicon.png",
            with_google_fonts=False,
        )
        return _guarded(page)

    def asset(request: Request) -> Response:  # not async: it reads a file, so starlette runs it in a thread
        name = request.scope["path"].rpartition("/")[2]
        headers = {"Cache-Control": "public, max-age=86400", "X-Content-Type-Options": "nosniff"}
        return Response(_read(name), media_type=ASSETS[name], headers=headers)

    app.add_route("/docs", docs, include_in_schema=False)
    app.add_route("/redoc", redoc, include_in_schema=False)
    for name in ASSETS:
        app.add_route(f"/docs/{name}", asset, include_in_schema=False)


@cache
def _read(name: str) -> bytes:
    return (files(__name__) / "assets" / name).read_bytes()


def _guarded(page: HTMLResponse) -> HTMLResponse:
    page.headers["Content-Security-Policy"] = _POLICY
    page.headers["X-Content-Type-Options"] = "nosniff"
    page.headers["Referrer-Policy"] = "no-referrer"
    return page
