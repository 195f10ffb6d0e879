"""Print docs/reference/engines.md: which engine serves which kind of model, how near it is, and how fast.

``.venv/bin/python scripts/engines_page.py > docs/reference/engines.md``. It compiles every kind of
tests/optimize/kinds.py, in a minute.
"""

from __future__ import annotations

import copy
import sys
import warnings
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from fitserve.estimators.model import EstimatorModel
from fitserve.optimize.base import TOLERANCE
from fitserve.optimize.compile import compile_model

TESTS = Path(__file__).resolve().parents[1] / "tests"
LIBRARIES = ("scikit-learn", "xgboost-cpu", "lightgbm", "skl2onnx", "onnxruntime", "treelite")

TEXT = """\
# Engines

A model is computed by its own library, or by an engine that was compiled from it and **proven to answer alike**. If
no engine is proven, or the library is faster for the number of rows at hand, the library serves. The settings
`optimize`, `optimize_memory_bytes`, `optimize_timeout_s` and `cache_dir` are on [their page](settings.md).

| engine | computes | numbers may differ by |
|---|---|---|
| `onnx-float64` | linear models, neighbours, perceptrons and pipelines, by ONNX Runtime | {float64} |
| `onnx-float32` | scikit-learn's trees, by ONNX Runtime, and what converts to float32 only | {float32} |
| `treelite` | LightGBM, XGBoost and histogram boosting, by treelite's GTIL | {treelite} |

scikit-learn's trees are compared in float32 and added up in float64, as scikit-learn does it; ONNX Runtime gives the
sum as a float32.

## What is proven

An engine is used only if it agrees with the library's own call on 2000 random rows in and beyond the range of the
training data, with every category and an unknown one, with nulls where they are allowed, and on some 2000 rows that
stand on the model's own thresholds, one step of float32 and of float64 beside them, and where rounding passes from
one side to the other; each of these rows reaches the node of its threshold. Behind a scaler the place where a
threshold is passed is found by halving.

- **Labels are equal**, in type as well. Where the two most probable classes are nearer than four times the allowed
  difference, the library decides, in service too.
- **Probabilities and values** differ by no more than the table says: probabilities absolutely, values as a part of
  the larger of the value and the size that the model's values usually have.
- **Bits do not depend on company**: a row alone has the bits that it has among others. Where vector instructions
  compute the end of an array otherwise, rows are filled up to a multiple of eight, or computed one by one.
- A float32 engine never decides a label by itself: models that give labels without probabilities use float64, or
  the library.
- Nulls that an engine answers otherwise are left to the library, row by row: those in scikit-learn's trees, for one.

Not compiled: free text, dates, classes and functions of your own, CatBoost, models that take rows of any length.

## Kinds

One row on one core; the factor is what counts. *Difference* is the largest of all rows of the proof; *rows* are those
of the proof, of which on thresholds.

| model | engine | difference | rows | on thresholds | library, µs | engine, µs |
|---|---|---|---|---|---|---|
{rows}

{versions}.
Made on {date} by `.venv/bin/python scripts/engines_page.py`; that the engines are those of the table is what
`tests/optimize/test_parity.py` shows.
"""


def page() -> str:
    """Return the page."""
    if str(TESTS) not in sys.path:
        sys.path.append(str(TESTS))
    kinds = import_module("optimize.kinds")
    return TEXT.format(
        float64=f"{TOLERANCE['onnx-float64']:.0e}",
        float32=f"{TOLERANCE['onnx-float32']:.0e}",
        treelite=f"{TOLERANCE['treelite']:.0e}",
        rows="\n".join(_row(name, kinds.fitted(name)) for name in kinds.KINDS),
        versions=", ".join(f"{name} {version(name)}" for name in LIBRARIES),
        date=datetime.now(UTC).date(),
    )


def _row(name: str, estimator: Any) -> str:
    _, report = compile_model(EstimatorModel(copy.deepcopy(estimator)))
    entry = report[-1]
    if entry["verdict"] != "used":
        return f"| {name} | none | | | | | |"
    largest = max(entry["differences"].values(), default=None)
    cells = [
        name,
        f"`{entry['engine']}`",
        "labels only" if largest is None else f"{largest:.0e}" if largest else "0",
        str(entry["n_rows"]),
        str(entry["n_threshold_rows"] or ""),
        f"{_microseconds(entry['native_cost']):.0f}",
        f"{_microseconds(entry['cost']):.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def _microseconds(cost: dict[str, float]) -> float:
    """Of one row."""
    return 1e6 * (cost["fixed_s"] + cost["per_row_s"])


if __name__ == "__main__":
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")
        print(page(), end="")
