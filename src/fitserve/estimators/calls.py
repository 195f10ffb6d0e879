"""Calls of an estimator's methods: each at most once, and one for labels and probabilities where one is enough."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from fitserve.errors import InputIssue, InvalidInputError
from fitserve.estimators.walk import class_in_sklearn, final_step, has_method
from fitserve.signature import OutputName
from fitserve.types import Outputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from fitserve.estimators.plain import PlainForm
    from fitserve.signature import Label

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

TIE = 1e-6
"""Two probabilities nearer than this may change places by rounding: then predict itself decides."""

MAX_WIDTH = 2**17
"""A transformed row of more numbers is not offered: a batch of them would not fit into a reply."""

MAX_CELLS = 2**24
"""A transformed table of more numbers is refused: 128 MiB of float64."""


class Calls:
    """The methods of one fitted estimator, on tables like the one that it was fitted on.

    Attributes:
        names: the outputs that can be asked for; the first is what a prediction is.
        plain: the same computation in a few operations, where there is one.
    """

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator
        self.names = output_names(estimator)
        self.plain: PlainForm | None = None
        self._classes: NDArray[Any] = np.empty(0)
        self._is_argmax = False
        self._is_flat = False
        self._labels: NDArray[Any] | None = None

    @property
    def has_probabilities(self) -> bool:
        """Whether it gives a probability for each class."""
        return "predict_proba" in self.names

    @property
    def predicts(self) -> bool:
        """Whether it has predict; of any other, the prediction of a row is its first output."""
        return self.names[:1] == ("predict",)

    def drop(self, name: str) -> None:
        """Offer an output no longer."""
        self.names = tuple(one for one in self.names if one != name)

    def drop_failing(self, X: Any, n_rows: int) -> None:
        """Offer no output that raises on a table of ``n_rows`` rows, or is none of as many rows."""
        for name in self.names[1:]:
            try:
                found = self._probabilities(X) if name == "predict_proba" else (self._extra(name, X),)
                is_good = all(part.ndim > 0 and len(part) == n_rows for part in found)
            except (Exception, SystemExit):  # noqa: BLE001 - a model may raise anything
                is_good = False
            if not is_good:
                self.drop(name)

    def flatten(self) -> None:
        """Take predictions of shape (n_rows, 1) as the n_rows labels that they are: CatBoost gives such."""
        self._is_flat = True

    def relabel(self, labels: Sequence[Label]) -> None:
        """Call class i from now on ``labels[i]``."""
        self._labels = np.array(labels, dtype=None if len(set(map(type, labels))) == 1 else object)

    def use_argmax(self, X: Any, trial: Outputs) -> None:
        """Take labels from probabilities from now on, if that is proven and gives those of the trial."""
        final = final_step(self.estimator)
        if self.has_probabilities and trial.predictions.ndim == 1 and class_in_sklearn(final) in ARGMAX_CLASSIFIERS:
            self._classes = np.asarray(final.classes_)
            self._is_argmax = True
            self._is_argmax = _same(trial, self(X))

    @property
    def is_argmax(self) -> bool:
        """Whether labels are taken from the probabilities."""
        return self._is_argmax

    def __call__(self, X: Any, asked: Sequence[str] = ()) -> Outputs:
        """Predictions, probabilities where there are any, and of the other outputs those that are asked for."""
        extras: dict[str, NDArray[Any]] = {}
        if not self.predicts:
            predictions, probabilities = self._extra(self.names[0], X), None
            if self.names[0] in asked:
                extras[self.names[0]] = predictions
        else:
            predictions, probabilities = self._predicted(X)
        for name in asked:
            if name in self.names and name not in {"predict", "predict_proba"} and name not in extras:
                extras[name] = self._extra(name, X)
        if self._labels is not None:
            predictions = self._labels[predictions.astype(np.intp)]
        return Outputs(predictions, probabilities, extras)

    def _predicted(self, X: Any) -> tuple[NDArray[Any], tuple[NDArray[Any], ...] | None]:
        raw = None if self.plain is None else self.plain(X)
        if not self.has_probabilities:
            return (self._predict(X) if raw is None else raw), None
        parts = self._probabilities(X) if raw is None else (raw,)
        if self._is_argmax:
            return self._argmax(X, parts[0]), parts
        predictions = self._predict(X)
        if predictions.ndim > 1 and len(parts) == 1 and predictions.shape == parts[0].shape:
            # Several labels: the probability of each to be set.
            return predictions, tuple(np.column_stack([1 - p, p]) for p in parts[0].T)
        return predictions, parts

    def _predict(self, X: Any) -> NDArray[Any]:
        predictions = _array(self.estimator.predict(X))
        return predictions[:, 0] if self._is_flat else predictions

    def _probabilities(self, X: Any) -> tuple[NDArray[Any], ...]:
        raw = self.estimator.predict_proba(X)
        return tuple(map(np.asarray, raw)) if isinstance(raw, list | tuple) else (_array(raw),)

    def _extra(self, name: str, X: Any) -> NDArray[Any]:
        found = getattr(self.estimator, name)(X)
        if isinstance(found, tuple):  # CCA and its like transform targets as well
            found = found[0]
        n_rows, *widths = getattr(found, "shape", (0,))
        width = math.prod(widths)
        if width > MAX_WIDTH:
            msg = f"{name} gives rows of {width} numbers: at most {MAX_WIDTH} are served"
            raise ValueError(msg)
        if n_rows * width > MAX_CELLS:
            wanted = f"at most {MAX_CELLS // width} rows, since {name} makes {width} numbers of each"
            raise InvalidInputError([InputIssue(wanted, f"{n_rows} rows")])
        array = _array(found)
        # scikit-learn's SparsePCA, for one, gives a single row without its first axis.
        is_bare = array.ndim == 1 and len(array) > 1 and len(X) == 1
        return array[np.newaxis] if is_bare else array

    def _argmax(self, X: Any, probabilities: NDArray[Any]) -> NDArray[Any]:
        """Labels by the largest probability, asking predict where two are too near to tell."""
        if len(probabilities) == 1:  # as below, at a tenth of the cost
            row = probabilities[0].tolist()
            best = max(row)
            is_clear = sum(best - p > TIE for p in row) == len(row) - 1
            return self._classes[[row.index(best)]] if is_clear else np.asarray(self.estimator.predict(X))
        predictions: NDArray[Any] = self._classes[probabilities.argmax(axis=1)]
        if probabilities.shape[1] > 1:
            top = np.partition(probabilities, -2, axis=1)[:, -2:]
            # Written so that NaN counts as near.
            is_near = ~(top[:, 1] - top[:, 0] > TIE)
            if self.plain is not None:  # whose estimator adds up products, of several rows in another order
                for i in np.flatnonzero(is_near):
                    predictions[i] = self.estimator.predict(X[i : i + 1])[0]
            elif is_near.any():
                rows = X.iloc[is_near] if hasattr(X, "iloc") else X[is_near]
                predictions[is_near] = self.estimator.predict(rows)
        return predictions


def output_names(estimator: Any) -> tuple[OutputName, ...]:
    """What an estimator can be asked for: predict first, or else transform; none of an object that is no model."""
    names: list[OutputName] = [name for name in get_args(OutputName) if has_method(estimator, name)]
    if "predict" not in names and "transform" in names:
        names.remove("transform")
        names.insert(0, "transform")
    return tuple(names)


def is_finite(outputs: Outputs) -> bool:
    """Whether no number of a prediction or probability is NaN or infinite."""
    arrays = [outputs.predictions, *(outputs.probabilities or ())]
    return all(array.dtype.kind != "f" or bool(np.isfinite(array).all()) for array in arrays)


def _array(found: Any) -> NDArray[Any]:
    return np.asarray(found.toarray() if hasattr(found, "toarray") else found)


def _same(one: Outputs, other: Outputs) -> bool:
    """Whether two ways to call a model gave the same bytes, NaN being equal to itself."""
    if one.predictions.tolist() != other.predictions.tolist():
        return False
    pairs = zip(one.probabilities or (), other.probabilities or (), strict=True)
    return all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)
