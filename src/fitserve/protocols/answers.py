"""What a model gave, as the members of a reply."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from fitserve.protocols.json_body import plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from fitserve.signature import Signature
    from fitserve.types import Outputs


class Values(NamedTuple):
    """What a model gave for some rows, as JSON holds it; each a list with one item a row.

    Attributes:
        predictions: labels or numbers; lists of them for several outputs.
        probability: of each label that was predicted; None without probabilities.
        by_class: the probabilities by class label; lists of such for several outputs; None without.
        at: when they were made,
        at_s: by ``time.perf_counter``.
    """

    predictions: list[Any]
    probability: list[Any] | None
    by_class: list[Any] | None
    at: datetime
    at_s: float


def values_of(signature: Signature, outputs: Outputs) -> Values:
    """Turn outputs into values, of all rows at once.

    Raises:
        ModelFailedError: a prediction is of a type that JSON has no word for.
    """
    predictions = plain(outputs.predictions)
    at, at_s = datetime.now(UTC), time.perf_counter()
    if outputs.probabilities is None or signature.classes is None:
        return Values(predictions, None, None, at, at_s)
    parts = [part.tolist() for part in outputs.probabilities]
    by_class = _by_class(signature, parts)
    if signature.n_outputs == 0:
        return Values(predictions, _of_labels(signature.classes[0], predictions, parts[0]), by_class, at, at_s)
    labels = zip(*predictions, strict=True)
    each = [_of_labels(*one) for one in zip(signature.classes, labels, parts, strict=True)]
    return Values(predictions, [list(row) for row in zip(*each, strict=True)], by_class, at, at_s)


def _of_labels(classes: Sequence[Any], labels: Iterable[Any], rows: list[list[float]]) -> list[float | None]:
    """The probability that each row gives its label."""
    places = {label: place for place, label in enumerate(classes)}
    try:
        return [row[places[label]] for label, row in zip(labels, rows, strict=True)]
    except (KeyError, TypeError):  # a label that is no class, or no label
        return [
            row[classes.index(label)] if label in classes else None for label, row in zip(labels, rows, strict=True)
        ]


def _by_class(signature: Signature, parts: list[list[list[float]]]) -> list[Any]:
    assert signature.class_names is not None  # as there are classes
    named = [
        [dict(zip(names, row, strict=True)) for row in rows]
        for rows, names in zip(parts, signature.class_names, strict=True)
    ]
    return named[0] if signature.n_outputs == 0 else [list(row) for row in zip(*named, strict=True)]


def asked_outputs(signature: Signature, outputs: Outputs, values: Values, asked: Sequence[str]) -> dict[str, list[Any]]:
    """What was asked for by name, each a list with one item a row."""
    return {name: _output(signature, outputs, values, name) for name in asked}


def _output(signature: Signature, outputs: Outputs, values: Values, name: str) -> list[Any]:
    if name == signature.outputs[0]:  # predict, or the transform of a pure transformer
        return values.predictions
    if name == "predict_proba":
        return values.by_class or [None] * len(values.predictions)
    found = outputs.extras[name]
    if name == "decision_function" and (names := _class_columns(signature, found)):
        return [dict(zip(names, row, strict=True)) for row in plain(found)]
    return plain(found)


def _class_columns(signature: Signature, values: NDArray[Any]) -> tuple[str, ...] | None:
    """The names of the columns, where there is one a class."""
    if (
        not signature.has_score_per_class
        or signature.class_names is None
        or len(signature.class_names) != 1
        or signature.n_outputs
    ):
        return None
    names = signature.class_names[0]
    return names if values.ndim > 1 and values.shape[1] == len(names) else None
