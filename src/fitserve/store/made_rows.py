"""Rows made from a signature: for a model whose author gives none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fitserve.formats.base import Model
    from fitserve.signature import Field, Label, Signature

MAX_MADE_ROWS = 64

SCATTERED_ROWS = 32
"""Rows with numbers around those of the example, which take a tree's other branches."""


def self_made_rows(signature: Signature) -> list[Any]:
    """Rows that the signature says are valid, to prove at least that the model predicts.

    The example row; every category of every column, all columns at once; both booleans; null in every column that
    takes it, and in all of them. Numbers are those of the example: nothing is known of which others make sense.
    Empty for a model that does not tell its features; at most :data:`MAX_MADE_ROWS`.
    """
    if signature.is_open:
        return []
    base = list(signature.example_row())
    choices: list[tuple[Label, ...]] = [
        column.categories or ((False, True) if column.kind == "boolean" else ()) for column in signature.inputs
    ]
    n_made = min(max(map(len, choices), default=0), MAX_MADE_ROWS // 2)
    made = (
        [known[i % len(known)] if known else value for known, value in zip(choices, base, strict=True)]
        for i in range(n_made)
    )
    nullable = [i for i, column in enumerate(signature.inputs) if column.is_nullable]
    places = [nullable, *([i] for i in nullable)] if nullable else []
    nulls = ([None if i in chosen else value for i, value in enumerate(base)] for chosen in places[:MAX_MADE_ROWS])
    rows = [base, *made, *nulls][:MAX_MADE_ROWS]
    return [dict(zip(signature.names, row, strict=True)) for row in rows] if signature.is_named else rows


def scattered_rows(model: Model, n_rows: int = SCATTERED_ROWS) -> list[Any]:
    """Rows around the example that the model answers, the same ones at every call: golden samples say more with them.

    A model may refuse some, a logarithm the negative ones: those are left out.
    """
    return [row for row in scatter(model.signature, n_rows) if _is_answered(model, row)]


def scatter(signature: Signature, n_rows: int) -> Iterator[Any]:
    """Rows around the example, whether or not a model answers them; the same ones at every call."""
    if signature.is_open:
        return
    random = np.random.default_rng(0)
    base = signature.example_row()
    for _ in range(n_rows):
        row = [_scattered(field, value, random) for field, value in zip(signature.inputs, base, strict=True)]
        yield dict(zip(signature.names, row, strict=True)) if signature.is_named else row


def _scattered(field: Field, value: Label | None, random: np.random.Generator) -> Label | None:
    if field.categories:
        return field.categories[int(random.integers(len(field.categories)))]
    if field.kind == "boolean":
        return bool(random.integers(2))
    if isinstance(value, float | int) and not isinstance(value, bool):
        scattered = value + float(random.normal()) * max(abs(value), 1.0)
        return float(f"{max(-field.largest, min(field.largest, scattered)):.4g}")
    return value


def _is_answered(model: Model, row: Any) -> bool:
    try:
        outputs = model.predict(model.signature.check([row]), model.signature.outputs[1:])
    except (Exception, SystemExit):  # noqa: BLE001 - a model may raise anything
        return False
    return len(np.atleast_1d(outputs.predictions)) == 1
