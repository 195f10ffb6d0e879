"""scikit-learn's scalers and linear models as the few NumPy operations that they are.

On one row, scikit-learn spends ten times as long on checking its input, which the signature has
checked already, as on computing. The plain form makes the same operations in the same order; it
is used only if it gives the same bits as the estimator on rows like its data and far from it.
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
        for scale in self._scalers:
            X = scale(X)
        return self._model(X) if np.isfinite(X).all() else None


def plain_form(estimator: Any, example: tuple[Any, ...]) -> PlainForm | None:
    """The plain form of a fitted estimator, proven on rows around ``example``; None if it has none."""
    chain = [step for _, step in getattr(estimator, "steps", [("", estimator)]) if is_step(step)]
    *before, final = chain
    scalers = [_scaler(step) for step in before]
    model = _model(final)
    if model is None or any(scaler is None for scaler in scalers):
        return None
    form = PlainForm([scaler for scaler in scalers if scaler is not None], model)
    return form if _is_exact(form, estimator, np.array(example, dtype=np.float64)) else None


def _is_exact(form: PlainForm, estimator: Any, example: NDArray[np.float64]) -> bool:
    native = estimator.predict_proba if hasattr(estimator, "predict_proba") else estimator.predict
    noise = np.random.default_rng(0).normal(size=(N_TRIED, len(example)))
    rows = example + noise * np.maximum(np.abs(example), 1.0)
    # One row and many take different ways through the linear algebra.
    tables = [rows * factor for factor in FACTORS] + [rows[i : i + 1] for i in range(8)]
    try:
        return all(np.array_equal(np.asarray(native(table)), form(table)) for table in tables)  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001 - whatever it is, it is no proof
        return False


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
    weights, intercept = step.coef_.T, step.intercept_
    if kind in _LINEAR:
        return lambda X: X @ weights + intercept
    return _softmax_of(weights, intercept) if len(step.classes_) > 2 else _expit_of(weights, intercept)  # noqa: PLR2004


def _softmax_of(weights: NDArray[Any], intercept: NDArray[Any]) -> Step:
    def probabilities(X: NDArray[Any]) -> NDArray[Any]:
        scores: NDArray[Any] = X @ weights + intercept
        scores -= scores.max(axis=1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=1, keepdims=True)
        return scores

    return probabilities


def _expit_of(weights: NDArray[Any], intercept: NDArray[Any]) -> Step:
    from scipy.special import expit

    def probabilities(X: NDArray[Any]) -> NDArray[Any]:
        positive = expit((X @ weights + intercept).ravel())
        return np.column_stack([1 - positive, positive])

    return probabilities
