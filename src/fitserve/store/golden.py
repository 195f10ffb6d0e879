"""Golden samples: rows with the outputs that they gave when the model was packed, and their replay.

Another version of a library may change what a model answers. Whether it does is measured: the rows are answered
again before the model serves, and compared within a tolerance that stands in the file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fitserve.errors import ArtifactError, InvalidInputError, clip
from fitserve.types import Golden

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from fitserve.formats.base import Model
    from fitserve.signature import Signature
    from fitserve.types import Outputs

GOLDEN_FILE = "golden.json"

MAX_GOLDEN_BYTES = 64 * 2**20
MAX_GOLDEN_ROWS = 10_000

MAX_OUTPUT_VALUES = 1_000_000
"""An output of more values, such as a wide ``transform``, is left out of the samples; predictions never are."""


_INFINITIES = {math.inf: "inf", -math.inf: "-inf"}
"""How JSON, which has no infinity, is told of one. NaN is null."""


@dataclass(frozen=True, slots=True)
class OutputReport:
    """How far one output is from what it was.

    Attributes:
        name: of the output.
        is_exact: values must be identical, as labels must; else the tolerance counts.
        n_differing: rows that differ by more than they may.
        largest_abs: the largest difference of two numbers, also of those within tolerance.
        largest_rel: the same as a part of the larger of the two.
    """

    name: str
    is_exact: bool
    n_differing: int = 0
    largest_abs: float = 0.0
    largest_rel: float = 0.0


@dataclass(frozen=True, slots=True)
class GoldenReport:
    """What a replay found.

    Attributes:
        n_rows: how many rows were replayed.
        outputs: one report each; empty if the rows could not be answered at all.
        mismatch: the first thing that is wrong, without any value in it; None if nothing is.
    """

    n_rows: int
    outputs: tuple[OutputReport, ...] = ()
    mismatch: str | None = None

    @property
    def is_ok(self) -> bool:
        """Whether the model answers as it did."""
        return self.mismatch is None


class _Samples(BaseModel):
    """``golden.json``."""

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1] = Field(alias="schema")
    rtol: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    atol: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    rows: list[dict[str, Any] | list[Any]] = Field(min_length=1, max_length=MAX_GOLDEN_ROWS)
    outputs: dict[str, list[Any]] = Field(min_length=1, max_length=16)


def parse_golden(data: bytes) -> Golden:
    """Read ``golden.json``.

    Raises:
        ArtifactError: it is too large, no JSON, or not of its shape.
    """
    if len(data) > MAX_GOLDEN_BYTES:
        msg = f"has golden samples of {len(data)} bytes, more than the limit of {MAX_GOLDEN_BYTES}"
        raise ArtifactError(msg)
    try:
        samples = _Samples.model_validate(orjson.loads(data))
    except orjson.JSONDecodeError as exc:
        msg = f"has golden samples that are not valid JSON: {exc}"
        raise ArtifactError(msg) from exc
    except ValidationError as exc:
        error = exc.errors(include_url=False, include_input=False)[0]
        msg = f"has golden samples that are wrong: {clip('.'.join(map(str, error['loc'])))}: {error['msg']}"
        raise ArtifactError(msg) from exc
    for name, values in samples.outputs.items():
        if len(values) != len(samples.rows):
            msg = f"has golden samples of {len(samples.rows)} rows, but {len(values)} of {clip(name)}"
            raise ArtifactError(msg)
    return Golden(samples.rows, samples.outputs, samples.rtol, samples.atol)


def golden_json(golden: Golden) -> bytes:
    """The content of ``golden.json``."""
    document = {
        "schema": 1,
        "rtol": golden.rtol,
        "atol": golden.atol,
        "rows": golden.rows,
        "outputs": golden.outputs,
    }
    return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)


def record(model: Model, rows: Sequence[Any]) -> Golden:
    """Let a model answer rows, each an object by name or a list, with all the outputs that it has.

    Raises:
        InvalidInputError: a row does not fit the signature.
        ArtifactError: the model raises, or does not answer each row.
    """
    answers = {}
    for name, (_, values) in _answers(model, rows, (*model.signature.outputs, "predict_proba")).items():
        is_first = name == model.signature.outputs[0]
        if is_first or sum(1 for value in values for _ in _leaves(value)) <= MAX_OUTPUT_VALUES:
            answers[name] = values
    return Golden(list(rows), answers)


def replay(model: Model, golden: Golden) -> GoldenReport:
    """Let a model answer golden samples and compare; numbers within tolerance, labels identical, NaN equal to NaN."""
    n_rows = len(golden.rows)
    try:
        came = _answers(model, golden.rows, tuple(golden.outputs))
    except InvalidInputError as exc:
        return GoldenReport(n_rows, mismatch=f"a golden row is refused now: {exc}")
    except ArtifactError as exc:
        return GoldenReport(n_rows, mismatch=str(exc))
    reports: list[OutputReport] = []
    mismatch = None
    for name, wanted in golden.outputs.items():
        if name not in came:
            mismatch = mismatch or f"the model has no output {clip(name)} any more"
            continue
        is_exact, values = came[name]
        report, found = _compared(name, wanted, values, golden, is_exact=is_exact)
        reports.append(report)
        mismatch = mismatch or found
    return GoldenReport(n_rows, tuple(reports), mismatch)


def _answers(model: Model, rows: Sequence[Any], names: Sequence[str]) -> dict[str, tuple[bool, list[Any]]]:
    """Each output that the model gives, by name: whether it must be identical, and its values for JSON."""
    signature = model.signature
    extras = [name for name in names if name in signature.outputs[1:] and name not in {"predict", "predict_proba"}]
    inputs = signature.check(list(rows))
    try:
        outputs = model.predict(inputs, extras)
    except InvalidInputError:
        raise
    except (Exception, SystemExit) as exc:  # a model may raise anything
        msg = f"cannot answer its sample rows: it raised {type(exc).__name__}"
        raise ArtifactError(msg) from exc
    found: dict[str, tuple[bool, list[Any]]] = {}
    for name, array in _arrays(outputs, signature).items():
        if name in names or name == signature.outputs[0]:
            is_label = name == signature.outputs[0] and signature.classes is not None
            found[name] = (is_label or array[0].dtype.kind not in "fc", _values(array))
    for name, (_, values) in found.items():
        if len(values) != len(rows):
            msg = f"gives {len(values)} values of {name} for {len(rows)} rows"
            raise ArtifactError(msg)
    return found


def _arrays(outputs: Outputs, signature: Signature) -> Mapping[str, tuple[NDArray[Any], ...]]:
    """The arrays of each output; several only for the probabilities of a model of several outputs."""
    found: dict[str, tuple[NDArray[Any], ...]] = {signature.outputs[0]: (np.asarray(outputs.predictions),)}
    if outputs.probabilities is not None:
        found["predict_proba"] = outputs.probabilities
    return {**found, **{name: (np.asarray(array),) for name, array in outputs.extras.items()}}


def _values(arrays: tuple[NDArray[Any], ...]) -> list[Any]:
    """A value for each row, as JSON has it."""
    plain = [[_plain(value) for value in array.tolist()] for array in arrays]
    return plain[0] if len(plain) == 1 else [list(row) for row in zip(*plain, strict=True)]


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return _INFINITIES.get(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _compared(
    name: str, wanted: Sequence[Any], came: Sequence[Any], golden: Golden, *, is_exact: bool
) -> tuple[OutputReport, str | None]:
    n_differing, largest_abs, largest_rel, first = 0, 0.0, 0.0, None
    for i, (old, new) in enumerate(zip(wanted, came, strict=True)):
        gaps = _gaps(old, new, is_exact=is_exact)
        if gaps is None:
            n_differing, first = n_differing + 1, first or f"{name} of golden row {i} is another value than at packing"
            continue
        far = [(gap, part) for gap, part, size in gaps if gap > max(golden.atol, golden.rtol * size)]
        largest_abs = max(largest_abs, *(gap for gap, _, _ in gaps), 0.0)
        largest_rel = max(largest_rel, *(part for _, part, _ in gaps), 0.0)
        if far:
            gap, part = max(far)
            n_differing += 1
            first = first or (
                f"{name} of golden row {i} differs by {gap:.2g}, {part:.2g} of it, from what it was at packing: "
                f"more than rtol {golden.rtol:g} and atol {golden.atol:g}"
            )
    return OutputReport(name, is_exact, n_differing, largest_abs, largest_rel), first


def _gaps(old: Any, new: Any, *, is_exact: bool) -> list[tuple[float, float, float]] | None:
    """For each pair of numbers their distance, its part of the larger one, and that; None if the two differ in kind."""
    ours, theirs = list(_leaves(old)), list(_leaves(new))
    if len(ours) != len(theirs):
        return None
    gaps = []
    for one, other in zip(ours, theirs, strict=True):
        if one == other and isinstance(one, bool) == isinstance(other, bool):
            gaps.append((0.0, 0.0, 0.0))
        elif is_exact or not (_is_number(one) and _is_number(other)):
            return None
        else:
            size = max(abs(one), abs(other))
            gaps.append((abs(one - other), abs(one - other) / size, size))
    return gaps


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    else:
        yield value
