"""The load, the trials and the counting of `make soak`, for tests that run the same in a short form.

bench is no installed package: it is found from here.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.soak import ailing, bad_files, dying, ending, models, switching
from bench.soak.counting import missed
from bench.soak.load import Shape
from bench.soak.service import Service, serving

__all__ = [
    "Service", "Shape", "ailing", "bad_files", "dying", "ending", "missed", "models", "serving", "switching",
]  # fmt: skip
