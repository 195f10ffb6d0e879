"""Keys: one for one row, another for every other."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fitserve.cache.key import KEY_BYTES, RowKeys
from fitserve.signature import Field, Signature

NUMBERS = Signature(inputs=tuple(Field(f"x{i}", is_nullable=True) for i in range(3)))
MIXED = Signature(
    inputs=(
        Field("size"),
        Field("city", "string"),
        Field("at", "datetime"),
        Field("code", "any", is_nullable=True),
        Field("is_new", "boolean"),
    )
)
CELLS = st.one_of(
    st.text(max_size=4),
    st.integers(-3, 3),
    st.sampled_from([0.0, -0.0, 1.0, 2.0, 0.5]),
    st.booleans(),
    st.none(),
    st.sampled_from(["1", "True", "None", "1.0", "'a'", "a', 'b", "\ud800"]),
)


def keys_of(inputs, *context: object, has_missing: bool = True) -> list[bytes]:
    return RowKeys(context, has_missing=has_missing)(inputs)


def objects(values) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def number(bits: int) -> float:
    return struct.unpack("<d", struct.pack("<Q", bits))[0]


def identity(value: object) -> object:
    """What tells a value of JSON from another one."""
    return (type(value), math.copysign(1, value), value) if type(value) is float else (type(value), value)


@settings(deadline=None)
@given(st.lists(st.lists(st.floats(-1e30, 1e30) | st.none(), min_size=3, max_size=3), min_size=1, max_size=5))
def test_a_row_of_numbers_has_the_same_key_in_every_form_and_company(rows):
    names = NUMBERS.names
    by_list = keys_of(NUMBERS.check(rows))

    assert by_list == keys_of(NUMBERS.check([dict(zip(names, row, strict=True)) for row in rows]))
    assert by_list == keys_of(NUMBERS.check({name: [row[i] for row in rows] for i, name in enumerate(names)}))
    assert by_list == [key for row in rows for key in keys_of(NUMBERS.check([row]))]
    assert {len(key) for key in by_list} == {KEY_BYTES}


MIXED_ROW = st.tuples(
    st.floats(-1e9, 1e9),
    st.text(max_size=5),
    st.sampled_from(["2026-01-31T12:00:00Z", "1969-12-31"]),
    CELLS,
    st.booleans(),
).filter(lambda row: not isinstance(row[3], str) or row[3].isascii())


@settings(deadline=None)
@given(st.lists(MIXED_ROW.map(list), min_size=1, max_size=5))
def test_a_row_of_columns_has_the_same_key_in_every_form_and_company(rows):
    names = MIXED.names
    by_list = keys_of(MIXED.check(rows))

    assert by_list == keys_of(MIXED.check([dict(reversed([*zip(names, row, strict=True)])) for row in rows]))
    assert by_list == keys_of(MIXED.check({name: [row[i] for row in rows] for i, name in enumerate(names)}))
    assert by_list == [key for row in rows for key in keys_of(MIXED.check([row]))]


@settings(deadline=None)
@given(st.lists(CELLS, min_size=2, max_size=2), st.lists(CELLS, min_size=2, max_size=2))
def test_rows_of_values_that_differ_in_type_or_in_where_they_end_have_different_keys(one, other):
    assume(list(map(identity, one)) != list(map(identity, other)))

    left = keys_of({"a": objects(one[:1]), "b": objects(one[1:])})
    right = keys_of({"a": objects(other[:1]), "b": objects(other[1:])})

    assert left != right


def test_rows_that_differ_in_one_bit_of_a_number_have_different_keys():
    row = [5.1, 0.0, 1.0]
    near = [[np.nextafter(5.1, 6), 0.0, 1.0], [5.1, -0.0, 1.0], [5.1, 5e-324, 1.0], [0.0, 5.1, 1.0], [5.1, np.nan, 1.0]]

    keys = keys_of(np.array([row, *near]))

    assert len(set(keys)) == 6


def test_all_nans_are_one():
    odd = [np.nan, -np.nan, number(0x7FF8_0000_0000_0001), number(0xFFF8_1234_0000_0000)]

    assert len(set(keys_of(np.array(odd).reshape(-1, 1)))) == 1
    assert len(set(keys_of({"a": np.array(odd)}))) == 1


def test_dates_before_1970_are_not_taken_for_nans():
    days = np.array(["1969-12-31T23:59:59.999999", "1969-12-31T23:59:59.999998", "NaT"], dtype="datetime64[us]")

    assert len(set(keys_of({"at": days, "x": np.full(3, np.nan)}))) == 3


def test_columns_are_not_mistaken_for_each_other():
    a, b = np.array([1.0]), np.array([2.0])

    assert keys_of({"a": a, "b": b}) != keys_of({"a": b, "b": a})
    assert keys_of({"a": a, "t": objects(["x"]), "b": b}) != keys_of({"a": b, "t": objects(["x"]), "b": a})


def test_rows_of_another_width_have_another_key():
    assert keys_of(np.array([[1.0, 0.0]])) != keys_of(np.array([[1.0]]))


@pytest.mark.parametrize("other", [("b", "1"), ("a", 1), ("a",), ("a", "1", "")])
def test_another_context_gives_other_keys(other):
    X = np.array([[1.0]])

    assert keys_of(X, "a", "1") == keys_of(X, "a", "1")
    assert keys_of(X, "a", "1") != keys_of(X, *other)


def test_a_matrix_in_another_order_of_memory_has_the_same_keys():
    X = np.arange(12.0).reshape(4, 3)

    assert keys_of(np.asfortranarray(X)) == keys_of(X) == keys_of(np.repeat(X, 2, axis=0)[::2])
    assert keys_of({"a": X[:, 1]}) == keys_of({"a": X[:, 1].copy()})
