"""A table is checked by column, and the answer is that of a check by cell."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitserve.errors import ArtifactError, InvalidInputError
from fitserve.signature import MAX_MAGNITUDE, Field, Signature, count_rows

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
        Field("since", "datetime", is_nullable=True),
    )
)
GOOD = {
    "age": 3,
    "city": "Paris",
    "plan": "x",
    "is_new": True,
    "other": 7.5,
    "passed": True,
    "grade": 2,
    "since": "2026-01-31",
}

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
    assert columns["since"].dtype == "datetime64[us]"


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
        ("age", 10**400, "came a larger one"),
        ("age", 2**53 + 1, "cannot hold exactly"),
        ("since", 20260131, "wanted a date, or a date and time, as ISO 8601 spells them; came a number"),
        ("since", "tomorrow", "came a string that is none"),
        ("since", "2026-02-30", 'such as "2026-01-31"'),
    ],
)
def test_a_value_of_the_wrong_type_is_named(column, value, told):
    with pytest.raises(InvalidInputError) as caught:
        MIXED.check([GOOD, {**GOOD, column: value}])

    assert len(caught.value.issues) == 1
    assert f"row 1, column {column!r}" in str(caught.value)
    assert told in str(caught.value)


CLOSED = {
    "numbers": ("number", (1, 2.5), [1, 1.0, 2.5], [True, 2, 0.99]),
    "numbers beside booleans": ("numeric", (1, False), [1.0, False], [True, 0, 0.0]),
    "booleans": ("boolean", (True,), [True], [False]),
    "booleans that may be numbers": ("numeric", (0.0, 1.0), [True, False, 1, 0.0], [2, "1"]),
    "one boolean that may be a number": ("numeric", (1.0,), [True, 1], [False, 0]),
    "booleans that an encoder kept as numbers": ("boolean", (0, 1), [True, False], [1, 0]),
    "all sorts": ("any", ("1", 1, True), ["1", 1.0, True], ["true", 0, False]),
    "texts": ("string", ("é", ""), ["é", ""], ["e\u0301", "é\x00", "\ud800", "é" * 100_000]),
}


@pytest.mark.parametrize(("kind", "categories", "known", "unknown"), CLOSED.values(), ids=CLOSED.keys())
def test_a_closed_set_takes_equal_numbers_and_never_a_boolean_for_one(kind, categories, known, unknown):
    signature = Signature(inputs=(Field("a", kind, categories=categories, is_closed=True),))

    assert len(signature.check({"a": known})["a"]) == len(known)
    for value in unknown:
        for table in ([[value]], {"a": [*known, value]}, [*({"a": one} for one in known), {"a": value}]):
            with pytest.raises(InvalidInputError):
                signature.check(table)


def test_a_set_that_is_known_but_open_takes_others():
    signature = Signature(inputs=(Field("a", "string", categories=("x",)), Field("b", categories=(1, 2))))

    columns = signature.check([["y", 1], ["x", 3]])

    np.testing.assert_array_equal(columns if isinstance(columns, np.ndarray) else columns["b"], [1.0, 3.0])


@pytest.mark.parametrize("n_rows", [1, 3, 200])
def test_three_spelt_as_integer_or_float_is_one_number(n_rows):
    spelt = [NULLS.check([[three, 1]] * n_rows) for three in (3, 3.0)]
    beside_null = NULLS.check([[3, 1]] * n_rows + [[None, 1]])[:-1]

    np.testing.assert_array_equal(spelt[0], spelt[1])
    np.testing.assert_array_equal(spelt[0], beside_null)
    assert spelt[0].dtype == beside_null.dtype == np.float64


@pytest.mark.parametrize("n_rows", [1, 200])
def test_an_integer_beyond_2_to_the_53_is_taken_if_a_float_holds_it(n_rows):
    exact, rounded = 2**60, 2**60 + 1

    np.testing.assert_array_equal(NUMBERS.check([[exact, 0, 0]] * n_rows)[:, 0], float(exact))
    for table in ([[rounded, 0, 0]] * n_rows, {"a": [0] * n_rows, "b": [rounded] * n_rows, "c": [0] * n_rows}):
        with pytest.raises(InvalidInputError, match="cannot hold exactly"):
            NUMBERS.check(table)


@pytest.mark.parametrize("n_rows", [1, 200])
def test_each_column_has_its_own_largest_number(n_rows):
    signature = Signature(inputs=(Field("a", largest=10.0), Field("b", largest=1e6)))

    signature.check([[10, 1e6]] * n_rows)
    signature.check({"a": [-10.0] * n_rows, "b": [-1e6] * n_rows})
    with pytest.raises(InvalidInputError, match="column 'a': wanted a number between ±10; came a larger one"):
        signature.check([[11, 0]] * n_rows)


COLUMNS = {
    "one missing": ({"a": [1], "b": [1]}, "column 'c': wanted every feature; came nothing"),
    "a misspelt one": ({"a": [1], "b": [1], "cc": [1]}, "did you mean 'c'?"),
    "one too short": (
        {"a": [1, 2], "b": [1], "c": [1, 2]},
        "column 'b': wanted 2 values, as in column 'a'; came a list of 1 value",
    ),
    "one that is a value": ({"a": [1], "b": 1, "c": [1]}, "column 'b': wanted a list with a value for each row"),
    "one that is null": ({"a": [1], "b": None, "c": [1]}, "column 'b': wanted a list with a value for each row"),
    "a text in row 1": ({"a": [1, "1"], "b": [1, 1], "c": [1, 1]}, "row 1, column 'a': wanted a finite number"),
}


@pytest.mark.parametrize(("columns", "told"), COLUMNS.values(), ids=COLUMNS.keys())
def test_wrong_columns_are_named(columns, told):
    with pytest.raises(InvalidInputError) as caught:
        NUMBERS.check(columns)

    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("table", "n_rows"),
    [([[1], [2]], 2), ({"a": [1, 2], "b": [1]}, 2), ({"a": []}, 0), ({"a": 7}, 0), ({}, 0)],
)
def test_rows_are_counted_in_any_form(table, n_rows):
    assert count_rows(table) == n_rows


def test_checking_stops_at_ten_issues():
    with pytest.raises(InvalidInputError) as caught:
        NUMBERS.check([["a", "b", "c"]] * 1000)

    assert len(caught.value.issues) == 10


def test_a_signature_that_knows_no_names_takes_rows_of_one_length():
    anybody = Signature(inputs=(), is_open=True)

    np.testing.assert_array_equal(anybody.check([[1, 2], [3, 4]]), [[1, 2], [3, 4]])
    for rows in ([[1, 2], [3]], [{"a": 1}], [[]], [7], {"a": [1]}):
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
