"""The tables, options and pieces of pipelines that the models of the corpus share."""

from __future__ import annotations

import pandas as pd
from estimators.tables import passengers, target
from sklearn.compose import ColumnTransformer
from sklearn.experimental import enable_iterative_imputer  # noqa: F401 - makes the import below work
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    OneHotEncoder,
    StandardScaler,
)

T = passengers()
NUMBERS = ["age", "fare", "sibsp"]
STRINGS = ["sex", "embarked"]
SMALL = {"n_estimators": 4, "n_jobs": 1}
LGBM = {**SMALL, "verbose": -1, "min_child_samples": 5}
CAT = {"iterations": 4, "verbose": 0, "allow_writing_files": False, "thread_count": 1}
DULL = T[NUMBERS].fillna(0.0)


def encoded(unknown="ignore", **more) -> ColumnTransformer:
    """The pipeline of most tutorials."""
    return ColumnTransformer(
        [
            ("num", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), NUMBERS),
            (
                "cat",
                make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown=unknown)),
                STRINGS,
            ),
        ],
        **more,
    )


def passing() -> ColumnTransformer:
    """A frame in, a frame out, all but one column as they were."""
    return ColumnTransformer([("num", SimpleImputer(), ["age"])], remainder="passthrough").set_output(
        transform="pandas"
    )


def as_objects(table: pd.DataFrame) -> pd.DataFrame:
    """With strings as objects and None for a null: what pandas 2 made."""
    return table.astype({name: object for name in table.columns if table[name].dtype == "str"}).where(
        table.notna(), None
    )


FORMS = T[[*NUMBERS, *STRINGS]]
MIXED = T[[*NUMBERS, *STRINGS, "alone", "pclass"]]
LEVELS = T[["age", "fare", "alone", "deck", "zone"]]
BOOLS = T[["fare", "alone", "pclass"]]


def fitted_on(model, table, kind):
    return (model.fit(table) if kind is None else model.fit(table, target(kind))), table
