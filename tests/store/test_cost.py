"""The running estimate of what a call costs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fitserve.store.cost import Cost


@given(st.floats(1e-5, 1e-2), st.floats(1e-8, 1e-4))
def test_it_learns_a_line(fixed_s, per_row_s):
    cost = Cost(fixed_s / 2, per_row_s / 2)
    for i in range(4000):
        n_rows = (1, 64, 8, 200)[i % 4]
        cost.learn(n_rows, fixed_s + per_row_s * n_rows)

    for n_rows in (1, 100):
        true = fixed_s + per_row_s * n_rows
        assert abs(cost.expected_s(n_rows) - true) < 0.2 * true  # it forgets, so it only comes near


def test_one_slow_call_changes_little():
    cost = Cost(100e-6)
    cost.learn(1, 0.5)

    assert cost.expected_s(1) < 200e-6


def test_a_model_that_became_slow_is_noticed_within_twenty_calls():
    cost = Cost(50e-6)
    for _ in range(20):
        cost.learn(1, 0.1)

    assert cost.expected_s(1) > 3e-4


@given(st.lists(st.tuples(st.integers(1, 1000), st.floats(0, 10))))
def test_it_is_never_negative(calls):
    cost = Cost()
    for n_rows, seconds in calls:
        cost.learn(n_rows, seconds)

    assert cost.fixed_s >= 0
    assert cost.per_row_s >= 0
