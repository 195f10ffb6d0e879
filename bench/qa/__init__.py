"""What loading hostile and damaged model files costs and comes to: `python -m bench.qa`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))  # the files are made by the tests' own modules
