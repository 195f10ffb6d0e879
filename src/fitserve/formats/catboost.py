"""CatBoost models saved as ``.cbm``.

They hold no code and know their class labels. CatBoost verifies the tables of the file itself, but not
every index in them: the numbers that it will allocate for are checked before, and the rest is why a
file is first loaded in a confined process.
Source: https://catboost.ai/docs/en/concepts/python-reference_catboost_save_model
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from fitserve.errors import ArtifactError
from fitserve.estimators.model import EstimatorModel
from fitserve.formats.base import Format, require
from fitserve.trust.native_catboost import MAGIC, check_catboost

if TYPE_CHECKING:
    from fitserve.trust.policy import TrustPolicy
    from fitserve.types import Artifact

_JSON_HEAD = re.compile(rb'\s*\{\s*"(ctr_data|features_info|model_info|oblivious_trees|trees)"\s*:')
_CLASSIFIERS = ("Logloss", "CrossEntropy", "MultiClass", "MultiClassOneVsAll", "MultiLogloss", "MultiCrossEntropy")


def matches(artifact: Artifact) -> bool:
    """Whether the bytes start like a model of CatBoost."""
    return artifact.data[:4] == MAGIC or _JSON_HEAD.match(artifact.data[:256]) is not None


def prepare() -> None:
    """Import CatBoost."""
    require("catboost", "catboost")


def load(artifact: Artifact, policy: TrustPolicy) -> EstimatorModel:  # noqa: ARG001 - it holds no code
    """Load a model in the wrapper that fits its objective.

    Raises:
        ArtifactError: CatBoost is missing, or the file is damaged, or is the JSON that CatBoost
            reads from a path only.
    """
    catboost = require("catboost", "catboost")
    if artifact.data[:4] != MAGIC:
        msg = "is a CatBoost model as JSON, which CatBoost reads from a path only: save it as .cbm"
        raise ArtifactError(msg)
    check_catboost(artifact.data)
    try:
        estimator = _load(catboost, artifact.data)
    except Exception as exc:
        raise ArtifactError(f"is damaged, or no CatBoost model: {explain(exc)}") from exc
    return EstimatorModel(estimator, declared=artifact.declared)


def _load(catboost: Any, data: bytes) -> Any:
    loaded = catboost.CatBoost()
    loaded.load_model(blob=data)
    objective = str(loaded.get_all_params().get("loss_function", ""))
    loss = objective.partition(":")[0]
    if loss in _CLASSIFIERS:
        estimator = catboost.CatBoostClassifier()
    elif loaded._is_ranking_objective(loss):  # noqa: SLF001 - CatBoost says it nowhere else
        estimator = catboost.CatBoostRanker()
    else:
        # By the parameter it answers Poisson and Tweedie with values, and not with their logarithms.
        estimator = catboost.CatBoostRegressor(loss_function=objective or None)
    estimator.load_model(blob=data)
    return estimator


def explain(exc: BaseException) -> str:
    """What an error of CatBoost says: without the file, the line and the trace of its C++."""
    text = re.sub(r"^\S+\.(cpp|h|pyx):\d+:\s*", "", str(exc).strip())
    text = re.sub(r"(?:/[\w.-]+)+", "", text.splitlines()[0] if text else "").strip()
    return text[:200] or type(exc).__name__


FORMAT = Format(name="catboost", suffixes=(".cbm",), matches=matches, load=load, prepare=prepare)
