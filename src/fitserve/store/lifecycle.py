"""A version's way into service: read → load → trial → switch.

A version that fails on the way changes nothing: the one that serves goes on.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

import fitserve.formats
from fitserve.errors import ArtifactError, ConflictError, FitserveError, clip
from fitserve.formats.base import Format, Model
from fitserve.plugins import discover
from fitserve.store.catalog import Catalog, LoadedModel, Trial
from fitserve.store.cost import Cost
from fitserve.store.repository import IDENTIFIER, digest_version, read_artifact
from fitserve.trust.policy import TrustPolicy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

logger = logging.getLogger(__name__)

TRIAL_ROWS = 64
"""Rows of the second trial call: enough to tell the cost of a row from the cost of a call."""

SLOW_TRIAL_S = 0.05
"""A first call over this is not repeated to measure it: it will not run on the event loop anyway."""


def load_model(path: Path) -> LoadedModel:
    """Read and load a model file, and let it answer a row. Blocks; runs the file's code.

    Raises:
        ArtifactError: the file cannot be served; the text names no path.
    """
    artifact = read_artifact(path)
    model = _format_of(path).load(artifact, TrustPolicy())
    return LoadedModel(
        name=artifact.name,
        version=artifact.version,
        digest=artifact.digest,
        size_bytes=len(artifact.data),
        model=model,
        loaded_at=datetime.now(UTC),
        loaded_monotonic_s=time.monotonic(),
        metadata=artifact.metadata,
        **_tried(model),
    )


def adopt_model(estimator: object, *, name: str, version: str | None) -> LoadedModel:
    """Take a live estimator into service as it is now; later changes to it change nothing here.

    Raises:
        ArtifactError: it has no predict, is not fitted or cannot be copied, or its name or version
            is none that could stand in a header.
    """
    for word in (name, version or "0"):
        if not re.fullmatch(IDENTIFIER, word):
            msg = f"{clip(word)!r} is no name or version: wanted letters, digits and . _ + - up to 64"
            raise ArtifactError(msg)
    from fitserve.formats.sklearn import snapshot

    try:
        model = snapshot(estimator)
    except FitserveError as exc:
        msg = f"the model {exc}"
        raise ArtifactError(msg) from exc
    except Exception as exc:
        msg = f"the model cannot be copied ({type(exc).__name__}): save it to a file and serve that"
        raise ArtifactError(msg) from exc
    try:
        data = pickle.dumps(estimator)
    except Exception:  # noqa: BLE001 - a live model need not be picklable: it is only named after its bytes
        data = os.urandom(16)
    digest = hashlib.sha256(data).hexdigest()
    return LoadedModel(
        name=name,
        version=version or digest_version(digest),
        digest=digest,
        size_bytes=len(data),
        model=model,
        loaded_at=datetime.now(UTC),
        loaded_monotonic_s=time.monotonic(),
        metadata={},
        **_tried(model),
    )


def _format_of(path: Path) -> Format:
    formats = discover(fitserve.formats, Format, "FORMAT")
    return next((known for known in formats if path.name.lower().endswith(known.suffixes)), formats[0])


def _tried(model: Model) -> dict[str, Any]:
    """Let a model answer a row that its signature makes, and measure what a call costs."""
    cost, trial = Cost(), Trial()
    signature = model.signature
    if signature.is_open:
        trial.failure = "it does not tell its features, so no test row could be made: name them in a manifest's example"
        return {"cost": cost, "trial": trial}
    row = list(signature.example_row())
    try:
        first = _timed(model, [row])
        if first > SLOW_TRIAL_S:
            cost = Cost(fixed_s=first)
        else:
            one = min(_timed(model, [row]) for _ in range(3))
            many = min(_timed(model, [row] * TRIAL_ROWS) for _ in range(2))
            per_row = max(0.0, (many - one) / (TRIAL_ROWS - 1))
            cost = Cost(fixed_s=max(0.0, one - per_row), per_row_s=per_row)
        trial.has_answered = True
    except (Exception, SystemExit) as exc:  # noqa: BLE001 - a model may raise anything
        trial.failure = f"it raised {type(exc).__name__} on a test row"
    return {"cost": cost, "trial": trial}


def _timed(model: Model, rows: list[list[Any]]) -> float:
    inputs = model.signature.check(rows)
    started = time.perf_counter()
    outputs = model.predict(inputs)
    elapsed = time.perf_counter() - started
    if len(np.atleast_1d(outputs.predictions)) != len(rows):
        msg = "predict returned another number of rows than it was given"
        raise ValueError(msg)
    return elapsed


class Lifecycle:
    """Brings versions into service, one at a time."""

    def __init__(self, catalog: Catalog, path: Path | None, *, is_one_of_several: bool = False) -> None:
        self._catalog = catalog
        self._path = path
        self._is_one_of_several = is_one_of_several
        self._is_reloading = False

    @property
    def path(self) -> Path | None:
        """Where the model is read from; None for one handed over in memory."""
        return self._path

    def start(self) -> LoadedModel:
        """Load the configured file and let it serve. Blocks.

        Raises:
            ArtifactError: it cannot be served; the text names the path, for the operator.
        """
        if self._path is None:
            msg = "no model given: set MODEL_PATH, or run `fitserve run PATH`"
            raise ArtifactError(msg)
        try:
            loaded = load_model(self._path)
        except ArtifactError as exc:
            msg = f"{self._path} {exc}"
            raise type(exc)(msg) from exc
        for note in loaded.model.facts.warnings:
            logger.warning("%s: %s", loaded.name, note)
        if not loaded.trial.has_answered:
            logger.warning("%s is not ready before it has answered a real row: %s", loaded.name, loaded.trial.failure)
        self._catalog.switch(loaded)
        return loaded

    async def reload(
        self, off_loop: Callable[[Callable[[], LoadedModel]], Awaitable[LoadedModel]]
    ) -> tuple[LoadedModel, LoadedModel | None]:
        """Read the configured file again and switch to it if it can be served.

        Args:
            off_loop: runs a blocking call elsewhere and gives its result.

        Returns:
            The version that serves now, and the one before; the same record twice if the
            file has not changed.

        Raises:
            ConflictError: another reload is under way, or this process is one of several and
                the others would go on with the old version.
            ArtifactError: the file cannot be served, and the previous version goes on. No path in the text.
        """
        path = self._path
        if path is None:
            msg = "this model was handed over in memory: there is no file to read again"
            raise ConflictError(msg)
        if self._is_reloading:
            msg = "a reload is under way; wait for it"
            raise ConflictError(msg)
        self._is_reloading = True
        try:
            loaded = await off_loop(lambda: load_model(path))
        except ArtifactError as exc:
            msg = f"the model file {exc}; the version before goes on"
            raise type(exc)(msg) from exc
        finally:
            self._is_reloading = False
        current = self._catalog.current
        if current is not None and (current.digest, current.version) == (loaded.digest, loaded.version):
            logger.info("the model file has not changed: version %s goes on", current.version)
            return current, current
        if current is not None and not loaded.trial.has_answered and current.trial.has_answered:
            msg = f"the new model is not served: {loaded.trial.failure}; the version before goes on"
            raise ArtifactError(msg)
        if self._is_one_of_several:
            msg = (
                "the file can be served, but this process is one of several workers and the others would keep "
                "the old version: send SIGHUP to their parent process, which replaces all of them, or restart it"
            )
            raise ConflictError(msg)
        logger.info("the model file has changed: version %s serves", loaded.version)
        return loaded, self._catalog.switch(loaded)
