"""Rows by position, rows by name and columns by name are three spellings of one table."""

from __future__ import annotations

import json

import numpy as np
import orjson
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from fitserve.estimators.model import EstimatorModel
from fitserve.signature import Field, Signature

NUMBERS = st.one_of(
    st.floats(-1e30, 1e30),
    st.sampled_from([0.0, -0.0, 5e-324, 3, 3.0, -(2**53), 2**60, True + 1]),
    st.integers(-(2**53) + 1, 2**53 - 1),
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
DATES = st.datetimes().map(lambda one: one.isoformat()) | st.dates().map(str)
VALUES = {
    "number": NUMBERS,
    "numeric": NUMBERS | st.booleans(),
    "string": TEXTS,
    "boolean": st.booleans(),
    "datetime": DATES,
    "any": NUMBERS | TEXTS | st.booleans(),
}
CATEGORIES = {
    "number": st.lists(NUMBERS, min_size=1, max_size=4),
    "string": st.lists(TEXTS, min_size=1, max_size=4),
    "boolean": st.just([True, False]),
    "any": st.just(["a", 1, 2.5, True]),
}


@st.composite
def tables(draw):
    """A signature, and rows of its types."""
    names = draw(st.lists(TEXTS, min_size=1, max_size=6, unique=True))
    fields, columns = [], []
    for name in names:
        kind = draw(st.sampled_from(sorted(VALUES)))
        categories = draw(CATEGORIES[kind]) if kind in CATEGORIES and draw(st.booleans()) else None
        is_nullable = draw(st.booleans())
        fields.append(
            Field(name, kind, is_nullable, None if categories is None else tuple(categories), categories is not None)
        )
        values = VALUES[kind] if categories is None else st.sampled_from(categories)
        columns.append(st.none() | values if is_nullable else values)
    rows = draw(st.lists(st.tuples(*columns).map(list), min_size=1, max_size=40))
    return Signature(inputs=tuple(fields)), rows


def three_forms(names, rows):
    records = [dict(zip(names[::-1], row[::-1], strict=True)) for row in rows]
    columns = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    return [orjson.loads(orjson.dumps(table)) for table in (rows, records, columns)]


def assert_same(one, other):
    if isinstance(one, np.ndarray):
        assert (one.dtype, one.shape, one.flags["C_CONTIGUOUS"]) == (other.dtype, other.shape, True)
        if one.dtype == object:
            assert [(type(value), value) for value in one.tolist()] == [(type(v), v) for v in other.tolist()]
        else:
            assert one.tobytes() == other.tobytes()  # also the sign of zero
        return
    assert list(one) == list(other)
    for name, column in one.items():
        assert_same(column, other[name])


@given(tables())
@settings(max_examples=300, deadline=None)
def test_each_form_gives_the_same_checked_inputs(table):
    signature, rows = table
    lists, records, columns = three_forms(signature.names, rows)

    inputs = signature.check(lists)

    assert_same(inputs, signature.check(records))
    assert_same(inputs, signature.check(columns))
    assert_same(
        inputs,
        signature.check([record if i % 2 else row for i, (row, record) in enumerate(zip(lists, records, strict=True))]),
    )


@given(tables())
@settings(max_examples=100, deadline=None)
def test_one_row_alone_is_what_it_is_in_its_table(table):
    signature, rows = table

    inputs = signature.check(rows)
    alone = signature.check([rows[-1]])

    if isinstance(inputs, np.ndarray):
        assert alone.tobytes() == inputs[-1:].tobytes()
    else:
        for name, column in inputs.items():
            assert_same(alone[name], column[-1:])


@given(tables(), st.data())
@settings(max_examples=100, deadline=None)
def test_an_integer_may_be_spelt_as_a_float(table, data):
    signature, rows = table
    respelt = [
        [float(v) if type(v) is int and signature.inputs[i].kind != "any" else v for i, v in enumerate(row)]
        for row in rows
    ]

    assert_same(signature.check(rows), signature.check(respelt))


@pytest.fixture(scope="module")
def model() -> EstimatorModel:
    """A pipeline over a table of numbers, texts and booleans."""
    table = pd.DataFrame(
        {
            "age": [20.0, 30.0, None, 50.0] * 5,
            "city": ["Bern", "Ulm", None, "Linz"] * 5,
            "plan": ["free", "pro"] * 10,
            "is_new": [True, False] * 10,
        }
    )
    columns = ColumnTransformer(
        [
            ("number", make_pipeline(SimpleImputer(), StandardScaler()), ["age"]),
            ("open", OneHotEncoder(handle_unknown="ignore"), ["city"]),
            ("closed", OneHotEncoder(), ["plan"]),
        ],
        remainder="passthrough",
    )
    pipeline = make_pipeline(columns, LogisticRegression()).fit(table, ["no", "yes"] * 10)
    return EstimatorModel(pipeline)


ROWS = st.lists(
    st.tuples(
        st.none() | st.integers(-100, 100) | st.floats(-1e6, 1e6),
        st.none() | TEXTS | st.sampled_from(["Bern", "Ulm"]),
        st.sampled_from(["free", "pro"]),
        st.booleans(),
    ).map(list),
    min_size=1,
    max_size=20,
)


@given(ROWS)
@settings(max_examples=60, deadline=None)
def test_each_form_gives_the_same_prediction(model, rows):
    signature = model.signature

    found = [model.predict(signature.check(table)) for table in three_forms(signature.names, rows)]

    for outputs in found[1:]:
        assert outputs.predictions.tolist() == found[0].predictions.tolist()
        assert outputs.probabilities[0].tobytes() == found[0].probabilities[0].tobytes()


@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS).map(list), min_size=1, max_size=30))
@settings(max_examples=60, deadline=None)
def test_a_matrix_is_the_same_to_the_last_digit(rows):
    signature = Signature(inputs=tuple(Field(name) for name in "abc"))

    found = [signature.check(table) @ [0.1, 0.2, 0.3] for table in three_forms("abc", json.loads(json.dumps(rows)))]

    assert found[0].tobytes() == found[1].tobytes() == found[2].tobytes()
