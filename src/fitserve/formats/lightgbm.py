"""LightGBM models saved as text.

The text holds no code, but LightGBM believes every index in it: it is checked before LightGBM sees it.
It holds no class labels either: those of a classifier are 0, 1, … unless a manifest tells them.
Source: https://lightgbm.readthedocs.io/en/stable/pythonapi/lightgbm.Booster.html
"""

from __future__ import annotations

import contextlib
import io
import re
from typing import TYPE_CHECKING

from fitserve.errors import ArtifactError
from fitserve.estimators.boosters import adapt
from fitserve.estimators.model import EstimatorModel
from fitserve.formats.base import Format, require
from fitserve.trust.native_lightgbm import check_lightgbm

if TYPE_CHECKING:
    from fitserve.trust.policy import TrustPolicy
    from fitserve.types import Artifact

_HEAD = re.compile(rb"tree\r?\nversion=")


def matches(artifact: Artifact) -> bool:
    """Whether the bytes start like a text model of LightGBM."""
    return _HEAD.match(artifact.data[:64]) is not None


def prepare() -> None:
    """Import LightGBM."""
    require("lightgbm", "lightgbm")


def load(artifact: Artifact, policy: TrustPolicy) -> EstimatorModel:  # noqa: ARG001 - it holds no code
    """Load a booster in the shape of an estimator.

    Raises:
        ArtifactError: LightGBM is missing, or the text is damaged.
    """
    lightgbm = require("lightgbm", "lightgbm")
    check_lightgbm(artifact.data)
    with contextlib.redirect_stdout(io.StringIO()):  # LightGBM prints what it raises as well
        try:
            estimator = adapt(lightgbm.Booster(model_str=artifact.data.decode()))
        except Exception as exc:
            first = (str(exc).splitlines() or [type(exc).__name__])[0]
            raise ArtifactError(f"is damaged, or no LightGBM model: {first[:200]}") from exc
        return EstimatorModel(estimator, declared=artifact.declared)


FORMAT = Format(name="lightgbm", suffixes=(".txt", ".lgb"), matches=matches, load=load, prepare=prepare)
