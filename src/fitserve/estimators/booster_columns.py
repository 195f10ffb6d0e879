"""The input columns of LightGBM, XGBoost and CatBoost models: names, types and categories as the boosters keep them."""

from __future__ import annotations

import json
import re
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Any

from fitserve.errors import ArtifactError
from fitserve.estimators.boosters import lightgbm_head
from fitserve.estimators.columns import Column, level_column
from fitserve.estimators.walk import attribute
from fitserve.signature import Field

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAX_ASSIGNMENTS = 20_000
"""As many ways to match lists of categories with columns are looked at; one is enough unless columns are ordered."""


def booster_columns(step: Any, names: Sequence[str]) -> dict[str, Column] | None:
    """The columns of a booster or its wrapper, by the ``names`` that they shall have; None for any other step."""
    readers: dict[str, Callable[[Any], list[Column]]] = {
        "lightgbm": _lightgbm_columns,
        "xgboost": _xgboost_columns,
        "catboost": _catboost_columns,
    }
    library = next((root for kind in type(step).__mro__ if (root := kind.__module__.partition(".")[0]) in readers), "")
    if hasattr(step, "booster_") and not library:
        library = "lightgbm"  # our adapter
    if not library:
        return None
    columns = readers[library](step)
    if len(columns) != len(names):
        return None
    return {name: column.renamed(name) for name, column in zip(names, columns, strict=True)}


def _plain(name: str, origin: str) -> Column:
    return Column(Field(name, "numeric", is_nullable=True, learnt_from=origin))


def _lightgbm_columns(step: Any) -> list[Column]:
    booster = step.booster_
    head = attribute(step, "head") or lightgbm_head(booster)
    infos = _line(head, r"^feature_infos=(.*)$").split(" ")
    declared = _line(head, r"^\[categorical_feature: ([\d,]*)\]$")
    coded = {int(part) for part in declared.split(",") if part}
    coded |= {i for i, info in enumerate(infos) if ":" in info and not info.startswith("[")}
    origin = type(step).__name__ if type(step).__module__.startswith("lightgbm") else "Booster"
    names = booster.feature_name()
    columns = [_plain(name, origin) for name in names]
    for i in coded:
        columns[i] = Column(
            Field(names[i], "numeric", is_nullable=True, learnt_from=f"categorical_feature of {origin}")
        )
    lists = booster.pandas_categorical or []
    for i, levels in zip(_places(lists, infos, coded), lists, strict=True):
        columns[i] = level_column(names[i], levels, f"pandas_categorical of {origin}")
    return columns


def _line(text: str, pattern: str) -> str:
    found = re.search(pattern, text, re.MULTILINE)
    return found[1] if found else ""


def _places(lists: Sequence[Sequence[Any]], infos: Sequence[str], coded: set[int]) -> tuple[int, ...]:
    """The columns that lists of categories belong to, in their order.

    The file lists the categories, and not of which columns: those whose codes are split as categories, if
    they are as many; else also ordered ones, which are split as numbers, where the range of codes fits.
    """
    if len(coded) == len(lists):
        return tuple(sorted(coded))
    fitting = [i for i in range(len(infos)) if any(_may_be_codes(infos[i], len(levels)) for levels in lists)]
    best: tuple[int, tuple[int, ...]] | None = None
    for count, places in enumerate(combinations(fitting, len(lists))):
        if count > MAX_ASSIGNMENTS:
            break
        if all(_may_be_codes(infos[i], len(levels)) for i, levels in zip(places, lists, strict=True)):
            score = 2 * len(coded.intersection(places)) + sum(
                _largest_code(infos[i]) == len(levels) - 1 for i, levels in zip(places, lists, strict=True)
            )
            if best is None or score > best[0]:
                best = score, places
    if best is None:
        msg = "lists categories of pandas columns that fit none of its features: save it again with this LightGBM"
        raise ArtifactError(msg)
    return best[1]


def _may_be_codes(info: str, n_levels: int) -> bool:
    """Whether the range of a feature is one of codes 0 to ``n_levels`` - 1."""
    if info == "none":  # it was never split
        return True
    largest = _largest_code(info)
    return largest is not None and 0 <= largest < n_levels


def _largest_code(info: str) -> int | None:
    if info.startswith("["):
        low, high = (float(part) for part in info.strip("[]").split(":"))
        return int(high) if low >= 0 and low.is_integer() and high.is_integer() else None
    codes = [int(part) for part in info.split(":") if re.fullmatch(r"-?\d+", part)]
    return max(codes, default=None)


def _xgboost_columns(step: Any) -> list[Column]:
    booster = step.get_booster()
    origin = type(step).__name__
    n_features = int(booster.num_features())
    names = booster.feature_names or [f"x{i}" for i in range(n_features)]
    kinds = booster.feature_types
    if kinds is None:
        return [_plain(name, origin) for name in names]
    categories = _xgboost_categories(booster) if "c" in kinds else {}
    origin = f"feature_types of {origin}"
    columns = []
    for i, (name, kind) in enumerate(zip(names, kinds, strict=True)):
        if kind == "c" and i in categories:
            columns.append(level_column(name, categories[i], origin, is_closed=True))
        elif kind == "i":
            columns.append(Column(Field(name, "boolean", is_nullable=True, learnt_from=origin), is_float=True))
        else:
            columns.append(Column(Field(name, "number", is_nullable=True, learnt_from=origin)))
    return columns


def _xgboost_categories(booster: Any) -> dict[int, list[Any]]:
    """The categories by the position of their feature; the library's own way to them needs pyarrow."""
    learner = json.loads(booster.save_raw("json"))["learner"]["gradient_booster"]
    model = learner.get("model") or learner.get("gbtree", {}).get("model") or {}
    found: dict[int, Any] = {}
    for i, encoding in enumerate((model.get("cats") or {}).get("enc", [])):
        values, offsets = encoding["values"], encoding.get("offsets")
        if offsets:
            text = bytes(value % 256 for value in values)
            found[i] = [text[a:b].decode() for a, b in pairwise(offsets)]
        elif values:
            found[i] = values
    return found


def _catboost_columns(step: Any) -> list[Column]:
    origin = type(step).__name__
    hashed, texts = set(step.get_cat_feature_indices()), set(step.get_text_feature_indices())
    columns = []
    for i, name in enumerate(step.feature_names_):
        if i in hashed:
            field = Field(name, "any", learnt_from=f"cat_features of {origin}")
            columns.append(Column(field, is_hashed=True))
        elif i in texts:
            columns.append(Column(Field(name, "string", learnt_from=f"text_features of {origin}")))
        else:
            columns.append(_plain(name, origin))
    return columns
