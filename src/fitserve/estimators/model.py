"""A scikit-learn estimator at work: one call a prediction where one is enough, the table it was fitted on."""

from __future__ import annotations

import importlib.metadata
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fitserve.errors import ArtifactError, InputIssue, InvalidInputError
from fitserve.estimators.plain import PlainForm, plain_form
from fitserve.estimators.signature import class_in_sklearn, final_step, infer_signature, takes_texts, typical_row
from fitserve.signature import MAX_MAGNITUDE
from fitserve.types import ModelFacts, Outputs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from fitserve.signature import Field, Inputs, Label, Signature

LIBRARIES = frozenset({"sklearn", "numpy", "scipy", "joblib", "builtins", "collections", "functools", "_thread"})
"""Packages whose code does the same work whatever the values; anybody else's may sleep or loop on some."""

ARGMAX_CLASSIFIERS = frozenset({
    "AdaBoostClassifier", "BaggingClassifier", "BernoulliNB", "CalibratedClassifierCV", "CategoricalNB",
    "ComplementNB", "DecisionTreeClassifier", "ExtraTreeClassifier", "ExtraTreesClassifier", "GaussianNB",
    "GradientBoostingClassifier", "HistGradientBoostingClassifier", "LinearDiscriminantAnalysis",
    "LogisticRegression", "LogisticRegressionCV", "MLPClassifier", "MultinomialNB",
    "QuadraticDiscriminantAnalysis", "RandomForestClassifier", "SGDClassifier",
})  # fmt: skip
"""scikit-learn classifiers whose predict is the argmax of predict_proba, but for rounding.

SVC, for one, is not: its probabilities come from another model than its labels.
"""

IMPLAUSIBLE = 1e15
"""A number this large is named when a model overflows; with smaller ones any column may be the cause."""

MAGNITUDES = (MAX_MAGNITUDE, 1e30, 1e15, 1e9)
"""The bounds that are tried for a model's numbers, the largest first."""

TIE = 1e-6
"""Two probabilities nearer than this may change places by rounding: then predict itself decides."""


class EstimatorModel:
    """An object with scikit-learn's ``predict``, fitted, which it owns.

    Raises:
        ArtifactError: the example does not fit, or pandas is needed and missing.
    """

    def __init__(
        self,
        estimator: Any,
        *,
        caught: list[Warning | str] | None = None,
        example: Mapping[str, Any] | None = None,
    ) -> None:
        parts = list(_parts(estimator))
        packages = {_package(part) for part in parts}
        signature = infer_signature(estimator, example)
        self._estimator = estimator
        self._has_proba = has_method(estimator, "predict_proba")
        self._takes_texts = takes_texts(estimator)
        self._plain: PlainForm | None = None
        self._is_argmax = False
        self._classes: NDArray[Any] = np.empty(0)
        self.is_library_code = packages <= LIBRARIES
        self.facts = _facts(estimator, packages, caught or [])
        self.signature = replace(signature, has_probabilities=self._has_proba)
        self._frame_columns = list(signature.names) if signature.is_named else None
        if signature.is_open:
            return
        try:
            self._test_inputs = signature.check([list(signature.example_row())], first_row=None)
        except InvalidInputError as exc:
            msg = f"has a manifest whose example does not fit the model: {exc}"
            raise ArtifactError(msg) from exc
        if not (signature.is_named and self._is_served_without_names(parts)):
            if signature.is_named:
                _require_pandas()
            self._choose_example()
        self._settle()

    def predict(self, inputs: Inputs, asked: Sequence[str] = ()) -> Outputs:  # noqa: ARG002 - nothing else is offered yet
        """Predict labels or values, and probabilities where the model has them, calling it once if it allows.

        Raises:
            InvalidInputError: finite inputs became NaN or infinite inside a scikit-learn model.
        """
        try:
            return self._outputs(self._table(inputs))
        except ValueError as exc:
            if self._is_overflow(exc):
                raise _overflow(self.signature, inputs) from exc
            raise

    def _choose_example(self) -> bool:
        """Take the first row that the model answers: the author's, or a typical one, zeros, or ones.

        Zeros are nothing to a logarithm, and have no neighbours in most data.
        """
        if self.signature.example is not None:
            return self._answers(self.signature.example)
        zeros = self.signature.example_row()
        ones = tuple(1.0 if value == 0.0 and not isinstance(value, bool) else value for value in zeros)
        typical = typical_row(self._estimator, len(zeros)) if self.signature.is_numeric else None
        for row in filter(None, (typical, zeros, ones)):
            if self._answers(row):
                self._test_inputs = self.signature.check([list(row)])
                self.signature = replace(self.signature, example=row)
                return True
        return False

    def _answers(self, row: Sequence[Label | None]) -> bool:
        """Whether the model gets through a row; what it raises otherwise, the warm-up tells."""
        try:
            self._outputs(self._table(self.signature.check([list(row)])))
        except (Exception, SystemExit):  # noqa: BLE001 - a model may raise anything
            return False
        return True

    def _settle(self) -> None:
        """Learn by trial, on one row, what the estimator does not tell.

        A model that fails its trial is kept as it is: whoever warms it up meets the same failure.
        """
        try:
            trial = self._outputs(self._table(self._test_inputs))
        except (Exception, SystemExit):  # noqa: BLE001 - told by the warm-up
            return
        self.signature = replace(self.signature, inputs=self._tried_texts())
        self.signature = replace(self.signature, inputs=self._tried_nulls())
        self.signature = replace(self.signature, inputs=self._tried_magnitudes())
        classes = self.signature.classes
        n_outputs = trial.predictions.shape[1] if trial.predictions.ndim > 1 else 0
        if n_outputs and trial.probabilities and len(classes or ()) == 1:  # multi-label: yes or no, each output
            labels = (0, 1) if trial.predictions.dtype.kind in "iuf" else (False, True)
            classes = (labels,) * n_outputs
        elif classes is None and trial.probabilities:  # a mixture: its components are numbered
            classes = tuple(tuple(range(part.shape[1])) for part in trial.probabilities)
        self.signature = replace(self.signature, n_outputs=n_outputs, classes=classes)
        final = final_step(self._estimator)
        if self._has_proba and n_outputs == 0 and class_in_sklearn(final) in ARGMAX_CLASSIFIERS:
            self._classes = np.asarray(final.classes_)
            self._is_argmax = _same(trial, self._outputs(self._table(self._test_inputs), is_argmax=True))
        if self.signature.is_numeric and self.is_library_code and not self._frame_columns:
            self._plain = plain_form(self._estimator, self.signature.example_row())

    def _tried_texts(self) -> tuple[Field, ...]:
        """The inputs, those of any kind that take no text after all being marked numeric.

        A column that is passed through tells nothing of itself; the steps behind it do.
        """
        return tuple(
            replace(column, kind="numeric") if column.kind == "any" and not self._takes([column], "a") else column
            for column in self.signature.inputs
        )

    def _takes(self, columns: list[Field], value: Label | None) -> bool:
        """Whether the model answers the example with ``value`` in these columns."""
        chosen = {column.name for column in columns}
        row = zip(self.signature.names, self.signature.example_row(), strict=True)
        return self._answers([value if name in chosen else known for name, known in row])

    def _tried_nulls(self) -> tuple[Field, ...]:
        """The inputs, those that take no null after all being marked so.

        A step that lets NaN pass tells nothing of the steps behind it; the whole model does.
        """
        inputs = self.signature.inputs
        nullable = [column for column in inputs if column.is_nullable]
        if not nullable or self._takes(nullable, None):
            return inputs
        return tuple(replace(c, is_nullable=c.is_nullable and self._takes([c], None)) for c in inputs)

    def _tried_magnitudes(self) -> tuple[Field, ...]:
        """The inputs, bounded where the model answers: squares and trees of float32 end before float64 does."""
        inputs = self.signature.inputs
        if not self.is_library_code:
            return inputs
        for largest in MAGNITUDES:
            rows = (
                [sign * largest if c.kind in {"number", "numeric"} and not c.is_closed else c.example for c in inputs]
                for sign in (1.0, -1.0)
            )
            with np.errstate(all="ignore"):  # that something overflows is what is asked
                if all(map(self._answers, rows)):
                    return tuple(replace(column, largest=largest) for column in inputs)
        return inputs

    def _is_served_without_names(self, parts: list[Any]) -> bool:
        """Take the names out of an estimator that needs none, so that it is given the bare matrix.

        Building a frame costs more than a linear model, and given a matrix scikit-learn would
        warn on each call that names are missing: the signature has checked them already.
        """
        if not (self.is_library_code and self.signature.is_numeric):
            return False
        if any(hasattr(part, "transformers_") for part in parts):
            return False
        taken = [
            (part, part.__dict__.pop("feature_names_in_"))
            for part in parts
            if "feature_names_in_" in getattr(part, "__dict__", {})
        ]
        self._frame_columns = None
        if self._choose_example():
            return True
        for part, names in taken:  # it needs the frame after all
            part.__dict__["feature_names_in_"] = names
        self._frame_columns = list(self.signature.names)
        return False

    def _table(self, inputs: Inputs) -> Any:
        """What the estimator was fitted on: a frame for one fitted with names, else an array."""
        if self._frame_columns:
            import pandas as pd

            return pd.DataFrame(inputs, columns=self._frame_columns, copy=False)
        if self._takes_texts and isinstance(inputs, dict):
            return inputs["text"]
        if isinstance(inputs, dict):
            return np.column_stack([column.astype(object) for column in inputs.values()])
        return inputs

    def _outputs(self, X: Any, *, is_argmax: bool | None = None) -> Outputs:
        raw = None if self._plain is None else self._plain(X)
        if not self._has_proba:
            return Outputs(_array(self._estimator.predict(X) if raw is None else raw))
        if raw is None:
            raw = self._estimator.predict_proba(X)
        if self._is_argmax if is_argmax is None else is_argmax:
            return self._argmax(X, np.asarray(raw))
        predictions = _array(self._estimator.predict(X))
        if isinstance(raw, list | tuple):
            return Outputs(predictions, tuple(np.asarray(part) for part in raw))
        raw = np.asarray(raw)
        if predictions.ndim > 1 and predictions.shape == raw.shape:
            return Outputs(predictions, tuple(np.column_stack([1 - p, p]) for p in raw.T))
        return Outputs(predictions, (raw,))

    def _argmax(self, X: Any, probabilities: NDArray[Any]) -> Outputs:
        """Labels by the largest probability, asking predict where two are too near to tell."""
        if len(probabilities) == 1:  # as below, at a tenth of the cost
            row = probabilities[0].tolist()
            best = max(row)
            is_clear = sum(best - p > TIE for p in row) == len(row) - 1
            predictions = self._classes[[row.index(best)]] if is_clear else self._estimator.predict(X)
            return Outputs(predictions, (probabilities,))
        predictions = self._classes[probabilities.argmax(axis=1)]
        if probabilities.shape[1] > 1:
            top = np.partition(probabilities, -2, axis=1)[:, -2:]
            # Written so that NaN counts as near.
            is_near = ~(top[:, 1] - top[:, 0] > TIE)
            if is_near.any():
                rows = X.iloc[is_near] if hasattr(X, "iloc") else X[is_near]
                predictions[is_near] = self._estimator.predict(rows)
        return Outputs(predictions, (probabilities,))

    def _is_overflow(self, exc: ValueError) -> bool:
        """Whether scikit-learn itself refused a value that one of its steps made of finite inputs.

        Its validation is then the innermost frame. A model that is broken, rather than the
        input, also fails the row that it answered when it was loaded.
        """
        frame = exc.__traceback__
        while frame is not None and frame.tb_next is not None:
            frame = frame.tb_next
        if frame is None or frame.tb_frame.f_globals.get("__name__") != "sklearn.utils.validation":
            return False
        if self.signature.is_open:
            return False
        try:
            self._outputs(self._table(self._test_inputs))
        except Exception:  # noqa: BLE001 - the model is broken, whatever the input
            return False
        return True


def has_method(estimator: object, method: str) -> bool:
    """Whether it has the method; a property of a meta-estimator may raise instead of saying no."""
    try:
        return callable(getattr(estimator, method, None))
    except Exception:  # noqa: BLE001 - for instance NotFittedError
        return False


def _require_pandas() -> None:
    try:
        import pandas as pd  # noqa: F401 - from now on it is loaded
    except ModuleNotFoundError:
        msg = "was fitted on a table with named columns and needs pandas: pip install 'fitserve[pandas]'"
        raise ArtifactError(msg) from None


def _facts(estimator: Any, packages: set[str], caught: list[Warning | str]) -> ModelFacts:
    fitted_with: str | None = None
    notes: list[str] = []
    now = importlib.metadata.version("scikit-learn")
    for warning in caught:
        version = getattr(warning, "original_sklearn_version", None)
        if version is None:
            notes.append(f"{type(warning).__name__} while loading: {warning}")
        elif fitted_with is None:
            fitted_with = version
            notes.append(f"fitted with scikit-learn {version}, served with {now}: its answers may differ")
    libraries: dict[str, tuple[str | None, str]] = {"numpy": (None, np.__version__)}
    if "sklearn" in packages:
        libraries["scikit-learn"] = (fitted_with or now, now)  # scikit-learn warns unless they are equal
    return ModelFacts(type(final_step(estimator)).__name__, libraries, tuple(dict.fromkeys(notes)))


def _parts(estimator: object) -> Iterator[Any]:
    """Every object and function that the estimator is made of, itself first."""
    seen: set[int] = set()
    waiting = [estimator]
    while waiting:
        part = waiting.pop()
        if id(part) in seen or part is None or isinstance(part, str | bytes | int | float | complex | np.generic):
            continue
        seen.add(id(part))
        if isinstance(part, dict):
            waiting += part.values()
        elif isinstance(part, list | tuple | set | frozenset):
            waiting += part
        elif isinstance(part, np.ndarray):
            waiting += part.ravel().tolist() if part.dtype == object else []
        else:
            yield part
            waiting += vars(part).values() if hasattr(part, "__dict__") and not isinstance(part, type) else []


def _package(part: object) -> str:
    """The package that a class, function or object comes from."""
    module = getattr(part, "__module__", None) or type(part).__module__
    return str(module).partition(".")[0]


def _array(predictions: Any) -> NDArray[Any]:
    return np.asarray(predictions.toarray() if hasattr(predictions, "toarray") else predictions)


def _same(one: Outputs, other: Outputs) -> bool:
    """Whether two ways to call a model gave the same bytes, NaN being equal to itself."""
    if one.predictions.tolist() != other.predictions.tolist():
        return False
    pairs = zip(one.probabilities or (), other.probabilities or (), strict=True)
    return all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)


def _overflow(signature: Signature, inputs: Inputs) -> InvalidInputError:
    """Name the column of the largest number, if that is so large that it must be the one."""
    columns = inputs.values() if isinstance(inputs, dict) else inputs.T
    sizes = [float(np.nanmax(np.abs(column), initial=0.0)) if column.dtype.kind == "f" else 0.0 for column in columns]
    largest = int(np.argmax(sizes))
    column = signature.names[largest] if sizes[largest] > IMPLAUSIBLE else None
    return InvalidInputError(
        [InputIssue("numbers that the model can compute with", "one that becomes NaN or infinite inside", None, column)]
    )
