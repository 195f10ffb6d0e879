"""Native boosters in the shape of an estimator, so that one trained model answers the same in every file.

A booster knows its classes as 0, 1, … only, and gives numbers whose meaning hangs on its objective.
Sources: https://lightgbm.readthedocs.io/en/stable/Parameters.html#objective,
https://xgboost.readthedocs.io/en/stable/parameter.html#learning-task-parameters
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LIGHTGBM_CLASSIFIERS = frozenset({"binary", "multiclass", "multiclassova"})
"""Objectives whose numbers are probabilities of classes; cross_entropy is fitted to a probability, a value."""

_XGBOOST_CLASSIFIERS = frozenset({"binary:logistic", "binary:hinge", "multi:softmax", "multi:softprob"})
"""Objectives that ``XGBClassifier`` turns into labels; it would cut the scores of binary:logitraw at 0.5."""


def adapt(model: object) -> object:
    """Give a native ``lightgbm.Booster`` or ``xgboost.Booster`` the shape of an estimator; others as they are.

    The result has ``predict``, ``n_features_in_``, ``feature_names_in_`` where the booster knows names,
    and for a classifier ``predict_proba`` and ``classes_``.
    """
    kind = type(model)
    match kind.__module__.partition(".")[0], kind.__name__:
        case "lightgbm", "Booster":
            return _lightgbm_estimator(model)
        case "xgboost", "Booster":
            return _xgboost_estimator(model)
        case _:
            return model


class LightgbmBooster:
    """A LightGBM booster that gives values: of a regression, a ranking, or an objective of the user's own.

    Attributes:
        booster_: the native model.
        head: the text of the model without most of its trees: names, objective and parameters.
    """

    def __init__(self, booster: Any, head: str) -> None:
        self.booster_ = booster
        self.head = head
        self.n_features_in_ = int(booster.num_feature())
        names = booster.feature_name()
        if names != [f"Column_{i}" for i in range(len(names))]:  # which stand for a matrix without names
            self.feature_names_in_ = np.array(names, dtype=object)

    def predict(self, X: Any) -> NDArray[Any]:
        """Values of shape (n_rows,), or (n_rows, n_outputs)."""
        return np.asarray(self.booster_.predict(X))


class LightgbmClassifier(LightgbmBooster):
    """A LightGBM booster that gives probabilities of classes 0, 1, …."""

    def __init__(self, booster: Any, head: str) -> None:
        super().__init__(booster, head)
        self.classes_ = np.arange(max(2, int(booster.num_model_per_iteration())))

    def predict(self, X: Any) -> NDArray[Any]:
        """Labels of shape (n_rows,): the class of the largest probability, as ``LGBMClassifier`` has it."""
        return np.asarray(self.classes_[np.argmax(self.predict_proba(X), axis=1)])

    def predict_proba(self, X: Any) -> NDArray[Any]:
        """Probabilities of shape (n_rows, n_classes)."""
        raw = np.asarray(self.booster_.predict(X))
        return raw if raw.ndim > 1 else np.vstack((1.0 - raw, raw)).T

    def decision_function(self, X: Any) -> NDArray[Any]:
        """Raw scores of shape (n_rows,) for two classes, else (n_rows, n_classes)."""
        return np.asarray(self.booster_.predict(X, raw_score=True))


def lightgbm_head(booster: Any) -> str:
    """The text of a LightGBM booster with its first tree only: all that is said of its features."""
    return str(booster.model_to_string(num_iteration=1))


def _lightgbm_estimator(booster: Any) -> LightgbmBooster:
    head = lightgbm_head(booster)
    objective = re.search(r"^objective=(\w+)", head, re.MULTILINE)
    is_classifier = objective is not None and objective[1] in _LIGHTGBM_CLASSIFIERS
    return (LightgbmClassifier if is_classifier else LightgbmBooster)(booster, head)


def _xgboost_estimator(booster: Any) -> Any:
    """The wrapper that the booster was saved from, or else the one that fits its objective."""
    import xgboost

    learner = json.loads(booster.save_config())["learner"]
    objective = learner["objective"]["name"]
    wrapper_kind = json.loads(booster.attr("scikit_learn") or "{}").get("_estimator_type")
    if wrapper_kind is None:
        wrapper_kind = "classifier" if objective in _XGBOOST_CLASSIFIERS else "regressor"
        if objective.startswith("rank:"):
            wrapper_kind = "ranker"
        booster = booster.copy()
        # A wrapper stops at the best round; a booster that never was in one answers with all its trees.
        booster.set_attr(best_iteration=None, best_score=None)
    kinds = {"classifier": xgboost.XGBClassifier, "ranker": xgboost.XGBRanker}
    has_categories = "c" in (booster.feature_types or ())
    estimator = kinds.get(wrapper_kind, xgboost.XGBRegressor)(enable_categorical=has_categories)
    estimator.load_model(booster.save_raw("ubj"))
    return estimator
