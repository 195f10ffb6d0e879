"""scikit-learn's scalers and linear models as the few NumPy operations that they are.

On one row, scikit-learn spends ten times as long on checking its input, which the signature has
checked already, as on computing. The plain form is used only if it gives the labels of the estimator,
and its numbers but for their last digits, on rows like its data and far from it.

A matrix product gives a row other last digits in company than alone, for BLAS adds in another order.
Here each row is its own dot product: its bits do not depend on which requests were computed together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fitserve.estimators.walk import class_in_sklearn, is_step

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

Step: TypeAlias = "Callable[[NDArray[Any]], NDArray[Any]]"

N_TRIED = 256
FACTORS = (1.0, 1e3, 1e-3)
"""Rows are tried at these multiples of the example: linear models are asked far from their data."""

TOLERANCE = 1e-9
"""What a number may differ by, as a part of the larger of one and the number: a sum of 10 000 products in
another order differs by 1e-12 of the largest of them, which may be a thousand times the sum."""

_LOGISTIC = frozenset({"LogisticRegression", "LogisticRegressionCV"})
_LINEAR = frozenset({
    "BayesianRidge", "ElasticNet", "ElasticNetCV", "HuberRegressor", "Lasso", "LassoCV", "LinearRegression",
    "Ridge", "RidgeCV", "SGDRegressor",
})  # fmt: skip


class PlainForm:
    """A chain of scalers and a linear model, on matrices (n_rows, n_features) of float64."""

    def __init__(self, scalers: list[Step], model: Step) -> None:
        self._scalers = scalers
        self._model = model

    def __call__(self, X: NDArray[np.float64]) -> NDArray[Any] | None:
        """Probabilities (n_rows, n_classes), or predictions.

        None where the estimator would refuse what a scaler made of the row: let it say so.
        """
        if self._scalers:
            for scale in self._scalers:
                X = scale(X)
            # One sum tells of most tables that they are finite.
            if not np.isfinite(np.add.reduce(X, axis=None)) and not np.isfinite(X).all():
                return None
        return self._model(X)


def plain_form(estimator: Any, example: tuple[Any, ...]) -> PlainForm | None:
    """The plain form of a fitted estimator, proven on rows around ``example``; None if it has none."""
    chain = [step for _, step in getattr(estimator, "steps", [("", estimator)]) if is_step(step)]
    *before, final = chain
    scalers = [_scaler(step) for step in before]
    model = _model(final)
    if model is None or any(scaler is None for scaler in scalers):
        return None
    form = PlainForm([scaler for scaler in scalers if scaler is not None], model)
    return form if _agrees(form, estimator, np.array(example, dtype=np.float64)) else None


def _agrees(form: PlainForm, estimator: Any, example: NDArray[np.float64]) -> bool:
    has_classes = hasattr(estimator, "predict_proba")
    native = estimator.predict_proba if has_classes else estimator.predict
    noise = np.random.default_rng(0).normal(size=(N_TRIED, len(example)))
    rows = example + noise * np.maximum(np.abs(example), 1.0)
    tables = [rows * factor for factor in FACTORS] + [rows[i : i + 1] for i in range(8)]
    try:
        return all(_are_near(np.asarray(native(table)), form(table), has_classes=has_classes) for table in tables)
    except Exception:  # noqa: BLE001 - whatever it is, it is no proof
        return False


def _are_near(wanted: NDArray[Any], came: NDArray[Any] | None, *, has_classes: bool) -> bool:
    if came is None or wanted.shape != came.shape or wanted.dtype != came.dtype:
        return False
    if has_classes and not np.array_equal(wanted.argmax(axis=1), came.argmax(axis=1)):
        return False
    return bool((np.abs(wanted - came) <= TOLERANCE * np.maximum(1.0, np.abs(wanted))).all())


def _scaler(step: Any) -> Step | None:
    match class_in_sklearn(step):
        case "StandardScaler":
            mean = step.mean_ if step.with_mean else 0.0
            scale = step.scale_ if step.with_std else 1.0
            return lambda X: (X - mean) / scale
        case "RobustScaler":
            center = step.center_ if step.with_centering else 0.0
            width = step.scale_ if step.with_scaling else 1.0
            return lambda X: (X - center) / width
        case "MinMaxScaler" if not step.clip:
            factor, offset = step.scale_, step.min_
            return lambda X: X * factor + offset
        case "MaxAbsScaler" if not getattr(step, "clip", False):
            largest = step.scale_
            return lambda X: X / largest
        case _:
            return None


def _model(step: Any) -> Step | None:
    kind = class_in_sklearn(step)
    if kind not in _LOGISTIC | _LINEAR:
        return None
    weights, intercept = np.ascontiguousarray(step.coef_), step.intercept_
    if weights.ndim > 1:
        scores: Step = lambda X: np.vecdot(X[:, np.newaxis], weights) + intercept  # noqa: E731 - as short as its neighbour
    else:
        scores = lambda X: np.vecdot(X, weights) + intercept  # noqa: E731
    if kind in _LINEAR:
        return scores
    return _softmax_of(scores) if len(step.classes_) > 2 else _expit_of(scores)  # noqa: PLR2004


def _softmax_of(scores_of: Step) -> Step:
    def probabilities(X: NDArray[Any]) -> NDArray[Any]:
        scores = scores_of(X)
        scores -= np.maximum.reduce(scores, axis=1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= np.add.reduce(scores, axis=1, keepdims=True)
        return scores

    return probabilities


def _expit_of(scores_of: Step) -> Step:
    from scipy.special import expit

    def probabilities(X: NDArray[Any]) -> NDArray[Any]:
        both = np.empty((len(X), 2))
        expit(scores_of(X)[:, 0], out=both[:, 1])
        np.subtract(1.0, both[:, 1], out=both[:, 0])
        return both

    return probabilities
