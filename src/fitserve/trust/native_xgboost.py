"""What an XGBoost model, as JSON or UBJSON, must satisfy before XGBoost sees it.

Source: the files that XGBoost 3.2 writes, and
https://xgboost.readthedocs.io/en/stable/tutorials/saving_model.html for what earlier ones leave out.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fitserve.errors import ArtifactError
from fitserve.trust.trees import (
    MAX_CATEGORY,
    MAX_FEATURES,
    MAX_OUTPUTS,
    check_forest,
    check_segments,
    damaged,
    expect,
    within,
)
from fitserve.trust.ubjson import read_ubjson

if TYPE_CHECKING:
    from numpy.typing import NDArray

NO_PARENT = 2**31 - 1
"""The parent of a root; that of a tree with vector leaves is -1."""

DELETED = (2**31 - 1, 2**32 - 1)
"""The feature of a node that was pruned away: all bits, without or with the one that tells where nulls go."""

FEW_OUTPUTS = 1000
"""So many outputs may have no tree: none was grown yet. Otherwise each has one."""

# Possessive: what has matched is not tried again in other ways, of which there may be many.
_NUMBER = r"[+-]?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]++)?+"
_BASE_SCORE = re.compile(rf"{_NUMBER}|\[{_NUMBER}(?:,{_NUMBER})*+\]")


@dataclass(frozen=True, slots=True)
class XGBoostHead:
    """What a model says of itself besides its trees.

    Attributes:
        objective: for instance ``binary:logistic``.
        n_features: how many the model was fitted on.
        n_classes: 0 unless the objective has classes of its own.
        n_targets: values a prediction of a regressor.
    """

    objective: str
    n_features: int
    n_classes: int
    n_targets: int

    @property
    def n_groups(self) -> int:
        """How many sums of trees there are: classes, or targets."""
        return max(self.n_classes, self.n_targets, 1)


def check_xgboost(data: bytes) -> XGBoostHead:
    """Look at every number of a model that XGBoost will use as an index or a length.

    ``data`` is what ``save_raw`` gives as JSON or UBJSON, or what a pickled Booster holds.

    Raises:
        ArtifactError: it is damaged.
    """
    # A space or a line break may follow the brace in JSON; a length's mark follows it in UBJSON.
    document = read_ubjson(data) if data[:2] == b"{L" else _read_json(data)
    if isinstance(document, dict) and isinstance(document.get("Model"), dict):
        document = document["Model"]
    learner = _member(document, "learner", dict)
    head = _check_head(learner)
    booster = _member(learner, "gradient_booster", dict)
    match booster.get("name"):
        case "gbtree":
            _check_trees(_member(booster, "model", dict), head)
        case "dart":
            model = _member(_member(booster, "gbtree", dict), "model", dict)
            _check_trees(model, head)
            _numbers(booster, "weight_drop", len(model["trees"]), "fiu")
        case "gblinear":
            _numbers(_member(booster, "model", dict), "weights", (head.n_features + 1) * head.n_groups, "fiu")
        case _:
            damaged("its booster is none of gbtree, dart and gblinear")
    return head


def _read_json(data: bytes) -> Any:
    try:
        return json.loads(data, object_pairs_hook=_once)
    except (ValueError, RecursionError) as exc:
        msg = "is damaged, or truncated: it is no JSON document"
        raise ArtifactError(msg) from exc


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    # Of two members of one name, XGBoost may take the other one.
    expect(len(members) == len(pairs), "it names a member twice")
    return members


def _member(document: Any, name: str, kind: type) -> Any:
    value = document.get(name) if isinstance(document, dict) else None
    expect(isinstance(value, kind), f"{name!r} is missing, or of the wrong kind")
    return value


def _integer(document: Any, name: str, most: int, default: str | None = None) -> int:
    """A number that XGBoost keeps as a string."""
    text = document.get(name, default) if isinstance(document, dict) else None
    good = isinstance(text, str) and re.fullmatch(r"[0-9]{1,9}", text) and int(text) <= most
    expect(good, f"{name!r} is not a number from 0 to {most}")
    return int(str(text))


def _numbers(document: dict[str, Any], name: str, length: int | None, kinds: str) -> NDArray[Any]:
    """An array of numbers; one of integers must not hold fractions. ``kinds`` are those of numpy's dtypes."""
    value = document.get(name)
    expect(isinstance(value, list | np.ndarray), f"{name!r} is missing, or no array")
    # Of strings numpy would make an array in which each is as wide as the longest.
    is_plain = isinstance(value, np.ndarray) or {int, float, bool}.issuperset(map(type, value or ()))
    expect(is_plain, f"{name!r} is not an array of numbers")
    try:
        array = np.asarray(value) if len(value) else np.empty(0, dtype=np.int64)  # type: ignore[arg-type]
    except (ValueError, OverflowError):
        damaged(f"{name!r} is not an array of numbers")
    expect(array.ndim == 1 and array.dtype.kind in kinds, f"{name!r} is not an array of numbers that fit")
    expect(length is None or array.size == length, f"{name!r} has {array.size} numbers instead of {length}")
    return array if array.dtype.kind == "f" else array.astype(np.int64)


def _check_head(learner: dict[str, Any]) -> XGBoostHead:
    params = _member(learner, "learner_model_param", dict)
    objective = _member(learner, "objective", dict)
    head = XGBoostHead(
        objective=_member(objective, "name", str),
        n_features=_integer(params, "num_feature", MAX_FEATURES),
        n_classes=_integer(params, "num_class", MAX_OUTPUTS, "0"),
        n_targets=_integer(params, "num_target", MAX_OUTPUTS, "1"),
    )
    expect(head.n_features > 0, "it has no features")
    expect(min(head.n_classes, head.n_targets) <= 1, "it has both classes and targets")
    if head.objective.startswith("multi:"):
        softmax = _member(objective, "softmax_multiclass_param", dict)
        fits = head.n_classes > 1 and _integer(softmax, "num_class", MAX_OUTPUTS) == head.n_classes
        expect(fits, "it gives its number of classes in two ways")
    score = params.get("base_score")
    expect(isinstance(score, str) and len(score) < 64 * MAX_OUTPUTS, "'base_score' is missing, or of the wrong kind")
    expect(_BASE_SCORE.fullmatch(str(score)), "'base_score' is not a number, or not a list of them")
    expect(str(score).count(",") + 1 in {1, head.n_groups}, "'base_score' has not one number an output")
    for name in ("feature_names", "feature_types"):
        words = learner.get(name, [])
        good = isinstance(words, list) and len(words) in {0, head.n_features} and set(map(type, words)) <= {str}
        expect(good, f"{name!r} does not fit its {head.n_features} features")
    return head


def _check_trees(model: dict[str, Any], head: XGBoostHead) -> None:
    params = _member(model, "gbtree_model_param", dict)
    trees = _member(model, "trees", list)
    n_trees = _integer(params, "num_trees", 1 << 24)
    expect(n_trees == len(trees), f"'num_trees' is {n_trees}, but it has {len(trees)} trees")
    _integer(params, "num_parallel_tree", max(n_trees, 1), "1")
    info = _numbers(model, "tree_info", n_trees, "iu")
    expect(within(info, head.n_groups), "a tree belongs to an output that does not exist")
    if "iteration_indptr" in model:
        check_segments(_numbers(model, "iteration_indptr", None, "iu"), n_trees, "'iteration_indptr'")
    if "cats" in model:
        _check_cats(_member(model, "cats", dict), head)
    has_vectors = any(isinstance(tree, dict) and "leaf_weights" in tree for tree in trees)
    expect(head.n_groups <= max(n_trees, FEW_OUTPUTS) or has_vectors, "it has fewer trees than outputs")
    roots, parents, children, spare, told, n_nodes = [], [], [], [], [], 0
    for i, tree in enumerate(trees):
        try:
            # XGBoost puts a tree where its number says.
            expect(isinstance(tree, dict) and type(tree.get("id")) is int and tree["id"] == i, "its 'id' is wrong")
            nodes = _check_tree(tree, head)
        except ArtifactError as exc:
            msg = f"{exc} (tree {i})"
            raise ArtifactError(msg) from exc
        roots.append(n_nodes)
        splits = np.flatnonzero(nodes.is_split) + n_nodes
        parents += [splits, splits]
        children += [nodes.left[nodes.is_split] + n_nodes, nodes.right[nodes.is_split] + n_nodes]
        spare.append(nodes.is_spare)
        told.append(np.where(nodes.is_root, 0, nodes.parents) + n_nodes)
        n_nodes += nodes.left.size
    if trees:
        is_spare = np.concatenate(spare)
        parent = check_forest(n_nodes, np.array(roots), np.concatenate(parents), np.concatenate(children), is_spare)
        expect((parent == np.concatenate(told))[~is_spare].all(), "a node of a tree has another parent than it says")


@dataclass(frozen=True, slots=True)
class _Nodes:
    """The nodes of one tree, by index: whether they split, which children they have, whether they are in use."""

    left: NDArray[Any]
    right: NDArray[Any]
    parents: NDArray[Any]
    is_split: NDArray[Any]
    is_root: NDArray[Any]
    is_spare: NDArray[Any]


def _check_tree(tree: Any, head: XGBoostHead) -> _Nodes:
    """Check the arrays of one tree against each other."""
    params = _member(tree, "tree_param", dict)
    n_nodes = _integer(params, "num_nodes", 1 << 28)
    expect(n_nodes > 0, "it has no nodes")
    width = _integer(params, "size_leaf_vector", MAX_OUTPUTS, "1") or 1
    expect(_integer(params, "num_feature", MAX_FEATURES) <= head.n_features, "it has more features than the model")
    left, right, parents = (_numbers(tree, n, n_nodes, "iu") for n in ("left_children", "right_children", "parents"))
    _numbers(tree, "split_conditions", n_nodes, "fiu")
    _numbers(tree, "default_left", n_nodes, "iub")
    features = _numbers(tree, "split_indices", n_nodes, "iu")
    for name, length in (("base_weights", n_nodes * width), ("loss_changes", n_nodes), ("sum_hessian", n_nodes)):
        _numbers(tree, name, length, "fiu")
    is_split = left != -1
    is_spare = np.isin(features, DELETED)
    expect(is_spare.sum() == _integer(params, "num_deleted", n_nodes, "0"), "'num_deleted' is wrong")
    is_split &= ~is_spare
    expect(within(left[is_split], n_nodes) and within(right[is_split], n_nodes), "a child does not exist")
    expect(within(features[~is_spare], head.n_features), "it splits by a feature that does not exist")
    leaves = ~is_split & ~is_spare
    if width == 1:
        expect((right[leaves] == -1).all(), "a leaf has a child")
    else:
        expect(width == head.n_groups, "its leaves have not one number an output")
        _numbers(tree, "leaf_weights", int(leaves.sum()) * width, "fiu")
        expect(within(right[leaves], int(leaves.sum())), "a leaf has no numbers")
    is_root = np.arange(n_nodes) == 0
    expect(parents[0] in {-1, NO_PARENT}, "its root has a parent")
    _check_categories(tree, is_split, n_nodes)
    return _Nodes(left, right, parents, is_split, is_root, is_spare)


def _check_categories(tree: dict[str, Any], is_split: NDArray[Any], n_nodes: int) -> None:
    """Check the splits by category, which files before XGBoost 1.3 do not have."""
    if "split_type" not in tree:
        return
    kinds = _numbers(tree, "split_type", n_nodes, "iu")
    expect(within(kinds, 2), "a split is of no known kind")
    nodes = _numbers(tree, "categories_nodes", None, "iu")
    starts = _numbers(tree, "categories_segments", nodes.size, "iu")
    sizes = _numbers(tree, "categories_sizes", nodes.size, "iu")
    categories = _numbers(tree, "categories", None, "iu")
    expect(np.array_equal(nodes, np.flatnonzero(kinds == 1)), "its splits by category are not those that it lists")
    expect(is_split[nodes].all(), "a leaf has categories")
    expect(within(categories, MAX_CATEGORY), "a category is not a number that fits")
    expect(within(sizes, categories.size + 1, 1), "a split by category has none")
    expect(np.array_equal(np.append(starts, categories.size), np.append(0, sizes.cumsum())), "categories overlap")


def _check_cats(cats: dict[str, Any], head: XGBoostHead) -> None:
    """Check the table of categories of each feature, which XGBoost keeps since 3.1."""
    encodings = _member(cats, "enc", list)
    bounds = _numbers(cats, "feature_segments", None, "iu")
    order = _numbers(cats, "sorted_idx", None, "iu")
    expect(len(encodings) in {0, head.n_features}, "'enc' does not fit its features")
    if not encodings:
        expect(bounds.size in {0, head.n_features + 1} and order.size == 0, "categories belong to no feature")
        return
    expect(bounds.size == head.n_features + 1, "'feature_segments' does not fit its features")
    check_segments(bounds, order.size, "'feature_segments'")
    for i, encoding in enumerate(encodings):
        expect(isinstance(encoding, dict), "'enc' is not a list of tables")
        values = _numbers(encoding, "values", None, "iuf")
        n_categories = values.size
        if "offsets" in encoding:
            offsets = _numbers(encoding, "offsets", None, "iu")
            n_categories = max(offsets.size - 1, 0)
            if offsets.size or values.size:
                check_segments(offsets, values.size, "'offsets'")
        part = np.sort(order[bounds[i] : bounds[i + 1]])
        expect(np.array_equal(part, np.arange(n_categories)), "'sorted_idx' does not put the categories in an order")
