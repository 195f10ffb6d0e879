"""How long /health takes while a slow model keeps a worker busy."""

import json
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import numpy as np

from bench.load import commands, open_loop
from bench.load.figures import FITSERVE, HAND_ROLLED
from bench.load.rounds import run_round
from bench.load.servers import Cores, Server, pinned, serving

MODELS = Path(__file__).with_name("models")
N_CLIENTS = 16
PER_S = 100
LEAD_S = 1.0
"""The clients of the model begin this much earlier, and end as much later."""


def measure(seconds: float, cores: Cores) -> list[open_loop.Latencies]:
    """Latencies of /health, hand-rolled server first.

    Raises:
        BenchError: a server did not start, or did not answer.
    """
    with tempfile.TemporaryDirectory(prefix="fitserve-bench-") as name:
        folder = Path(name)
        model_path, bodies = folder / "sleeping_v1.0.0.joblib", folder / "sleeping.jsonl"
        bodies.write_text(json.dumps({"features": [1.0, 2.0]}) + "\n", encoding="ascii")
        _save(model_path)
        options = ("--allow", "sleeping.Sleeping", "--code-path", str(MODELS))
        started = {
            HAND_ROLLED: commands.hand_rolled(model_path, code=MODELS),
            FITSERVE: commands.fitserve(model_path, *options),
        }
        found = []
        for server_name, command in started.items():
            with serving(server_name, command, cores.server) as server:
                found.append(_measure_one(server, bodies, seconds, cores))
        return found


def _measure_one(server: Server, bodies: Path, seconds: float, cores: Cores) -> open_loop.Latencies:
    with ThreadPoolExecutor(1) as pool, pinned(cores.load):
        load = pool.submit(run_round, server, "/predict", bodies, N_CLIENTS, seconds + 2 * LEAD_S, cores.load)
        time.sleep(LEAD_S)
        latencies = open_loop.run(server.name, server.port, [open_loop.get("/health")], PER_S, seconds)
        load.result()
    return latencies


def _save(path: Path) -> None:
    sys.path.insert(0, str(MODELS))  # so that the pickle names the class as the servers import it
    try:
        from sleeping import Sleeping
    finally:
        sys.path.remove(str(MODELS))
    joblib.dump(Sleeping().fit(np.zeros((2, 2)), np.array([0, 1])), path)
