"""The proof that a form answers as the library does: on hard rows, to the label, and whatever company a row has."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fitserve.optimize.answers import take
from fitserve.optimize.base import NotCompiledError
from fitserve.optimize.edges import edge_rows
from fitserve.optimize.rows import CHUNK, null_rows, parity_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from fitserve.estimators.model import EstimatorModel
    from fitserve.optimize.answers import Predict
    from fitserve.optimize.rows import Row
    from fitserve.signature import Inputs
    from fitserve.types import Outputs

N_ROWS: Final = 2000
N_THRESHOLDS: Final = 300
N_NULL_ROWS: Final = 600
"""Shared by the columns that may be null, each of which gets :data:`MIN_NULL_ROWS` at least."""

MIN_NULL_ROWS: Final = 8
NULL_RATE: Final = 0.3
COMPANIES: Final = (64, 7, 1, 2, 3, 5, 8, 13)
"""Sizes of calls in which the same rows must have the same bits."""

COMPANY_S: Final = 0.1
"""After so long no further chunk is looked at; the first one is in any case."""

MIN_SIZE: Final = 1e-300


@dataclass(frozen=True)
class Evidence:
    """Rows, and what the library answers them.

    Attributes:
        random: rows around the data and beyond it.
        edges: rows on thresholds.
        nulls: rows with nulls in one column, by the index of the column; at -1 such with nulls anywhere.
    """

    random: Table
    edges: Table
    nulls: dict[int, Table]

    @property
    def tables(self) -> list[Table]:
        """All of them."""
        return [self.random, self.edges, *self.nulls.values()]


@dataclass(frozen=True)
class Table:
    """Checked inputs in chunks, with what the library answers each."""

    chunks: tuple[tuple[Inputs, Outputs], ...]
    n_rows: int


@dataclass
class Verdict:
    """How a form compares with the library.

    Attributes:
        n_rows: rows that were compared.
        n_unequal: rows with another label.
        differences: the largest difference by output: of probabilities absolute, of values as a part of the larger
            of the value and the size that values usually have; infinite where one is a number and the other none.
    """

    n_rows: int = 0
    n_unequal: int = 0
    differences: dict[str, float] = field(default_factory=dict)

    def why_not(self, tolerance: float) -> str | None:
        """Why the form must not serve; None if it may."""
        if self.n_unequal:
            return f"{self.n_unequal} of {self.n_rows} rows got another label"
        for name, largest in self.differences.items():
            if not largest <= tolerance:
                return f"{name} differs by up to {largest:.2g}, and {tolerance:.0e} is allowed"
        return None


def gather(model: EstimatorModel, *, ends_s: float, seed: int = 0) -> Evidence:
    """Make rows and let the library answer them.

    Args:
        model: whose rows they are.
        ends_s: when to give up, by ``time.perf_counter``.
        seed: of the random numbers.

    Raises:
        NotCompiledError: it answers none of them, or needs too long.
    """
    estimator = model.estimator
    rows = parity_rows(model, estimator, n_rows=N_ROWS, seed=seed)
    if not rows:
        msg = "the model answers none of the rows that were made for it"
        raise NotCompiledError(msg)
    edges = edge_rows(model, estimator, rows, n_thresholds=N_THRESHOLDS, seed=seed)
    nullable = [i for i, f in enumerate(model.signature.inputs) if f.is_nullable]
    n = max(MIN_NULL_ROWS, N_NULL_ROWS // max(1, len(nullable)))
    names = model.signature.names
    nulls = {i: null_rows(model.signature, rows[:n], names[i]) for i in nullable}
    if nullable:
        nulls[-1] = _with_gaps(rows, nullable, np.random.default_rng(seed))
    return Evidence(
        _table(model, rows, ends_s),
        _table(model, edges, ends_s),
        {i: _table(model, some, ends_s) for i, some in nulls.items()},
    )


def _with_gaps(rows: Sequence[Row], nullable: Sequence[int], rng: np.random.Generator) -> list[Row]:
    """Rows with nulls in any of the columns that may have them, all of them in the first."""
    made = []
    for number, row in enumerate(rows[:N_NULL_ROWS]):
        gaps = set(nullable) if number == 0 else {i for i in nullable if rng.random() < NULL_RATE}
        made.append([None if i in gaps else value for i, value in enumerate(row)])
    return made


def _table(model: EstimatorModel, rows: list[Row], ends_s: float) -> Table:
    chunks = []
    for start in range(0, len(rows), CHUNK):
        if time.perf_counter() > ends_s:
            msg = "the library's own calls on the rows of the proof take too long"
            raise NotCompiledError(msg)
        inputs = model.signature.check(list(rows[start : start + CHUNK]))
        chunks.append((inputs, model.predict(inputs)))
    return Table(tuple(chunks), len(rows))


def usual_size(evidence: Evidence) -> NDArray[np.float64]:
    """The size that values usually have: the median magnitude, of each output by itself."""
    values = np.concatenate([np.abs(wanted.predictions) for _, wanted in evidence.random.chunks])
    size: NDArray[np.float64] = np.maximum(np.median(values.astype(float), axis=0), MIN_SIZE)
    return size


def judge(predict: Predict, *, evidence: Evidence, tables: Iterable[Table], is_label: bool, ends_s: float) -> Verdict:
    """Compare a form with the library. Raises what the form raises.

    Raises:
        NotCompiledError: it needs too long.
    """
    verdict = Verdict()
    size = None if is_label else usual_size(evidence)
    for table in tables:
        for inputs, wanted in table.chunks:
            if time.perf_counter() > ends_s:
                msg = "its calls on the rows of the proof take too long"
                raise NotCompiledError(msg)
            _count(verdict, wanted, predict(inputs, ()), size)
    return verdict


def _count(verdict: Verdict, wanted: Outputs, came: Outputs, size: NDArray[np.float64] | None) -> None:
    verdict.n_rows += len(wanted.predictions)
    if size is None:
        verdict.n_unequal += n_unequal_labels(wanted.predictions, came.predictions)
    else:
        _widen(verdict, "predict", wanted.predictions, came.predictions, size)
    if len(wanted.probabilities or ()) != len(came.probabilities or ()):
        verdict.differences["predict_proba"] = np.inf
    for one, other in zip(wanted.probabilities or (), came.probabilities or (), strict=False):
        _widen(verdict, "predict_proba", one, other, None)


def _widen(verdict: Verdict, name: str, wanted: Any, came: Any, size: NDArray[np.float64] | None) -> None:
    largest = np.inf if wanted.dtype != came.dtype else float(gaps(wanted, came, size).max(initial=0.0))
    verdict.differences[name] = max(verdict.differences.get(name, 0.0), largest)


def gaps(wanted: NDArray[Any], came: NDArray[Any], size: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """The differences of numbers, relative where a usual size is given; infinite in another shape or beside a NaN."""
    if wanted.shape != came.shape:
        return np.array([np.inf])
    a, b = wanted.astype(float), came.astype(float)
    with np.errstate(invalid="ignore"):
        found = np.abs(a - b)
        if size is not None:
            found /= np.maximum(np.abs(a), size)
    found = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, found)
    return np.where(np.isnan(found), np.inf, found)


def n_unequal_labels(wanted: NDArray[Any], came: NDArray[Any]) -> int:
    """How many rows have another label, or one of another type."""
    if wanted.shape != came.shape:
        return len(wanted)
    pairs = zip(wanted.tolist(), came.tolist(), strict=True)
    return sum(one != other or _types(one) != _types(other) for one, other in pairs)


def _types(label: Any) -> Any:
    return list(map(type, label)) if isinstance(label, list) else type(label)


def is_free_of_company(predict: Predict, table: Table) -> bool:
    """Whether rows have the same bits alone and with others, wherever they stand among them.

    Many rows are looked at: two ways to compute an exponential give most numbers the same bits.
    """
    ends_s = time.perf_counter() + COMPANY_S
    for inputs, _ in table.chunks:
        whole = predict(inputs, ())
        n = len(whole.predictions)
        for size in (size for size in COMPANIES if size <= n):
            parts = [slice(start, start + size) for start in range(0, n - size + 1, size)]
            if not all(_same_bits(predict(take(inputs, part), ()), whole, part) for part in parts):
                return False
        if time.perf_counter() > ends_s:
            break
    return True


def _same_bits(some: Outputs, whole: Outputs, part: slice) -> bool:
    pairs = [(some.predictions, whole.predictions)]
    pairs += zip(some.probabilities or (), whole.probabilities or (), strict=True)
    return all(
        a.tolist() == b[part].tolist() or np.array_equal(a, b[part], equal_nan=a.dtype.kind == "f") for a, b in pairs
    )
