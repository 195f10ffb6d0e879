"""Example rows of an author: read from a file, and what they tell of the columns."""

from __future__ import annotations

import csv
import importlib
import io
import math
import re
from collections import Counter
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

import orjson

from fitserve.errors import ArtifactError, clip, did_you_mean
from fitserve.signature import Field, Kind, count
from fitserve.signature.datetimes import instant
from fitserve.store.files import Folder, open_path

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fitserve.signature import Label, Signature

MAX_EXAMPLE_ROWS = 100_000
"""Rows that are read of a file; those after it are passed over."""

MOST_CATEGORIES = 30
"""A text column of more distinct values is taken for free text, or for an identifier."""

ORIGIN = "example rows"
SUFFIXES = (".csv", ".json", ".jsonl", ".parquet")

# As JSON spells numbers, so that leading zeros stay text: "00123" is a code, not 123.
_NUMBER = re.compile(r"[+-]?(0|[1-9]\d*)(\.\d*)?([eE][+-]?\d+)?|[+-]?\.\d+([eE][+-]?\d+)?", re.ASCII)
_BOOLEANS = {"true": True, "false": False}
_MORE_BOOLEANS = {**_BOOLEANS, "yes": True, "no": False, "1": True, "0": False}
_NO_NUMBER = frozenset({"nan", "na", "n/a", "null", "none"})
"""What stands for no number in tables that pandas, R or SQL has written. A text such as NA is left as it is."""


@dataclass(frozen=True, slots=True)
class Examples:
    """Rows of a file.

    Attributes:
        rows: each an object by column name, or a list where the file names no columns.
        is_text: every value is text or null, as in CSV: the model says what is a number.
    """

    rows: Sequence[Any]
    is_text: bool = False


def read_examples(path: Path) -> Examples:
    """Read rows from a CSV, JSON, JSON Lines or Parquet file, by its suffix.

    Raises:
        ArtifactError: the file cannot be read, is none of these, or holds no rows. Text follows the file's name.
    """
    data = open_path(path)
    if isinstance(data, Folder):
        with data:
            msg = "is a folder: wanted a file of rows"
            raise ArtifactError(msg)
    suffix = path.suffix.lower()
    try:
        match suffix:
            case ".csv":
                examples = Examples(_csv(data.decode("utf-8-sig")), is_text=True)
            case ".json":
                examples = Examples(_json(orjson.loads(data)))
            case ".jsonl" | ".ndjson":
                examples = Examples([orjson.loads(line) for line in data.splitlines() if line.strip()])
            case ".parquet":
                examples = Examples(_parquet(data))
            case _:
                msg = f"ends in {suffix!r}: wanted one of {', '.join(SUFFIXES)}"
                raise ArtifactError(msg)
    except UnicodeDecodeError:
        msg = "is not in UTF-8: save it again in this encoding"
        raise ArtifactError(msg) from None
    except (orjson.JSONDecodeError, csv.Error) as exc:
        msg = f"cannot be read as {suffix.removeprefix('.')}: {exc}"
        raise ArtifactError(msg) from exc
    kinds = set(map(type, examples.rows))
    if kinds not in ({dict}, {list}):
        msg = "holds no rows: wanted objects by column name, or lists of values" if not kinds else "mixes kinds of rows"
        raise ArtifactError(msg)
    return replace(examples, rows=examples.rows[:MAX_EXAMPLE_ROWS])


def _csv(text: str) -> list[Any]:
    head = text.partition("\n")[0]
    table = [row for row in csv.reader(io.StringIO(text), delimiter=max(",;\t", key=head.count)) if row]
    if not table:
        return []
    header = table[0]
    for i, row in enumerate(table):
        if len(row) != len(header):
            msg = f"has {len(row)} cells in row {i} and {len(header)} in its first"
            raise ArtifactError(msg)
    if not header[0] and any(header):  # the index of a pandas frame
        table = [row[1:] for row in table]
        header = table[0]
    cells = [[cell or None for cell in row] for row in table]
    if all(_NUMBER.fullmatch(cell) for cell in header):  # no names, but a row of the data
        return cells
    if len(set(header)) < len(header):
        msg = "names a column twice"
        raise ArtifactError(msg)
    return [dict(zip(header, row, strict=True)) for row in cells[1:]]


def _json(document: Any) -> list[Any]:
    if isinstance(document, dict):  # columns
        # pandas gives each column as an object by its index.
        columns = [list(part.values()) if isinstance(part, dict) else part for part in document.values()]
        if not all(isinstance(column, list) and len(column) == len(columns[0]) for column in columns):
            msg = "is a JSON object, but not one of columns of one length"
            raise ArtifactError(msg)
        return [dict(zip(document, row, strict=True)) for row in zip(*columns, strict=True)]
    return document if isinstance(document, list) else []


def _parquet(data: bytes) -> list[Any]:
    try:
        pa = importlib.import_module("pyarrow")
        parquet = importlib.import_module("pyarrow.parquet")
    except ModuleNotFoundError:
        msg = "needs the package 'pyarrow' to be read, which is not installed here: pip install pyarrow"
        raise ArtifactError(msg) from None
    try:
        table = parquet.read_table(pa.BufferReader(data)).slice(0, MAX_EXAMPLE_ROWS)
    except pa.ArrowException as exc:
        msg = f"cannot be read as parquet: {exc}"
        raise ArtifactError(msg) from exc
    return [{name: _json_value(value) for name, value in row.items()} for row in table.to_pylist()]


def _json_value(value: Any) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return float(value) if hasattr(value, "as_tuple") else str(value)  # as_tuple: a decimal


def fit_rows(examples: Examples, signature: Signature) -> tuple[list[list[Any]], tuple[Field, ...], list[str]]:
    """Bring example rows into the order and the types of a model's columns.

    A model without names takes those of the rows, in the order of the rows.

    Returns:
        The rows as lists in the order of the fields; the fields as the model has them; names of columns that the
        model does not know and that were left out, a target among them.

    Raises:
        ArtifactError: a column is missing, or rows without names are of another length. Text follows the file's name.
    """
    first = examples.rows[0]
    header = list(first) if isinstance(first, dict) else [f"x{i}" for i in range(len(first))]
    fields = tuple(Field(name, "any") for name in header) if signature.is_open else signature.inputs
    names = [field.name for field in fields]
    unknown: list[str] = []
    if isinstance(first, dict) and (signature.is_named or set(names) <= set(header)):
        unknown = [name for name in header if name not in set(names)]
    else:
        if len(header) != len(names):
            msg = (
                f"has rows of {count(len(header), 'value')}: wanted {len(names)}, one for each feature and nothing else"
            )
            raise ArtifactError(msg)
        if isinstance(first, dict):
            fields = tuple(replace(field, name=name) for field, name in zip(fields, header, strict=True))
            names = header
    rows = [_in_order(row, names) for row in examples.rows]
    if examples.is_text:
        columns = [_typed(field, column) for field, column in zip(fields, zip(*rows, strict=True), strict=True)]
        rows = [list(row) for row in zip(*columns, strict=True)]
    return rows, fields, unknown


def _in_order(row: Any, names: Sequence[str]) -> list[Any]:
    if isinstance(row, dict):
        if missing := next((name for name in names if name not in row), None):
            hint = did_you_mean(missing, row)
            msg = f"lacks the column {clip(missing)!r} of the model" + (f"; {hint}" if hint else "")
            raise ArtifactError(msg)
        return [row[name] for name in names]
    if len(row) != len(names):
        msg = f"has a row of {count(len(row), 'value')}: wanted {len(names)}, one for each feature and nothing else"
        raise ArtifactError(msg)
    return list(row)


def _typed(field: Field, column: Sequence[str | None]) -> list[Any]:
    """Text as the values that the model's column takes; what it says are strings stay as they are."""
    if field.kind in {"string", "datetime"}:
        return list(column)
    told = [cell for cell in column if cell is not None]
    if field.categories and any(isinstance(label, str) for label in field.categories):
        texts = {label for label in field.categories if isinstance(label, str)}
        return [cell if cell is None or cell in texts else _value(cell) for cell in column]
    if field.kind == "boolean":
        return [cell if cell is None else _MORE_BOOLEANS.get(cell.lower(), cell) for cell in column]
    if field.kind in {"number", "numeric"}:
        column = [None if cell is None or cell.strip().lower() in _NO_NUMBER else cell.strip() for cell in column]
        told = [cell for cell in column if cell is not None]
        if field.kind == "number" and (wrong := next((cell for cell in told if isinstance(_value(cell), str)), None)):
            row = column.index(wrong)
            msg = f"has a text in row {row}, column {clip(field.name)!r}: wanted a number, spelt like 1234.5"
            raise ArtifactError(msg)
    # A column of which the model says no more is of numbers if each of its cells is one.
    if field.kind in {"any", "numeric"} and not (
        all(_NUMBER.fullmatch(cell) for cell in told) or all(cell.lower() in _BOOLEANS for cell in told)
    ):
        return list(column)
    return [None if cell is None else _value(cell) for cell in column]


def _value(cell: str) -> Label:
    if _NUMBER.fullmatch(cell):
        return float(cell) if re.search("[.eE]", cell) else int(cell)
    return _BOOLEANS.get(cell.lower(), cell)


def learn_fields(fields: Sequence[Field], rows: Sequence[Sequence[Any]]) -> tuple[Field, ...]:
    """What rows tell of columns, over what the model tells: kinds that it leaves open, nulls, few categories.

    A kind that the model does know is not changed, but from number to boolean where every example is one.
    """
    return tuple(_learnt(field, column) for field, column in zip(fields, zip(*rows, strict=True), strict=True))


def _learnt(field: Field, column: Sequence[Any]) -> Field:
    values = [value for value in column if value is not None]
    kind = _kind(field.kind, values)
    categories = field.categories
    if categories is None and kind == "string":
        found = Counter(values)
        # Values that mostly stand alone may be names of people: they are told to nobody.
        if len(found) <= MOST_CATEGORIES and all(isinstance(v, str) for v in found) and 2 * len(found) <= len(values):
            categories = tuple(sorted(found))
    learnt = replace(
        field, kind=kind, is_nullable=field.is_nullable or len(values) < len(column), categories=categories
    )
    if learnt == field:
        return field
    return replace(learnt, learnt_from=", ".join(filter(None, (field.learnt_from, ORIGIN))))


def _kind(known: Kind, values: Sequence[Any]) -> Kind:
    kinds = set(map(type, values))
    if not kinds or known in {"string", "boolean", "datetime"}:
        return known
    if kinds == {bool}:
        return "boolean"
    if kinds <= {int, float}:
        return "number"
    if kinds <= {int, float, bool}:
        return "numeric"
    if known == "any" and kinds == {str}:
        return "datetime" if all(instant(value) is not None for value in values) else "string"
    return known


def example_of(fields: Sequence[Field], rows: Sequence[Sequence[Any]]) -> dict[str, Label] | None:
    """A row that may be public: medians, most frequent categories; never a row of the data itself.

    None where a column is text that is not one of few.
    """
    row: dict[str, Label] = {}
    for field, column in zip(fields, zip(*rows, strict=True), strict=True):
        values = [value for value in column if value is not None]
        if field.categories is not None:
            known = [value for value in values if value in field.categories]
            row[field.name] = Counter(known).most_common(1)[0][0] if known else field.example
        elif field.kind in {"number", "numeric"} and values and not any(isinstance(v, str) for v in values):
            row[field.name] = float(f"{median(values):.4g}")
        elif field.kind in {"boolean", "datetime"}:
            row[field.name] = field.example
        else:
            return None
    return row
