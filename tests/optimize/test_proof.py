"""Engines that are wrong in one way each, and the proof that refuses them."""

from __future__ import annotations

import copy
import time

import numpy as np
import pytest
from lightgbm import LGBMClassifier
from optimize.kinds import BOUGHT, QUIET, SEED, SPECIES, TIMES, D, V, X
from sklearn.ensemble import (
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression, Ridge

from fitserve.estimators.model import EstimatorModel
from fitserve.optimize.base import NotCompiledError
from fitserve.optimize.proof import gather, is_free_of_company, judge

FAR_S = 1e12


def evidence_of(model):
    return gather(model, ends_s=FAR_S)


def refusal(model, predict, tolerance=1e-6):
    evidence = evidence_of(model)
    verdict = judge(
        predict, evidence=evidence, tables=evidence.tables, is_label=bool(model.signature.classes), ends_s=FAR_S
    )
    return verdict.why_not(tolerance)


def above(X):
    return np.nextafter(X.astype(np.float32), np.float32(np.inf)).astype(float)


FOREST = EstimatorModel(RandomForestClassifier(20, **SEED).fit(X, SPECIES))
BOOSTED = EstimatorModel(GradientBoostingRegressor(n_estimators=20, **SEED).fit(D, V))
GAPS = np.where(np.random.default_rng(0).random(TIMES.shape) < 0.2, np.nan, TIMES)
HISTOGRAM = EstimatorModel(HistGradientBoostingClassifier(max_iter=5, **SEED).fit(GAPS, BOUGHT))
with np.errstate(all="ignore"):
    LIGHT = EstimatorModel(LGBMClassifier(**{**QUIET, "n_estimators": 50}).fit(TIMES, BOUGHT))
LOGISTIC = EstimatorModel(LogisticRegression(max_iter=500).fit(X, SPECIES))


def with_swapped_classes(inputs, asked):
    outputs = LOGISTIC.predict(inputs)
    (table,) = outputs.probabilities
    return outputs._replace(predictions=np.array(sorted(set(SPECIES)))[::-1][table.argmax(axis=1)])


def nearest_float32_above(X):
    """What the comparison of a float64 sees that the cast to float32 would have rounded down."""
    near = X.astype(np.float32)
    return np.where(near < X, np.nextafter(near, np.float32(np.inf)), near).astype(float)


def otherwise(model, **change):
    """The library's own answers, one of them changed."""

    def predict(X, _):
        outputs = model.predict(X)
        return outputs._replace(**{name: make(outputs) for name, make in change.items()})

    return predict


WRONG = {
    "compares with < where the forest has <=": (FOREST, lambda X, _: FOREST.predict(above(X))),
    "compares with < where the boosted trees have <=": (BOOSTED, lambda X, _: BOOSTED.predict(above(X))),
    "compares in float64 what trees compare in float32": (BOOSTED, lambda X, _: BOOSTED.predict(nearest_float32_above(X))),
    "takes float32 for seconds since 1970": (LIGHT, lambda X, _: LIGHT.predict(X.astype(np.float32).astype(float))),
    "swaps classes": (LOGISTIC, with_swapped_classes),
    "sends nulls the other way": (HISTOGRAM, lambda X, _: HISTOGRAM.predict(np.where(np.isnan(X), 0.0, X))),
    "moves numbers by the ten millionth part": (BOOSTED, lambda X, _: BOOSTED.predict(X * (1 + 1e-7))),
    "gives labels of another type": (FOREST, otherwise(FOREST, predictions=lambda out: out.predictions.astype(bytes))),
    "gives probabilities in other floats": (FOREST, otherwise(FOREST, probabilities=lambda out: (out.probabilities[0].astype(np.float32),))),
    "gives no probabilities": (FOREST, otherwise(FOREST, probabilities=lambda _: None)),
    "gives NaN where a number belongs": (BOOSTED, otherwise(BOOSTED, predictions=lambda out: np.where(out.predictions > np.median(V), np.nan, out.predictions))),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_an_engine_is_refused_that(name):
    model, predict = WRONG[name]

    assert refusal(model, predict)


@pytest.mark.parametrize(
    "model", [FOREST, BOOSTED, HISTOGRAM, LIGHT, LOGISTIC], ids=lambda model: model.facts.model_type
)
def test_the_library_itself_passes(model):
    assert refusal(model, model.predict, tolerance=0.0) is None


@pytest.mark.parametrize("number", range(5))
def test_an_engine_is_refused_that_has_one_leaf_changed(number):
    changed = copy.deepcopy(BOOSTED.estimator)
    tree = changed.estimators_[4 * number, 0].tree_
    leaf = np.flatnonzero(tree.children_left < 0)[number]
    tree.value[leaf] += 1.0

    assert refusal(BOOSTED, EstimatorModel(changed).predict)


def test_bits_that_depend_on_the_other_rows_are_noticed():
    table = evidence_of(LOGISTIC).random

    def moved(X, _):
        outputs = LOGISTIC.predict(X)
        return outputs._replace(probabilities=(outputs.probabilities[0] + (len(X) == 7) * 2**-50,))

    def shuffled(X, _):
        outputs = LOGISTIC.predict(X)
        return outputs._replace(predictions=np.roll(outputs.predictions, len(X) == 13))

    assert is_free_of_company(LOGISTIC.predict, table)
    assert not is_free_of_company(moved, table)
    assert not is_free_of_company(shuffled, table)


def test_a_value_is_compared_in_the_size_that_values_have():
    model = EstimatorModel(Ridge().fit(D, V * 1e-9))

    assert refusal(model, otherwise(model, predictions=lambda out: out.predictions * 1.001))
    assert refusal(model, otherwise(model, predictions=lambda out: out.predictions * (1 + 1e-9))) is None


def test_a_proof_ends_when_its_time_is_over():
    with pytest.raises(NotCompiledError, match="take too long"):
        gather(FOREST, ends_s=time.perf_counter() - 1)
    with pytest.raises(NotCompiledError, match="take too long"):
        judge(
            FOREST.predict,
            evidence=evidence_of(FOREST),
            tables=[evidence_of(FOREST).random],
            is_label=True,
            ends_s=time.perf_counter() - 1,
        )
