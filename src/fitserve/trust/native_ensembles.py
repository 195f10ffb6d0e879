"""What the ensembles of scikit-learn hand to compiled code that other parts of the model made."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from fitserve.trust.arrays import wanted

_ENCODER = "sklearn.preprocessing._encoders.OrdinalEncoder"
_FUNCTION = "sklearn.preprocessing._function_transformer.FunctionTransformer"


def check_first_guess(boosting: Any, n_trees: int) -> None:
    """Check GradientBoosting's first guess (_gradient_boosting.pyx: ``predict_stages`` adds to ``n_trees`` columns).

    It is made, for two rows, to see its shape: how wide it is hangs on the guess and on the loss.
    """
    guess = vars(boosting).get("init_")
    if isinstance(guess, str) and guess == "zero":
        return
    rows = np.zeros((2, vars(boosting)["n_features_in_"]), dtype=np.float32)
    made = boosting._raw_predict_init(rows)  # noqa: SLF001 - no public way
    is_table = isinstance(made, np.ndarray) and made.dtype == np.float64 and made.shape == (2, n_trees)
    wanted(is_table, "the first guess has other columns than the stages")


def check_preprocessor(boosting: Any, n_features: int) -> None:
    """Check that HistGradientBoosting's preprocessor keeps the number of features."""
    preprocessor = vars(boosting).get("_preprocessor")
    if preprocessor is None:
        return
    wanted(_name(preprocessor) == "sklearn.compose._column_transformer.ColumnTransformer", "a preprocessor is none")
    n_times = np.zeros(n_features, dtype=int)
    for name, transformer, columns in vars(preprocessor)["transformers_"]:
        if name == "remainder" and isinstance(transformer, str) and transformer == "drop":
            continue
        is_mask = isinstance(columns, np.ndarray) and columns.dtype == bool and columns.shape == (n_features,)
        wanted(is_mask and _keeps_columns(transformer), "a preprocessor changes the number of features")
        n_times += columns
    wanted(np.all(n_times == 1), "a preprocessor changes the number of features")


def _keeps_columns(transformer: Any) -> bool:
    if _name(transformer) != _FUNCTION:
        return _name(transformer) == _ENCODER
    func = vars(transformer).get("func")
    func = func.func if type(func) is partial else func
    return getattr(func, "__module__", "") == "sklearn.utils.validation" and func.__name__ == "check_array"


def _name(thing: object) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"
