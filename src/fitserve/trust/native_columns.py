"""The invariants of what makes sparse columns: a column beyond the width of a matrix writes other memory.

scikit-learn puts the columns that a model names into sparse matrices whose width it takes from elsewhere
in the model, and scipy's compiled code (sparsetools) trusts them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fitserve.trust.arrays import wanted

MAX_COLUMNS = 1 << 31


def check_vocabulary(estimator: Any) -> None:
    """Check CountVectorizer, DictVectorizer and MultiLabelBinarizer: columns lie within the width."""
    for name in ("vocabulary_", "_cached_dict"):
        columns = vars(estimator).get(name)
        if columns is None:
            continue
        wanted(type(columns) is dict, "a vocabulary is none")
        numbers = columns.values()
        is_whole = all(type(number) is int or isinstance(number, np.integer) for number in numbers)
        wanted(is_whole, "a vocabulary has other columns than numbers")
        wanted(not numbers or 0 <= min(numbers) <= max(numbers) < len(columns), "a vocabulary's column lies outside")


def check_hasher(hasher: Any) -> None:
    """Check FeatureHasher (_hashing_fast.pyx: ``abs(h) % n_features``)."""
    n_features = vars(hasher).get("n_features")
    is_number = isinstance(n_features, int | np.integer) and 1 <= n_features < MAX_COLUMNS
    wanted(is_number, "a hasher has no number of features")


def check_one_hot(encoder: Any) -> None:
    """Check OneHotEncoder (_encoders.py: ``transform``): each category has a column of its feature."""
    state = vars(encoder)
    widths, categories = state.get("_n_features_outs"), state.get("categories_")
    if widths is None or categories is None:
        return
    dropped = state.get("_drop_idx_after_grouping")
    dropped = [None] * len(categories) if dropped is None else list(dropped)
    mappings = (
        state["_default_to_infrequent_mappings"] if state.get("_infrequent_enabled") else [None] * len(categories)
    )
    wanted(len(widths) == len(categories) == len(dropped) == len(mappings), "an encoder has other features")
    for width, values, drop, mapping in zip(widths, categories, dropped, mappings, strict=True):
        wanted(_is_sorted(values), "an encoder's categories are not in order")
        n_codes = len(values)
        if mapping is not None:
            is_mapping = isinstance(mapping, np.ndarray) and mapping.dtype.kind in "iu" and mapping.shape == (n_codes,)
            wanted(is_mapping and n_codes and mapping.min() >= 0, "an encoder's rare categories")
            n_codes = int(mapping.max()) + 1
        wanted(drop is None or 0 <= drop < n_codes, "an encoder drops a category that it does not have")
        wanted(width == n_codes - (drop is not None), "an encoder has other columns than categories")


def _is_sorted(values: Any) -> bool:
    """Whether ``searchsorted`` finds each category at its own place; texts and objects are looked up otherwise."""
    if not isinstance(values, np.ndarray) or values.ndim != 1:
        return False
    if values.dtype.kind in "OUS":
        return True
    n_missing = int(np.count_nonzero(values != values))  # noqa: PLR0124 - NaN and NaT
    known = values[: len(values) - n_missing]
    return bool(np.all(known[:-1] < known[1:])) and not np.any(known != known)  # noqa: PLR0124
