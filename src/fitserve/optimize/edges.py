"""Rows on the thresholds of trees and one step beside them, where two ways of rounding part first."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fitserve.optimize.rows import MAX_CELLS, answered
from fitserve.optimize.split import split
from fitserve.optimize.trees import LEAF, Tree, trees_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from fitserve.formats.base import Model
    from fitserve.optimize.rows import Row
    from fitserve.optimize.split import Split
    from fitserve.signature import Field, Signature

N_THRESHOLDS: Final = 200

N_HALVINGS: Final = 90
"""Halving the space between two float64 ends after so many steps."""

FAR: Final = 1e6
"""How far from a row's number, as a multiple of it, a threshold is looked for behind other steps."""


def edge_rows(
    model: Model, estimator: object, rows: Sequence[Row], *, n_thresholds: int = N_THRESHOLDS, seed: int = 0
) -> list[Row]:
    """Rows with one number at a threshold of a tree, or one step beside it in float32 or float64.

    Each row reaches the node of its threshold, as far as numbers decide that; every tree has its share. Where
    steps before the trees compute with the number, it stands where what they make of it passes the threshold.
    """
    if not rows:
        return []
    rng = np.random.default_rng(seed)
    parts = split(estimator)
    trees = [tree for tree in trees_of(parts.final) if (tree.feature >= 0).any()]
    n_thresholds = max(8, min(n_thresholds, MAX_CELLS // (8 * max(1, model.signature.n_features))))
    nodes = _chosen_nodes(trees, n_thresholds, rng)
    if parts.before is None:
        made = _on_thresholds(model.signature, rows, nodes, rng)
    elif hasattr(model, "table"):
        with warnings.catch_warnings():  # of names that a model at work has no need of
            warnings.simplefilter("ignore")
            made = _behind_steps(Steps(parts, model), rows, nodes[:N_THRESHOLDS], rng)
    else:
        made = []
    return answered(model, made)


def _chosen_nodes(trees: list[Tree], n: int, rng: np.random.Generator) -> list[tuple[Tree, int]]:
    """Some nodes with thresholds, of each tree one at least if there are not more than five times as many trees."""
    pools = [rng.permutation(np.flatnonzero((tree.feature >= 0) & np.isfinite(tree.threshold))) for tree in trees]
    # The first of each tree, then the second of each, and so on.
    order = [(rank, which) for rank in range(n) for which in rng.permutation(len(pools)) if rank < len(pools[which])]
    n = max(n, min(len(trees), 5 * n))
    return [(trees[which], int(pools[which][rank])) for rank, which in order[:n]]


def steps_around(value: float) -> list[float]:
    """A number, its neighbours in float64 and float32, and where rounding to float32 passes to the next."""
    below, above = (float(np.nextafter(value, side)) for side in (-np.inf, np.inf))
    near = np.float32(value)
    low, high = np.nextafter(near, np.float32(-np.inf)), np.nextafter(near, np.float32(np.inf))
    middle = (float(near) + float(high)) / 2
    around = [float(np.nextafter(middle, side)) for side in (-np.inf, np.inf)]
    return list(dict.fromkeys([value, below, above, float(near), float(low), float(high), middle, *around]))


def _on_thresholds(
    signature: Signature, rows: Sequence[Row], nodes: list[tuple[Tree, int]], rng: np.random.Generator
) -> list[Row]:
    made: list[Row] = []
    parents: dict[int, dict[int, tuple[int, bool]]] = {}
    free = list(map(is_free, signature.inputs))
    for tree, node in nodes:
        feature, threshold = int(tree.feature[node]), float(tree.threshold[node])
        if feature >= len(free) or not free[feature] or abs(threshold) > signature.inputs[feature].largest:
            continue
        base = list(rows[int(rng.integers(len(rows)))])
        for index, (low, high) in _path(tree, node, parents.setdefault(id(tree), tree.parents())).items():
            value = base[index] if index < len(free) else None
            if index < len(free) and free[index] and not (value is not None and low < float(value) < high):
                base[index] = _between(low, high, rng)
        largest = signature.inputs[feature].largest
        made += [_with(base, feature, number) for number in steps_around(threshold) if abs(number) <= largest]
    return made


def _path(tree: Tree, node: int, parents: dict[int, tuple[int, bool]]) -> dict[int, tuple[float, float]]:
    """Between which numbers each feature lies in the rows that reach a node."""
    found: dict[int, tuple[float, float]] = {}
    while node in parents:
        node, is_left = parents[node]
        feature, threshold = int(tree.feature[node]), float(tree.threshold[node])
        if feature > LEAF and np.isfinite(threshold):
            low, high = found.get(feature, (-np.inf, np.inf))
            found[feature] = (low, min(high, threshold)) if is_left else (max(low, threshold), high)
    return found


def _between(low: float, high: float, rng: np.random.Generator) -> float:
    if np.isfinite(low) and np.isfinite(high):
        return float(low + (high - low) * rng.uniform(0.1, 0.9))
    step = rng.uniform(0.01, 1.0) * max(1.0, abs(low if np.isfinite(low) else high))
    return float(low + step if np.isfinite(low) else high - step)


class Steps:
    """The steps before trees, by the library, and which side of a threshold what they make lies on."""

    def __init__(self, parts: Split, model: Any) -> None:
        self.signature: Signature = model.signature
        self._transform, self._table = parts.before.transform, model.table
        self._dtype = np.float32 if parts.is_casting or parts.library == "xgboost" else np.float64
        self._compare = np.less if parts.library == "xgboost" else np.less_equal

    def __call__(self, rows: list[Row]) -> NDArray[Any]:
        """The table that the trees are given, in the floats in which they compare."""
        found = self._transform(self._table(self.signature.check(rows)))
        return np.asarray(found.toarray() if hasattr(found, "toarray") else found).astype(self._dtype)

    def are_left(self, rows: list[Row], features: NDArray[Any], thresholds: NDArray[Any]) -> NDArray[np.bool_]:
        """Of each row, whether one feature of it is left of a threshold."""
        return np.asarray(self._compare(self(rows)[np.arange(len(rows)), features], thresholds))


def _behind_steps(
    steps: Steps, rows: Sequence[Row], nodes: list[tuple[Tree, int]], rng: np.random.Generator
) -> list[Row]:
    """Rows on both sides of where a step's output passes a threshold, and one step further, found by halving."""
    movers = _movers(steps, list(rows[0])) if nodes else {}
    cases = [(tree, node, movers[int(tree.feature[node])]) for tree, node in nodes if int(tree.feature[node]) in movers]
    if not cases:
        return []
    bases = [list(rows[int(i)]) for i in rng.integers(len(rows), size=len(cases))]
    features = np.array([tree.feature[node] for tree, node, _ in cases])
    thresholds = np.array([tree.threshold[node] for tree, node, _ in cases])
    columns = [column for _, _, column in cases]

    def are_left(numbers: NDArray[np.float64]) -> NDArray[np.bool_]:
        some = [_with(base, c, x) for base, c, x in zip(bases, columns, numbers.tolist(), strict=True)]
        return steps.are_left(some, features, thresholds)

    largest = np.array([steps.signature.inputs[column].largest for column in columns])
    size = 1.0 + np.abs(np.array([float(base[c] or 0) for base, c in zip(bases, columns, strict=True)]))
    high = np.minimum(largest, FAR * size)
    low = -high
    low_side = are_left(low)
    is_crossed = low_side != are_left(high)
    for _ in range(N_HALVINGS):
        middle = low / 2 + high / 2
        if ((middle <= low) | (middle >= high)).all():
            break
        stays = are_left(middle) == low_side
        low, high = np.where(stays, middle, low), np.where(stays, high, middle)
    numbers = [low, high, np.nextafter(low, -np.inf), np.nextafter(high, np.inf)]
    return [
        _with(bases[i], columns[i], float(side[i])) for i in np.flatnonzero(is_crossed).tolist() for side in numbers
    ]


def _movers(steps: Steps, base: Row) -> dict[int, int]:
    """For features that the steps make, a column of numbers that moves each."""
    found: dict[int, int] = {}
    free = [i for i, f in enumerate(steps.signature.inputs) if is_free(f)]
    moved = [_with(base, i, 1.0 + 2.0 * abs(float(base[i] or 0))) for i in free]
    came = steps([base, *moved])
    for row, index in zip(came[1:], free, strict=True):
        for feature in np.flatnonzero(row != came[0]).tolist():
            found.setdefault(feature, index)
    return found


def is_free(f: Field) -> bool:
    """Whether a column takes any number."""
    return f.kind in {"number", "numeric"} and not (f.categories and f.is_closed)


def _with(row: Row, index: int, value: float) -> Row:
    return [value if i == index else other for i, other in enumerate(row)]
