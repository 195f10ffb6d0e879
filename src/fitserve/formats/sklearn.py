"""scikit-learn estimators and pipelines saved with joblib or pickle.

A pickle runs code when it is loaded: load only files whose origin you trust.
Source: https://scikit-learn.org/stable/model_persistence.html
"""

from __future__ import annotations

import copy
import io
import pickle
import re
import warnings
from typing import TYPE_CHECKING

from fitserve.errors import ArtifactError, FitserveError
from fitserve.estimators.calls import output_names
from fitserve.estimators.model import EstimatorModel
from fitserve.formats.base import Format

if TYPE_CHECKING:
    from fitserve.trust.policy import TrustPolicy
    from fitserve.types import Artifact


def load(artifact: Artifact, policy: TrustPolicy) -> EstimatorModel:  # noqa: ARG001 - replaced by the unpickler of trust
    """Load a fitted estimator from the artifact's bytes.

    Raises:
        ArtifactError: the bytes cannot be read, or hold no fitted estimator.
    """
    import joblib

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            estimator = joblib.load(io.BytesIO(artifact.data))
        except (Exception, SystemExit) as exc:  # a pickle may raise anything
            raise ArtifactError(_explain(exc)) from exc
    _refuse_unservable(estimator, "holds")
    return EstimatorModel(estimator, caught=[warning.message for warning in caught], declared=artifact.declared)


FORMAT = Format(
    name="pickle", suffixes=(".joblib", ".pkl", ".pickle"), matches=lambda _: True, load=load, holds_code=True
)


def snapshot(estimator: object) -> EstimatorModel:
    """Wrap a copy of a live estimator, so that refitting the original changes no answer.

    Raises:
        ArtifactError: it has no predict, or is not fitted.
    """
    _refuse_unservable(estimator, "is")
    return EstimatorModel(copy.deepcopy(estimator))


def _refuse_unservable(estimator: object, verb: str) -> None:
    kind = type(estimator).__name__
    if isinstance(estimator, type):
        msg = f"{verb} the class {estimator.__name__}, not a fitted estimator: give what fit() returned"
        raise ArtifactError(msg)
    if not output_names(estimator):
        wanted = "wanted a fitted estimator or pipeline"
        msg = f"{verb} an object of type {kind}, which has no predict or transform: {wanted}"
        raise ArtifactError(msg)
    if type(estimator).__module__.startswith("sklearn."):
        from sklearn.exceptions import NotFittedError
        from sklearn.utils.validation import check_is_fitted

        try:
            check_is_fitted(estimator)
        except (NotFittedError, TypeError):
            msg = f"{verb} an object of type {kind} that is not fitted: call fit() first"
            raise ArtifactError(msg) from None


def _explain(exc: BaseException) -> str:
    """Why a pickle did not load, in words for the person who wrote it."""
    match exc:
        case ModuleNotFoundError(name=str(name)) if re.fullmatch(r"\w+(\.\w+)*", name):
            return f"needs the package {name.partition('.')[0]!r}, which is not installed here"
        case AttributeError() if "__main__" in str(exc):
            return (
                f"uses something that was defined in a notebook or script ({exc}): "
                "move it into a module that is installed here, and save the model again"
            )
        case FitserveError():
            return str(exc)
        case _ if isinstance(exc, EOFError) or re.search("truncated|exhausted|ran out|EOF", str(exc)):
            return "is truncated: it ends before the model does"
        case KeyError() | IndexError() | ModuleNotFoundError() | UnicodeDecodeError() | pickle.UnpicklingError():
            return "is damaged, or no joblib or pickle file"  # what it says of opcodes helps nobody
        case _:
            return f"is damaged, or no joblib or pickle file ({type(exc).__name__}: {exc})"
