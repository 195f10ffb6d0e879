"""An ONNX model at work: tables in, labels, probabilities and numbers out.

The runtime's session is shared by threads. What its outputs mean is decided once, by their
datatypes, and by a few rows that are run when the model is loaded.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from fitserve.errors import InputIssue, InvalidInputError
from fitserve.estimators.onnx_outputs import (
    array_of,
    classes_of,
    joined,
    layout_of,
    noted_layout,
    probabilities_of,
    squeezed,
)
from fitserve.estimators.onnx_signature import (
    check_kinds,
    fields_of,
    knows_missing,
    read_note,
    slots_of,
)
from fitserve.signature import Field, OutputName, Signature
from fitserve.types import Outputs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from fitserve.estimators.onnx_graph import Graph
    from fitserve.estimators.onnx_signature import Note, Slot
    from fitserve.signature import Inputs, Label
    from fitserve.types import Declared, ModelFacts

MAGNITUDES: Final = (1e30, 1e15, 1e9)
"""The bounds that are tried for a model's numbers after those of their datatypes, the largest first."""


class OnnxModel:
    """A session of ONNX Runtime, or of the same shape, and what is known of it.

    Args:
        session: an ``onnxruntime.InferenceSession``; used are ``get_inputs``, ``get_outputs`` and ``run``.
        graph: what stands in the same bytes.
        declared: what is said of it besides.
        facts: of the file.

    Raises:
        ArtifactError: it takes or gives what is no table, or what is declared does not fit.
    """

    def __init__(self, session: Any, graph: Graph, declared: Declared, facts: ModelFacts) -> None:
        note = read_note(graph)
        self._session = session
        self._types = {output.name: output.type for output in session.get_outputs()}
        self._null_text = note.null_text if note else ""
        said = declared.fields or declared.mlflow_fields or (note and note.fields) or declared.example
        self._slots = slots_of(session.get_inputs(), len(said) if said else None)
        self.signature = _inputs(self._slots, note, declared)
        self.facts = facts
        # Such an operator may go on for longer on some values than on others.
        self.is_library_code = not any(node.operator in {"Loop", "If"} for node in graph.nodes)
        trial = self._trial()
        classes = classes_of(graph, self._types, note, declared, trial)
        self._layout = noted_layout(note, self._types) if note else layout_of(self._types, trial, classes)
        self._settle(classes, trial)
        if note is None and self._slots:
            is_missing_known = knows_missing(graph)
            self.signature = replace(self.signature, inputs=self._tried(is_missing_known=is_missing_known))

    def predict(self, inputs: Inputs, asked: Sequence[str] = ()) -> Outputs:
        """Run the session. Safe in many threads at once.

        Raises:
            InvalidInputError: an input of integers was given a number that is none.
        """
        layout, signature = self._layout, self.signature
        extras = {name: layout.extras[name] for name in asked if name in layout.extras}
        wanted = list(dict.fromkeys([*layout.predict, *layout.probabilities, *extras.values()]))
        raw = dict(zip(wanted, self._run(wanted, inputs), strict=True))
        probabilities = probabilities_of([raw[name] for name in layout.probabilities])
        if layout.predict:
            columns = [squeezed(raw[name]) for name in layout.predict]
            predictions = columns[0] if len(columns) == 1 else np.column_stack(columns)
            if predictions.dtype.kind in "iu" and self._label_type is not int:
                predictions = predictions.astype(self._label_type)
        else:
            predictions = self._labels[probabilities[0].argmax(axis=1)]
        return Outputs(
            predictions,
            probabilities if signature.has_probabilities else None,
            {name: squeezed(raw[output]) for name, output in extras.items()},
        )

    def _run(self, wanted: list[str], inputs: Inputs) -> list[Any]:
        """The named outputs of all rows; a model that takes one row at a time is run once for each."""
        n_rows = len(inputs) if isinstance(inputs, np.ndarray) else len(next(iter(inputs.values())))
        feeds = self._feeds(inputs, n_rows)
        if all(slot.n_rows is None for slot in self._slots):
            return cast("list[Any]", self._session.run(wanted, feeds))
        rows = [
            self._session.run(wanted, {name: array[row : row + 1] for name, array in feeds.items()})
            for row in range(n_rows)
        ]
        return [joined(parts) for parts in zip(*rows, strict=True)]

    def _feeds(self, inputs: Inputs, n_rows: int) -> dict[str, NDArray[Any]]:
        if self.signature.is_open:
            (tensor,) = self._session.get_inputs()
            return {tensor.name: np.asarray(inputs, dtype=_FLOATS.get(tensor.type, np.float64))}
        feeds = {}
        columns = None if isinstance(inputs, np.ndarray) else list(inputs.values())
        for slot in self._slots:
            if columns is None:
                table = cast("NDArray[Any]", inputs)[:, slot.start : slot.stop]
            else:
                table = np.empty(
                    (n_rows, slot.stop - slot.start), dtype=slot.dtype if slot.dtype.kind in "bO" else float
                )
                for index, column in enumerate(columns[slot.start : slot.stop]):
                    table[:, index] = column
            if slot.dtype.kind in "iu":
                self._check_integers(table, slot)
            elif slot.dtype.kind == "O":
                table[table == None] = self._null_text  # noqa: E711 - element by element
            feeds[slot.name] = (table if slot.rank > 1 else table[:, 0]).astype(slot.dtype, copy=False)
        return feeds

    def _check_integers(self, table: NDArray[np.float64], slot: Slot) -> None:
        """Refuse what a tensor of integers would cut off or wrap around."""
        is_wrong = (table != np.floor(table)) | (table < np.iinfo(slot.dtype).min)
        if is_wrong.any():
            row, column = np.argwhere(is_wrong)[0].tolist()
            wanted = f"an integer between {np.iinfo(slot.dtype).min} and {np.iinfo(slot.dtype).max}"
            name = self.signature.names[slot.start + column]
            raise InvalidInputError([InputIssue(wanted, "another number", row if len(table) > 1 else None, name)])

    def _trial(self) -> dict[str, Any] | None:
        """All outputs for a few rows; None where the model answers none: whoever warms it up meets the failure."""
        if self.signature.is_open:
            return None
        rows = [list(self.signature.example_row())]
        numeric = [f.kind in {"number", "numeric"} and not f.is_closed for f in self.signature.inputs]
        for number in (0.0, 1.0, -1.0):
            changed = zip(rows[0], numeric, strict=True)
            rows.append([number if is_number else value for value, is_number in changed])
        for table in (rows, rows[:1]):
            try:
                return dict(zip(self._types, self._run(list(self._types), self.signature.check(table)), strict=True))
            except Exception:  # noqa: BLE001, S112 - the runtime's own, on values that the model does not know
                continue
        return None

    def _settle(self, classes: tuple[tuple[Label, ...], ...] | None, trial: dict[str, Any] | None) -> None:
        """Put into the signature what the layout, the classes and the trial say together."""
        layout = self._layout
        n_outputs = 0
        if trial is not None and layout.predict:
            columns = [squeezed(trial[name]) for name in layout.predict]
            n_outputs = columns[0].shape[1] if columns[0].ndim > 1 else len(columns) if len(columns) > 1 else 0
        has_probabilities = bool(layout.probabilities) and classes is not None
        self._labels = array_of(classes[0]) if classes else np.empty(0)
        types = {type(label) for labels in classes or () for label in labels}
        # The converter writes labels of booleans and floats as integers.
        self._label_type = types.pop() if len(types) == 1 and types <= {bool, float} else int
        if has_probabilities and n_outputs and len(classes or ()) != n_outputs:
            has_probabilities = False
        outputs: list[OutputName] = [layout.first]
        outputs += ["predict_proba"] if has_probabilities else []
        outputs += [cast("OutputName", name) for name in layout.extras]
        self.signature = replace(
            self.signature,
            classes=classes,
            n_outputs=n_outputs,
            has_probabilities=has_probabilities,
            outputs=tuple(outputs),
        )

    def _tried(self, *, is_missing_known: bool) -> tuple[Field, ...]:
        """The inputs as the model answers them: without nulls that give NaN, bounded where numbers overflow."""
        inputs = self.signature.inputs
        is_free = [f.kind in {"number", "numeric"} and not f.is_closed for f in inputs]
        kinds = [slot.dtype.kind for slot in self._slots for _ in range(slot.start, slot.stop)]
        if is_missing_known:
            inputs = tuple(
                replace(f, is_nullable=True) if kind == "f" and free and self._answers(f.name, None) else f
                for f, kind, free in zip(inputs, kinds, is_free, strict=True)
            )
        for largest in (None, *MAGNITUDES):
            bounded = tuple(
                replace(f, largest=min(f.largest, largest)) if largest and kind == "f" else f
                for f, kind in zip(inputs, kinds, strict=True)
            )
            if all(self._answers_all(bounded, is_free, sign) for sign in (1.0, -1.0)):
                return bounded
        return inputs

    def _answers(self, name: str, value: Label | None) -> bool:
        """Whether the example gives finite numbers with that value, whatever the signature says of it."""
        inputs = tuple(replace(f, is_nullable=f.is_nullable or f.name == name) for f in self.signature.inputs)
        row = zip(self.signature.names, self.signature.example_row(), strict=True)
        return self._is_finite(inputs, [value if name == known else other for known, other in row])

    def _answers_all(self, inputs: tuple[Field, ...], is_free: list[bool], sign: float) -> bool:
        row = zip(inputs, is_free, self.signature.example_row(), strict=True)
        signs = [sign if f.largest < np.inf else 1.0 for f in inputs]
        values = [s * f.largest if free else value for s, (f, free, value) in zip(signs, row, strict=True)]
        return self._is_finite(inputs, values)

    def _is_finite(self, inputs: tuple[Field, ...], row: list[Label | None]) -> bool:
        try:
            table = replace(self.signature, inputs=inputs, example=None).check([row])
            outputs = self.predict(table)
        except Exception:  # noqa: BLE001 - the runtime's own
            return False
        arrays = [outputs.predictions, *(outputs.probabilities or ())]
        return all(np.isfinite(array).all() for array in arrays if array.dtype.kind == "f")


_FLOATS: Final[dict[str, type[np.floating[Any]]]] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


def _inputs(slots: Sequence[Slot], note: Note | None, declared: Declared) -> Signature:
    """The signature's inputs and example."""
    fields = fields_of(slots, note, declared) if slots else ()
    check_kinds(slots, fields)
    names = [f.name for f in fields]
    example: Mapping[str, Any] | None = declared.example
    if example is None and note is not None and note.example is not None and len(note.example) == len(names):
        example = dict(zip(names, note.example, strict=True))
    is_named = len(slots) > 1 or bool(declared.fields or declared.mlflow_fields or declared.example)
    return Signature(
        inputs=fields,
        is_named=is_named or bool(note and note.is_named),
        is_open=not slots,
        example=tuple(example[name] for name in names) if example and names else None,
    )
