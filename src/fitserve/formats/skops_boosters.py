"""Boosters inside skops files: their native models are looked at before XGBoost or LightGBM sees them."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from fitserve.errors import ArtifactError
from fitserve.trust.native_lightgbm import check_lightgbm
from fitserve.trust.native_xgboost import check_xgboost

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    Nodes = Mapping[Hashable, Sequence[Any]]

LIGHTGBM, XGBOOST = "lightgbm.basic.Booster", "xgboost.core.Booster"
_MODEL_KEYS = frozenset({"handle", "_handle"})
"""What the boosters keep their native model under."""


def check_boosters(members: Mapping[str, bytes], schema: str) -> None:
    """Check the native model of every booster in an archive.

    skops takes a node for the object of any earlier one with the same ``__id__``: what is looked at here
    must be what is restored, so that such nodes must be equal.

    Raises:
        ArtifactError: a native library would read other memory, or the file is not as skops writes it.
    """
    waiting: list[Any] = [json.loads(members[schema])]
    by_id: defaultdict[Hashable, list[Any]] = defaultdict(list)
    boosters = []
    while waiting:
        node = waiting.pop()
        waiting += node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        if not isinstance(node, dict):
            continue
        if isinstance(node.get("__id__"), int | float | str):
            by_id[node["__id__"]].append(node)
        elif node.get("__id__") is not None:
            raise _odd()
        if _name(node) in {LIGHTGBM, XGBOOST} and node.get("__loader__") != "TypeNode":
            boosters.append(node)
    for node in boosters:
        _check(node, members, by_id)


def _check(node: Any, members: Mapping[str, bytes], by_id: Nodes) -> None:
    state = _itself(node.get("content"), "builtins.dict DictNode", by_id)
    keys = _itself(state.get("key_types"), "builtins.list ListNode", by_id)
    attributes, key_types = state.get("content"), keys.get("content")
    if not isinstance(attributes, dict) or not isinstance(key_types, list):
        raise _odd()
    for key_type in key_types:
        _itself(key_type, "builtins.str TypeNode", by_id)
    models = [attributes[key] for key in _MODEL_KEYS & attributes.keys()]
    if len(models) != 1:
        raise _odd()
    if _name(node) == LIGHTGBM:
        text = json.loads(_itself(models[0], "builtins.str JsonNode", by_id).get("content", "null"))
        if not isinstance(text, str):
            raise _odd()
        check_lightgbm(text.encode())
    else:
        file = _itself(models[0], "builtins.bytearray BytearrayNode", by_id).get("file")
        if not isinstance(file, str) or file not in members:
            raise _odd()
        check_xgboost(members[file])


def _name(node: Any) -> str:
    return f"{node.get('__module__')}.{node.get('__class__')}"


def _itself(node: Any, kind: str, by_id: Nodes) -> Any:
    """A node of the kind, which no other node with its ``__id__`` stands for."""
    is_kind = isinstance(node, dict) and f"{_name(node)} {node.get('__loader__')}" == kind
    if not is_kind or any(other != node for other in by_id.get(node.get("__id__"), ())):
        raise _odd()
    return node


def _odd() -> ArtifactError:
    return ArtifactError(
        "is refused: it holds a booster in a way in which skops does not save it; "
        "save it in its own format: XGBoost as .ubj, LightGBM as text, CatBoost as .cbm"
    )
