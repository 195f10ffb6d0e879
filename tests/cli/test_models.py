"""``fitserve models``, as a person types it, against a server."""

from __future__ import annotations

import json
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO
from typing import ClassVar

import joblib
import pytest
from rich.console import Console
from sklearn.dummy import DummyRegressor
from typer.testing import CliRunner

import fitserve
from fitserve.cli import build_cli, call, models
from fitserve.errors import SettingsError
from fitserve.settings import Settings


@pytest.fixture
def run(monkeypatch):
    """Type a command; the terminal is 200 characters wide."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    cli = build_cli()

    def type_(*words):
        return CliRunner().invoke(cli, ["models", *map(str, words)])

    return type_


@pytest.fixture
def served(tmp_path):
    """A server of ``price``, versions 1.0.0 and 2.0.0, which answer 1 and 2."""
    folder = tmp_path / "models"
    folder.mkdir()
    for version, answer in (("1.0.0", 1.0), ("2.0.0", 2.0)):
        model = DummyRegressor(strategy="constant", constant=answer).fit([[0, 0]], [0])
        joblib.dump(model, folder / f"price_v{version}.joblib")
    with fitserve.serve(folder, state_dir=tmp_path / "state", cache_dir=tmp_path / "cache") as server:
        yield server


def test_what_is_served_is_shown_changed_and_remembered(run, served):
    url = ("--url", served.url)
    listed = run("list", *url)
    promoted = run("promote", "price", "1.0.0", "-m", "cheaper", *url)
    aliased = run("alias", "price", "champion", "2.0.0", *url)
    rolled_back = run("rollback", *url)
    same = run("promote", "price", "@champion", *url)
    removed = run("alias", "price", "champion", "--delete", *url)
    reloaded = run("reload", "price", *url)
    shown = run("show", "price", *url)
    history = run("history", "price", *url)
    operations = run("operations", *url)

    for result in (listed, promoted, aliased, rolled_back, same, removed, reloaded, shown, history, operations):
        assert result.exit_code == 0, result.output
    assert re.search(r"price \(default\) │ 2\.0\.0 ", listed.stdout)
    assert "1.0.0 (not in memory)" in listed.stdout
    assert "promote of price: 2.0.0 → 1.0.0  done" in promoted.stdout
    assert "alias of price @champion: none → 2.0.0  done" in aliased.stdout
    assert "rollback of price: 1.0.0 → 2.0.0  done" in rolled_back.stdout
    assert "promote of price: 2.0.0, as before  done" in same.stdout
    assert "alias of price @champion: 2.0.0 → none  done" in removed.stdout
    assert "reload of price: 2.0.0, as before  done" in reloaded.stdout
    assert re.search(r"2\.0\.0 +│ serves +│", shown.stdout)
    assert re.search(r"127\.0\.0\.1 │ promote +│ 2\.0\.0 │ 1\.0\.0 │ cheaper", history.stdout)
    assert len(re.findall(r"op-", operations.stdout)) == 6


def test_an_operation_that_fails_is_told_with_its_reason_and_exit_code_1(run, served):
    result = run("promote", "price", "3.0.0", "--url", served.url)
    unknown = run("promote", "prise", "1.0.0", "--url", served.url)

    assert (result.exit_code, unknown.exit_code) == (1, 1)
    assert "promote of price" in result.stdout
    assert re.match(r"fitserve: the promote failed: .*'3\.0\.0'", result.stderr)
    assert re.match(r"fitserve: no model 'prise'.*did you mean 'price'\?", unknown.stderr)


def test_without_waiting_the_operation_is_named_and_can_be_looked_at(run, served):
    begun = run("promote", "price", "1.0.0", "--no-wait", "--json", "--url", served.url)
    operation = json.loads(begun.stdout)
    shown = run("operations", operation["id"], "--url", served.url)

    assert begun.exit_code == shown.exit_code == 0
    assert operation["state"] in {"queued", "verifying", "preparing", "committing", "done"}
    assert operation["id"] in shown.stdout


def test_json_is_what_the_server_says(run, served):
    listed = json.loads(run("list", "--json", "--url", served.url).stdout)
    promoted = json.loads(run("promote", "price", "1.0.0", "--json", "--url", served.url).stdout)

    assert listed["models"][0]["serving"] == "2.0.0"
    assert (promoted["state"], promoted["to"]) == ("done", "1.0.0")


def test_without_a_server_one_line_says_so(run):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))  # and it does not listen
        result = run("list", "--url", f"http://127.0.0.1:{listener.getsockname()[1]}")

    assert result.exit_code == 1
    assert re.fullmatch(r"fitserve: no server answers at http://127\.0\.0\.1:\d+ .*\n", result.stderr)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://localhost", "http://", "http://localhost:x", "unix:", ""])
def test_a_url_that_is_none_is_refused(run, url):
    result = run("list", "--url", url)

    assert result.exit_code == 2
    assert "wanted http://HOST:PORT or unix:PATH" in result.stderr


@pytest.mark.parametrize("words", [("alias", "a", "b"), ("alias", "a", "b", "1", "--delete")])
def test_an_alias_is_given_a_version_or_removed(run, words):
    result = run(*words)

    assert result.exit_code == 2
    assert "give a VERSION, or --delete" in result.stderr


class Canned(BaseHTTPRequestHandler):
    """Answers by path what a server would that is switching, out of reach for a moment, or none of ours."""

    operation: ClassVar = {
        "id": "op-1", "kind": "reload", "model": "a[b]", "from": "1", "to": "2", "reason": "", "who": "local", "status": None,
        "error": None, "workers": [{"pid": 7, "state": "loading", "progress": "golden samples", "error": None}],
    }  # fmt: skip
    states: ClassVar = []

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(202, {**self.operation, "state": "queued"})

    def do_GET(self):
        if self.path == "/models":
            self._send(200, b"<html>")
            return
        state = self.states.pop(0)
        if state is None:
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            self._answer(200, {**self.operation, "state": state})

    def _answer(self, status, document):
        self._send(status, json.dumps(document).encode())

    def _send(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class UnixServer(HTTPServer):
    address_family = socket.AF_UNIX

    def server_bind(self):
        self.socket.bind(self.server_address)


@pytest.fixture
def canned(tmp_path):
    """A server on a Unix socket, and its URL."""
    path = tmp_path / "s"
    server = UnixServer(str(path), Canned)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"unix:{path}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_operation_is_followed_over_a_unix_socket_though_a_process_is_replaced(run, canned, monkeypatch):
    monkeypatch.setattr(Canned, "states", ["preparing", None, "committing", "done"])
    result = run("reload", "--url", canned)

    assert result.exit_code == 0, result.output
    assert "reload of a[b]: 1 → 2  done" in result.stdout
    assert Canned.states == []


def test_a_server_that_stays_out_of_reach_is_given_up(run, canned, monkeypatch):
    monkeypatch.setattr(Canned, "states", [None] * 2)
    monkeypatch.setattr(models, "PATIENCE_S", 0.0)
    result = run("reload", "--url", canned)

    assert result.exit_code == 1
    assert "no server answers at unix:" in result.stderr


def test_what_is_no_fitserve_is_told_so(run, canned):
    result = run("list", "--url", canned)

    assert result.exit_code == 1
    assert "is no fitserve" in result.stderr


def test_the_progress_of_each_worker_is_shown_on_a_terminal():
    console = Console(file=StringIO(), width=120)
    console.print(models._operation({**Canned.operation, "state": "preparing"}))

    assert re.search(r"7 +│ loading │ golden samples", console.file.getvalue())
    assert "reload of a[b]: 1 → 2" in console.file.getvalue()


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({}, "http://127.0.0.1:8000"),
        ({"host": "0.0.0.0", "port": 80}, "http://127.0.0.1:80"),
        ({"host": "::"}, "http://[::1]:8000"),
        ({"host": "localhost"}, "http://localhost:8000"),
        ({"uds": "/run/fitserve.sock"}, "unix:/run/fitserve.sock"),
    ],
)
def test_a_server_is_looked_for_where_the_settings_say(settings, url):
    assert call.url_of(Settings(**settings)) == url


def test_a_prefix_of_paths_belongs_to_the_url():
    assert call.Server("http://localhost:80/ml/")._prefix == "/ml"
    with pytest.raises(SettingsError):
        call.Server("localhost")
