"""What a model may do in a serving process of ours, tried by a model that tries it."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from pathlib import Path

import pytest
from e2e import servers

TRYING = """
import os, signal, socket, subprocess, tempfile
from pathlib import Path


class Model:
    example = {"do": "nothing", "with": ""}

    def start(self):
        self.pool = os.environ.get("POOL") and socket.create_connection(("127.0.0.1", int(os.environ["POOL"])), 5)

    def stop(self):
        if self.pool:
            self.pool.sendall(b"bye")
            self.pool.close()

    def predict(self, rows):
        return [self.attempt(row["do"], row["with"]) for row in rows]

    def attempt(self, what, argument):
        try:
            match what:
                case "write":
                    Path(argument).write_text("here")
                case "write a temporary file":
                    with tempfile.NamedTemporaryFile() as file:
                        file.write(b"here")
                case "run":
                    subprocess.run([argument], check=True)
                case "fork":
                    if os.fork() == 0:
                        os._exit(0)
                case "kill":
                    os.kill(int(argument), signal.SIGKILL)
                case "connect":
                    socket.create_connection(("127.0.0.1", int(argument)), 5).close()
        except OSError as exc:
            return type(exc).__name__
        return "done"
"""

KINDS = ("fitserve", "fitserve, 2 workers")


@pytest.fixture
def trying(tmp_path) -> Path:
    (tmp_path / "model.py").write_text(TRYING)
    return tmp_path / "model.py"


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def attempt(client, what: str, argument: object = "") -> str:
    reply = client.post("/predict", json={"features": {"do": what, "with": str(argument)}})
    assert reply.status_code == 200, reply.text
    return reply.json()["prediction"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_computes_and_does_little_else(kind, trying, listener, tmp_path):
    outside = tmp_path / "outside"
    environ = {"FITSERVE_CODE_PATH": str(tmp_path), "FITSERVE_CONFINE": "require"}
    with servers.running(kind, trying, tmp_path, **environ) as (client, process, log):
        found = {
            "write": attempt(client, "write", outside),
            "run": attempt(client, "run", "/bin/true"),
            "fork": attempt(client, "fork"),
            "kill": attempt(client, "kill", process.pid + 10**6),
            "connect": attempt(client, "connect", listener.getsockname()[1]),
            "write a temporary file": attempt(client, "write a temporary file"),
        }

    assert found.pop("write a temporary file") == "done"
    assert set(found.values()) == {"PermissionError"}, found
    assert not outside.exists()
    assert "confinement: " in log.read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_connects_where_it_may_and_closes_its_pool(kind, trying, listener, tmp_path):
    said: list[bytes] = []

    def hear(connection: socket.socket) -> None:
        with connection:
            said.append(connection.recv(16))

    def accept() -> None:
        with contextlib.suppress(OSError):  # the listener is closed at the end
            while True:
                threading.Thread(target=hear, args=listener.accept()[:1], daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    port = listener.getsockname()[1]
    environ = {
        "FITSERVE_CODE_PATH": str(tmp_path),
        "FITSERVE_ALLOW_CONNECT": f"127.0.0.1:{port}",
        "POOL": str(port),
    }
    with servers.running(kind, trying, tmp_path, **environ) as (client, process, log):
        servers.wait_until(lambda: "is served at" in log.read_text(), 60)  # told when all have started
        allowed = attempt(client, "connect", port)
        with socket.create_server(("127.0.0.1", 0)) as another:
            refused = attempt(client, "connect", another.getsockname()[1])
        assert servers.stop(process) == 0

    assert (allowed, refused) == ("done", "PermissionError")
    servers.wait_until(lambda: said.count(b"bye") >= (1 if kind == "fitserve" else 2), 30)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_a_server(number, trying, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environ = {"FITSERVE_CODE_PATH": str(tmp_path), "TMPDIR": str(scratch)}
    with servers.running("fitserve", trying, tmp_path, **environ) as (_, process, _):
        n_used = len(list(scratch.iterdir()))
        process.send_signal(number)
        process.wait(30)

        servers.wait_until(lambda: not list(scratch.iterdir()), 30)

    assert n_used > 0


def test_without_confinement_a_model_may_do_anything(trying, tmp_path):
    outside = tmp_path / "outside"
    environ = {"FITSERVE_CODE_PATH": str(tmp_path), "FITSERVE_CONFINE": "off"}
    with servers.running("fitserve", trying, tmp_path, **environ) as (client, _, log):
        assert attempt(client, "write", outside) == "done"

    assert outside.read_text() == "here"
    assert "confinement: off" in log.read_text()
