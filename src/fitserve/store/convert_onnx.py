"""A scikit-learn estimator as ONNX: tried in float64 and float32, and the form that answers alike is taken."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import numpy as np

from fitserve.errors import ArtifactError, clip
from fitserve.estimators.onnx_signature import NOTE_KEY, Note, NotedField
from fitserve.estimators.walk import package_of, parts_of
from fitserve.optimize.edges import edge_rows
from fitserve.optimize.onnx import kind_of, layouts_of, to_proto, types_of
from fitserve.optimize.parity import Parity, agrees_with, compare
from fitserve.optimize.rows import UNKNOWN, null_rows
from fitserve.optimize.trees import trees_of
from fitserve.trust.policy import TrustPolicy
from fitserve.types import Artifact

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fitserve.estimators.model import EstimatorModel
    from fitserve.estimators.onnx import OnnxModel
    from fitserve.optimize.rows import Row
    from fitserve.signature import Field

NULL_TEXTS: Final = (UNKNOWN, "", "nan")
"""What a null may become in a column of strings; the first that the model takes as it took the null."""

ALIKE: Final = 1e-9
"""Differences up to this leave nothing to look for."""

BOOSTERS: Final = {
    "xgboost": "save_model('model.ubj')",
    "lightgbm": "booster_.save_model('model.txt')",
    "catboost": "save_model('model.cbm')",
}
"""Libraries whose models skl2onnx does not know, and how they are saved without code."""


class Converted(NamedTuple):
    """One way in which the conversion succeeded."""

    data: bytes
    parity: Parity
    edges: Parity
    floats: str
    note: Note
    nulls_refused: tuple[str, ...]


def to_onnx(estimator: Any, model: EstimatorModel, rows: Sequence[Row]) -> Converted:
    """Convert, and compare on the rows.

    Args:
        estimator: fitted, as it was loaded.
        model: the same at work: what it answers is right.
        rows: that it answers.

    Raises:
        ArtifactError: nothing could be made of it that answers alike; the text says why.
    """
    _refuse_strangers(estimator, model)
    best: Converted | None = None
    reasons: list[str] = []
    for by_column, floats in product(layouts_of(model.signature), ("float64", "float32")):
        try:
            found = _converted(estimator, model, rows, floats=floats, by_column=by_column)
        except Exception as exc:  # noqa: BLE001 - the converter raises whatever it meets
            reasons.append(f"{type(exc).__name__}: {clip(' '.join(str(exc).split()), 200)}")
            continue
        if best is None or _rank(found) < _rank(best):
            best = found
        if sum(_rank(best)[:3]) == 0 and best.parity.largest <= ALIKE:
            break
    if best is None:
        msg = f"cannot be converted to ONNX: {reasons[0]}; a .skops file holds any scikit-learn model"
        raise ArtifactError(msg)
    if best.parity.n_unequal:
        parity = best.parity
        msg = (
            f"is not the same as ONNX: {parity.n_unequal} of {parity.n_rows} rows were answered otherwise "
            f"(numbers differ by up to {parity.largest:.2g}); convert it to a .skops file, which is exact"
        )
        raise ArtifactError(msg)
    return best


def _rank(found: Converted) -> tuple[int, int, int, float]:
    """The less, the better: rows answered otherwise, first those that no rounding explains."""
    parity = found.parity
    return parity.n_unequal, parity.n_ties, found.edges.n_unequal + found.edges.n_ties, parity.largest


def _refuse_strangers(estimator: Any, model: EstimatorModel) -> None:
    """Refuse what is known not to convert, with what to do instead."""
    packages = {package_of(part) for part in parts_of(estimator)}
    for package, way in BOOSTERS.items():
        if package in packages:
            msg = f"holds a model of {package}, which skl2onnx does not convert: save it without code by {way}"
            raise ArtifactError(msg)
    if model.signature.is_open:
        msg = "does not tell its features: give an example in a manifest"
        raise ArtifactError(msg)
    if any(not np.isfinite(tree.threshold[tree.feature >= 0]).all() for tree in trees_of(estimator)):
        msg = "has trees that split on missing values, which skl2onnx does not convert; a .skops file holds them"
        raise ArtifactError(msg)
    dates = [f.name for f in model.signature.inputs if f.kind == "datetime"]
    if dates:
        msg = f"takes dates in the column {clip(dates[0])!r}, and ONNX has none"
        raise ArtifactError(msg)


def _converted(
    estimator: Any, model: EstimatorModel, rows: Sequence[Row], *, floats: str, by_column: bool
) -> Converted:
    proto = to_proto(estimator, types_of(model.signature.inputs, floats, by_column=by_column))
    outputs = _matched_outputs(proto, model, rows)
    fields = [_noted(f) for f in model.signature.inputs]
    note = Note(
        fields=[replace_nullable(f, is_nullable=False) for f in fields],
        is_named=model.signature.is_named,
        classes=None if model.signature.classes is None else [list(labels) for labels in model.signature.classes],
        outputs=outputs,
        example=None if model.signature.example is None else list(model.signature.example),
    )
    data = with_note(proto, note)
    other = load_onnx(data)
    parity, edges = compare(model, other, rows), compare(model, other, edge_rows(model, estimator, rows))
    note, refused = _with_nulls(proto, note, model, fields, rows)
    return Converted(with_note(proto, note), parity, edges, floats, note, refused)


def _noted(f: Field) -> NotedField:
    return NotedField(
        name=f.name,
        kind=kind_of(f),
        is_nullable=f.is_nullable,
        categories=None if f.categories is None else list(f.categories),
        is_closed=f.is_closed,
        largest=f.largest,
    )


def replace_nullable(f: NotedField, *, is_nullable: bool) -> NotedField:
    """The field, taking nulls or not."""
    return f.model_copy(update={"is_nullable": is_nullable})


def _matched_outputs(proto: Any, model: EstimatorModel, rows: Sequence[Row]) -> dict[str, str]:
    """Which ONNX output gives what can be asked for: the first one predictions, others by what they give."""
    names = [output.name for output in proto.graph.output]
    signature = model.signature
    found: dict[str, str] = {signature.outputs[0]: names[0]}
    rest = names[1:]
    if signature.has_probabilities and rest:
        found["predict_proba"] = rest.pop(0)
    wanted = [name for name in signature.outputs[1:] if name != "predict_proba"]
    if not rest or not wanted:
        return found
    extras = model.predict(signature.check(list(rows[:20])), wanted).extras
    # Any of the wanted names reads the output; what it gives then tells its right name.
    for output in rest:
        for name in wanted:
            note = Note(
                fields=[replace_nullable(_noted(f), is_nullable=False) for f in signature.inputs],
                is_named=signature.is_named,
                outputs={signature.outputs[0]: names[0], name: output},
            )
            other = load_onnx(with_note(proto, note))
            came = other.predict(other.signature.check(list(rows[:20])), [name]).extras
            if name not in found and name in extras and agrees_with(extras[name], came[name]):
                found[name] = output
                break
    return found


def _with_nulls(
    proto: Any, note: Note, model: EstimatorModel, fields: Sequence[NotedField], rows: Sequence[Row]
) -> tuple[Note, tuple[str, ...]]:
    """The note with nulls in the columns where they are answered alike, and the columns where not."""
    nullable = [f.name for f in fields if f.is_nullable]
    best: tuple[Note, tuple[str, ...]] = (note, tuple(nullable))
    texts = NULL_TEXTS if any(f.is_nullable and f.kind == "string" for f in fields) else NULL_TEXTS[:1]
    for text in texts if nullable else ():
        trial = note.model_copy(update={"fields": list(fields), "null_text": text})
        other = load_onnx(with_note(proto, trial))
        refused = tuple(name for name in nullable if not _is_null_alike(model, other, rows, name))
        if len(refused) < len(best[1]):
            kept = [replace_nullable(f, is_nullable=f.is_nullable and f.name not in refused) for f in fields]
            best = trial.model_copy(update={"fields": kept}), refused
        if not refused:
            break
    return best


def _is_null_alike(model: EstimatorModel, other: OnnxModel, rows: Sequence[Row], name: str) -> bool:
    try:
        return compare(model, other, null_rows(model.signature, rows, name)).n_unequal == 0
    except Exception:  # noqa: BLE001 - the runtime's own
        return False


def with_note(proto: Any, note: Note) -> bytes:
    """The model's bytes with the note in its metadata."""
    del proto.metadata_props[:]
    proto.metadata_props.add(key=NOTE_KEY, value=note.model_dump_json())
    return cast("bytes", proto.SerializeToString())


def load_onnx(data: bytes) -> OnnxModel:
    """Load the model as it will be served."""
    from fitserve.formats.onnx import load

    return load(Artifact("converted", "1", "0" * 64, data, "model.onnx"), TrustPolicy(level="data"))
