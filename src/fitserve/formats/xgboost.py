"""XGBoost models saved as JSON or UBJSON.

Both hold no code, but XGBoost believes every index in them: the file is checked before it sees it.
Source: https://xgboost.readthedocs.io/en/stable/tutorials/saving_model.html
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fitserve.errors import ArtifactError
from fitserve.estimators.boosters import adapt
from fitserve.estimators.model import EstimatorModel
from fitserve.formats.base import Format, require
from fitserve.trust.native_xgboost import check_xgboost

if TYPE_CHECKING:
    from fitserve.trust.policy import TrustPolicy
    from fitserve.types import Artifact

_JSON_HEAD = re.compile(rb'\s*\{\s*("version"\s*:\s*\[[\d,\s]{1,64}\]\s*,\s*)?"learner"\s*:')
_UBJSON_HEAD = re.compile(rb"\{L\0\0\0\0\0\0\0\x07(learner|version)")
# The format that XGBoost 3.1 gave up: a mark, or 136 bytes of numbers, then the objective's length and name.
_OLD_HEAD = re.compile(rb"binf|[\s\S]{136}[\x08-\x28]\0{7}(reg|binary|multi|rank|count|survival):[a-z]")


def matches(artifact: Artifact) -> bool:
    """Whether the bytes start like a model of XGBoost."""
    head = artifact.data[:512]
    return any(pattern.match(head) for pattern in (_JSON_HEAD, _UBJSON_HEAD, _OLD_HEAD))


def prepare() -> None:
    """Import XGBoost."""
    require("xgboost", "xgboost")


def load(artifact: Artifact, policy: TrustPolicy) -> EstimatorModel:  # noqa: ARG001 - it holds no code
    """Load a booster, in the wrapper that fits its objective: answers are those of the pickled wrapper.

    Raises:
        ArtifactError: XGBoost is missing, or the file is damaged, or of its old binary format.
    """
    xgboost = require("xgboost", "xgboost")
    if _OLD_HEAD.match(artifact.data[:512]):
        msg = "is in the old binary format of XGBoost: load it with XGBoost 3.0 or before, and save it again as .ubj"
        raise ArtifactError(msg)
    check_xgboost(artifact.data)
    with xgboost.config_context(verbosity=0):
        try:
            booster = xgboost.Booster()
            booster.load_model(bytearray(artifact.data))
            estimator = adapt(booster)
        except Exception as exc:  # what is left: versions and parameters
            raise ArtifactError(f"is damaged, or no XGBoost model: {explain(exc)}") from exc
        return EstimatorModel(estimator, declared=artifact.declared)


def explain(exc: BaseException) -> str:
    """The first line of an error of XGBoost that says something: no times, no traces, no paths."""
    for line in str(exc).splitlines():
        text = re.sub(r"^\[[\d:]+\]\s*\S*\.(cc|h|cu)\S*:\s*", "", line)
        text = re.sub(r"(?:/[\w.-]+)+", "", text).strip()
        if text and not text.startswith(("Stack trace", "[bt]")):
            return text[:200]
    return type(exc).__name__


FORMAT = Format(name="xgboost", suffixes=(".ubj", ".json"), matches=matches, load=load, prepare=prepare)
