"""What a LightGBM text model must satisfy before LightGBM sees it.

LightGBM reads the numbers that it is given as they come: an index that is out of range, a list that
is too short or a missing key ends in a fatal signal. Everything that it reads of a tree is checked here.

Source: the text that LightGBM 4.7 writes (``Booster.model_to_string``), and what version 3 and 4 of it share.
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

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

OBJECTIVES = frozenset({
    "binary", "cross_entropy", "cross_entropy_lambda", "fair", "gamma", "huber", "lambdarank", "mape", "multiclass",
    "multiclassova", "poisson", "quantile", "rank_xendcg", "regression", "regression_l1", "tweedie",
})  # fmt: skip
"""The objectives of LightGBM 4.7. Source: https://lightgbm.readthedocs.io/en/stable/Parameters.html#objective"""

MAX_TREE_LINES = 22
"""LightGBM reads so many lines of a tree and takes the next one for the next tree."""

_OBJECTIVE = re.compile(r"[a-z_0-9]+( (sqrt|[a-z_]+:[0-9.eE+-]+))*")
_NUMBERS = re.compile(rb"[0-9eE+. -]*")
_NUMBERS_OR_NOT = re.compile(rb"[0-9eEinfa+. -]*")
_INTEGERS = re.compile(rb"[0-9 -]*")
_TAIL = re.compile(
    rb"|end of trees|feature[_ ]importances:|[^\x00-\x20=]+=[0-9.e+-]+|parameters:|\[[a-z0-9_]+: [^\x00-\x1f]*\]"
    rb"|end of parameters|pandas_categorical:.*"
)
_INFO = re.compile(r"none|\[[^\[\]\s:]+:[^\[\]\s:]+\]|-?\d+(:-?\d+)*")

# How many values each list of a tree of n leaves has: per leaf, or per split.
_PER_LEAF = {b"leaf_value": True, b"leaf_weight": False, b"leaf_count": False}
_PER_SPLIT = {
    b"split_feature": True, b"threshold": True, b"decision_type": True, b"left_child": True, b"right_child": True,
    b"split_gain": False, b"internal_value": False, b"internal_weight": False, b"internal_count": False,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class LightGBMHead:
    """What the head of a text model says.

    Attributes:
        n_features: how many the model was fitted on.
        n_outputs: trees an iteration: classes, or 1.
        objective: its name without parameters; None for one of the user's own.
        feature_names: as LightGBM writes them: blanks are underscores.
    """

    n_features: int
    n_outputs: int
    objective: str | None
    feature_names: tuple[str, ...]


def check_lightgbm(data: bytes) -> LightGBMHead:
    """Look at every number of a text model that LightGBM will use as an index or a length.

    Raises:
        ArtifactError: it is damaged, or written by LightGBM 2.1 or before.
    """
    expect(b"\0" not in data, "there is a zero byte in the text")
    expect(b"\r" not in data, "its line ends are those of Windows: LightGBM finds its trees by their place")
    start = data.find(b"\n\nTree=0\n") + 2
    end = data.rfind(b"\nend of trees\n") + 1
    expect(1 < start < end, "it ends before its trees do" if start > 1 else "it holds no trees")
    values = _values(data[:start].split(b"\n"), "its head")
    head = _check_head(values)
    blocks = _blocks(data[start:end], values)
    expect(len(blocks) % head.n_outputs == 0, "it has too few trees for the number of its classes")
    try:
        _check_trees([_values(block, f"tree {i}") for i, block in enumerate(blocks)], head)
    except (ValueError, OverflowError) as exc:
        msg = "is damaged: a number of a tree cannot be read"
        raise ArtifactError(msg) from exc
    _check_tail(data[end:])
    return head


def _check_tail(tail: bytes) -> None:
    """Check what follows the trees: the importance of features, parameters, and the categories of a pandas table."""
    for line in tail.splitlines():
        expect(_TAIL.fullmatch(line), "a line after its trees is none that LightGBM writes")
        if line.startswith(b"pandas_categorical:"):
            try:
                categories = json.loads(line.partition(b":")[2])
            except (ValueError, RecursionError):
                damaged("its categories are no JSON")
            # Lists of what a pandas column may hold: strings, numbers, booleans.
            is_table = isinstance(categories, list) and all(isinstance(column, list) for column in categories)
            expect(categories is None or is_table, "its categories are no table")
            values = [value for column in categories or () for value in column]
            expect({str, int, float, bool}.issuperset(map(type, values)), "a category is no plain value")


def _values(lines: list[bytes], where: str) -> dict[bytes, bytes]:
    """The lines ``key=value`` by key."""
    values: dict[bytes, bytes] = {}
    for line in lines:
        key, sign, value = line.partition(b"=")
        expect(key not in values or not sign, f"{where} says twice what {_quoted(key)} is")
        if sign:
            values[key] = value
    return values


def _quoted(key: bytes) -> str:
    """A key of the file, fit for a message."""
    return repr(key[:40].decode("ascii", "replace"))


def _integer(values: Mapping[bytes, bytes], key: bytes, least: int, most: int) -> int:
    text = values.get(key, b"")
    expect(re.fullmatch(rb"\d{1,9}", text) and least <= int(text) <= most, f"{_quoted(key)} is not a number that fits")
    return int(text)


def _check_head(values: Mapping[bytes, bytes]) -> LightGBMHead:
    expect(values.get(b"version") in {b"v2", b"v3", b"v4"}, "its version is not v2, v3 or v4")
    n_features = _integer(values, b"max_feature_idx", 0, MAX_FEATURES - 1) + 1
    n_classes = _integer(values, b"num_class", 1, MAX_OUTPUTS)
    n_outputs = _integer(values, b"num_tree_per_iteration", 1, MAX_OUTPUTS)
    _integer(values, b"label_index", 0, MAX_FEATURES)
    try:
        names = values.get(b"feature_names", b"").decode().split(" ")
        infos = values.get(b"feature_infos", b"").decode().split(" ")
        objective = values.get(b"objective", b"").decode()
    except UnicodeDecodeError:
        damaged("its head is not UTF-8 text")
    expect(len(names) == n_features and all(names), f"it does not name its {n_features} features")
    expect(len(infos) == n_features and all(map(_INFO.fullmatch, infos)), "'feature_infos' does not fit its features")
    name, _, parameters = objective.partition(" ")
    if objective:
        expect(_OBJECTIVE.fullmatch(objective) and name in OBJECTIVES, "its objective is unknown")
    if name in {"multiclass", "multiclassova"}:
        fits = f"num_class:{n_classes}" in parameters.split(" ") and n_outputs == n_classes
        expect(fits and parameters.count("num_class:") == 1, "it gives its number of classes in two ways")
    else:
        expect(n_outputs == n_classes and (n_outputs == 1 or not name), f"its objective {name!r} has one output")
    return LightGBMHead(n_features, n_outputs, name or None, tuple(names))


def _blocks(trees: bytes, values: Mapping[bytes, bytes]) -> list[list[bytes]]:
    """The lines of each tree. LightGBM finds a tree by the sizes in the head, so these must be right."""
    expect(b"tree_sizes" in values, "'tree_sizes' is missing; if LightGBM 2.1 wrote it, save it with a later one")
    sizes = values[b"tree_sizes"]
    expect(re.fullmatch(rb"\d{1,10}( \d{1,10})*", sizes), "'tree_sizes' is not a list of numbers")
    blocks, place = [], 0
    for i, size in enumerate(map(int, sizes.split(b" "))):
        block = trees[place : place + size]
        place += size
        head, _, rest = block.partition(b"\n")
        lines = rest.rstrip(b"\n").split(b"\n")
        fits = head == b"Tree=%d" % i and block.endswith(b"\n\n") and b"" not in lines and len(lines) <= MAX_TREE_LINES
        expect(fits and all(b"=" in line for line in lines), f"tree {i} is not where 'tree_sizes' says")
        blocks.append(lines)
    expect(trees[place:].strip(b"\n") == b"", "there are more trees than 'tree_sizes' says")
    return blocks


def _check_trees(trees: list[dict[bytes, bytes]], head: LightGBMHead) -> None:
    """Check each tree, then the shape of all together: a call of numpy each costs more than its numbers."""
    roots, parents, children, features = [], [], [], []
    n_nodes = 0
    for i, tree in enumerate(trees):
        n_leaves = _integer(tree, b"num_leaves", 1, 1 << 24)
        lists = _lists(tree, n_leaves, i)
        _check_linear(tree, n_leaves, i, head.n_features)
        n_categorical = _check_categories(tree, lists, i)
        roots.append(n_nodes)
        if n_leaves > 1:
            left, right = lists[b"left_child"], lists[b"right_child"]
            both = np.concatenate([left, right])
            expect(within(both, n_leaves - 1, -n_leaves), f"a child of tree {i} does not exist")
            splits = np.arange(n_leaves - 1) + n_nodes
            parents += [splits, splits]
            # Inside a tree splits are numbered before leaves, which the file counts as -1, -2, …
            children.append(np.where(both < 0, n_leaves - 2 - both, both) + n_nodes)
            features.append(lists[b"split_feature"])
        else:
            expect(n_categorical == 0, f"tree {i} splits nothing, but has categories")
        n_nodes += 2 * n_leaves - 1
    if features:
        expect(within(np.concatenate(features), head.n_features), "a tree splits by a feature that does not exist")
        check_forest(n_nodes, np.array(roots), np.concatenate(parents), np.concatenate(children))


def _lists(tree: Mapping[bytes, bytes], n_leaves: int, i: int) -> dict[bytes, NDArray[Any]]:
    """Those lists of a tree that are looked at, after all have been counted."""
    lists = {}
    for lengths, length in ((_PER_LEAF, n_leaves), (_PER_SPLIT, n_leaves - 1)):
        for key, is_needed in lengths.items():
            if key not in tree:
                expect(not is_needed or length == 0, f"tree {i} has no {_quoted(key)}")
                continue
            # A stump's lists are empty, or hold its one leaf.
            if n_leaves == 1 and not is_needed and tree[key] == b"":
                continue
            pattern = _INTEGERS if key in _INDICES else _NUMBERS if is_needed else _NUMBERS_OR_NOT
            lists[key] = _list(tree[key], length, f"{_quoted(key)} of tree {i}", pattern)
    return lists


_INDICES = {b"split_feature", b"decision_type", b"left_child", b"right_child"}


def _list(text: bytes, length: int, what: str, pattern: re.Pattern[bytes]) -> NDArray[Any]:
    """Numbers with single blanks between: integers as int64, others as float64."""
    items = text.split()
    expect(len(items) == length, f"{what} has {len(items)} values instead of {length}")
    expect(pattern.fullmatch(text), f"{what} holds something else than numbers")
    return np.array(items, dtype=np.float64).astype(np.int64) if pattern is _INTEGERS else np.array(items, dtype=float)


def _check_categories(tree: Mapping[bytes, bytes], lists: Mapping[bytes, NDArray[Any]], i: int) -> int:
    """Check the splits by category, and return how many sets of categories the tree has."""
    n_sets = _integer(tree, b"num_cat", 0, 1 << 24)
    kinds = lists.get(b"decision_type", np.empty(0, dtype=np.int64))
    # Bit 0: by category; bit 1: missing values go left; bits 2 and 3: which values are missing (0, 1 or 2).
    expect(within(kinds, 12), f"a split of tree {i} is of no known kind")
    chosen = lists.get(b"threshold", np.empty(0))[kinds % 2 == 1]
    expect(within(chosen, n_sets) and (chosen % 1 == 0).all(), f"tree {i} splits by categories that it does not have")
    if n_sets:
        words = tree.get(b"cat_threshold", b"").split()
        what = f"the categories of tree {i}"
        expect(len(words) <= MAX_CATEGORY // 32 * n_sets, f"{what} are too many")
        bits = _list(b" ".join(words), len(words), what, _INTEGERS)
        expect(within(bits, 1 << 32), f"{what} are not sets of bits")
        bounds = _list(tree.get(b"cat_boundaries", b""), n_sets + 1, what, _INTEGERS)
        check_segments(bounds, len(words), what)
    return n_sets


def _check_linear(tree: Mapping[bytes, bytes], n_leaves: int, i: int, n_features: int) -> None:
    """Check the linear models that may stand in the leaves."""
    kind = tree.get(b"is_linear", b"0")
    expect(kind in {b"0", b"1"}, f"'is_linear' of tree {i} is neither 0 nor 1")
    if kind == b"0":
        return
    what = f"the linear models of tree {i}"
    _check_exact(tree.get(b"leaf_const", b""), n_leaves, what)
    counts = _list(tree.get(b"num_features", b""), n_leaves, what, _INTEGERS)
    expect(within(counts, n_features + 1), f"{what} have too many features")
    used = _list(tree.get(b"leaf_features", b""), int(counts.sum()), what, _INTEGERS)
    expect(within(used, n_features), f"{what} use features that do not exist")
    _check_exact(tree.get(b"leaf_coeff", b""), int(counts.sum()), what)


def _check_exact(text: bytes, length: int, what: str) -> None:
    """Refuse numbers that LightGBM 4.7 cannot read here: it raises where nobody catches, and the process ends."""
    numbers = np.abs(_list(text, length, what, _NUMBERS_OR_NOT))
    odd = np.flatnonzero((numbers < np.finfo(float).tiny) | np.isinf(numbers))
    items = text.split() if odd.size else []
    expect(all(items[i] in {b"0", b"-0", b"inf", b"-inf"} for i in odd), f"{what} hold a number too small or too large")
