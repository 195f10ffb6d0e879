"""All that is known of a model, without serving it: ``fitserve inspect``.

What stands in the files is told by this process, which handles bytes only; what the model itself tells comes from a
confined child. A model that the trust policy refuses is described as far as its bytes go.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from fitserve.errors import FitserveError, UntrustedArtifactError
from fitserve.formats import identify
from fitserve.store.describe import describe_field
from fitserve.store.golden import record, replay
from fitserve.store.made_rows import self_made_rows
from fitserve.store.package import begin
from fitserve.store.repository import read_artifact
from fitserve.trust.judge import remedies

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fitserve.formats.base import Model
    from fitserve.store.verify import Verifier
    from fitserve.types import Artifact


def inspect_model(path: Path, verifier: Verifier) -> dict[str, Any]:
    """Describe a model as a JSON object.

    Returns:
        ``name``, ``version``, ``digest``, ``format``, ``files``, ``trust`` and ``metadata`` of every model;
        ``model`` with what it takes and gives, None if the policy refuses it: then ``trust`` says why.

    Raises:
        ArtifactError: there is no model, or it cannot be loaded. No path in the text.
    """
    artifact = read_artifact(path)
    known, policy = identify(artifact), verifier.policy
    facts: dict[str, Any] = {
        "name": artifact.name,
        "version": artifact.version,
        "digest": f"sha256:{artifact.digest}",
        "format": known.name,
        "files": _files(artifact),
        "golden_rows": len(artifact.golden.rows) if artifact.golden else 0,
        "packed_with": dict(artifact.declared.libraries),
        "metadata": dict(artifact.metadata),
        "trust": {
            "level": policy.level,
            # The flavour inside tells, and is judged, when the folder is loaded.
            "holds_code": None if known.name == "mlflow" else known.holds_code,
            "is_pinned": artifact.digest in policy.pins,
            "refusal": None,
            "missing": [],
            "remedies": [],
        },
        "model": None,
    }
    try:
        facts["model"] = verifier.run("fitserve.store.inspection:describe_task", artifact)
    except UntrustedArtifactError as exc:
        facts["trust"] |= {
            "refusal": str(exc),
            "missing": list(exc.missing),
            "remedies": list(remedies(exc, str(path), verifier.policy)),
        }
    return facts


def _files(artifact: Artifact) -> dict[str, dict[str, Any]]:
    files = artifact.files or {artifact.file_name: artifact.data}
    return {
        path: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for path, data in sorted(files.items())
    }


def describe_task(request: dict[str, Any], blobs: Sequence[memoryview]) -> dict[str, Any]:
    """In the child: load the model, let it answer rows, and say what it takes and gives.

    Raises:
        ArtifactError: it cannot be served.
    """
    artifact, load = begin(request, blobs)
    loaded = load(artifact)
    model = loaded.model
    signature, facts = model.signature, model.facts
    return {
        "model_type": facts.model_type,
        "is_named": signature.is_named,
        "features": [describe_field(field) for field in signature.inputs],
        "outputs": list(signature.outputs),
        "classes": None if signature.classes is None else [list(labels) for labels in signature.classes],
        "example": None if signature.is_open else list(signature.example_row()),
        "libraries": {name: {"at_fit": at_fit, "now": now} for name, (at_fit, now) in facts.libraries.items()},
        "warnings": list(facts.warnings),
        "trial": _trial(model, artifact),
    }


def _trial(model: Model, artifact: Artifact) -> dict[str, Any]:
    """Whether it answers: as it did where there are golden samples, else at all."""
    if artifact.golden is not None:
        mismatch = replay(model, artifact.golden).mismatch
        return {"rows": len(artifact.golden.rows), "rows_are": "golden", "failure": mismatch}
    rows = self_made_rows(model.signature)
    failure = None if rows else "it does not tell its features: give them by an example in a manifest"
    try:
        if rows:
            record(model, rows)
    except FitserveError as exc:
        failure = str(exc)
    return {"rows": len(rows), "rows_are": "self-made", "failure": failure}
