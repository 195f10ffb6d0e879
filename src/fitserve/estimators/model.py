"""An estimator at work: what it takes and gives, learnt once; then tables in, predictions out."""

from __future__ import annotations

import time
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fitserve.errors import ArtifactError, InvalidInputError
from fitserve.estimators.boosters import adapt
from fitserve.estimators.calls import Calls, is_finite
from fitserve.estimators.example import candidates
from fitserve.estimators.facts import LIBRARIES, facts_of
from fitserve.estimators.plain import plain_form
from fitserve.estimators.refusals import refusal
from fitserve.estimators.signature import Inferred, infer_signature
from fitserve.estimators.table import FittedTable, require_pandas
from fitserve.estimators.trials import Trials
from fitserve.estimators.walk import attribute, final_step, package_of, parts_of
from fitserve.signature import Signature
from fitserve.types import Declared, Outputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fitserve.signature import Field, Inputs, Label

SLOW_CALL_S = 1.0
"""A model whose calls take longer is asked no further questions at load: each would cost its user that much."""


class EstimatorModel:
    """An object with the shape of a scikit-learn estimator, fitted, which it owns.

    Args:
        estimator: has ``predict`` or ``transform``; a native booster is given an estimator's shape.
        caught: what was warned of while it was loaded.
        declared: what is said of it besides; it wins over what the estimator tells.

    Raises:
        ArtifactError: what is declared does not fit, or pandas is needed and missing.
    """

    def __init__(
        self, estimator: Any, *, caught: Sequence[Warning | str] = (), declared: Declared | None = None
    ) -> None:
        declared = declared or Declared()
        estimator = adapt(estimator)
        parts = list(parts_of(estimator))
        packages = {package_of(part) for part in parts}
        inferred = infer_signature(estimator, declared)
        self.is_library_code = packages <= LIBRARIES
        self._calls = Calls(estimator)
        self._columns = inferred.columns
        self._own_names = inferred.own_names
        self._is_text = inferred.has_texts
        self._table = self._fitted_table(self._own_names)
        self.signature = inferred.signature
        self._notes: list[Warning | str] = list(caught)
        if self.signature.is_open:
            self._offer()
        else:
            self._check_declared_example()
            self._learn(parts, inferred, declared)
        if self._table.has_names or self._table.needs_frame:
            packages = packages | {"pandas"}
        self.facts = facts_of(estimator, packages, self._notes, declared.libraries)

    @property
    def is_framed(self) -> bool:
        """Whether the estimator is given a frame with names."""
        return self._table.has_names or self._table.needs_frame

    @property
    def estimator(self) -> Any:
        """The estimator at work: its feature names may have been taken out. Not to be changed."""
        return self._calls.estimator

    @property
    def takes_texts(self) -> bool:
        """Whether it was fitted on a list of texts, and not on a table."""
        return self._is_text

    @property
    def levels(self) -> tuple[tuple[Label, ...] | None, ...]:
        """Of each column, its categories in the order of their codes, if it is a categorical one of a frame."""
        return tuple(column.levels for column in self._columns)

    def table(self, inputs: Inputs) -> Any:
        """Checked inputs as the table that the estimator is given."""
        return self._table(inputs)

    @property
    def _is_bare_matrix(self) -> bool:
        return self._table.is_plain and self.is_library_code and not self.is_framed

    def predict(self, inputs: Inputs, asked: Sequence[str] = ()) -> Outputs:
        """Predict labels or values, and probabilities where the model has them, calling it once if it allows.

        Raises:
            InvalidInputError: finite inputs became NaN or infinite inside a scikit-learn model, or
                an encoder met a category that it does not know.
        """
        try:
            return self._calls(self._table(inputs), asked)
        except ValueError as exc:
            mistake = refusal(exc, self, inputs, self._still_answers)
            if mistake is None:
                raise
            raise mistake from exc

    def _still_answers(self) -> bool:
        """Whether it answers the row that it answered when it was loaded."""
        try:
            self._calls(self._table(self._test_inputs))
        except (Exception, SystemExit):  # noqa: BLE001 - the model is broken, whatever the input
            return False
        return True

    def _learn(self, parts: list[Any], inferred: Inferred, declared: Declared) -> None:
        """Choose a row that the model answers, and learn by trial what the estimator does not tell."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not (self._own_names and self._is_served_without_names(parts)):
                if self.is_framed:
                    require_pandas()
                self._choose_table()
                self._choose_example_or_drop_probabilities()
            self._test_inputs = self._inputs(self.signature.example_row())
            self._settle(inferred, declared)

    def _fitted_table(self, names: Sequence[str] | None) -> FittedTable:
        return FittedTable(self._columns, names=names, is_texts=self._is_text)

    def _offer(self) -> None:
        self.signature = replace(
            self.signature, outputs=self._calls.names, has_probabilities=self._calls.has_probabilities
        )

    def _check_declared_example(self) -> None:
        try:
            self.signature.check([list(self.signature.example_row())], first_row=None)
        except InvalidInputError as exc:
            msg = f"has a manifest whose example does not fit the model: {exc}"
            raise ArtifactError(msg) from exc

    def _choose_example(self) -> bool:
        """Take the first row that the model answers: the author's, or one of :func:`candidates`."""
        if self.signature.example is not None:
            return self._answers(self.signature.example)
        before = self.signature
        for fields, row in candidates([column.field for column in self._columns], [c.typical for c in self._columns]):
            self.signature = replace(before, inputs=fields, example=row)
            if self._answers(row):
                return True
        self.signature = before
        return False

    def _choose_table(self) -> None:
        """Give a frame where all names are declared and the model answers no matrix: its first step may be its own."""
        if self._own_names or not self.signature.is_named or self._choose_example():
            return
        bare, self._table = self._table, self._fitted_table(self.signature.names)
        if not self._choose_example():
            self._table = bare

    def _choose_example_or_drop_probabilities(self) -> None:
        """Offer no probabilities where the method for them says that there are none.

        Any other error of it is the model's failure, which the warm-up meets again.
        """
        if self._choose_example() or not self._calls.has_probabilities:
            return
        names = self._calls.names
        self._calls.drop("predict_proba")
        if not (self._choose_example() and self._lacks_probabilities()):
            self._calls.names = names

    def _lacks_probabilities(self) -> bool:
        try:
            self._calls.estimator.predict_proba(self._table(self._inputs(self.signature.example_row())))
        except (AttributeError, NotImplementedError):
            return True
        except (Exception, SystemExit):  # noqa: BLE001 - a model may raise anything
            return False
        return False

    def _inputs(self, row: Sequence[Label | None]) -> Inputs:
        """A row as checked inputs, whatever it holds of nulls and unknown categories."""
        anything = (replace(field, is_nullable=True, is_closed=False) for field in self.signature.inputs)
        return Signature(inputs=tuple(anything)).check([list(row)])

    def _answers(self, row: Sequence[Label | None]) -> bool:
        """Whether the model gets through a row; what it raises otherwise, the warm-up tells."""
        try:
            outputs = self._calls(self._table(self._inputs(row)))
        except (Exception, SystemExit):  # noqa: BLE001 - a model may raise anything
            return False
        # What a transformer passes on, NaN among it, is what it was given.
        return is_finite(outputs) or not self._calls.predicts

    def _settle(self, inferred: Inferred, declared: Declared) -> None:
        """Learn by trial, on one row, what the estimator does not tell.

        A model that fails its trial is kept as it is: whoever warms it up meets the same failure.
        """
        X = self._table(self._test_inputs)
        started = time.perf_counter()
        try:
            trial = self._calls(X)
        except (Exception, SystemExit):  # noqa: BLE001 - told by the warm-up
            self._offer()
            return
        # Else what its parts tell of it must do.
        is_quick = time.perf_counter() - started < SLOW_CALL_S
        if is_quick:
            self._try_inputs(X)
        self._settle_outputs(trial, inferred)
        if is_quick:
            self._calls.use_argmax(X, trial)
        if inferred.relabels and inferred.signature.classes:
            self._calls.relabel(inferred.signature.classes[0])
        elif declared.classes is None and is_quick and self._is_bare_matrix:
            self._calls.plain = plain_form(self._calls.estimator, self.signature.example_row())
        self._offer()

    def _try_inputs(self, X: Any) -> None:
        """Drop the outputs that the model does not give after all, and try what its columns take."""
        self._calls.drop_failing(X, 1)
        trials = Trials(self.signature.inputs, self.signature.example_row(), self._answers)
        tried = trials.inputs(has_bounds=self.is_library_code)
        self.signature = replace(self.signature, inputs=tuple(map(self._agreed, self.signature.inputs, tried)))

    def _agreed(self, said: Field, tried: Field) -> Field:
        """A field as it was tried, but no wider than it was declared."""
        is_declared = said.learnt_from in {"manifest", "mlflow"}
        if is_declared and said.is_nullable and not tried.is_nullable:
            self._notes.append(f"column {said.name!r} may be null by its declaration, but the model refuses null")
        return replace(
            tried,
            is_nullable=tried.is_nullable and (said.is_nullable or not is_declared),
            is_closed=tried.is_closed or (is_declared and said.is_closed),
            largest=min(said.largest, tried.largest),
        )

    def _settle_outputs(self, trial: Outputs, inferred: Inferred) -> None:
        classes = self.signature.classes
        n_outputs = trial.predictions.shape[1] if trial.predictions.ndim > 1 else 0
        if not self._calls.predicts:
            classes = None
        elif n_outputs == 1 and len(classes or ()) == 1:
            self._calls.flatten()
            n_outputs = 0
        elif n_outputs and len(classes or ()) == 1 and not inferred.relabels:  # multi-label: yes or no, each output
            labels = (0, 1) if trial.predictions.dtype.kind in "iuf" else (False, True)
            classes = (labels,) * n_outputs
        elif classes is None and trial.probabilities:  # a mixture: its components are numbered
            classes = tuple(tuple(range(part.shape[1])) for part in trial.probabilities)
        # One against one, three classes have three pairs.
        is_paired = attribute(final_step(self._calls.estimator), "decision_function_shape") == "ovo"
        self.signature = replace(
            self.signature, n_outputs=n_outputs, classes=classes, has_score_per_class=not is_paired
        )

    def _is_served_without_names(self, parts: list[Any]) -> bool:
        """Take the names out of an estimator that needs none, so that it is given the bare matrix.

        Building a frame costs more than a linear model, and given a matrix scikit-learn would
        warn on each call that names are missing: the signature has checked them already.
        """
        if not (self.is_library_code and self._table.is_plain):
            return False
        if any(attribute(part, "transformers_") is not None for part in parts):
            return False
        taken = [
            (part, part.__dict__.pop("feature_names_in_"))
            for part in parts
            if "feature_names_in_" in getattr(part, "__dict__", {})
        ]
        self._table = self._fitted_table(None)
        # Some find the names elsewhere, and warn of their absence all the same.
        warnings.filterwarnings("error", message="X does not have valid feature names")
        is_served = self._choose_example()
        warnings.simplefilter("ignore")
        if is_served:
            return True
        for part, names in taken:  # it needs the frame after all
            part.__dict__["feature_names_in_"] = names
        self._table = self._fitted_table(self._own_names)
        return False
