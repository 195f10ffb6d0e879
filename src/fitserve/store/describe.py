"""What is told of a loaded model: by ``GET /model/info``, and on a terminal."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from fitserve.types import MAY_DIFFER

if TYPE_CHECKING:
    from fitserve.signature import Field, Signature
    from fitserve.store.catalog import LoadedModel


def describe_model(loaded: LoadedModel) -> dict[str, Any]:
    """The facts of a loaded model as a JSON object."""
    signature, facts = loaded.model.signature, loaded.model.facts
    classes = None if signature.classes is None else [list(labels) for labels in signature.classes]
    return {
        "name": loaded.name,
        "version": loaded.version,
        "model_type": facts.model_type,
        "loaded_at": loaded.loaded_at,
        "uptime_seconds": round(time.monotonic() - loaded.loaded_monotonic_s, 3),
        "digest": f"sha256:{loaded.digest}",
        "size_bytes": loaded.size_bytes,
        "format": loaded.format,
        "is_ready": loaded.trial.has_answered,
        "features": [describe_field(field) for field in signature.inputs],
        "outputs": list(signature.outputs),
        "classes": classes[0] if classes and signature.n_outputs == 0 else classes,
        "libraries": {name: {"at_fit": at_fit, "now": now} for name, (at_fit, now) in facts.libraries.items()},
        "warnings": notes_of(loaded),
        "optimization": describe_optimization(loaded),
        "verification": dict(loaded.verification),
        "metadata": dict(loaded.metadata),
    }


def describe_optimization(loaded: LoadedModel) -> dict[str, Any]:
    """The forms in which a version can be computed, their costs as learnt so far, and the proof of its engines."""
    optimization = loaded.optimization
    forms = [
        {
            "name": form.name,
            "fixed_us": round(1e6 * form.cost.fixed_s, 2),
            "per_row_us": round(1e6 * form.cost.per_row_s, 3),
        }
        for form in loaded.forms.all
    ]
    return {
        "state": optimization.state,
        "reason": optimization.reason,
        "source": optimization.source,
        "forms": forms,
        "report": list(optimization.report),
    }


def notes_of(loaded: LoadedModel) -> list[str]:
    """What the operator should know of a model; of another library version, what its golden samples have shown."""
    golden = loaded.verification.get("golden")
    if not golden:
        return list(loaded.model.facts.warnings)
    proven = f"its {golden['n_rows']} golden samples are answered alike"
    return [note.replace(MAY_DIFFER, proven) for note in loaded.model.facts.warnings]


def describe_field(field: Field) -> dict[str, Any]:
    """One input column as a JSON object."""
    has_numbers = field.kind in {"number", "numeric", "any"}
    return {
        "name": field.name,
        "kind": field.kind,
        "is_nullable": field.is_nullable,
        "categories": None if field.categories is None else list(field.categories),
        "is_closed": field.is_closed,
        "largest": field.largest if has_numbers else None,
        "learnt_from": field.learnt_from,
    }


def example_request(loaded: LoadedModel) -> dict[str, Any] | None:
    """A body for /predict that the model answers; None for one that does not tell its features."""
    signature = loaded.model.signature
    if signature.is_open:
        return None
    return {"features": row_examples(signature)["object" if signature.is_named else "list"]}


def row_examples(signature: Signature) -> dict[str, Any]:
    """The same valid row in each of its forms: ``list``, ``object``, ``pairs`` of name and value."""
    if signature.is_open:
        return {}
    row = list(signature.example_row())
    named = dict(zip(signature.names, row, strict=True))
    return {"list": row, "object": named, "pairs": [{"name": key, "value": value} for key, value in named.items()]}
