"""scikit-learn estimators and pipelines saved with joblib or pickle.

A pickle says which functions are to be called when it is loaded; :mod:`fitserve.trust.unpickler` decides
which may be.
Source: https://scikit-learn.org/stable/model_persistence.html
"""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import TYPE_CHECKING

from fitserve.errors import ArtifactError
from fitserve.estimators.calls import output_names
from fitserve.estimators.model import EstimatorModel
from fitserve.formats.base import Format
from fitserve.trust.unpickler import load_pickle

if TYPE_CHECKING:
    from fitserve.trust.policy import TrustPolicy
    from fitserve.types import Artifact

COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x5d\x00\x00", b"\x04\x22\x4d\x18")
"""How gzip, bzip2, xz, lzma and lz4 files begin: what joblib compresses with, besides zlib."""


def load(artifact: Artifact, policy: TrustPolicy) -> EstimatorModel:
    """Load a fitted estimator from the artifact's bytes, as the trust policy says.

    Raises:
        UntrustedArtifactError: it needs names that are not allowed.
        ArtifactError: the bytes cannot be read, or hold no fitted estimator.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # Where a key is configured, nothing comes this far that it has not signed.
        is_signed = policy.verify_key is not None
        estimator = load_pickle(artifact.data, policy, digest=artifact.digest, is_signed=is_signed)
    _refuse_unservable(estimator, "holds")
    return EstimatorModel(estimator, caught=[warning.message for warning in caught], declared=artifact.declared)


def matches(artifact: Artifact) -> bool:
    """Whether the bytes begin as a pickle of protocol 2 or later does, or as a compressed file."""
    head = bytes(artifact.data[:6])  # they may be a view of a map: fitserve.store.spool
    is_zlib = len(head) > 1 and head[0] & 0x0F == 8 and head[0] >> 4 <= 7 and (head[0] * 256 + head[1]) % 31 == 0  # noqa: PLR2004 - RFC 1950
    is_pickle = len(head) > 1 and head[0] == pickle.PROTO[0] and 2 <= head[1] <= pickle.HIGHEST_PROTOCOL  # noqa: PLR2004
    return is_pickle or is_zlib or head.startswith(COMPRESSED)


def prepare() -> None:
    """Import what most pickles of models need; the rest is imported by name."""
    import joblib  # noqa: F401
    import sklearn.pipeline  # noqa: F401


FORMAT = Format(
    name="pickle",
    suffixes=(".joblib", ".pkl", ".pickle"),
    matches=matches,
    load=load,
    prepare=prepare,
    holds_code=True,
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
