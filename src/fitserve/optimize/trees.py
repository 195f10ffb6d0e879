"""The splits of trees, whichever library grew them, in one shape."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fitserve.estimators.walk import attribute, parts_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

CATEGORY = -2
"""The feature of a node that splits by sets of categories: it has no threshold."""

LEAF = -1


@dataclass(frozen=True, slots=True)
class Tree:
    """The nodes of one tree, the first of which is its root; arrays of shape (n_nodes,).

    Attributes:
        feature: that a node looks at; :data:`LEAF` or :data:`CATEGORY` where it has no threshold.
        threshold: of it. A number up to it goes left; in XGBoost, a number below it.
        left: the child for these; :data:`LEAF` where that has no row here.
        right: the other.
    """

    feature: NDArray[np.intp]
    threshold: NDArray[np.float64]
    left: NDArray[np.intp]
    right: NDArray[np.intp]

    def parents(self) -> dict[int, tuple[int, bool]]:
        """Of each node but the root, its parent and whether it is the left child."""
        found = {}
        for node in np.flatnonzero(self.feature != LEAF).tolist():
            for child, is_left in ((int(self.left[node]), True), (int(self.right[node]), False)):
                if child > 0:
                    found[child] = (node, is_left)
        return found


def trees_of(estimator: object) -> list[Tree]:
    """All trees of an estimator or booster; their features are those of the step that holds them."""
    return [tree for part in parts_of(estimator) for tree in _trees_in(part)]


def n_nodes(estimator: object) -> int:
    """How many nodes its trees have."""
    return sum(len(tree.feature) for tree in trees_of(estimator))


def categorical_features(estimator: object) -> set[int]:
    """The features by whose categories trees split, of those libraries that tell it."""
    found: set[int] = set()
    for part in parts_of(estimator):
        mask = attribute(part, "is_categorical_")
        if mask is not None:
            found.update(np.flatnonzero(mask).tolist())
        for tree in _texts(part):
            is_category = np.array(tree["decision_type"], dtype=int) & 1
            found.update(np.array(tree["split_feature"], dtype=int)[is_category.astype(bool)].tolist())
        if _kind(part) == ("xgboost", "Booster"):
            found.update(i for i, kind in enumerate(part.feature_types or ()) if kind == "c")
    return found


def _trees_in(part: Any) -> Iterator[Tree]:
    tree = attribute(part, "tree_")
    if hasattr(tree, "children_left"):
        is_leaf = tree.children_left < 0
        feature = np.where(is_leaf, LEAF, tree.feature)
        yield Tree(feature, tree.threshold.astype(float), tree.children_left, tree.children_right)
    columns = _column_order(part)
    for stage in attribute(part, "_predictors") or ():
        for predictor in stage:
            yield _of_histograms(predictor.nodes, columns)
    for block in _texts(part):
        yield _of_lightgbm(block)
    if _kind(part) == ("xgboost", "Booster"):
        yield from _of_xgboost(part)


def _kind(part: object) -> tuple[str, str]:
    return type(part).__module__.partition(".")[0], type(part).__name__


def _column_order(part: Any) -> NDArray[np.intp]:
    """Which column each feature of histogram boosting is: those with categories come first, if they are encoded."""
    if attribute(part, "_preprocessor") is None or attribute(part, "is_categorical_") is None:
        return np.arange(int(attribute(part, "n_features_in_") or 0))
    mask = np.asarray(part.is_categorical_)
    return np.concatenate([np.flatnonzero(mask), np.flatnonzero(~mask)])


def _of_histograms(nodes: Any, columns: NDArray[np.intp]) -> Tree:
    is_leaf = nodes["is_leaf"].astype(bool)
    feature = np.where(nodes["is_categorical"].astype(bool), CATEGORY, columns[nodes["feature_idx"]])
    left, right = (np.where(is_leaf, LEAF, nodes[side].astype(np.intp)) for side in ("left", "right"))
    return Tree(np.where(is_leaf, LEAF, feature), nodes["num_threshold"].astype(float), left, right)


def _texts(part: object) -> Iterator[dict[str, list[str]]]:
    """The trees of a LightGBM booster as its text has them, those of one leaf left out."""
    if _kind(part) != ("lightgbm", "Booster"):
        return
    text: str = part.model_to_string()  # type: ignore[attr-defined]
    for block in re.split(r"^Tree=\d+$", text, flags=re.MULTILINE)[1:]:
        pairs = (line.split("=", 1) for line in block.split("\nend of trees")[0].splitlines() if "=" in line)
        tree = {key: value.split() for key, value in pairs}
        if tree.get("split_feature"):
            yield tree


def _of_lightgbm(tree: dict[str, list[str]]) -> Tree:
    is_category = (np.array(tree["decision_type"], dtype=int) & 1).astype(bool)
    feature = np.where(is_category, CATEGORY, np.array(tree["split_feature"], dtype=int))
    # Leaves are numbered from -1 downwards, and have no rows of their own here.
    left, right = (np.maximum(np.array(tree[side], dtype=int), LEAF) for side in ("left_child", "right_child"))
    return Tree(feature, np.array(tree["threshold"], dtype=float), left, right)


def _of_xgboost(booster: Any) -> Iterator[Tree]:
    model = json.loads(bytes(booster.save_raw("json")))["learner"]["gradient_booster"]
    model = model.get("gbtree", model)  # dart keeps it one floor below
    for tree in model.get("model", {}).get("trees", ()):
        left, right = np.array(tree["left_children"], dtype=int), np.array(tree["right_children"], dtype=int)
        is_category = np.array(tree.get("split_type") or [0] * len(left)) == 1
        feature = np.where(is_category, CATEGORY, np.array(tree["split_indices"], dtype=int))
        # Thresholds are float32, written in as many digits as those need.
        threshold = np.array(tree["split_conditions"], dtype=np.float32).astype(float)
        yield Tree(np.where(left < 0, LEAF, feature), threshold, left, right)
