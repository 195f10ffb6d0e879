"""Example rows: read from files, brought into a model's columns, and what they tell."""

from __future__ import annotations

import pytest

from fitserve.errors import ArtifactError
from fitserve.signature import Field, Signature
from fitserve.store.examples import Examples, example_of, fit_rows, learn_fields, read_examples

NAMED = Signature(
    (Field("zip", "string"), Field("age", "number"), Field("is_new", "numeric"), Field("what", "any")), is_named=True
)


def read(tmp_path, name: str, text: str) -> Examples:
    (tmp_path / name).write_text(text)
    return read_examples(tmp_path / name)


def test_digits_are_never_parsed_out_of_strings(tmp_path):
    rows = read(tmp_path, "rows.csv", "zip,age,is_new,what\n00123,42,true,00123\n01000,1.5e1,FALSE,99\n")

    fitted, _, _ = fit_rows(rows, NAMED)

    assert fitted == [["00123", 42, True, "00123"], ["01000", 15.0, False, "99"]]


def test_an_empty_cell_is_null(tmp_path):
    rows = read(tmp_path, "rows.csv", "zip;age;is_new;what\n;;;\n1;2;true;3\n")

    fitted, _, _ = fit_rows(rows, NAMED)

    assert fitted == [[None, None, None, None], ["1", 2, True, 3]]


def test_what_stands_for_no_number_is_null_in_columns_of_numbers_only(tmp_path):
    rows = read(tmp_path, "rows.csv", "zip,age,is_new,what\nNA,NaN,null,NA\nN/A, 3 ,true,x\n")

    fitted, _, _ = fit_rows(rows, NAMED)

    assert fitted == [["NA", None, None, "NA"], ["N/A", 3, True, "x"]]


def test_booleans_are_read_however_they_are_spelt(tmp_path):
    rows = read(tmp_path, "rows.csv", 'a\nTrue\nfalse\n1\n0\nyes\nNo\n""\n')

    fitted, _, _ = fit_rows(rows, Signature((Field("a", "boolean"),), is_named=True))

    assert [row[0] for row in fitted] == [True, False, True, False, True, False, None]


def test_the_index_of_a_frame_is_no_column(tmp_path):
    assert read(tmp_path, "rows.csv", ",a,b\n0,1,2\n1,3,4\n").rows == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]


@pytest.mark.parametrize("cell", ["1,5", "1 000", "x"])
def test_a_text_among_numbers_is_told_with_its_place(tmp_path, cell):
    rows = read(tmp_path, "rows.csv", f"zip;age;is_new;what\n1;2;true;3\n1;{cell};true;3\n")

    with pytest.raises(
        ArtifactError, match=r"^has a text in row 1, column 'age': wanted a number, spelt like 1234\.5$"
    ):
        fit_rows(rows, NAMED)


def test_another_encoding_is_told(tmp_path):
    (tmp_path / "rows.csv").write_bytes("größe\n1\n".encode("latin-1"))

    with pytest.raises(ArtifactError, match="is not in UTF-8: save it again"):
        read_examples(tmp_path / "rows.csv")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.json", '[{"a": 1, "b": "x"}, {"a": null, "b": "y"}]'),
        ("rows.json", '{"a": [1, null], "b": ["x", "y"]}'),
        ("rows.json", '{"a": {"0": 1, "1": null}, "b": {"0": "x", "1": "y"}}'),
        ("rows.jsonl", '{"a": 1, "b": "x"}\n\n{"a": null, "b": "y"}\n'),
    ],
)
def test_json_keeps_its_types(tmp_path, name, text):
    assert read(tmp_path, name, text) == Examples([{"a": 1, "b": "x"}, {"a": None, "b": "y"}])


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("rows.csv", "", "holds no rows"),
        ("rows.csv", "a,b\n", "holds no rows"),
        ("rows.csv", "a,b\n1\n", "1 cells in row 1 and 2 in its first"),
        ("rows.csv", "a,a\n1,2\n", "names a column twice"),
        ("rows.json", "[1]", "wanted objects|mixes"),
        ("rows.json", "{", "cannot be read as json"),
        ("rows.json", '{"a": [1], "b": [1, 2]}', "not one of columns of one length"),
        ("rows.jsonl", '{"a": 1}\n[1]', "mixes kinds of rows"),
        ("rows.xlsx", "x", "ends in '.xlsx': wanted one of .csv"),
    ],
)
def test_a_file_that_is_no_table_says_why(tmp_path, name, text, told):
    with pytest.raises(ArtifactError, match=told):
        read(tmp_path, name, text)


def test_parquet_says_what_it_needs(tmp_path):
    with pytest.raises(ArtifactError, match="pyarrow|cannot be read as parquet"):
        read(tmp_path, "rows.parquet", "PAR1")


def test_columns_are_matched_by_name_and_a_target_is_left_out():
    rows = Examples([{"target": "yes", "what": 1, "is_new": True, "age": 2.0, "zip": "1"}])

    fitted, fields, left_out = fit_rows(rows, NAMED)

    assert fitted == [["1", 2.0, True, 1]]
    assert fields == NAMED.inputs
    assert left_out == ["target"]


def test_a_missing_column_is_told():
    rows = Examples([{"zipp": "1", "age": 2.0, "is_new": True, "what": 1}])

    with pytest.raises(ArtifactError, match="lacks the column 'zip' of the model; did you mean 'zipp'"):
        fit_rows(rows, NAMED)


def test_a_model_without_names_takes_those_of_the_rows(tmp_path):
    signature = Signature((Field("x0"), Field("x1")))

    fitted, fields, _ = fit_rows(read(tmp_path, "rows.csv", "width,height\n1,2\n"), signature)
    positional, same, _ = fit_rows(read(tmp_path, "rows.csv", "1,2\n3,4.5\n"), signature)

    assert (fitted, [field.name for field in fields]) == ([[1, 2]], ["width", "height"])
    assert (positional, same) == ([[1, 2], [3, 4.5]], signature.inputs)
    with pytest.raises(ArtifactError, match="has rows of 3 values: wanted 2"):
        fit_rows(Examples([[1, 2, 3]]), signature)
    with pytest.raises(ArtifactError, match="has a row of 1 value: wanted 2"):
        fit_rows(Examples([[1, 2], [1]]), signature)


def test_rows_tell_what_the_model_leaves_open():
    fields = tuple(Field(name, "any", learnt_from="Passed") for name in ("n", "b", "s", "d", "mixed", "empty"))
    rows = [
        [1, True, "x", "2026-01-31", 1, None],
        [2.5, False, "y", "2026-02-01T08:00:00Z", "a", None],
        [None, True, "x", None, None, None],
        [3, True, "y", "2026-02-01", True, None],
    ]

    learnt = learn_fields(fields, rows)

    assert [field.kind for field in learnt] == ["number", "boolean", "string", "datetime", "any", "any"]
    assert [field.is_nullable for field in learnt] == [True, False, False, True, True, True]
    assert learnt[2].categories == ("x", "y")
    assert {field.learnt_from for field in learnt} == {"Passed, example rows"}


def test_what_the_model_knows_is_not_overruled_by_rows():
    known = (Field("s", "string", categories=("a", "b"), is_closed=True, learnt_from="OneHotEncoder"), Field("n"))

    assert learn_fields(known, [["a", 1], ["a", 2]]) == known


def test_values_that_mostly_stand_alone_are_no_categories():
    (field,) = learn_fields([Field("name", "string")], [["Ann"], ["Bob"], ["Cyd"], ["Ann"]])

    assert field.categories is None


def test_the_example_is_no_row_of_the_data():
    fields = (Field("age"), Field("plan", "string", categories=("a", "b")), Field("is_new", "boolean"))
    rows = [[20.0, "b", True], [30.0, "b", True], [50.00001, "a", True], [None, "b", None], [31, "b", True]]

    assert example_of(fields, rows) == {"age": 30.5, "plan": "b", "is_new": False}
    assert example_of((Field("name", "string"),), [["Ann"]]) is None
