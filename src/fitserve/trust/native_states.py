"""The compiled parts of pickled models: looked at before their libraries see them, and made of no other class."""

from __future__ import annotations

from typing import Any

from fitserve.trust.arrays import wanted


def set_catboost_state(model: Any, state: Any) -> None:
    """Give a CatBoost model its trees, after their numbers were looked at.

    Raises:
        ArtifactError: CatBoost would read other memory.
    """
    from fitserve.trust.native_catboost import check_catboost

    wanted(type(state) is dict, "a booster has no model")
    trees = state.get("__model")
    if "__model" in state:
        wanted(type(trees) is bytes, "a booster has no model")
        check_catboost(trees)
    type(model).__setstate__(model, state)


def set_lightgbm_state(booster: Any, state: Any) -> None:
    """Give a LightGBM booster its model, after its numbers were looked at.

    Raises:
        ArtifactError: LightGBM would read other memory.
    """
    from fitserve.trust.native_lightgbm import check_lightgbm

    wanted(type(state) is dict, "a booster has no model")
    model = state.get("_handle", state.get("handle"))
    if model is not None:
        wanted(type(model) is str, "a booster has no model")
        check_lightgbm(model.encode())
    type(booster).__setstate__(booster, state)


def set_xgboost_state(booster: Any, state: Any) -> None:
    """Give an XGBoost booster its model, after its numbers were looked at.

    Raises:
        ArtifactError: XGBoost would read other memory.
    """
    from fitserve.trust.native_xgboost import check_xgboost

    wanted(type(state) is dict and "handle" in state, "a booster has no model")
    model = state["handle"]
    if model is not None:
        wanted(type(model) is bytearray, "a booster has no model")
        check_xgboost(bytes(model))
    type(booster).__setstate__(booster, state)


def make_neighbours_tree(*args: Any) -> Any:
    """``newObj(KDTree)`` or ``newObj(BallTree)``: an empty one, which gets a state.

    Raises:
        ArtifactError: it is of another class, which could not bear to be empty.
    """
    from sklearn.neighbors import BallTree, KDTree

    wanted(len(args) == 1 and args[0] in (KDTree, BallTree), "a neighbours tree is made oddly")
    return args[0].__new__(args[0])


def make_metric(*args: Any) -> Any:
    """``newObj(EuclideanDistance64)`` or one of its kin, but for a function of the file's.

    Raises:
        ArtifactError: it is of another class.
    """
    from sklearn.metrics._dist_metrics import DistanceMetric64, PyFuncDistance64

    is_metric = len(args) == 1 and isinstance(args[0], type) and issubclass(args[0], DistanceMetric64)
    wanted(is_metric and not issubclass(args[0], PyFuncDistance64), "a metric is made oddly")
    return args[0].__new__(args[0])
