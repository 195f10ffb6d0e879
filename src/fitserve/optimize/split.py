"""An estimator in two parts: steps that prepare columns, and the model that they are prepared for."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from fitserve.estimators.walk import attribute, class_in_sklearn, is_step, winner

CASTING: Final = frozenset({
    "DecisionTreeClassifier", "DecisionTreeRegressor", "ExtraTreeClassifier", "ExtraTreeRegressor",
    "ExtraTreesClassifier", "ExtraTreesRegressor", "GradientBoostingClassifier", "GradientBoostingRegressor",
    "RandomForestClassifier", "RandomForestRegressor",
})  # fmt: skip
"""scikit-learn's models that make float32 of their input before they compare it with thresholds.

Source: https://scikit-learn.org/stable/modules/tree.html, "internally, it will be converted to dtype=np.float32"
"""

HISTOGRAMS: Final = frozenset({"HistGradientBoostingClassifier", "HistGradientBoostingRegressor"})

BOOSTERS: Final = frozenset({
    "LGBMClassifier", "LGBMRanker", "LGBMRegressor", "LightgbmBooster", "LightgbmClassifier",
    "XGBClassifier", "XGBRanker", "XGBRegressor", "XGBRFClassifier", "XGBRFRegressor",
})  # fmt: skip
"""Wrappers of LightGBM and XGBoost, and our own of native LightGBM boosters."""


class Split(NamedTuple):
    """The parts of an estimator.

    Attributes:
        before: a pipeline of the steps before the last, None where there are none.
        final: the model.
    """

    before: Any
    final: Any

    @property
    def is_casting(self) -> bool:
        """Whether the model is of :data:`CASTING`."""
        return class_in_sklearn(self.final) in CASTING

    @property
    def library(self) -> str | None:
        """The library of a model that treelite is for; None for any other."""
        if class_in_sklearn(self.final) in HISTOGRAMS | (CASTING - {"DecisionTreeClassifier", "DecisionTreeRegressor"}):
            return "sklearn"
        kind = type(self.final)
        package = kind.__module__.partition(".")[0]
        if kind.__name__ not in BOOSTERS or package not in {"lightgbm", "xgboost", "fitserve"}:
            return None
        return "lightgbm" if package == "fitserve" else package


def split(estimator: Any) -> Split:
    """Take the winner of a search, and the last step of a pipeline apart."""
    estimator = winner(estimator)
    if class_in_sklearn(estimator) != "Pipeline":
        return Split(None, estimator)
    steps = [(name, step) for name, step in estimator.steps if is_step(step)]
    if not steps:
        return Split(None, estimator)
    final = winner(steps[-1][1])
    if len(steps) == 1:
        return split(final)
    if attribute(final, "steps") is not None:  # a pipeline in a pipeline is left as it is
        return Split(None, estimator)
    return Split(type(estimator)(steps[:-1]), final)
