"""Log lines: one a request, JSON or text, never forged, never a value."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sys
import tracemalloc
from typing import NamedTuple

import pytest

from fitserve.app import FitserveApp
from fitserve.observe.logs import FLUSH_LINES, AccessLog, ConsoleFormatter, JsonFormatter, choose_format
from fitserve.settings import Settings

pytestmark = pytest.mark.anyio


class Ended(NamedTuple):
    """An exchange that has ended."""

    method: str
    path: str
    status: int
    took_ms: float
    request_id: str
    model_version: str


LINE = Ended("POST", "/predict", 200, 1.23456, "id-1", "1.2.3")


async def test_a_json_line_has_the_six_facts():
    stream = io.StringIO()
    log = AccessLog("json", stream, is_enabled=True)
    log.write(LINE)
    log.flush()

    line = json.loads(stream.getvalue())
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "info",
        "logger": "fitserve.access",
        "message": "request",
        "method": "POST",
        "path": "/predict",
        "status": 200,
        "duration_ms": 1.235,
        "request_id": "id-1",
        "model_version": "1.2.3",
    }


@pytest.mark.parametrize("log_format", ["json", "console"])
async def test_a_path_forges_no_line_and_stays_short(log_format):
    stream = io.StringIO()
    log = AccessLog(log_format, stream, is_enabled=True)
    log.write(LINE._replace(path="/a\r\n\x1b[31m200 GET /forged \udcff" + "x" * 10_000))
    log.flush()

    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()
    assert len(stream.getvalue()) < 1500


async def test_long_paths_are_not_kept():
    log = AccessLog("json", io.StringIO(), is_enabled=True)
    tracemalloc.start()
    try:
        for i in range(256):
            log.write(LINE._replace(path=f"/{i}" + "x" * 20_000))
        log.flush()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1_000_000


async def test_lines_are_written_when_there_are_many_or_after_a_while():
    stream = io.StringIO()
    log = AccessLog("json", stream, is_enabled=True)
    for _ in range(FLUSH_LINES - 1):
        log.write(LINE)
    assert stream.getvalue() == ""
    log.write(LINE)
    assert stream.getvalue().count("\n") == FLUSH_LINES

    log.write(LINE)
    while stream.getvalue().count("\n") == FLUSH_LINES:  # the timer writes it
        await asyncio.sleep(0)


async def test_a_closed_stream_costs_the_lines_only():
    stream = io.StringIO()
    log = AccessLog("json", stream, is_enabled=True)
    stream.close()
    log.write(LINE)

    log.flush()


async def test_one_line_a_request_and_no_feature_value_in_it(models, client_of):
    app = await asyncio.to_thread(FitserveApp, Settings(), models / "iris_v1.2.3.joblib", is_standalone=True)
    await asyncio.to_thread(app.services.lifecycle.start)
    stream = io.StringIO()
    app.access_log = AccessLog("json", stream, is_enabled=True)
    async with client_of(app) as client:
        await client.post("/predict?api_key=hunter2", json={"features": [5.125, 3.5, 1.4, 0.2]})
        await client.post("/predict", json={"features": ["feature-value", 3.5, 1.4, 0.2]})
        await client.get("/nope", headers={"X-API-Key": "hunter2"})
    app.access_log.flush()

    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["method"], line["path"], line["status"]) for line in lines] == [
        ("POST", "/predict", 200),
        ("POST", "/predict", 422),
        ("GET", "/nope", 404),
    ]
    assert {line["model_version"] for line in lines} == {"1.2.3"}
    for secret in ("5.125", "feature-value", "hunter2"):
        assert secret not in stream.getvalue()


def record(message: str, **extra: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": "n", "levelno": logging.ERROR, "levelname": "ERROR", "msg": message})
    made.__dict__.update(extra)
    return made


def test_a_json_record_carries_its_extras_and_its_traceback():
    try:
        raise ValueError("why")  # noqa: TRY301
    except ValueError:
        made = record("message", request_id="id-1", exc_info=sys.exc_info())

    line = json.loads(JsonFormatter().format(made))

    assert (line["level"], line["message"], line["request_id"]) == ("error", "message", "id-1")
    assert "ValueError: why" in line["exception"]


def test_a_text_record_escapes_what_came_from_outside():
    text = ConsoleFormatter().format(record("path /a\nforged", request_id="id-1"))

    assert text.splitlines()[0].endswith("error   path /a\\nforged [id-1]")
    assert text.count("\n") == 0


def test_text_is_for_terminals():
    assert choose_format("auto", io.StringIO()) == "json"
    assert choose_format("console", io.StringIO()) == "console"
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    assert choose_format("auto", terminal) == "console"
    assert choose_format("json", terminal) == "json"
