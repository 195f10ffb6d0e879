"""What the OpenAPI document says of /predict, /predict/batch and /model/info."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from fitserve.protocols import openapi, schemas
from fitserve.signature import Kind
from fitserve.store.describe import row_examples

if TYPE_CHECKING:
    from fitserve.store.catalog import LoadedModel

_INFER_ERRORS = (400, 404, 413, 415, 422, 500, 503)


_PROSE = (
    "The row may be given as an object by feature name, as a list in the order of fitting, or as a list of name and "
    "value. `outputs` asks for more than the prediction and its probabilities."
)
_BATCH_PROSE = (
    "Each row is a list or an object. Instead of rows, `instances` may be one object with a list of values for each "
    'feature, `{"age": [31, 47], "plan": ["pro", "free"]}`. All lists must then be of one length, which a schema '
    "cannot say, so that it does not name this form."
)


def _version_schema(loaded: LoadedModel) -> dict[str, Any]:
    return {"type": ["string", "null"], "description": f"A version that must answer; now {loaded.version}."}


def _request(name: str, member: str, schema: dict[str, Any], loaded: LoadedModel) -> openapi.Component:
    asked = {"type": ["array", "null"], "items": schemas.outputs_name_schema(loaded.model.signature)}
    body = openapi.object_of(
        {member: schema, "model_version": _version_schema(loaded), "outputs": asked},
        optional=("model_version", "outputs"),
    )
    return openapi.Component(name, body)


_ALWAYS: dict[str, dict[str, Any]] = {
    "model_version": {"type": "string"},
    "latency_ms": {"type": "number", "minimum": 0},
    "timestamp": openapi.TIMESTAMP,
}


def describe_predict(loaded: LoadedModel | None) -> dict[str, Any]:
    """``POST /predict`` of the model that serves."""
    if loaded is None:
        return openapi.operation("predict", "Predictions", "Predict one row", {}, body={}, errors=_INFER_ERRORS)
    signature = loaded.model.signature
    forms = schemas.row_schemas(signature)
    reply = openapi.object_of(
        {
            "prediction": schemas.prediction_schema(signature),
            "probability": schemas.probability_schema(signature),
            "probabilities": schemas.probabilities_schema(signature),
            **_ALWAYS,
            "outputs": schemas.asked_schema(signature, is_batch=False),
        },
        optional=("outputs",),
    )
    return openapi.operation(
        "predict",
        "Predictions",
        "Predict one row",
        openapi.Component("PredictReply", reply),
        description=_PROSE,
        body=_request("PredictRequest", "features", {"anyOf": list(forms.values())}, loaded),
        errors=_INFER_ERRORS,
        examples={name: {"features": row} for name, row in row_examples(signature).items()},
    )


def describe_batch(limit: int, loaded: LoadedModel | None) -> dict[str, Any]:
    """``POST /predict/batch`` of the model that serves, for up to ``limit`` rows."""
    summary = f"Predict up to {limit} rows"
    if loaded is None:
        return openapi.operation("predict_batch", "Predictions", summary, {}, body={}, errors=_INFER_ERRORS)
    signature = loaded.model.signature
    forms = schemas.row_schemas(signature)
    rows = {
        "type": "array", "minItems": 1, "maxItems": limit,
        "items": {"anyOf": [forms[form] for form in ("object", "list") if form in forms]},
    }  # fmt: skip
    probability = schemas.probability_schema(signature)
    is_plain = probability == {"type": "null"} or not probability
    reply = openapi.object_of(
        {
            "predictions": {"type": "array", "items": schemas.prediction_schema(signature)},
            "probabilities": probability if is_plain else {"type": "array", "items": probability},
            "count": {"type": "integer", "minimum": 1},
            **_ALWAYS,
            "outputs": schemas.asked_schema(signature, is_batch=True),
        },
        optional=("outputs",),
    )
    found = row_examples(signature)
    return openapi.operation(
        "predict_batch",
        "Predictions",
        summary,
        openapi.Component("BatchReply", reply),
        description=_BATCH_PROSE,
        body=_request("BatchRequest", "instances", rows, loaded),
        errors=_INFER_ERRORS,
        examples={form: {"instances": [found[form]] * 2} for form in ("list", "object") if form in found},
    )


_TEXT = {"type": "string"}
_FEATURE = openapi.Component(
    "FeatureInfo",
    openapi.object_of(
        {
            "name": _TEXT,
            "kind": {"type": "string", "enum": list(get_args(Kind))},
            "is_nullable": {"type": "boolean"},
            "categories": {"type": ["array", "null"], "items": {"type": ["string", "number", "boolean"]}},
            "is_closed": {"type": "boolean"},
            "largest": {"type": ["number", "null"]},
            "learnt_from": _TEXT,
        }
    ),
)
_LIBRARY = openapi.Component("Library", openapi.object_of({"at_fit": {"type": ["string", "null"]}, "now": _TEXT}))
_FORM = openapi.Component(
    "Form",
    openapi.object_of(
        {
            "name": {"type": "string", "description": "native, or the engine's."},
            "fixed_us": {"type": "number", "minimum": 0},
            "per_row_us": {"type": "number", "minimum": 0},
        }
    ),
)
_OPTIMIZATION = openapi.Component(
    "Optimization",
    openapi.object_of(
        {
            "state": {"type": "string", "enum": ["off", "running", "done", "failed"]},
            "reason": {"type": ["string", "null"]},
            "source": {"type": ["string", "null"], "enum": ["compiled", "cache", "package", None]},
            "forms": {"type": "array", "items": _FORM, "minItems": 1},
            "report": {
                "type": "array",
                "items": {"type": "object"},
                "description": "For each engine that was tried, how its answers compare with the library's own.",
            },
        }
    ),
)


INFO = openapi.Component(
    "ModelInfo",
    {
        "type": "object",
        "properties": {
            "name": _TEXT,
            "version": _TEXT,
            "model_type": _TEXT,
            "loaded_at": openapi.TIMESTAMP,
            "uptime_seconds": {"type": "number", "minimum": 0},
            "digest": {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"},
            "size_bytes": {"type": "integer"},
            "format": _TEXT,
            "is_ready": {"type": "boolean"},
            "features": {"type": "array", "items": _FEATURE},
            "outputs": {"type": "array", "items": _TEXT},
            "classes": {"type": ["array", "null"], "items": {}},
            "libraries": {"type": "object", "additionalProperties": _LIBRARY},
            "warnings": {"type": "array", "items": _TEXT},
            "optimization": _OPTIMIZATION,
            "verification": {"type": "object", "description": "What trying it before it was served has shown."},
            "metadata": {"type": "object"},
        },
        "required": [
            "name", "version", "model_type", "loaded_at", "uptime_seconds", "digest", "features", "outputs", "classes",
        ],
    },
)  # fmt: skip
"""What is told of a version that is in memory."""


def describe_info(_: LoadedModel | None) -> dict[str, Any]:
    """``GET /model/info``."""
    return openapi.operation("model_info", "Model", "What serves", INFO, errors=(500, 503))
