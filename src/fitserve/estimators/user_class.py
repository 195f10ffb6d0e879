"""A class of the operator's own at work: rows as dicts in, one output a row out."""

from __future__ import annotations

import platform
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np

from fitserve.errors import ArtifactError, InvalidInputError, clip
from fitserve.signature import Field, Kind, Label, OutputName, Signature
from fitserve.types import Hooks, ModelFacts, Outputs

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from fitserve.signature import Inputs
    from fitserve.types import Declared


class UserModel:
    """An object with ``predict(rows)``, and what it tells of itself in ``example``, ``features`` and ``classes_``.

    Its hooks are called once: ``start`` before the first prediction, which is the trial of the example
    row when the model is loaded. May be used from several threads at once, if the object may.

    Raises:
        ArtifactError: nobody tells its features, or it has ``predict_proba`` without ``classes_``.
    """

    is_library_code = False

    def __init__(self, instance: Any, declared: Declared) -> None:
        self._instance = instance
        self._has_proba = callable(getattr(instance, "predict_proba", None))
        self._lock = threading.Lock()
        self._is_started = False
        has_hooks = any(callable(getattr(instance, name, None)) for name in ("start", "stop"))
        self.hooks = Hooks(self.start, self.stop) if has_hooks else None
        name = type(instance).__name__
        self.facts = ModelFacts(name, {"python": (None, platform.python_version()), "numpy": (None, np.__version__)})
        self.signature = _signature(instance, declared)
        self._example_is_checked()
        self._settle(declared)

    def predict(self, inputs: Inputs, asked: Sequence[str] = ()) -> Outputs:  # noqa: ARG002 - nothing else is offered
        """Call the object's ``predict``, and ``predict_proba`` where it has one. May raise anything."""
        self.start()
        rows = rows_of(self.signature, inputs)
        predictions = array_of(self._instance.predict(rows))
        if not self._has_proba:
            return Outputs(predictions)
        return Outputs(predictions, (np.asarray(self._instance.predict_proba(rows), dtype=np.float64),))

    def start(self) -> None:
        """Call the object's ``start``, if it has one and it has not been called. Raises what it raises."""
        if self._is_started:
            return
        with self._lock:
            if not self._is_started:
                _hook(self._instance, "start")()
                self._is_started = True

    def stop(self) -> None:
        """Call the object's ``stop``, if it has one and the object has been started. Raises what it raises."""
        with self._lock:
            if self._is_started:
                self._is_started = False
                _hook(self._instance, "stop")()

    def _example_is_checked(self) -> None:
        try:
            self.signature.check([list(self.signature.example_row())], first_row=None)
        except InvalidInputError as exc:
            msg = f"has an example that does not fit its features: {exc}"
            raise ArtifactError(msg) from exc

    def _settle(self, declared: Declared) -> None:
        """Learn from one row how many values a prediction has; a failure is met again at the warm-up."""
        n_outputs = 0
        try:
            trial = self.predict(self.signature.check([list(self.signature.example_row())]))
            n_outputs = trial.predictions.shape[1] if trial.predictions.ndim > 1 else 0
        except (Exception, SystemExit):  # noqa: BLE001, S110 - the object's own
            pass
        classes = declared.classes or getattr(self._instance, "classes_", None)
        if self._has_proba and classes is None and self._is_started:
            msg = "has predict_proba, but no classes_: wanted the labels in the order of the probabilities"
            raise ArtifactError(msg)
        outputs: tuple[OutputName, ...] = ("predict", "predict_proba") if self._has_proba else ("predict",)
        self.signature = replace(
            self.signature,
            n_outputs=n_outputs,
            classes=None if classes is None else (tuple(cast("list[Label]", np.asarray(classes).tolist())),),
            has_probabilities=self._has_proba and classes is not None,
            outputs=outputs if classes is not None else outputs[:1],
        )


def _hook(instance: object, name: str) -> Callable[[], object]:
    hook = getattr(instance, name, None)
    return hook if callable(hook) else lambda: None


def _signature(instance: Any, declared: Declared) -> Signature:
    """The fields by the manifest, else by the object's ``features``, else by the example."""
    example = declared.example if declared.example is not None else getattr(instance, "example", None)
    features = getattr(instance, "features", None)
    if example is not None and not _is_named(example):
        msg = "has an example that is no row: wanted a dict from feature names to values"
        raise ArtifactError(msg)
    fields = declared.fields or declared.mlflow_fields
    if fields is None and features is not None:
        fields = _featured(features)
    if fields is None and example is not None:
        fields = tuple(_exemplified(name, value) for name, value in example.items())
    if not fields:
        msg = 'does not tell its features: give the class an example, such as example = {"city": "Oslo", "age": 30}'
        raise ArtifactError(msg)
    if example is not None and set(example) != {field.name for field in fields}:
        msg = f"has an example that must name each feature once: {clip(', '.join(f.name for f in fields), 300)}"
        raise ArtifactError(msg)
    row = None if example is None else tuple(example[field.name] for field in fields)
    return Signature(inputs=fields, is_named=True, example=row)


def _is_named(row: Any) -> bool:
    return isinstance(row, Mapping) and bool(row) and all(isinstance(name, str) for name in row)


def _featured(features: Any) -> tuple[Field, ...]:
    """Fields by a dict from names to kinds, ``?`` behind a kind meaning that null is taken."""
    kinds = get_args(Kind)
    if not _is_named(features):
        msg = "has features that are none: wanted a dict from names to kinds"
        raise ArtifactError(msg)
    fields = []
    for name, told in features.items():
        kind = str(told).removesuffix("?")
        if kind not in kinds:
            msg = f"has a feature {clip(name)!r} of kind {clip(str(told))!r}: wanted one of {', '.join(kinds)}"
            raise ArtifactError(msg)
        fields.append(Field(name, cast("Kind", kind), is_nullable=str(told).endswith("?"), learnt_from="class"))
    return tuple(fields)


def _exemplified(name: str, value: Any) -> Field:
    """A field by a value that fits; null tells that it may be null and nothing else."""
    kinds: dict[type, Kind] = {str: "string", bool: "boolean", int: "number", float: "number", type(None): "any"}
    kind = kinds.get(type(value))
    if kind is None:
        msg = f"has an example whose {clip(name)!r} is a {type(value).__name__}: wanted a number, text, boolean or None"
        raise ArtifactError(msg)
    return Field(name, kind, is_nullable=value is None, learnt_from="class")


def rows_of(signature: Signature, inputs: Inputs) -> list[dict[str, Any]]:
    """A checked table as dicts: numbers are floats, dates ``datetime.datetime`` in UTC, nulls None."""
    columns = inputs.T if isinstance(inputs, np.ndarray) else inputs.values()
    values = []
    for field, column in zip(signature.inputs, columns, strict=True):
        listed = column.tolist()
        if field.is_nullable and column.dtype.kind == "f":
            listed = [None if number != number else number for number in listed]  # noqa: PLR0124 - NaN
        values.append(listed)
    return [dict(zip(signature.names, row, strict=True)) for row in zip(*values, strict=True)]


def array_of(raw: Any) -> NDArray[Any]:
    """What ``predict`` returned as an array (n_rows,) or (n_rows, n_outputs).

    Taken are lists, tuples, arrays, and frames and series of pandas or polars; of numbers, strings,
    booleans, None, or lists of them. Numbers beside strings stay what they are.
    """
    if hasattr(raw, "to_numpy"):
        raw = raw.to_numpy()
    if isinstance(raw, np.ndarray) and raw.dtype != object:
        return raw
    values = [_plain(value) for value in raw]
    flat = [one for value in values for one in (value if isinstance(value, list) else [value])]
    lengths = {len(value) if isinstance(value, list) else None for value in values}
    kinds = set(map(type, flat))
    if len(lengths) == 1 and (kinds <= {int, float} or kinds == {bool}):
        return np.array(values)
    if len(lengths) == 1 and None not in lengths and not any(isinstance(one, list | dict) for one in flat):
        table = np.empty((len(values), lengths.pop() or 0), dtype=object)
        for row, value in enumerate(values):
            table[row] = value
        return table
    array = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):  # one by one: lists would be taken for a second dimension
        array[row] = value
    return array


def _plain(value: Any) -> Any:
    """A value without NumPy's types."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(one) for one in value]
    return value
