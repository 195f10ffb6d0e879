"""The allow-list covers what fitted estimators need, and no more."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from fitserve.trust.allowlist import allowed_names
from fitserve.trust.reconstruct import GUARDED, STATES
from fitserve.trust.unpickler import import_exactly

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("survey_estimators", ROOT / "scripts/survey_estimators.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def found(script):
    return script.survey()


def test_every_estimator_loads_or_stands_on_the_page_with_its_reason(script, found):
    failed, _, _ = found

    assert script.render(failed) == script.PAGE.read_text(), (
        "python scripts/survey_estimators.py tells what is missing; --write renews the page"
    )


def test_losses_kernels_scorers_tables_and_boosters_load(found):
    _, others, _ = found

    assert others == {}


def test_nothing_is_on_the_list_that_no_estimator_needs(script, found):
    _, _, seen = found

    assert set(allowed_names()) - seen - script.ON_PURPOSE == set()


def test_each_listed_name_is_the_thing_itself_and_no_module():
    for name in allowed_names():
        if name != "joblib.numpy_pickle.NumpyArrayWrapper":
            import_exactly(name)


@pytest.mark.parametrize("name", [name for name, uses in allowed_names().items() if "call" in uses])
def test_what_may_be_called_at_loading_is_guarded_or_reviewed(name):
    assert (
        name in GUARDED
        or name in REVIEWED
        or name.startswith(("sklearn._loss._loss.Cy", "sklearn.linear_model._sgd_fast."))
    )


REVIEWED = {
    "builtins.complex",  # two numbers
    "builtins.range",  # lazy
    "builtins.slice",  # holds what it gets
    "collections.OrderedDict",  # of nothing, or of pairs
    "numpy.random.bit_generator.__pyx_unpickle_SeedSequence",  # Cython's: __new__ and typed attributes
    "pandas.StringDtype",  # two texts
    "pandas._libs.arrays.__pyx_unpickle_NDArrayBacked",  # Cython's
    "pandas._libs.tslibs.nattype._nat_unpickle",  # returns NaT
    "sklearn._loss._loss.__pyx_unpickle_CyHalfMultinomialLoss",  # Cython's
    "sklearn.metrics._dist_metrics.newObj",  # cls.__new__(cls)
    "sklearn.neighbors._ball_tree.newObj",  # cls.__new__(cls)
    "sklearn.neighbors._kd_tree.newObj",  # cls.__new__(cls)
}


def test_no_guard_stands_for_what_is_not_listed():
    assert set(GUARDED) <= set(allowed_names())
    assert {name for name in STATES if not name.startswith("numpy.")} <= set(allowed_names())
