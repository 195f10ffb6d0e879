"""Rows on thresholds: where they stand, and that they reach the node of their threshold."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from optimize.kinds import QUIET, SEED, SMALL, TIMES, D, V, X, Y, fitted
from sklearn.ensemble import GradientBoostingRegressor, RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.tree import DecisionTreeRegressor

from fitserve.errors import InputIssue, InvalidInputError
from fitserve.estimators.model import EstimatorModel
from fitserve.optimize.edges import edge_rows, steps_around
from fitserve.optimize.rows import answered, parity_rows
from fitserve.optimize.trees import LEAF, trees_of

pytestmark = pytest.mark.filterwarnings("ignore")


def edges_of(model, **options):
    return edge_rows(model, model.estimator, parity_rows(model, model.estimator), **options)


def test_a_threshold_is_met_from_both_sides_in_both_floats():
    numbers = steps_around(0.1)

    assert {0.1, np.nextafter(0.1, 1), np.nextafter(0.1, 0), float(np.float32(0.1))} <= set(numbers)
    rounded = np.float32(numbers)
    last = float(max(n for n, r in zip(numbers, rounded, strict=True) if r <= np.float32(0.1)))
    assert np.nextafter(last, 1) in numbers
    assert np.float32(np.nextafter(last, 1)) > np.float32(0.1)


def test_every_tree_has_its_share():
    forest = RandomForestClassifier(60, max_depth=3, **SEED).fit(X, Y)
    values = {value for row in edges_of(EstimatorModel(forest), n_thresholds=8) for value in row}

    met = [any(t in values for t in tree.tree_.threshold[tree.tree_.feature >= 0]) for tree in forest.estimators_]
    assert sum(met) >= 40


def test_each_row_reaches_the_node_of_its_threshold():
    tree = DecisionTreeRegressor(**SEED).fit(D, V)
    rows = np.array(edges_of(EstimatorModel(tree), n_thresholds=10_000))
    path = tree.decision_path(rows).toarray().astype(bool)

    reached = [
        path[(rows[:, feature] == threshold), node].any()
        for node, (feature, threshold) in enumerate(zip(tree.tree_.feature, tree.tree_.threshold, strict=True))
        if feature >= 0
    ]
    assert np.mean(reached) > 0.98
    assert set(tree.apply(rows)) == set(np.flatnonzero(tree.tree_.feature < 0))  # so that each leaf is met


@pytest.mark.parametrize("scaler", [StandardScaler(), MinMaxScaler()])
def test_behind_a_scaler_both_sides_of_a_threshold_are_neighbours(scaler):
    pipeline = make_pipeline(scaler, GradientBoostingRegressor(n_estimators=3, **SEED)).fit(D, V)
    rows = np.array(edges_of(EstimatorModel(pipeline)))
    scaled = np.float32(pipeline[0].transform(rows))
    n = len(rows) // 4

    assert len(rows) >= 40
    below, above = rows[0::4], rows[1::4]
    changed = below != above
    assert (changed.sum(axis=1) == 1).all()
    assert (np.nextafter(below, above)[changed] == above[changed]).all()
    assert all((scaled[4 * i] != scaled[4 * i + 1]).any() for i in range(n))


def test_rows_that_a_model_refuses_are_left_out_and_the_others_kept():
    model = fitted_model("columns and a forest")
    good = parity_rows(model, model.estimator, n_rows=64)

    class Refusing:
        signature = model.signature

        def predict(self, inputs, asked=()):
            if (inputs["age"] > 50).any():
                raise InvalidInputError([InputIssue("a younger one", "an older one")])
            return model.predict(inputs)

    kept = answered(Refusing(), good)
    assert 0 < len(kept) < len(good)
    assert kept == [row for row in good if row[0] <= 50]


def fitted_model(name):
    return EstimatorModel(copy.deepcopy(fitted(name)))


def _depth_first(node):
    if "split_feature" in node:
        yield node["split_feature"], node["threshold"]
        yield from _depth_first(node["left_child"])
        yield from _depth_first(node["right_child"])


def test_the_splits_of_lightgbm_are_those_that_it_tells():
    from lightgbm import LGBMRegressor

    model = LGBMRegressor(**QUIET).fit(D, V)
    told = [pair for tree in model.booster_.dump_model()["tree_info"] for pair in _depth_first(tree["tree_structure"])]
    found = [
        (int(f), t) for tree in trees_of(model) for f, t in zip(tree.feature, tree.threshold, strict=True) if f != LEAF
    ]

    assert sorted(found) == sorted(told)


def test_the_splits_of_xgboost_are_those_that_it_tells():
    from xgboost import XGBRegressor

    model = XGBRegressor(**SMALL).fit(D, V)
    told = model.get_booster().trees_to_dataframe()
    told = told[told["Feature"] != "Leaf"]
    found = [
        (f"f{f}", np.float32(t))
        for tree in trees_of(model)
        for f, t in zip(tree.feature, tree.threshold, strict=True)
        if f != LEAF
    ]

    assert sorted(found) == sorted(zip(told["Feature"], np.float32(told["Split"]), strict=True))


def test_the_splits_of_histograms_are_followed_to_the_leaves():
    model = fitted("histogram boosting")
    for tree in trees_of(model):
        reached, waiting = set(), [0]
        while waiting:
            node = waiting.pop()
            reached.add(node)
            waiting += [int(child) for child in (tree.left[node], tree.right[node]) if child > 0]
        assert reached == set(range(len(tree.feature)))
        assert set(tree.parents()) == reached - {0}
        assert (tree.feature[tree.feature != LEAF] < TIMES.shape[1]).all()
