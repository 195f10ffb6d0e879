"""Log lines: JSON for machines or text for people, one access line a request, on standard error.

A line never holds a feature value, a header or a query string.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import sys
import time
import warnings
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol, TextIO

import orjson

from fitserve.errors import clip

if TYPE_CHECKING:
    from collections.abc import Callable

LogFormat = Literal["json", "console"]

FLUSH_LINES = 64
FLUSH_AFTER_S = 0.05
LONGEST_PATH = 256
_KEPT_PATH = LONGEST_PATH + 1  # as much tells that it was longer

_EXTRAS = ("request_id", "model_version")
_FOREIGN = ("uvicorn", "uvicorn.error", "uvicorn.asgi", "gunicorn.error")


def choose_format(wanted: Literal["auto", "json", "console"], stream: TextIO) -> LogFormat:
    """Text for a terminal, JSON for everything else, unless one was asked for."""
    if wanted != "auto":
        return wanted
    return "console" if stream.isatty() else "json"


def configure_logging(level: str, log_format: LogFormat, *, is_debug: bool) -> None:
    """Make every line of this process ours, the HTTP server's included. Call it once in a serving process.

    The HTTP server's own access line is switched off: there would be two a request.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else ConsoleFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _FOREIGN:
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    # uvicorn tells of its start in six lines; ours says it in one.
    logging.getLogger("uvicorn.error").setLevel("DEBUG" if level == "debug" else "WARNING")
    logging.getLogger("watchfiles").setLevel("WARNING")
    access = logging.getLogger("uvicorn.access")
    access.handlers.clear()
    access.propagate = False
    warnings.showwarning = _log_warning(is_debug=is_debug)


def _log_warning(*, is_debug: bool) -> Callable[..., None]:
    logger = logging.getLogger("fitserve.warnings")

    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
        # The text of a library's warning may quote what it was given.
        text = f": {message}" if is_debug else ""
        logger.warning("%s at %s:%d%s", category.__name__, filename, lineno, text)

    return show


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record; a traceback becomes the member ``exception``."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: getattr(record, name) for name in _EXTRAS if getattr(record, name, None) is not None}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


class ConsoleFormatter(logging.Formatter):
    """A line for people; control characters of what callers sent are escaped."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record; a traceback follows on lines of its own."""
        time = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        text = f"{time} {record.levelname.lower():7} {printable(record.getMessage())}"
        if (request_id := getattr(record, "request_id", None)) is not None:
            text += f" [{request_id}]"
        if record.exc_info:
            text += f"\n{self.formatException(record.exc_info)}"
        return text


def printable(text: str) -> str:
    """Escape what could forge or colour a line of a terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class Access(Protocol):
    """What is told of one request: an exchange has it."""

    method: str
    path: str
    status: int
    took_ms: float
    request_id: str
    model_version: str


CLIENT_CLOSED = 499
"""What is told of a client that left before it was answered, as nginx does."""


class AccessLog:
    """One line a request, written in bunches: on the event loop, at most ``FLUSH_AFTER_S`` late."""

    def __init__(self, log_format: LogFormat, stream: TextIO, *, is_enabled: bool) -> None:
        self._line = _json_line if log_format == "json" else _console_line
        self._stream = stream
        self._lines: list[str] = []
        self._timer: asyncio.TimerHandle | None = None
        self.is_enabled = is_enabled

    def write(self, access: Access) -> None:
        """Take the line of one request. On the event loop."""
        self._lines.append(self._line(access))
        if len(self._lines) >= FLUSH_LINES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_AFTER_S, self.flush)

    def flush(self) -> None:
        """Write what has been taken. A stream that is gone costs its lines, not the server."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        text = "".join(self._lines)
        self._lines.clear()
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
            self._stream.flush()


def _json_line(access: Access) -> str:
    # A version and a request id are of characters that JSON takes as they are.
    return (
        f'{{"time":"{_moment(int(time.time() * 1000))}","level":"info","logger":"fitserve.access",'
        f'"message":"request",{_what(access.method, access.path[:_KEPT_PATH], access.status or CLIENT_CLOSED)},'
        f'"duration_ms":{access.took_ms:.3f},"request_id":"{access.request_id}",'
        f'"model_version":"{access.model_version}"}}\n'
    )


@functools.lru_cache(maxsize=2)
def _moment(since_epoch_ms: int) -> str:
    return datetime.fromtimestamp(since_epoch_ms / 1000, UTC).isoformat(timespec="milliseconds")


@functools.lru_cache(maxsize=256)
def _what(method: str, path: str, status: int) -> str:
    """The members that many lines share."""
    path = clip(path, LONGEST_PATH).encode("utf-8", "replace").decode()
    return orjson.dumps({"method": method, "path": path, "status": status}).decode()[1:-1]


def _console_line(access: Access) -> str:
    time = datetime.now().astimezone().strftime("%H:%M:%S")
    path = printable(clip(access.path, LONGEST_PATH))
    return (
        f"{time} {access.status or CLIENT_CLOSED} {access.method} {path} {access.took_ms:.1f} ms, "
        f"version {access.model_version} [{access.request_id}]\n"
    )
