"""From a checked row to the key of its answer."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from fitserve.signature import Inputs

KEY_BYTES = 16
"""128 bits: two rows with one key would have to be looked for among 2^64.

Source: https://www.rfc-editor.org/rfc/rfc7693#section-4 (BLAKE2b-128 has 64 bits of collision resistance)
"""

CELL_BYTES = 8
"""A number is a float64, a date a datetime64."""


class RowKeys:
    """Makes the keys of the rows that one version answers.

    A key is a digest of the version and of the row's values as they were checked, bit by bit: the
    same row has the same key as a list, as an object and in columns, alone and in a batch; 0.0 and
    -0.0 have two, as have 1, 1.0, true, ``"1"`` and null in a column of anything. Every NaN is one.

    Args:
        context: what an answer hangs on besides the row. Two lists that differ by ``repr`` share no key.
        has_missing: whether a number may be NaN.
    """

    def __init__(self, context: Iterable[object], *, has_missing: bool) -> None:
        secret = blake2b(repr(tuple(context)).encode(), digest_size=32).digest()
        self._start = blake2b(digest_size=KEY_BYTES, key=secret)
        self._has_missing = has_missing

    def __call__(self, inputs: Inputs) -> list[bytes]:
        """Return the key of each row, :data:`KEY_BYTES` long; one row at least."""
        if not isinstance(inputs, dict):
            return self._digests(_rows(self._numbers(inputs)))
        columns = list(inputs.values())
        bits = [
            (self._numbers(column) if column.dtype == np.float64 else column).view(np.int64)
            for column in columns
            if column.dtype != object
        ]
        X = np.empty((len(columns[0]), len(bits)), dtype=np.int64)
        for i, column in enumerate(bits):
            X[:, i] = column
        rows = _rows(X)
        objects = [column.tolist() for column in columns if column.dtype == object]
        if objects:
            # Python's notation tells all types apart and where each value ends; what comes before it is
            # equally long in every row of a version.
            texts = map(repr, zip(*objects, strict=True))
            rows = [row + text.encode() for row, text in zip(rows, texts, strict=True)]
        return self._digests(rows)

    def _numbers(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        """The same numbers, with one of all the bits that mean NaN."""
        if not self._has_missing:
            return X
        missing = np.isnan(X)
        return np.where(missing, np.nan, X) if missing.any() else X

    def _digests(self, rows: list[bytes]) -> list[bytes]:
        keys = []
        for row in rows:
            digest = self._start.copy()
            digest.update(row)
            keys.append(digest.digest())
        return keys


def _rows(X: NDArray[Any]) -> list[bytes]:
    """The bytes of each row of a matrix whose cells have :data:`CELL_BYTES`."""
    data, width = X.tobytes(), X.shape[1] * CELL_BYTES
    return [data[i : i + width] for i in range(0, len(data), width)] if width else [b""] * len(X)
