"""fitserve's own API: /predict, /predict/batch, /model/info."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from fitserve.errors import InputIssue, InvalidInputError, clip, did_you_mean
from fitserve.protocols import openapi
from fitserve.protocols.base import Protocol, Reply, Route
from fitserve.protocols.json_body import plain, read_json
from fitserve.signature import count, describe
from fitserve.types import ModelRef, Outputs

if TYPE_CHECKING:
    from fitserve.protocols.base import Exchange, Services
    from fitserve.signature import Signature
    from fitserve.store.catalog import LoadedModel


def _routes(services: Services) -> list[Route]:
    limit = services.settings.max_batch_size
    return [
        Route("POST", "/predict", partial(predict, services), _describe_predict),
        Route("POST", "/predict/batch", partial(predict_batch, services), partial(_describe_batch, limit)),
        Route("GET", "/model/info", partial(model_info, services), _describe_info),
    ]


PROTOCOL = Protocol(name="native", routes=_routes)


async def predict(services: Services, exchange: Exchange) -> Reply:
    """Predict one row, given as a list, as an object by name, or as a list of name and value."""
    document = await read_json(exchange, services.settings)
    features, ref = _members(document, "features")
    lease = services.engine.lease(ref)
    exchange.model_version = lease.version
    outputs = await services.engine.infer(lease, [_by_name(features)], first_row=None)
    signature = lease.model.signature
    prediction = plain(outputs.predictions)[0]
    body = {
        "prediction": prediction,
        "probability": _probability(signature, outputs, 0, prediction),
        "probabilities": _probabilities(signature, outputs),
        "model_version": lease.version,
        "latency_ms": round(exchange.elapsed_ms, 3),
        "timestamp": datetime.now(UTC),
    }
    return Reply(orjson.dumps(body))


async def predict_batch(services: Services, exchange: Exchange) -> Reply:
    """Predict many rows in one call of the model."""
    document = await read_json(exchange, services.settings)
    instances, ref = _members(document, "instances")
    lease = services.engine.lease(ref)
    exchange.model_version = lease.version
    limit = services.settings.max_batch_size
    if not isinstance(instances, list):
        raise InvalidInputError([InputIssue("a list of rows in 'instances'", describe(instances))])
    if not 1 <= len(instances) <= limit:
        raise InvalidInputError([InputIssue(f"1 to {limit} rows in 'instances'", count(len(instances), "row"))])
    outputs = await services.engine.infer(lease, instances)
    signature = lease.model.signature
    predictions = plain(outputs.predictions)
    probabilities = None
    if outputs.probabilities is not None:
        probabilities = [_probability(signature, outputs, row, label) for row, label in enumerate(predictions)]
    body = {
        "predictions": predictions,
        "probabilities": probabilities,
        "model_version": lease.version,
        "latency_ms": round(exchange.elapsed_ms, 3),
        "count": len(predictions),
        "timestamp": datetime.now(UTC),
    }
    return Reply(orjson.dumps(body))


async def model_info(services: Services, exchange: Exchange) -> Reply:
    """Tell what serves: version, age, libraries, features, classes."""
    loaded = services.engine.lease(ModelRef())
    exchange.model_version = loaded.version
    return Reply(orjson.dumps(describe_model(loaded)))


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
        "is_ready": loaded.trial.has_answered,
        "features": [
            {
                "name": field.name,
                "kind": field.kind,
                "is_nullable": field.is_nullable,
                "categories": None if field.categories is None else list(field.categories),
                "learnt_from": field.learnt_from,
            }
            for field in signature.inputs
        ],
        "classes": classes[0] if classes and signature.n_outputs == 0 else classes,
        "libraries": {name: {"at_fit": at_fit, "now": now} for name, (at_fit, now) in facts.libraries.items()},
        "warnings": list(facts.warnings),
        "metadata": dict(loaded.metadata),
    }


def example_request(loaded: LoadedModel) -> dict[str, Any] | None:
    """A body for /predict that the model answers; None for one that does not tell its features."""
    signature = loaded.model.signature
    if signature.is_open:
        return None
    return {"features": openapi.row_examples(signature)["object" if signature.is_named else "list"]}


def _members(document: Any, wanted: str) -> tuple[Any, ModelRef]:
    """Take ``wanted`` and ``model_version`` out of the body, and nothing else may be there."""
    if not isinstance(document, dict):
        raise InvalidInputError([InputIssue(f"an object with {wanted!r}", describe(document))])
    unknown = [name for name in document if name not in {wanted, "model_version"}]
    issues = [
        InputIssue(
            f"only {wanted!r} and 'model_version'", f"the member {clip(name)!r}", hint=did_you_mean(name, [wanted])
        )
        for name in unknown[:10]
    ]
    if wanted not in document:
        issues.append(InputIssue(f"the member {wanted!r}", "nothing"))
    version = document.get("model_version")
    if version is not None and not isinstance(version, str):
        issues.append(InputIssue("a string or null in 'model_version'", describe(version)))
    if issues:
        raise InvalidInputError(issues)
    return document[wanted], ModelRef(version)


def _by_name(features: Any) -> Any:
    """A list of ``{name, value}`` as an object by name; any other form as it is."""
    if not (isinstance(features, list) and features and isinstance(features[0], dict)):
        return features
    row: dict[str, Any] = {}
    for pair in features:
        if not isinstance(pair, dict) or pair.keys() != {"name", "value"} or not isinstance(pair["name"], str):
            raise InvalidInputError([InputIssue("objects of 'name' and 'value' only", _came_as(pair))])
        if pair["name"] in row:
            raise InvalidInputError([InputIssue("each feature once", "one twice", column=clip(pair["name"]))])
        row[pair["name"]] = pair["value"]
    return row


def _came_as(pair: Any) -> str:
    if isinstance(pair, dict) and pair.keys() == {"name", "value"}:
        return f"a name that is {describe(pair['name'])}"
    return describe(pair)


def _probability(signature: Signature, outputs: Outputs, row: int, label: Any) -> Any:
    """The probability that the model gives the label that it predicts; a list for several outputs."""
    if outputs.probabilities is None or signature.classes is None:
        return None
    labels = [label] if signature.n_outputs == 0 else label
    found = [
        float(part[row, classes.index(name)]) if name in classes else None
        for part, classes, name in zip(outputs.probabilities, signature.classes, labels, strict=True)
    ]
    return found[0] if signature.n_outputs == 0 else found


def _probabilities(signature: Signature, outputs: Outputs) -> Any:
    """The probabilities of the first row by class label; a list of such for several outputs."""
    if outputs.probabilities is None or signature.class_names is None:
        return None
    found = [
        dict(zip(names, part[0].tolist(), strict=True))
        for part, names in zip(outputs.probabilities, signature.class_names, strict=True)
    ]
    return found[0] if signature.n_outputs == 0 else found


_INFER_ERRORS = (400, 404, 413, 415, 422, 500, 503)


def _describe_predict(loaded: LoadedModel | None) -> dict[str, Any]:
    if loaded is None:
        return openapi.operation("predict", "Predictions", "Predict one row", {}, body={}, errors=_INFER_ERRORS)
    signature = loaded.model.signature
    version = {"type": ["string", "null"], "description": f"A version that must answer; now {loaded.version}."}
    body = openapi.object_of(
        {"features": {"anyOf": list(openapi.row_schemas(signature).values())}, "model_version": version},
        optional=("model_version",),
    )
    reply = openapi.object_of(
        {
            "prediction": openapi.prediction_schema(signature),
            "probability": openapi.probability_schema(signature),
            "probabilities": openapi.probabilities_schema(signature),
            "model_version": {"type": "string"},
            "latency_ms": {"type": "number", "minimum": 0},
            "timestamp": openapi.TIMESTAMP,
        }
    )
    examples = {name: {"features": row} for name, row in openapi.row_examples(signature).items()}
    return openapi.operation(
        "predict", "Predictions", "Predict one row", reply, body=body, errors=_INFER_ERRORS, examples=examples
    )


def _describe_batch(limit: int, loaded: LoadedModel | None) -> dict[str, Any]:
    summary = f"Predict up to {limit} rows"
    if loaded is None:
        return openapi.operation("predict_batch", "Predictions", summary, {}, body={}, errors=_INFER_ERRORS)
    signature = loaded.model.signature
    forms = openapi.row_schemas(signature)
    rows = {
        "type": "array", "minItems": 1, "maxItems": limit,
        "items": {"anyOf": [forms[form] for form in ("list", "object") if form in forms]},
    }  # fmt: skip
    body = openapi.object_of(
        {"instances": rows, "model_version": {"type": ["string", "null"]}}, optional=("model_version",)
    )
    probability = openapi.probability_schema(signature)
    is_plain = probability == {"type": "null"} or not probability
    reply = openapi.object_of(
        {
            "predictions": {"type": "array", "items": openapi.prediction_schema(signature)},
            "probabilities": probability if is_plain else {"type": "array", "items": probability},
            "model_version": {"type": "string"},
            "latency_ms": {"type": "number", "minimum": 0},
            "count": {"type": "integer", "minimum": 1},
            "timestamp": openapi.TIMESTAMP,
        }
    )
    found = openapi.row_examples(signature)
    examples: dict[str, Any] = {form: {"instances": [found[form]] * 2} for form in ("list", "object") if form in found}
    return openapi.operation(
        "predict_batch", "Predictions", summary, reply, body=body, errors=_INFER_ERRORS, examples=examples
    )


def _describe_info(_: LoadedModel | None) -> dict[str, Any]:
    text = {"type": "string"}
    reply = {
        "type": "object",
        "properties": {
            "name": text,
            "version": text,
            "model_type": text,
            "loaded_at": openapi.TIMESTAMP,
            "uptime_seconds": {"type": "number", "minimum": 0},
            "digest": {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"},
            "size_bytes": {"type": "integer"},
            "is_ready": {"type": "boolean"},
            "features": {"type": "array", "items": {"type": "object"}},
            "classes": {"type": ["array", "null"]},
            "libraries": {"type": "object"},
            "warnings": {"type": "array", "items": text},
            "metadata": {"type": "object"},
        },
        "required": ["name", "version", "model_type", "loaded_at", "uptime_seconds", "digest", "features", "classes"],
    }
    return openapi.operation("model_info", "Model", "What serves", reply, errors=(500, 503))
