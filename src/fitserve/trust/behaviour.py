"""What the attributes of a listed object would make its library do, checked after loading.

A listed class is harmless in the ways in which its library uses it. A file chooses the attributes, and
could use it in others: hide a method behind a function, name the method that is called, or put an object
of compiled code where nobody checks what it is given.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any

from fitserve.errors import ArtifactError

_LIBRARIES = ("sklearn.", "scipy.", "xgboost.", "lightgbm.", "catboost.", "pandas.")

_METHODS = frozenset({
    "predict", "predict_proba", "predict_log_proba", "decision_function", "transform", "score_samples", "auto", None,
})  # fmt: skip
_METHOD_NAMES = (
    "stack_method",
    "stack_method_",
    "response_method",
    "_response_method",
    "chain_method",
    "chain_method_",
)
"""Attributes that name a method that is called (``getattr(estimator, name)(X)`` in _stacking.py and _response.py)."""

_PUBLIC_ATTRIBUTE = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)*")

_NEIGHBOURS = (("sklearn.neighbors._base.NeighborsBase", "_tree"), ("sklearn.neighbors._kde.KernelDensity", "tree_"))
_SLOTS: dict[str, tuple[tuple[str, str], ...]] = {
    "sklearn.tree._tree.Tree": (("sklearn.tree._classes.BaseDecisionTree", "tree_"),),
    "sklearn.neighbors._kd_tree.BinaryTree64": _NEIGHBOURS,
    "sklearn.neighbors._kd_tree.BinaryTree32": _NEIGHBOURS,
    "sklearn.neighbors._ball_tree.BinaryTree64": _NEIGHBOURS,
    "sklearn.neighbors._ball_tree.BinaryTree32": _NEIGHBOURS,
    "sklearn.metrics._dist_metrics.DistanceMetric64": (),
    "sklearn.metrics._dist_metrics.DistanceMetric32": (),
    "lightgbm.basic.Booster": (("lightgbm.sklearn.LGBMModel", "_Booster"),),
    "xgboost.core.Booster": (("xgboost.sklearn.XGBModel", "_Booster"),),
}
"""Where an object of a class may lie: owner and attribute. Its owner checks what it is given; it does not."""

_SERVED_ALONE = frozenset({"lightgbm.basic.Booster", "xgboost.core.Booster"})


def check_behaviour(thing: Any) -> None:
    """Refuse attributes that would have a library do what it never does.

    Raises:
        ArtifactError: a method is hidden, a private method is named, or a file would be read.
    """
    attributes = getattr(thing, "__dict__", None)
    cls = type(thing)
    if type(attributes) is not dict or not cls.__module__.startswith(_LIBRARIES):
        return
    for name in attributes:
        if isinstance(name, str) and _is_method(cls, name):
            raise _refused(f"it hides the method {name[:64]!r} of a {cls.__name__} behind an attribute")
    for name in _METHOD_NAMES:
        if name in attributes and not _METHODS.issuperset(_strings(attributes[name])):
            raise _refused(f"it has a {cls.__name__} call a method that gives no predictions ({name})")
    getter = attributes.get("importance_getter")
    if isinstance(getter, str) and not _PUBLIC_ATTRIBUTE.fullmatch(getter):
        raise _refused(f"it has a {cls.__name__} look at a private attribute (importance_getter)")
    if is_a(cls, "sklearn.feature_extraction.text._VectorizerMixin") and attributes.get("input") != "content":
        raise _refused(
            f"its {cls.__name__} has input={str(attributes.get('input'))[:32]!r}, by which whoever asks names files "
            "that are read here: wanted input='content'"
        )


def _refused(what: str) -> ArtifactError:
    return ArtifactError(f"is refused: {what}")


def _strings(value: object) -> set[Any]:
    parts = value if isinstance(value, list | tuple) else (value,)
    return {part for part in parts if isinstance(part, str)}


def _is_method(cls: type, name: str) -> bool:
    """Whether an attribute of this name would be taken instead of a method of the class."""
    for base in cls.__mro__:
        if name in vars(base):
            kind = type(vars(base)[name])
            return hasattr(kind, "__get__") and not hasattr(kind, "__set__") and kind is not cached_property
    return False


def is_a(cls: type, full: str) -> bool:
    """Whether a class is, or derives from, the one of this full name."""
    return any(f"{base.__module__}.{base.__qualname__}" == full for base in cls.__mro__)


def slots_of(cls: type) -> tuple[tuple[str, str], ...] | None:
    """Where objects of this class may lie; None: anywhere."""
    if not cls.__module__.startswith(_LIBRARIES):  # most of what is asked for
        return None
    return next((slots for full, slots in _SLOTS.items() if is_a(cls, full)), None)


def is_in_place(part: Any, owner: object, name: str) -> bool:
    """Whether this is an object of compiled code, in the attribute where its owner checks what it is given."""
    slots = slots_of(type(part))
    return slots is not None and any(attribute == name and is_a(type(owner), full) for full, attribute in slots)


def check_place(part: Any, *, is_model: bool) -> None:
    """Refuse an object of compiled code that is not in its place.

    Raises:
        ArtifactError: it is elsewhere.
    """
    cls = type(part)
    if slots_of(cls) is None or (is_model and any(is_a(cls, full) for full in _SERVED_ALONE)):
        return
    raise _refused(f"a {cls.__name__} lies where nothing checks the rows that it would be given")
