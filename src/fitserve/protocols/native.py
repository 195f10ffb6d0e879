"""fitserve's own API: /predict, /predict/batch, the same of each model and version, and /model/info."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from fitserve.errors import InputIssue, InvalidInputError, ModelNotFoundError, clip, did_you_mean
from fitserve.protocols import native_operations
from fitserve.protocols.answers import asked_outputs, values_of
from fitserve.protocols.base import Inference, Protocol, Route, waits_for
from fitserve.protocols.exchange import Reply
from fitserve.protocols.json_body import decode_json, require_json
from fitserve.protocols.paths import narrowed
from fitserve.protocols.problems import problem
from fitserve.signature import count, count_rows, describe
from fitserve.store.describe import describe_model
from fitserve.types import ModelRef

if TYPE_CHECKING:
    from collections.abc import Callable

    from fitserve.engine.gather import RowJob
    from fitserve.engine.job import Job
    from fitserve.protocols.answers import Values
    from fitserve.protocols.base import Operation, Services
    from fitserve.protocols.exchange import Exchange
    from fitserve.signature import OutputName, Signature
    from fitserve.types import Outputs


def _routes(services: Services) -> list[Route]:
    limit = services.settings.max_batch_size
    describe_batch = partial(native_operations.describe_batch, limit)
    kinds = (
        ("/predict", _begin_one, native_operations.describe_predict),
        ("/predict/batch", _begin_batch, describe_batch),
    )
    places = ("", "/models/{name}", "/models/{name}/versions/{version}")
    return [
        *(
            _inference_route(services, place + path, begin, operation)
            for place in places
            for path, begin, operation in kinds
        ),
        Route("GET", "/model/info", partial(model_info, services), native_operations.describe_info),
    ]


def _inference_route(services: Services, path: str, begin: Callable[..., Job], operation: Operation) -> Route:
    inference = Inference(partial(require_json, services.settings.cors_origins), partial(begin, services))
    handler = waits_for(inference, services.settings.max_body_bytes, partial(_load, services))
    return Route("POST", path, handler, operation, inference)


PROTOCOL = Protocol(name="native", routes=_routes)


async def _load(services: Services, ref: ModelRef) -> None:
    await services.switch.load(ref)


_X_CACHE: dict[bool | None, tuple[tuple[bytes, bytes], ...]] = {
    None: (), True: ((b"x-cache", b"hit"),), False: ((b"x-cache", b"miss"),),
}  # fmt: skip
"""What a reply says of the cache, where there is one: a hit if every row was."""


def _begin_one(services: Services, exchange: Exchange, body: bytes, done: Callable[[Reply], None]) -> Job:
    """Predict one row, given as a list, as an object by name, or as a list of name and value."""
    features, version, names = _members(decode_json(body), "features")
    answer = _Answer(services, exchange, version, names, done)
    row = _by_name(features)
    if not answer.asked:
        return services.engine.begin_row(answer.lease, row, answer.finish_row)
    return services.engine.begin(answer.lease, [row], answer.asked, None, answer.finish_one)


def _begin_batch(services: Services, exchange: Exchange, body: bytes, done: Callable[[Reply], None]) -> Job:
    """Predict many rows in one call of the model, given as rows or as columns by name."""
    instances, version, names = _members(decode_json(body), "instances")
    answer = _Answer(services, exchange, version, names, done)
    _check_size(instances, services.settings.max_batch_size)
    return services.engine.begin(answer.lease, instances, answer.asked or (), 0, answer.finish_batch)


class _Answer:
    """What is kept of a request while the model computes, and how its outputs become a reply."""

    __slots__ = ("_done", "_exchange", "_services", "asked", "lease")

    def __init__(
        self,
        services: Services,
        exchange: Exchange,
        version: str | None,
        names: list[Any] | None,
        done: Callable[[Reply], None],
    ) -> None:
        self.lease = lease = services.engine.lease(_ref(exchange, version))
        exchange.model_name, exchange.model_version = lease.name, lease.version
        self.asked = None if names is None else _asked(lease.model.signature, names)
        self._services = services
        self._exchange = exchange
        self._done = done

    def finish_row(self, job: RowJob) -> None:
        """Reply to a request for one row, which may have been computed in a table."""
        services, table = self._services, job.table or job
        try:
            outputs = services.engine.outputs(job)
            values: Values | None = table.values
            if values is None:  # the first of its rows: the others took as long
                values = table.values = values_of(self.lease.model.signature, outputs)
                services.engine.note_phases(table, self._exchange.started_s)
            reply = Reply(orjson.dumps(self._body(values, job.index)), headers=_X_CACHE[job.is_cached])
        except BaseException as exc:  # noqa: BLE001 - whatever the model made of it
            if job.table is not None:
                services.engine.again(job)
                return
            reply = problem(exc, self._exchange, is_debug=services.settings.debug)
        self._done(reply)

    def finish_one(self, job: Job) -> None:
        """Reply to a request for one row with outputs besides."""
        self._finish(job, self._one)

    def finish_batch(self, job: Job) -> None:
        """Reply to a request for many rows."""
        self._finish(job, self._batch)

    def _finish(self, job: Job, body_of: Callable[[Outputs], dict[str, Any]]) -> None:
        services = self._services
        try:
            body = orjson.dumps(body_of(services.engine.outputs(job)))
            services.engine.note_phases(job, self._exchange.started_s)
            reply = Reply(body, headers=_X_CACHE[job.is_cached])
        except BaseException as exc:  # noqa: BLE001 - whatever the model made of it
            reply = problem(exc, self._exchange, is_debug=services.settings.debug)
        self._done(reply)

    def _one(self, outputs: Outputs) -> dict[str, Any]:
        assert self.asked is not None  # else it would be a row
        signature = self.lease.model.signature
        values = values_of(signature, outputs)
        found = asked_outputs(signature, outputs, values, self.asked)
        return {**self._body(values, 0), "outputs": {name: values[0] for name, values in found.items()}}

    def _body(self, values: Values, index: int) -> dict[str, Any]:
        predictions, probability, by_class, at, at_s = values
        body: dict[str, Any] = {
            "prediction": predictions[index],
            "probability": None if probability is None else probability[index],
            "probabilities": None if by_class is None else by_class[index],
            "model_version": self.lease.version,
            "latency_ms": round((at_s - self._exchange.started_s) * 1000, 3),
            "timestamp": at,
        }
        if self.asked is not None:
            body["outputs"] = {}
        return body

    def _batch(self, outputs: Outputs) -> dict[str, Any]:
        signature = self.lease.model.signature
        values = values_of(signature, outputs)
        body: dict[str, Any] = {
            "predictions": values.predictions,
            "probabilities": values.probability,
            "model_version": self.lease.version,
            "latency_ms": round((values.at_s - self._exchange.started_s) * 1000, 3),
            "count": len(values.predictions),
            "timestamp": values.at,
        }
        if self.asked is not None:
            body["outputs"] = asked_outputs(signature, outputs, values, self.asked)
        return body


async def model_info(services: Services, exchange: Exchange) -> Reply:
    """Tell what serves: version, age, libraries, features, classes."""
    loaded = services.engine.lease(ModelRef())
    exchange.model_version = loaded.version
    return Reply(orjson.dumps(describe_model(loaded)))


def _ref(exchange: Exchange, version: str | None) -> ModelRef:
    """What the path and the body of a request ask for.

    Raises:
        ModelNotFoundError: the path names another version than the body: that one is not to be found there.
    """
    if version is None:
        return exchange.ref
    found = narrowed(exchange.ref, version)
    if found is None:
        raise ModelNotFoundError(version, [exchange.ref.version or f"@{exchange.ref.alias}"])
    return found


def _members(document: Any, wanted: str) -> tuple[Any, str | None, list[str] | None]:
    """Take ``wanted``, ``model_version`` and ``outputs`` out of the body, and nothing else may be there."""
    if not isinstance(document, dict):
        raise InvalidInputError([InputIssue(f"an object with {wanted!r}", describe(document))])
    if len(document) == 1 and wanted in document:
        return document[wanted], None, None
    known = (wanted, "model_version", "outputs")
    issues = [
        InputIssue(
            f"only {wanted!r}, 'model_version' and 'outputs'",
            f"the member {clip(name)!r}",
            hint=did_you_mean(name, known),
        )
        for name in [name for name in document if name not in known][:10]
    ]
    if wanted not in document:
        issues.append(InputIssue(f"the member {wanted!r}", "nothing"))
    version, names = document.get("model_version"), document.get("outputs")
    if version is not None and not isinstance(version, str):
        issues.append(InputIssue("a string or null in 'model_version'", describe(version)))
    if names is not None and not isinstance(names, list):
        issues.append(InputIssue("a list of names or null in 'outputs'", describe(names)))
    if issues:
        raise InvalidInputError(issues)
    return document[wanted], version, names


def _asked(signature: Signature, names: list[Any] | None) -> tuple[OutputName, ...] | None:
    """The outputs that the caller names, each once; None if none is asked for.

    Raises:
        InvalidInputError: the model does not offer one.
    """
    if names is None:
        return None
    offered = signature.outputs
    issues = [
        InputIssue(
            f"one of what this model offers in 'outputs': {', '.join(offered)}",
            f"the name {clip(name)!r}" if isinstance(name, str) else describe(name),
            hint=did_you_mean(name, offered) if isinstance(name, str) else None,
        )
        for name in names
        if name not in offered
    ]
    if issues:
        raise InvalidInputError(issues)
    return tuple(dict.fromkeys(names))


def _check_size(instances: Any, limit: int) -> None:
    if not isinstance(instances, list) and not (isinstance(instances, dict) and instances):
        wanted = "a list of rows, or an object of columns by feature name, in 'instances'"
        raise InvalidInputError([InputIssue(wanted, describe(instances))])
    n_rows = count_rows(instances)
    if n_rows > limit or (n_rows < 1 and not _is_no_table(instances)):
        raise InvalidInputError([InputIssue(f"1 to {limit} rows in 'instances'", count(n_rows, "row"))])


def _is_no_table(instances: Any) -> bool:
    """Whether it is an object without any list: the check of its columns tells better what is wrong."""
    return isinstance(instances, dict) and not any(isinstance(values, list) for values in instances.values())


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
