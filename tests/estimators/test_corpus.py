"""Models of every kind are served without a word of code, and answer as their own library does.

Labels are equal. Numbers are equal to 1e-12, relative or absolute: a frame is laid out by columns and a matrix
by rows, for which the linear algebra adds in another order.
"""

from __future__ import annotations

import io
import warnings
from functools import cache

import joblib
import numpy as np
import pytest
from estimators.corpus_boosters import BOOSTED, NATIVE
from estimators.corpus_pipelines import TABLES
from estimators.corpus_plain import PLAIN, RANDOM, UNSUPPORTED
from estimators.tables import records
from threadpoolctl import threadpool_limits

from fitserve.errors import ArtifactError
from fitserve.formats.sklearn import load
from fitserve.store.loading import adopt_model
from fitserve.trust.policy import TrustPolicy
from fitserve.types import Artifact

N_ROWS = 50
TOLERANCE = {"rtol": 1e-12, "atol": 1e-12, "equal_nan": True}

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Threads that wait for each other would take most of the time on a busy machine."""
    with threadpool_limits(1):
        yield


CASES = {**PLAIN, **TABLES, **BOOSTED}


@cache
def fitted(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return CASES[name]()


def dense(found):
    return np.asarray(found.toarray() if hasattr(found, "toarray") else found)


def assert_same(name, got, wanted):
    wanted = dense(wanted)
    assert got.shape == wanted.shape or (got.shape, wanted.shape[1:]) == (wanted.shape[:1], (1,)), name
    wanted = wanted.reshape(got.shape)
    if got.dtype.kind == "f" or wanted.dtype.kind == "f":
        np.testing.assert_allclose(got.astype(float), wanted.astype(float), **TOLERANCE)
    else:
        assert got.tolist() == wanted.tolist(), name


def assert_answers_as(model, served, table, random=frozenset()):
    """All that can be asked of it, on rows as JSON has them."""
    rows = table[:N_ROWS]
    signature = served.signature
    outputs = served.predict(signature.check(records(rows)), signature.outputs)
    for name in set(signature.outputs) - random:
        wanted = getattr(model, name)(rows)
        if name == "predict_proba":
            parts = wanted if isinstance(wanted, list) else [wanted]
            if len(parts) < len(outputs.probabilities):  # several labels: the probability of each to be set
                parts = [np.column_stack([1 - p, p]) for p in wanted.T]
            for got, part in zip(outputs.probabilities, parts, strict=True):
                assert_same(name, got, part)
        else:
            wanted = wanted[0] if isinstance(wanted, tuple) else wanted
            assert_same(name, outputs.predictions if name == signature.outputs[0] else outputs.extras[name], wanted)


def test_the_corpus_is_wide():
    assert len(set(CASES) - set(UNSUPPORTED)) >= 250


@pytest.mark.parametrize("name", [name for name in CASES if name not in UNSUPPORTED])
def test_it_is_served_and_answers_as_itself(name):
    model, table = fitted(name)

    loaded = adopt_model(model, name="m", version="1")

    assert loaded.trial.has_answered, loaded.trial.failure
    assert_answers_as(model, loaded.model, table, RANDOM.get(name, set()))


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_is_not_supported_is_refused_or_never_ready(name):
    model, _ = fitted(name)

    try:
        loaded = adopt_model(model, name="m", version="1")
    except ArtifactError:
        return

    assert not loaded.trial.has_answered, "it is supported by now: take it out of UNSUPPORTED"


IN_A_FILE = [name for name in CASES if name not in UNSUPPORTED][::9]


@pytest.mark.parametrize("name", IN_A_FILE)
def test_a_file_of_it_answers_as_itself(name):
    model, table = fitted(name)
    file = io.BytesIO()
    joblib.dump(model, file)

    served = load(Artifact(name="m", version="1", digest="", data=file.getvalue()), TrustPolicy())

    assert_answers_as(model, served, table)


@pytest.mark.parametrize("name", NATIVE)
def test_a_native_booster_answers_as_itself(name):
    booster, table, wanted = NATIVE[name]()

    loaded = adopt_model(booster, name="m", version="1")
    outputs = loaded.model.predict(loaded.model.signature.check(records(table)))

    assert loaded.trial.has_answered, loaded.trial.failure
    if outputs.probabilities is None:
        np.testing.assert_array_equal(outputs.predictions, wanted)
    else:
        found = outputs.probabilities[0]
        np.testing.assert_array_equal(found if wanted.ndim > 1 else found[:, 1], wanted)
        np.testing.assert_array_equal(outputs.predictions, found.argmax(axis=1))
