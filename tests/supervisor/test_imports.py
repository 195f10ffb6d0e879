"""The supervisor is small: it knows no models, so that nothing in them reaches it."""

from __future__ import annotations

import subprocess
import sys


def test_the_supervisor_imports_no_model_library():
    loaded = subprocess.run(
        [sys.executable, "-c", "import fitserve.cli.run, fitserve.supervisor.supervisor, sys; print(*sys.modules)"],
        capture_output=True,
        check=True,
        text=True,
    )

    assert not {"numpy", "joblib", "sklearn", "onnxruntime", "fastapi", "pickle5"} & set(loaded.stdout.split())
