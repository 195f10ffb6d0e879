"""What a model gave, as the members of a reply."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fitserve.protocols.json_body import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from fitserve.signature import Signature
    from fitserve.types import Outputs


def probability(signature: Signature, outputs: Outputs, row: int, label: Any) -> Any:
    """The probability that the model gives the label that it predicts; a list for several outputs."""
    if outputs.probabilities is None or signature.classes is None:
        return None
    if signature.n_outputs == 0:
        classes = signature.classes[0]
        return float(outputs.probabilities[0][row, classes.index(label)]) if label in classes else None
    return [
        float(part[row, classes.index(name)]) if name in classes else None
        for part, classes, name in zip(outputs.probabilities, signature.classes, label, strict=True)
    ]


def probabilities(signature: Signature, outputs: Outputs) -> list[Any] | None:
    """For each row, the probabilities by class label; a list of such for several outputs."""
    if outputs.probabilities is None or signature.class_names is None:
        return None
    parts = [
        [dict(zip(names, row, strict=True)) for row in part.tolist()]
        for part, names in zip(outputs.probabilities, signature.class_names, strict=True)
    ]
    return parts[0] if signature.n_outputs == 0 else [list(row) for row in zip(*parts, strict=True)]


def asked_outputs(
    signature: Signature, outputs: Outputs, predictions: list[Any], asked: Sequence[str]
) -> dict[str, list[Any]]:
    """What was asked for by name, each a list with one item a row."""
    return {name: _output(signature, outputs, predictions, name) for name in asked}


def _output(signature: Signature, outputs: Outputs, predictions: list[Any], name: str) -> list[Any]:
    if name == signature.outputs[0]:  # predict, or the transform of a pure transformer
        return predictions
    if name == "predict_proba":
        return probabilities(signature, outputs) or [None] * len(predictions)
    values = outputs.extras[name]
    if name == "decision_function" and (names := _class_columns(signature, values)):
        return [dict(zip(names, row, strict=True)) for row in plain(values)]
    return plain(values)


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
