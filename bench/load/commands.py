"""The command lines: of the hand-rolled server, of fitserve in its two ways to run, and of nginx."""

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

BASELINE_FOLDER = Path(__file__).parents[1] / "baseline"


@dataclass(frozen=True)
class Command:
    """How a server is started in a folder: its arguments, once a port is known, and its environment."""

    arguments: Callable[[int], list[str]]
    folder: Path
    environ: dict[str, str] = field(default_factory=dict)


def hand_rolled(model_path: Path, *, app: str = "server:app", workers: int = 1, code: Path | None = None) -> Command:
    """uvicorn with the file of ``bench/baseline``; ``code`` is a folder of modules that the model needs."""

    def arguments(port: int) -> list[str]:
        options = ["--host", "127.0.0.1", "--port", str(port), "--workers", str(workers)]
        logs = ["--log-level", "info", "--access-log"]
        return [sys.executable, "-m", "uvicorn", "--app-dir", str(BASELINE_FOLDER), app, *options, *logs]

    environ = {"MODEL_PATH": str(model_path)} | ({"PYTHONPATH": str(code)} if code else {})
    return Command(arguments, model_path.parent, environ)


def fitserve(model_path: Path, *options: str, workers: int = 1) -> Command:
    """``fitserve run``, with the CORS headers that the hand-rolled server sends too."""

    def arguments(port: int) -> list[str]:
        where = ["--host", "127.0.0.1", "--port", str(port), "--workers", str(workers)]
        run = [sys.executable, "-m", "fitserve", "run", str(model_path)]
        return [*run, "--quiet", *where, "--cors-origins", "*", *options]

    return Command(arguments, model_path.parent)


def fitserve_asgi(model_path: Path) -> Command:
    """fitserve under uvicorn's own HTTP protocol; the access log is fitserve's."""

    def arguments(port: int) -> list[str]:
        options = ["--host", "127.0.0.1", "--port", str(port), "--loop", "uvloop", "--http", "httptools"]
        return [sys.executable, "-m", "uvicorn", "fitserve.asgi:app", *options, "--no-access-log"]

    environ = {"FITSERVE_MODEL_PATH": str(model_path), "FITSERVE_CORS_ORIGINS": "*"}
    return Command(arguments, model_path.parent, environ)


def nginx(answer: bytes, folder: Path) -> Command:
    """One worker of nginx that gives the same answer to whatever comes: what HTTP alone costs.

    Args:
        answer: JSON, without ``'``, ``$`` and backslash.
        folder: for its configuration and its files.
    """
    config = folder / "nginx.conf"

    def arguments(port: int) -> list[str]:
        config.write_text(NGINX_CONF % {"folder": folder, "port": port, "answer": answer.decode()}, encoding="utf-8")
        return [nginx_program() or "nginx", "-p", str(folder), "-c", str(config), "-e", "stderr"]

    return Command(arguments, folder)


def nginx_program() -> str | None:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


NGINX_CONF = """\
daemon off;
worker_processes 1;
pid %(folder)s/nginx.pid;
error_log stderr crit;
events { worker_connections 1024; }
http {
    access_log off;
    keepalive_requests 10000000;
    client_max_body_size 64m;
    client_body_temp_path %(folder)s/body;
    proxy_temp_path %(folder)s/proxy;
    fastcgi_temp_path %(folder)s/fastcgi;
    uwsgi_temp_path %(folder)s/uwsgi;
    scgi_temp_path %(folder)s/scgi;
    server {
        listen 127.0.0.1:%(port)d;
        default_type application/json;
        location / { return 200 '%(answer)s'; }
    }
}
"""
