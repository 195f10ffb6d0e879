"""Tables like those that people fit on: mixed types, nulls, dates, texts; and their rows as JSON has them."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

N = 160


def passengers() -> pd.DataFrame:
    """Like the passengers of the Titanic: numbers with nulls, strings, booleans, integers, categories, dates, texts."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "pclass": rng.integers(1, 4, N),
            "sex": rng.choice(["male", "female"], N),
            "age": rng.normal(30, 12, N).round(1),
            "sibsp": rng.integers(0, 5, N),
            "fare": rng.lognormal(3, 1, N).round(2),
            "alone": rng.random(N) > 0.5,
            "embarked": rng.choice(["S", "C", "Q"], N),
            "deck": pd.Categorical(rng.choice(list("ABC"), N)),
            "zone": pd.Categorical(rng.choice([1, 2, 5], N)),
            "booked": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 5, N), unit="D"),
            "note": rng.choice(["good film", "bad film", "nice old play", "dull play"], N),
        }
    )
    frame.loc[rng.random(N) < 0.2, "age"] = np.nan
    frame.loc[rng.random(N) < 0.1, "embarked"] = None
    return frame


def target(kind: str = "int") -> np.ndarray:
    """Two classes by kind of label, three classes, or a value."""
    frame = passengers()
    score = (frame.sex == "female") * 2.0 + frame.fare / 40 + (frame.alone & (frame.pclass == 1))
    yes = (score > score.median()).to_numpy()
    three = np.digitize(score, score.quantile([0.33, 0.66]))
    return {
        "int": yes.astype(int),
        "bool": yes,
        "str": np.where(yes, "survived", "died"),
        "three": three,
        "three str": np.array(["first", "second", "third"])[three],
        "value": score.to_numpy(),
        "two values": np.column_stack([score, -score]),
        "several": np.column_stack([yes, three > 0]).astype(int),
        "two str": np.column_stack([np.where(yes, "y", "n"), np.array(["a", "b", "c"])[three]]).astype(object),
    }[kind]


def plain(value: object) -> object:
    """A cell as a JSON decoder gives it."""
    if value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, pd.Timestamp | np.datetime64):
        return pd.Timestamp(value).isoformat()
    return value.item() if isinstance(value, np.generic) else value


def records(table: object) -> list:
    """The rows of a frame as objects, of a matrix as lists, of texts as lists of one."""
    if isinstance(table, pd.DataFrame):
        columns = {name: list(map(plain, table[name].tolist())) for name in table.columns}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    rows = np.asarray(table, dtype=object) if isinstance(table, list) else np.asarray(table)
    return [list(map(plain, row)) if rows.ndim > 1 else [plain(row)] for row in rows.tolist()]
