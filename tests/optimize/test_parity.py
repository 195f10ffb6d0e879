"""Models of every kind are compiled, and what is used answers fresh rows as the library does."""

from __future__ import annotations

import copy
import json
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from optimize.kinds import KINDS, fitted
from threadpoolctl import threadpool_limits

from fitserve.estimators.model import EstimatorModel
from fitserve.optimize.answers import Answers, take
from fitserve.optimize.base import TOLERANCE, Compiled
from fitserve.optimize.compile import RUNS, compile_model, load_compiled
from fitserve.optimize.edges import edge_rows
from fitserve.optimize.proof import gather, judge
from fitserve.optimize.rows import parity_rows

PAGE = Path(__file__).resolve().parents[2] / "docs/reference/engines.md"
USED = [name for name, (engine, _) in KINDS.items() if engine is not None]

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Threads that wait for each other would take most of the time on a busy machine."""
    with threadpool_limits(1):
        yield


@cache
def compiled(name):
    model = EstimatorModel(copy.deepcopy(fitted(name)))
    return (model, *compile_model(model))


def test_the_kinds_are_many():
    assert len(USED) >= 25


@pytest.mark.parametrize("name", KINDS)
def test_the_expected_engine_is_used_and_no_other(name):
    _, found, report = compiled(name)

    assert [one.engine for one in found] == [engine for engine in [KINDS[name][0]] if engine]
    assert [entry["engine"] for entry in report if entry["verdict"] == "used"] == [one.engine for one in found]
    assert all(entry["reason"] for entry in report if entry["verdict"] != "used")
    assert json.loads(json.dumps(report)) == report


@pytest.mark.parametrize("name", USED)
def test_fresh_rows_are_answered_as_by_the_library(name):
    model, (one,), _ = compiled(name)
    kept = Compiled(one.engine, one.data, json.loads(json.dumps(one.note)))
    predict = load_compiled(kept, model)

    evidence = gather(model, ends_s=time.perf_counter() + 60, seed=7)
    is_label = model.predict(evidence.random.chunks[0][0]).predictions.dtype.kind != "f" or bool(
        model.signature.classes
    )
    verdict = judge(
        predict, evidence=evidence, tables=evidence.tables, is_label=is_label, ends_s=time.perf_counter() + 60
    )

    assert verdict.n_rows >= 2000
    assert verdict.n_unequal == 0
    assert verdict.why_not(TOLERANCE[one.engine]) is None


@pytest.mark.parametrize("name", USED)
def test_a_fresh_row_has_the_same_bits_alone_and_in_company(name):
    model, (one,), _ = compiled(name)
    inputs = model.signature.check(parity_rows(model, model.estimator, n_rows=100, seed=8))
    shape = model.predict(take(inputs, slice(0, 1))).predictions.shape[1:]
    n_rows = len(inputs if isinstance(inputs, np.ndarray) else inputs["age"])
    answers = Answers(
        RUNS[one.engine](one.data, one.note), model, one.note, decide=lambda _: np.zeros((1, *shape), int)
    )

    def numbers(part):
        some = answers(take(inputs, part))
        return some.probabilities[0] if some.probabilities else some.predictions

    whole = numbers(slice(None))
    parts = [slice(start, start + size) for size in (1, 2, 7, 64) for start in range(0, n_rows - size + 1, size)]
    assert all(numbers(part).tolist() == whole[part].tolist() for part in parts)


@pytest.mark.parametrize(
    "name", [name for name in USED if "forest" in name or "boost" in name.lower() or "LightGBM" in name]
)
def test_trees_are_proven_on_their_thresholds(name):
    _, _, report = compiled(name)

    assert report[-1]["n_threshold_rows"] >= 20


def test_the_page_of_engines_lists_these_kinds_with_these_engines():
    rows = [line.split("|") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    listed = {cells[1].strip(): cells[2].strip().strip("`") for cells in rows if cells[1].strip() in KINDS}

    assert listed == {name: engine or "none" for name, (engine, _) in KINDS.items()}


def test_rows_do_not_hang_on_anything_but_the_seed():
    model, _, _ = compiled("columns and a forest")
    rows = parity_rows(model, model.estimator, seed=3)

    assert rows == parity_rows(model, model.estimator, seed=3) != parity_rows(model, model.estimator, seed=4)
    assert edge_rows(model, model.estimator, rows) == edge_rows(model, model.estimator, rows)


@pytest.mark.parametrize("name", ["LightGBM", "forest", "columns and XGBoost"])
def test_a_form_may_be_called_from_several_threads_at_once(name):
    model, (one,), _ = compiled(name)
    predict = load_compiled(one, model)
    inputs = model.signature.check(parity_rows(model, model.estimator, n_rows=200))
    wanted = predict(inputs, ()).probabilities[0]

    with ThreadPoolExecutor(4) as pool:
        came = pool.map(
            lambda i: predict(take(inputs, slice(i, i + 1)), ()).probabilities[0][0].tolist(), range(len(wanted))
        )

    assert list(came) == wanted.tolist()
