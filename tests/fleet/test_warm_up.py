"""What a version has answered before it serves."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from sklearn.linear_model import LogisticRegression

from fitserve.fleet.warm_up import MOST_SHAPES, shapes_of, warm_up
from fitserve.store.loading import adopt_model


class Counting(LogisticRegression):
    """Keeps the sizes of the tables that it was asked."""

    sizes: ClassVar[list[int]] = []

    def predict_proba(self, X):
        self.sizes.append(len(X))
        if len(X) == 13:
            raise RuntimeError("thirteen")
        return super().predict_proba(X)


def loaded():
    return adopt_model(Counting().fit([[0.0], [1.0]], [0, 1]), name="m", version="1")


def test_a_version_answers_tables_as_large_as_its_predecessor_had_of_late():
    before, after = loaded(), loaded()
    for n_rows in (1, 5, 1, 700):
        before.forms.native.cost.learn(n_rows, 1e-4)
    Counting.sizes.clear()

    warm_up(after, shapes_of(before))

    assert Counting.sizes == [1, 5, 700]


def test_a_version_that_raises_on_made_rows_is_left_alone():
    one = loaded()
    Counting.sizes.clear()

    warm_up(one, [13, 14])

    assert Counting.sizes == [13, 14]


def test_the_shapes_are_few_and_of_late():
    one = loaded()
    for n_rows in range(1, 1000):
        one.forms.native.cost.learn(n_rows, 1e-4)

    assert shapes_of(one) == list(range(1000 - MOST_SHAPES, 1000))
    assert shapes_of(None) == []


def test_a_call_that_takes_long_is_not_made_for_practice():
    one = loaded()
    one.forms.native.cost.fixed_s = 5.0
    Counting.sizes.clear()

    warm_up(one, [1])

    assert Counting.sizes == []
    assert np.isfinite(one.forms.native.cost.expected_s(1))
