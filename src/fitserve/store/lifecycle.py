"""A version's way into service: read → verify → load → switch → compile.

A version that fails on the way changes nothing: the one that serves goes on.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from fitserve.errors import ArtifactError, ConflictError
from fitserve.formats.base import hooks_of
from fitserve.store.describe import notes_of
from fitserve.store.loading import LARGE_BYTES, adopt, give_back_memory, load_artifact, stop, stop_when_unused
from fitserve.store.repository import read_artifact
from fitserve.store.verify import Verifier, verified, with_path
from fitserve.trust.policy import TrustPolicy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from fitserve.store.catalog import Catalog, LoadedModel
    from fitserve.store.takeover import Optimizer
    from fitserve.types import Artifact

logger = logging.getLogger(__name__)


def load_model(path: Path, verifier: Verifier | None = None) -> LoadedModel:
    """Read a model, try it in a confined child, and load the same bytes here. Blocks.

    Raises:
        UntrustedArtifactError: the trust policy does not let it be loaded.
        ArtifactError: it cannot be served; the text names no path.
    """
    return _load([read_artifact(path)], verifier or Verifier(), None)


def _load(artifacts: list[Artifact], verifier: Verifier, optimizer: Optimizer | None) -> LoadedModel:
    """Try and load the one artifact, which is taken out of the list: its bytes are as large as the model."""
    artifact = artifacts.pop()
    loaded = load_artifact(artifact, verifier.policy, report=verified(artifact, verifier))
    if optimizer is not None:
        optimizer.plan(loaded, artifact)
    del artifact
    if loaded.size_bytes >= LARGE_BYTES:
        give_back_memory()
    return loaded


class Lifecycle:
    """Brings versions into service, one at a time."""

    def __init__(
        self,
        catalog: Catalog,
        path: Path | None,
        verifier: Verifier | None = None,
        *,
        is_one_of_several: bool = False,
        optimizer: Optimizer | None = None,
    ) -> None:
        self._catalog = catalog
        self._path = path
        self._verifier = verifier or Verifier()
        self._optimizer = optimizer
        self._is_one_of_several = is_one_of_several
        self._is_reloading = False

    @property
    def path(self) -> Path | None:
        """Where the model is read from; None for one handed over in memory."""
        return self._path

    def start(self) -> LoadedModel:
        """Load the configured file and let it serve. Blocks; :meth:`optimize` is to follow where requests are answered.

        Raises:
            ArtifactError: it cannot be served; the text names the path, for the operator.
        """
        if self._path is None:
            msg = "no model given: set MODEL_PATH, or run `fitserve run PATH`"
            raise ArtifactError(msg)
        try:
            loaded = _load([read_artifact(self._path)], self._verifier, self._optimizer)
        except ArtifactError as exc:
            raise with_path(exc, self._path, self._verifier.policy) from exc
        for note in notes_of(loaded):
            logger.warning("%s: %s", loaded.name, note)
        if not loaded.trial.has_answered:
            logger.warning("%s is not ready before it has answered a real row: %s", loaded.name, loaded.trial.failure)
        self._catalog.switch(loaded)
        return loaded

    def adopt(self, estimator: object, *, name: str, version: str | None) -> LoadedModel:
        """Let a live estimator serve, of which a copy is made. Blocks.

        Raises:
            ArtifactError: it cannot be served.
        """
        loaded, artifact = adopt(estimator, name=name, version=version)
        if self._optimizer is not None:
            # It is live in this process already: its own bytes, and no others, may be loaded in a child.
            policy = TrustPolicy("pinned", pins=frozenset({loaded.digest}))
            self._optimizer.plan(loaded, artifact, replace(self._verifier, policy=policy))
        self._catalog.switch(loaded)
        return loaded

    def optimize(self) -> None:
        """Begin to compile what serves, if it was loaded for that; in the process that answers requests, not before.

        Starts a thread at most, and only the first time.
        """
        if self._optimizer is not None:
            self._optimizer.begin()

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
            loaded = await off_loop(lambda: self._read_again(path))
        except ArtifactError as exc:
            raise exc.reworded(f"the model file {exc}; the version before goes on") from exc
        finally:
            self._is_reloading = False
        current = self._catalog.current
        if loaded is current:
            logger.info("the model file has not changed: version %s goes on", loaded.version)
            return loaded, loaded
        if current is not None and not loaded.trial.has_answered and current.trial.has_answered:
            stop_when_unused(loaded)
            if self._optimizer is not None:
                self._optimizer.drop()
            msg = f"the new model is not served: {loaded.trial.failure}; the version before goes on"
            raise ArtifactError(msg)
        logger.info("the model file has changed: version %s serves", loaded.version)
        previous = self._catalog.switch(loaded)
        self.optimize()
        if previous is not None:
            stop_when_unused(previous)
        return loaded, previous

    async def stop(self, off_loop: Callable[[Callable[[], None]], Awaitable[None]]) -> None:
        """Let the model that serves close what it has opened: the process is about to end."""
        current = self._catalog.current
        if current is not None and hooks_of(current.model) is not None:
            await off_loop(lambda: stop(current))

    def _read_again(self, path: Path) -> LoadedModel:
        """Load the file, or return what serves if that has the same bytes.

        Raises:
            ConflictError: it has changed, and the siblings of this process would go on with the old version.
            ArtifactError: it cannot be served.
        """
        artifacts, current = [read_artifact(path)], self._catalog.current
        if current is not None and (current.digest, current.version) == (artifacts[0].digest, artifacts[0].version):
            return current
        if self._is_one_of_several:
            msg = (
                "the model file has changed, but this process is one of several workers and the others would keep "
                "the old version: send SIGHUP to their parent process, which replaces all of them, or restart it"
            )
            raise ConflictError(msg)
        return _load(artifacts, self._verifier, self._optimizer)
