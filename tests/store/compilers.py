"""Doubles of the compiler: what it takes minutes to do is done here at once, and may go wrong as told."""

from __future__ import annotations

import importlib
import json
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fitserve.optimize.base import Compiled
from fitserve.store.message import artifact_message, policy_message
from fitserve.store.verify import Verifier

ENTRY = {"engine": "treelite", "verdict": "used", "reason": None, "memory_bytes": 1000}


@dataclass
class Compiler:
    """Stands for :mod:`fitserve.optimize.compile`: an engine that looks the answers up, fast.

    ``data`` tells what is wrong with it: ``b"good"`` nothing, ``b"wrong"`` its answers, ``b"broken"`` it cannot be loaded.
    """

    data: bytes = b"good"
    entry: dict = field(default_factory=lambda: dict(ENTRY))
    engines: int = 1
    compiled: int = 0
    loaded: int = 0

    def compile_model(self, model, *, deadline_s):
        self.compiled += 1
        assert deadline_s > 0
        found = [Compiled("treelite", self.data, {"n": 1})] * self.engines
        return found, [dict(self.entry)]

    def load_compiled(self, compiled, model):
        self.loaded += 1
        assert compiled.note == {"n": 1}
        if compiled.data == b"broken":
            raise ValueError("no such format")
        outputs = {}

        def predict(inputs, asked):
            n_rows = len(inputs)
            if n_rows not in outputs:  # the second call and every other of that size costs nothing
                outputs[n_rows] = model.predict(inputs)
            if np.any(inputs == 1234567.0):
                raise RuntimeError("the engine cannot compute this number")
            found = outputs[n_rows]
            if compiled.data == b"wrong":
                return found._replace(predictions=found.predictions[::-1])
            return found

        return predict

    def install(self, monkeypatch) -> Compiler:
        module = types.ModuleType("fitserve.optimize.compile")
        module.compile_model, module.load_compiled = self.compile_model, self.load_compiled
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return self


class Here(Verifier):
    """Compiles in this process, request and answer having been JSON on the way, and tries nothing."""

    def verify(self, artifact):
        return {}

    def run_in(self, scratch, task, artifact, *, spare_bytes=0, niceness=0, gives_up=None, **request):
        message, blobs = artifact_message(artifact)
        request |= {"artifact": message, "policy": policy_message(self.policy), "scratch": scratch and str(scratch)}
        module, _, name = task.partition(":")
        function = getattr(importlib.import_module(module), name)
        return json.loads(json.dumps(function(json.loads(json.dumps(request)), list(map(memoryview, blobs)))))


def entries(folder: Path) -> list[Path]:
    """The entries of a cache, wherever they lie in it."""
    return [path.parent for path in folder.glob("engines/*/*/engines.json")]
