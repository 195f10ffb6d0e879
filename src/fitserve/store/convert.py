"""``fitserve convert``: a pickle becomes ONNX or skops, and is shown to answer as it did.

The pickle is loaded, converted and compared in a confined child; this process handles bytes only.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import hashlib
import os
import tempfile
from typing import TYPE_CHECKING, Any, Final

from fitserve.errors import ArtifactError, SettingsError, UntrustedArtifactError, clip
from fitserve.formats import identify
from fitserve.formats.base import require
from fitserve.store.repository import read_artifact
from fitserve.store.verify import enter_with, with_path
from fitserve.trust.judge import require_vouched
from fitserve.trust.policy import TrustPolicy
from fitserve.types import Artifact

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from fitserve.store.verify import Verifier

TARGETS: Final = {".onnx": "onnx", ".skops": "skops"}


def convert(source: Path, out: Path, *, verifier: Verifier, is_forced: bool = False) -> dict[str, Any]:
    """Convert the pickle ``source`` to the format that the end of ``out`` names.

    Returns:
        A report, as a JSON object: ``format``; ``n_rows`` compared, ``n_ties`` of them at a tie;
        ``n_edges`` rows at a tree's threshold, ``n_edges_unequal`` of them answered otherwise; ``differences`` by
        output, ``floats``, ``nulls_refused``, ``outputs``, ``digest`` and ``size_bytes`` of what was written.

    Raises:
        SettingsError: ``out`` names no format that can be written.
        ArtifactError: the model cannot be loaded or converted, answers otherwise, or ``out`` is in the way.
            The text names the path that it speaks of.
    """
    target = TARGETS.get(out.suffix.lower())
    if target is None:
        msg = f"{out}: wanted a file name that ends with {' or '.join(TARGETS)}"
        raise SettingsError(msg)
    if out.exists() and not is_forced:
        msg = f"{out} exists: give another name, or --force to replace it"
        raise ArtifactError(msg)
    if not out.parent.is_dir():
        msg = f"{out} cannot be written: there is no folder {out.parent}"
        raise ArtifactError(msg)
    try:
        artifact = read_artifact(source)
        answer = verifier.run("fitserve.store.convert:convert_task", artifact, target=target)
    except ArtifactError as exc:
        raise with_path(exc, source, verifier.policy) from exc
    data = base64.b64decode(answer.pop("data"))
    _write(out, data)
    return {**answer, "digest": f"sha256:{hashlib.sha256(data).hexdigest()}", "size_bytes": len(data)}


def convert_task(request: Mapping[str, Any], blobs: Sequence[memoryview]) -> dict[str, Any]:
    """In the child: load the model, convert it, compare both, and return the bytes in base64 with a report.

    Raises:
        ArtifactError: the model cannot be loaded, is no pickle, cannot be converted, or answers otherwise.
    """
    _import_converter(request["target"])
    artifact, policy, _ = enter_with(request, blobs)
    known = identify(artifact)
    if known.name != "pickle":
        msg = f"is of the format {known.name!r}: only joblib and pickle files of scikit-learn models are converted"
        raise ArtifactError(msg)
    from fitserve.estimators.model import EstimatorModel
    from fitserve.optimize.rows import parity_rows
    from fitserve.trust.unpickler import load_pickle

    is_signed = require_vouched(artifact, holds_code=True, format_name=known.name, policy=policy)
    estimator = load_pickle(artifact.data, policy, digest=artifact.digest, is_signed=is_signed)
    # A copy: the model at work takes feature names out of what it owns.
    model = EstimatorModel(copy.deepcopy(estimator), declared=artifact.declared)
    rows = parity_rows(model, estimator)
    if not rows:
        msg = "answers none of the rows that were made for it: give an example in a manifest"
        raise ArtifactError(msg)
    return (
        _to_onnx(estimator, model, rows) if request["target"] == "onnx" else _to_skops(estimator, model, rows, policy)
    )


def _import_converter(target: str) -> None:
    """Import what the conversion needs, before this process is confined."""
    if target == "skops":
        require("skops.io", "convert")
        return
    for module in ("onnx", "skl2onnx", "onnxruntime"):
        require(module, "convert")
    import fitserve.formats.onnx
    import fitserve.store.convert_onnx  # noqa: F401

    with contextlib.suppress(ImportError):
        import pandas as pd  # noqa: F401


def _to_onnx(estimator: Any, model: Any, rows: Sequence[Any]) -> dict[str, Any]:
    from fitserve.store.convert_onnx import to_onnx

    converted = to_onnx(estimator, model, rows)
    parity = converted.parity
    return {
        "data": base64.b64encode(converted.data).decode(),
        "format": "onnx",
        "floats": converted.floats,
        "n_rows": parity.n_rows,
        "n_ties": parity.n_ties,
        "n_edges": converted.edges.n_rows,
        "n_edges_unequal": converted.edges.n_unequal + converted.edges.n_ties,
        "differences": parity.differences,
        "outputs": list(converted.note.outputs),
        "outputs_left_out": [name for name in model.signature.outputs if name not in converted.note.outputs],
        "nulls_refused": list(converted.nulls_refused),
        "needs_allow": [],
    }


def _to_skops(estimator: Any, model: Any, rows: Sequence[Any], policy: TrustPolicy) -> dict[str, Any]:
    from fitserve.formats.skops import load
    from fitserve.optimize.parity import compare

    try:
        data = require("skops.io", "convert").dumps(estimator)
    except Exception as exc:  # skops raises whatever it meets
        msg = f"cannot be saved with skops: {type(exc).__name__}: {clip(' '.join(str(exc).split()), 200)}"
        raise ArtifactError(msg) from exc
    artifact = Artifact("converted", "1", hashlib.sha256(data).hexdigest(), data, "model.skops")
    needed: tuple[str, ...] = ()
    try:
        other = load(artifact, TrustPolicy())
    except UntrustedArtifactError as exc:
        needed = exc.missing
        other = load(artifact, TrustPolicy(allow=policy.allow.union(needed)))
    parity = compare(model, other, rows)
    if parity.n_unequal:
        msg = f"is not the same after skops: {parity.n_unequal} of {parity.n_rows} rows were answered otherwise"
        raise ArtifactError(msg)
    return {
        "data": base64.b64encode(data).decode(),
        "format": "skops",
        "floats": "float64",
        "n_rows": parity.n_rows,
        "n_ties": parity.n_ties,
        "n_edges": 0,
        "n_edges_unequal": 0,
        "differences": parity.differences,
        "outputs": list(model.signature.outputs),
        "outputs_left_out": [],
        "nulls_refused": [],
        "needs_allow": sorted(needed),
    }


def _write(out: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{out.name}.", dir=out.parent)
    except OSError as exc:
        msg = f"{out} cannot be written: {exc.strerror}"
        raise ArtifactError(msg) from exc
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)  # noqa: PTH101 - as if it had been opened for writing
        os.replace(name, out)  # noqa: PTH105
    except OSError as exc:
        with contextlib.suppress(OSError):
            os.unlink(name)  # noqa: PTH108
        msg = f"{out} cannot be written: {exc.strerror}"
        raise ArtifactError(msg) from exc
