"""What a model takes and gives, and the check of a table against it.

A table is checked by column, not by cell: one pass over the types of the values,
one over the finished array. Only a table that fails is walked cell by cell, to say
where it is wrong, and only until :data:`~fitserve.errors.MAX_ISSUES` are found.
"""

from fitserve.signature.fields import (
    EXACT_INTEGERS,
    MAX_MAGNITUDE,
    Field,
    Kind,
    Label,
    OutputName,
    count,
    describe,
    label_name,
)
from fitserve.signature.table import Inputs, Signature, Table, count_rows

__all__ = [
    "EXACT_INTEGERS",
    "MAX_MAGNITUDE",
    "Field",
    "Inputs",
    "Kind",
    "Label",
    "OutputName",
    "Signature",
    "Table",
    "count",
    "count_rows",
    "describe",
    "label_name",
]
