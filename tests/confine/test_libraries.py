"""The libraries work in a confined process, imported after it was confined; so does a server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from fitserve.confine.landlock import landlock_abi

pytestmark = pytest.mark.skipif(landlock_abi()[0] is None, reason="this kernel has no Landlock: nothing to be seen")

SERVER = """
import socket, sys
from pathlib import Path
from fitserve.confine.sandbox import Sandbox, enter
listener = socket.socket(fileno=int(sys.argv[1]))
reached = enter(Sandbox())
import uvicorn

def attempts():
    for what in (lambda: socket.socket(), lambda: Path(sys.argv[2]).write_text("x")):
        try:
            what()
        except OSError as exc:
            yield type(exc).__name__

async def app(scope, receive, send):
    import asyncio
    import numpy as np
    if scope["type"] != "http":
        return
    loop = type(asyncio.get_running_loop()).__module__
    in_thread = await asyncio.to_thread(lambda: float(np.ones((300, 300)).dot(np.ones(300))[0]))
    body = ",".join([loop, str(in_thread), *attempts()]).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})

print(reached.summary, flush=True)
server = uvicorn.Server(uvicorn.Config(app, loop="uvloop", http="httptools", lifespan="off", log_config=None))
server.run(sockets=[listener])
print("stopped", flush=True)
"""


@pytest.fixture(scope="module")
def onnx_bytes() -> bytes:
    from skl2onnx import to_onnx

    X = np.arange(40.0, dtype=np.float32).reshape(10, 4)
    return to_onnx(LogisticRegression().fit(X, X[:, 0] > 20), X[:1]).SerializeToString()


def test_each_library_predicts_in_a_confined_process(template, onnx_bytes):
    said = template.run("confine.tasks:libraries", {}, [onnx_bytes], deadline_s=60)

    assert said.pop("summary").endswith("seccomp")
    assert said == {
        "blas": 700.0,
        "onnx": [0, 0],
        "RandomForestClassifier": 100,
        "HistGradientBoostingClassifier": 100,
        "LGBMClassifier": 100,
        "XGBClassifier": 100,
        "CatBoostClassifier": 100,
    }


@pytest.mark.parametrize("before", [True, False])
def test_work_that_asks_for_processes_is_done_in_one(template, before):
    said = template.run("confine.tasks:many_jobs", {"before": before}, deadline_s=60)

    assert said == {"result": [0, 1, 2]}


def test_a_server_that_was_confined_after_listening_serves_and_stops(tmp_path):
    forbidden = tmp_path / "forbidden"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-c", SERVER, str(listener.fileno()), str(forbidden)]
        port = listener.getsockname()[1]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, pass_fds=(listener.fileno(),)) as server:
            summary = server.stdout.readline()
            replies = {httpx2.get(f"http://127.0.0.1:{port}/", timeout=30).text for _ in range(3)}
            server.send_signal(signal.SIGTERM)
            rest = server.stdout.read()

    assert summary.strip().endswith("seccomp")
    assert replies == {"uvloop,300.0,PermissionError,PermissionError"}
    assert not forbidden.exists()
    assert rest.strip() in {"stopped", ""}  # uvicorn ends by the signal that it has taken
    assert server.returncode in {0, -signal.SIGTERM}


def test_lookups_of_modules_stay_possible(template):
    """A confined process imports; it does not write what it has compiled."""
    said = template.run("confine.tasks:attempt", {"what": "read", "path": str(Path(os.__file__))}, deadline_s=20)

    assert "def walk" in said["result"]
