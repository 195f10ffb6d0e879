"""Rows as bytes: what comes out is what went in, to the bit and to the type."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from fitserve.cache.rows import pack_rows, unpack_rows
from fitserve.types import Outputs

NUMBERS = st.one_of(
    npst.boolean_dtypes(),
    npst.integer_dtypes(endianness="?"),
    npst.floating_dtypes(endianness="?"),
    npst.complex_number_dtypes(),
    npst.unicode_string_dtypes(min_len=1, max_len=9),
    npst.byte_string_dtypes(min_len=1, max_len=9),
    npst.datetime64_dtypes(),
)
PLAIN = st.one_of(
    st.text(st.characters(codec="utf-8")),
    st.integers(-(2**63), 2**63),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.none(),
)


def objects(values) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


@st.composite
def arrays(draw, n_rows: int):
    if draw(st.booleans()) and draw(st.booleans()):
        return objects(draw(st.lists(PLAIN, min_size=n_rows, max_size=n_rows)))
    shape = (n_rows, *draw(npst.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3)))
    return draw(npst.arrays(draw(NUMBERS), shape))


@st.composite
def outputs(draw):
    n_rows = draw(st.integers(1, 6))
    some = arrays(n_rows)
    probabilities = draw(st.none() | st.lists(some, max_size=2).map(tuple))
    return n_rows, Outputs(draw(some), probabilities, draw(st.dictionaries(st.sampled_from(["a", "b"]), some)))


def same(left: np.ndarray, right: np.ndarray) -> bool:
    assert left.flags.aligned
    assert left.flags.c_contiguous
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    if left.dtype == object:
        one, other = left.tolist(), right.tolist()
        return one == other and [list(map(type, np.ravel(row))) for row in one] == [
            list(map(type, np.ravel(row))) for row in other
        ]
    return left.tobytes() == right.tobytes()


@settings(deadline=None)
@given(outputs(), st.data())
def test_rows_come_back_in_any_order_with_the_bits_and_the_types_that_they_had(given_outputs, data):
    n_rows, whole = given_outputs
    extras = tuple(sorted(whole.extras))
    order = data.draw(st.lists(st.integers(0, n_rows - 1), min_size=1))

    packed = pack_rows(whole, n_rows, extras)
    again = unpack_rows([packed[i] for i in order], extras)

    assert len(packed) == n_rows
    assert same(again.predictions, whole.predictions[order])
    assert (again.probabilities is None) == (whole.probabilities is None)
    assert len(again.probabilities or ()) == len(whole.probabilities or ())
    for left, right in zip(again.probabilities or (), whole.probabilities or (), strict=True):
        assert same(left, right[order])
    assert again.extras.keys() == whole.extras.keys()
    assert all(same(again.extras[name], whole.extras[name][order]) for name in extras)


@settings(deadline=None)
@given(st.lists(st.lists(PLAIN, min_size=2, max_size=2), min_size=1))
def test_lists_of_objects_come_back_with_their_types(rows):
    array = np.empty((len(rows), 2), dtype=object)
    array[:] = rows

    again = unpack_rows(pack_rows(Outputs(array), len(rows), ()), ())

    assert same(again.predictions, array)


def test_a_row_keeps_no_array_alive():
    predictions = np.arange(1000.0)
    is_alive = weakref.ref(predictions)

    packed = pack_rows(Outputs(predictions), 1000, ())
    del predictions
    gc.collect()

    assert is_alive() is None
    assert len(packed[0]) < 64


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(3),
        np.float64(1),
        np.array(1.0),
        objects([object(), "a"]),
        objects(["a", float("nan")]),
        objects(["a", float("inf")]),
        objects(["a", 2**64]),
        objects(["a", "\ud800"]),
        objects(["a", np.str_("b")]),
        objects(["a", ["b"]]),
        np.zeros(2, dtype=[("a", "f8")]),
        np.zeros(2, dtype=[("a", "O")]),
        np.zeros(2, dtype=[("a", "U0"), ("b", "f8")])["a"],
        np.empty((2, 2, 2), dtype=object),
        np.empty((2, 0, 2), dtype=object),
        np.ma.masked_array([1.0, 2.0], [True, False]),
        [1.0, 2.0],
    ],
    ids=repr,
)
def test_what_would_not_come_back_the_same_is_not_packed(array):
    assert pack_rows(Outputs(array), 2, ()) is None


def test_outputs_without_an_extra_that_was_asked_for_are_not_packed():
    assert pack_rows(Outputs(np.zeros(2)), 2, ("transform",)) is None


def test_rows_whose_head_would_be_too_long_are_not_packed():
    wide = Outputs(np.zeros(1), tuple([np.zeros((1, 2))] * 10_000))

    assert pack_rows(wide, 1, ()) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.zeros(1, "<f8"), np.zeros(1, "<f4")),
        (np.array(["ab"]), np.array(["abc"])),
        (np.zeros((1, 2)), np.zeros((1, 3))),
        (np.zeros(1, "<i8"), objects([0])),
    ],
)
def test_rows_of_unlike_types_are_not_put_together(one, other):
    rows = [*pack_rows(Outputs(one), 1, ()), *pack_rows(Outputs(other), 1, ())]

    assert unpack_rows(rows, ()) is None
    assert unpack_rows(rows[:1], ()) is not None
    assert unpack_rows(rows[1:], ()) is not None


def test_outputs_with_probabilities_and_without_are_not_put_together():
    rows = [
        *pack_rows(Outputs(np.zeros(1), (np.zeros((1, 2)),)), 1, ()),
        *pack_rows(Outputs(np.zeros(1), None), 1, ()),
    ]

    assert unpack_rows(rows, ()) is None
