"""scikit-learn models saved with skops: a zip archive that names each type it needs, and runs none unasked.

Types that skops trusts by itself load always; others only where they are on the exact-name list, or
the operator allows them. Before skops sees the archive it is unpacked within bounds; afterwards the
arrays inside the model are checked, as those of a pickle are.
Source: https://skops.readthedocs.io/en/stable/persistence.html
"""

from __future__ import annotations

import io
import json
import warnings
from typing import TYPE_CHECKING, Any

from fitserve.errors import ArtifactError, UntrustedArtifactError
from fitserve.estimators.model import EstimatorModel
from fitserve.estimators.walk import has_method
from fitserve.formats.base import Format, is_vouched_for, require
from fitserve.formats.skops_boosters import check_boosters
from fitserve.trust.allowlist import uses_of
from fitserve.trust.decompress import open_zip
from fitserve.trust.explain import missing_names
from fitserve.trust.structure import check_structure

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

    from fitserve.trust.policy import TrustPolicy
    from fitserve.types import Artifact

_SCHEMA = "schema.json"
_LOADERS = {"sklearn.tree._tree.Tree": "TreeNode", "numpy.dtype": "DTypeNode"}
"""What restores a type that skops saves in its own way; other objects have one loader."""

_PACKAGES = ("sklearn.", "lightgbm.", "xgboost.")


def matches(artifact: Artifact) -> bool:
    """Whether the bytes are a zip archive with a ``schema.json``, which skops writes last."""
    return artifact.data[:4] == b"PK\x03\x04" and _SCHEMA.encode() in artifact.data[-65_536:]


def prepare() -> None:
    """Import skops, and with it scikit-learn."""
    require("skops.io", "skops")


def load(artifact: Artifact, policy: TrustPolicy) -> EstimatorModel:
    """Load a fitted estimator whose every type is trusted.

    Raises:
        UntrustedArtifactError: it needs types that are not trusted; they are named.
        ArtifactError: skops is missing, or the file is damaged, or holds no fitted estimator.
    """
    skops_io = require("skops.io", "skops")
    members = open_zip(artifact.data)
    check_members(members)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            needed = skops_io.get_untrusted_types(data=artifact.data)
            _judge(needed, artifact, policy)
            if not is_vouched_for(artifact, policy):
                check_loaders(members[_SCHEMA], set(needed) - policy.allow)
                check_boosters(members, _SCHEMA)
            estimator = skops_io.loads(artifact.data, trusted=needed)
        except ArtifactError:
            raise
        except (Exception, SystemExit) as exc:
            raise ArtifactError(f"is damaged, or no skops file: {_first_line(exc)}") from exc
    check_structure(estimator)
    _refuse_unservable(estimator)
    return EstimatorModel(estimator, caught=[warning.message for warning in caught], declared=artifact.declared)


def _judge(needed: list[str], artifact: Artifact, policy: TrustPolicy) -> None:
    """Refuse types that neither skops nor the policy trusts.

    Raises:
        UntrustedArtifactError: there are such types.
    """
    missing = [] if is_vouched_for(artifact, policy) else [name for name in needed if not _is_allowed(name, policy)]
    if missing:
        reason = missing_names(missing, policy)
        if any(name.startswith("catboost.") for name in missing):
            reason += "; save a model of CatBoost as .cbm"
        raise UntrustedArtifactError(reason, digest=artifact.digest, missing=missing)


def _is_allowed(name: str, policy: TrustPolicy) -> bool:
    """Whether the operator or the list trusts a type that skops does not.

    Nothing that the list has as a function counts, and no CatBoost: its native part would be loaded unchecked.
    """
    if policy.level == "data":
        return False
    if name in policy.allow:
        return True
    if name in _LOADERS:
        return bool(uses_of(name, policy))
    uses = uses_of(name, policy)
    is_of_them = name.startswith(_PACKAGES) or name == "collections.OrderedDict"  # LightGBM's best scores
    return is_of_them and not uses.isdisjoint({"new", "type"}) and "value" not in uses


def check_loaders(schema: bytes, needed: AbstractSet[str]) -> None:
    """Refuse a schema that calls what the list gives it: that is to be restored, never called.

    Loaders of skops call any type that they are told to trust, with arguments of the file.

    Raises:
        ArtifactError: a type has another loader than the one that skops saves it with.
    """
    waiting: list[Any] = [json.loads(schema)]
    while waiting:
        node = waiting.pop()
        waiting += node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        if isinstance(node, dict) and "__loader__" in node:
            name = f"{node.get('__module__')}.{node.get('__class__')}"
            if name in needed and node["__loader__"] not in {_LOADERS.get(name, "ObjectNode"), "TypeNode"}:
                msg = f"is refused: it has {name} loaded in a way in which skops does not save it"
                raise ArtifactError(msg)


def check_members(members: Mapping[str, bytes]) -> None:
    """Refuse arrays that declare more numbers than they hold: numpy allocates before it reads.

    Raises:
        ArtifactError: an array does, or the archive has no schema.
    """
    if _SCHEMA not in members:
        msg = f"is no skops file: the archive holds no {_SCHEMA}"
        raise ArtifactError(msg)
    for name, data in members.items():
        if name.endswith(".npz"):
            check_arrays(open_zip(data))
    check_arrays(members)


def check_arrays(members: Mapping[str, bytes]) -> None:
    """Refuse ``.npy`` members whose head does not fit their size."""
    import numpy as np

    for name, data in members.items():
        if not name.endswith(".npy"):
            continue
        stream = io.BytesIO(data)
        try:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(stream)
            size = dtype.itemsize
            for length in shape:
                size *= length
            fits = not dtype.hasobject and size == len(data) - stream.tell() and all(n >= 0 for n in shape)
        except Exception as exc:
            raise ArtifactError("is damaged: an array in it has no head") from exc
        if not fits:
            raise ArtifactError("is damaged: an array in it is not as long as it says")


def _refuse_unservable(estimator: Any) -> None:
    """Refuse what predicts nothing."""
    if not (has_method(estimator, "predict") or has_method(estimator, "transform")):
        msg = f"holds an object of type {type(estimator).__name__}, which has no predict: wanted a fitted estimator"
        raise ArtifactError(msg)


def _first_line(exc: BaseException) -> str:
    """What an error says, on one line."""
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0][:200]


FORMAT = Format(name="skops", suffixes=(".skops",), matches=matches, load=load, prepare=prepare)
