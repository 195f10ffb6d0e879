"""A table is checked by column, and the answer is that of a check by cell."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitserve.errors import ArtifactError, InvalidInputError
from fitserve.signature import MAX_MAGNITUDE, Field, Signature

NUMBERS = Signature(inputs=tuple(Field(name) for name in "abc"))
NULLS = Signature(inputs=(Field("a", is_nullable=True), Field("b")))
MIXED = Signature(
    inputs=(
        Field("age", "number", is_nullable=True),
        Field("city", "string", categories=("Bern", "Ulm"), is_nullable=True),
        Field("plan", "string", categories=("x", "y"), is_closed=True),
        Field("is_new", "boolean"),
        Field("other", "any"),
        Field("passed", "numeric"),
        Field("grade", "number", categories=(1, 2), is_closed=True),
    )
)
GOOD = {"age": 3, "city": "Paris", "plan": "x", "is_new": True, "other": 7.5, "passed": True, "grade": 2}

anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=3),
    st.just([1.0]),
    st.just({}),
)


def is_good_number(value: object) -> bool:
    is_number = type(value) in (int, float)
    return is_number and abs(value) <= MAX_MAGNITUDE and (type(value) is float or int(float(value)) == value)


@given(st.lists(st.lists(anything, min_size=3, max_size=3), min_size=1, max_size=4))
def test_numbers_are_taken_if_and_only_if_each_is_a_finite_exact_number(rows):
    is_good = all(is_good_number(value) for row in rows for value in row)

    try:
        X = NUMBERS.check(rows)
    except InvalidInputError as exc:
        assert not is_good
        assert 1 <= len(exc.issues) <= 10
    else:
        assert is_good
        assert X.dtype == np.float64
        np.testing.assert_array_equal(X, np.array(rows, dtype=float))


@given(st.permutations("abc"), st.lists(st.floats(-1e9, 1e9), min_size=3, max_size=3))
def test_the_order_of_names_does_not_matter(order, values):
    row = dict(zip("abc", values, strict=True))

    X = NUMBERS.check([{name: row[name] for name in order}])

    np.testing.assert_array_equal(X, [values])


def test_lists_and_objects_may_stand_in_one_table():
    X = NUMBERS.check([[1, 2, 3], {"c": 6, "b": 5, "a": 4}])

    np.testing.assert_array_equal(X, [[1, 2, 3], [4, 5, 6]])


def test_a_null_is_nan_where_the_model_takes_it_and_an_error_where_not():
    np.testing.assert_array_equal(NULLS.check([[None, 1], [2, 3]]), [[np.nan, 1], [2, 3]])

    with pytest.raises(InvalidInputError, match="row 1, column 'b': wanted a finite number; came null"):
        NULLS.check([[1, 1], [1, None]])


def test_nan_is_refused_even_where_null_is_taken():
    with pytest.raises(InvalidInputError, match="not finite"):
        NULLS.check([[float("nan"), 1]])


def test_a_mixed_table_becomes_columns():
    columns = MIXED.check([GOOD, {**GOOD, "age": None, "city": None, "other": "text"}])

    assert list(columns) == list(MIXED.names)
    np.testing.assert_array_equal(columns["age"], [3, np.nan])
    assert columns["city"].tolist() == ["Paris", None]
    assert columns["is_new"].tolist() == [True, True]
    assert columns["other"].tolist() == [7.5, "text"]
    np.testing.assert_array_equal(columns["passed"], [1.0, 1.0])
    np.testing.assert_array_equal(columns["grade"], [2.0, 2.0])


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("age", "3", "came a string"),
        ("age", True, "came a boolean"),
        ("city", 5, "wanted a string; came a number"),
        ("plan", "z", "wanted one of: x, y; came an unknown category"),
        ("plan", None, "came null"),
        ("is_new", 1, "wanted true or false; came a number"),
        ("other", None, "came null"),
        ("other", [1], "came a list of 1 value"),
        ("other", float("inf"), "not finite"),
        ("grade", 3, "wanted one of: 1, 2"),
        ("passed", "yes", "wanted a finite number or a boolean; came a string"),
        ("passed", 1e39, "came a larger one"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(column, value, told):
    with pytest.raises(InvalidInputError) as caught:
        MIXED.check([GOOD, {**GOOD, column: value}])

    assert len(caught.value.issues) == 1
    assert f"row 1, column {column!r}" in str(caught.value)
    assert told in str(caught.value)


def test_checking_stops_at_ten_issues():
    with pytest.raises(InvalidInputError) as caught:
        NUMBERS.check([["a", "b", "c"]] * 1000)

    assert len(caught.value.issues) == 10


def test_a_signature_that_knows_no_names_takes_rows_of_one_length():
    anybody = Signature(inputs=(), is_open=True)

    np.testing.assert_array_equal(anybody.check([[1, 2], [3, 4]]), [[1, 2], [3, 4]])
    for rows in ([[1, 2], [3]], [{"a": 1}], [[]], [7]):
        with pytest.raises(InvalidInputError):
            anybody.check(rows)


def test_names_must_differ():
    with pytest.raises(ArtifactError, match="must differ"):
        Signature(inputs=(Field("a"), Field("a")))


def test_one_column_by_name():
    one = Signature(inputs=(Field("a"),))

    np.testing.assert_array_equal(one.check([{"a": 1}, [2]]), [[1], [2]])


@pytest.mark.parametrize("signature", [NUMBERS, NULLS, MIXED])
def test_the_example_row_passes(signature):
    signature.check([list(signature.example_row())])
