"""The running estimate of what a call costs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitserve.store.cost import Cost


@given(st.floats(1e-5, 1e-2), st.floats(1e-8, 1e-4))
def test_it_learns_a_line(fixed_s, per_row_s):
    cost = Cost(fixed_s / 2, per_row_s / 2)
    for i in range(1000):
        n_rows = (1, 64, 8, 200)[i % 4]
        cost.learn(n_rows, fixed_s + per_row_s * n_rows)

    for n_rows in (1, 100):
        true = fixed_s + per_row_s * n_rows
        assert abs(cost.expected_s(n_rows) - true) < 0.05 * true


def noisy(rng, seconds):
    """Most calls within a fifth; one in fifty meets a machine that is elsewhere."""
    return seconds * rng.lognormal(0.0, 0.2) * (20.0 if rng.random() < 0.02 else 1.0)


@pytest.mark.parametrize(
    ("fixed_s", "per_row_s", "sizes"),
    [
        (5e-3, 10e-6, (1, 1, 1, 10, 100, 1000)),  # by call
        (10e-6, 7e-6, (1, 1, 1, 10, 100, 1000)),  # by row
        (1e-3, 50e-3, (1, 2, 3, 4, 5, 6, 7, 8)),  # slow, and by row
        (20e-6, 1e-6, (1,)),
    ],
)
@pytest.mark.parametrize("start", [1.0, 4.0, 0.25])
def test_noise_and_other_batch_sizes_do_not_mislead_it(fixed_s, per_row_s, sizes, start):
    """Within a factor of two, which is what the choice of place, form and batch size needs."""
    rng = np.random.default_rng(0)
    cost = Cost(fixed_s * start, 0.0)
    gaps = []
    for i in range(400):
        n_rows = int(rng.choice(sizes))
        true = fixed_s + per_row_s * n_rows
        if i >= 300:
            gaps.append(abs(math.log2(cost.expected_s(n_rows) / true)))
        cost.learn(n_rows, noisy(rng, true))

    assert np.mean(gaps) < 0.5
    assert max(gaps) < 1.5


def test_a_slow_model_whose_rows_are_dear_is_told_from_one_whose_calls_are():
    rng = np.random.default_rng(0)
    by_row, by_call = Cost(0.05), Cost(0.05)
    for _ in range(100):
        n_rows = int(rng.integers(1, 9))
        by_row.learn(n_rows, noisy(rng, 0.001 + 0.05 * n_rows))
        by_call.learn(n_rows, noisy(rng, 0.05))

    assert by_row.per_row_s > by_row.fixed_s
    assert by_call.fixed_s > 8 * by_call.per_row_s


def test_calls_of_one_size_leave_what_is_known_of_others():
    rng = np.random.default_rng(0)
    cost = Cost(1e-3, 10e-6)
    for _ in range(20_000):
        cost.learn(1, noisy(rng, 1.01e-3))

    assert 5e-3 < cost.expected_s(1000) < 20e-3


def test_one_slow_call_changes_little():
    cost = Cost(100e-6)
    cost.learn(1, 0.5)

    assert cost.expected_s(1) < 200e-6


def test_a_measurement_made_later_replaces_what_was_learnt():
    cost = Cost(1e-3, 1e-4)
    for _ in range(50):
        cost.learn(1, 1.1e-3)
    cost.fixed_s, cost.per_row_s = 2e-3, 5e-6
    cost.learn(1, 2e-3)

    assert cost.expected_s(1) == pytest.approx(2e-3, rel=0.1)
    assert cost.expected_s(1000) == pytest.approx(7e-3, rel=0.1)


def test_a_model_that_became_slow_is_noticed_within_twenty_calls():
    cost = Cost(50e-6)
    for _ in range(20):
        cost.learn(1, 0.1)

    assert cost.expected_s(1) > 3e-4


def test_a_model_of_which_nothing_is_known_is_known_after_one_call():
    cost = Cost()
    cost.learn(1, 0.1)

    assert cost.expected_s(1) > 0.05


@given(st.lists(st.tuples(st.integers(1, 1_000_000), st.floats(0, 100)), max_size=200))
def test_it_is_never_negative(calls):
    cost = Cost()
    for n_rows, seconds in calls:
        cost.learn(n_rows, seconds)

    assert 0 <= cost.fixed_s < math.inf
    assert 0 <= cost.per_row_s < math.inf
