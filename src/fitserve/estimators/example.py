"""A row like those of the fitting, for examples and trials, made of what a fitted step keeps of its data."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice, product
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fitserve.estimators.walk import FEW, attribute

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fitserve.signature import Field, Kind, Label

_PLACES_IN_THE_DATA = (
    "_fit_X", "mean_", "center_", "data_min_", "statistics_",
    "theta_", "means_", "cluster_centers_", "support_vectors_",
)  # fmt: skip
"""Attributes in which a fitted estimator keeps rows of its data, or the middle of them.

Only their mean is used: a row itself may be somebody's, and the example is public.
"""


def typical_row(step: Any, n_features: int) -> tuple[float, ...] | None:
    """A row like those of the fitting, to four digits, if the step keeps anything to make one of."""
    for name in _PLACES_IN_THE_DATA:
        value = attribute(step, name)
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiu" and value.shape[-1:] == (n_features,):
            return _rounded(value.reshape(-1, n_features).mean(axis=0))
    trees = [tree for part in _trees(step) if hasattr(tree := attribute(part, "tree_"), "threshold")]
    if not trees:
        return None
    splits, thresholds = (np.concatenate([getattr(tree, name) for tree in trees]) for name in ("feature", "threshold"))
    found = [thresholds[splits == i] for i in range(n_features)]
    return _rounded(np.array([np.median(values) if len(values) else 0.0 for values in found]))


def _trees(step: Any) -> list[Any]:
    """The step itself, or the first few estimators that it is made of."""
    parts = attribute(step, "estimators_")
    return [step] if parts is None else list(np.asarray(parts, dtype=object).ravel()[:FEW])


def _rounded(row: Any) -> tuple[float, ...] | None:
    return tuple(float(f"{value:.4g}") for value in row) if np.isfinite(row).all() else None


_ANYTHING: tuple[tuple[Kind, Label], ...] = (("any", 1.0), ("any", "a"), ("datetime", "2026-01-31T12:00:00Z"))
"""What a column of unknown kind may be given, and what it then is."""

MAX_MIXTURES = 32
"""As many mixtures of numbers, texts and dates are tried in columns of unknown kind."""

Candidate: TypeAlias = "tuple[tuple[Field, ...], tuple[Label | None, ...]]"


def candidates(fields: Sequence[Field], typical: Sequence[float | None]) -> Iterator[Candidate]:
    """Rows that a model may answer, the likeliest first, with the columns that they are rows of.

    Zeros are nothing to a logarithm, have no neighbours in most data, and say nothing to a function that
    reads a text or a date. Columns that the same step takes are taken to be alike.
    """
    own = tuple(fields)
    zeros = tuple(field.example for field in own)
    middle = tuple(
        zero if value is None or field.categories else value
        for field, value, zero in zip(own, typical, zeros, strict=True)
    )
    ones = tuple(1.0 if value == 0.0 and not isinstance(value, bool) else value for value in zeros)
    # An empty text has no words.
    rows = [middle, zeros, ones, *(tuple("a" if value == "" else value for value in row) for row in (middle, ones))]
    for row in dict.fromkeys(rows):
        yield own, row
    groups = list(dict.fromkeys(field.learnt_from for field in own if field.kind == "any" and not field.categories))
    for choice in islice(product(_ANYTHING, repeat=len(groups)), 1, MAX_MIXTURES if groups else 1):
        chosen = dict(zip(groups, choice, strict=True))
        is_chosen = [field.kind == "any" and not field.categories for field in own]
        kinds = tuple(
            replace(f, kind=chosen[f.learnt_from][0]) if is_one else f for f, is_one in zip(own, is_chosen, strict=True)
        )
        yield (
            kinds,
            tuple(
                chosen[field.learnt_from][1] if is_one else value
                for field, value, is_one in zip(own, rows[3], is_chosen, strict=True)
            ),
        )
