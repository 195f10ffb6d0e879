"""A model is compiled to engines, and they are proven, in a confined child; its files come back, and nothing else.

What was compiled once is taken from a package or from the cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import orjson

from fitserve.confine.child import GivenUpError
from fitserve.confine.scratch import make_scratch, remove_scratch
from fitserve.errors import ArtifactError
from fitserve.estimators.model import EstimatorModel
from fitserve.store.engine_cache import cache_of
from fitserve.store.engines import INDEX, Engines, versions_here
from fitserve.store.files import Folder, open_path
from fitserve.store.loading import load_artifact
from fitserve.store.message import artifact_of, policy_of_message
from fitserve.store.verify import enter_with, identity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fitserve.formats.base import Model
    from fitserve.settings import Settings
    from fitserve.store.engine_cache import EngineCache
    from fitserve.store.optimization import Source
    from fitserve.store.verify import Verifier
    from fitserve.trust.policy import TrustPolicy
    from fitserve.types import Artifact
    from fitserve.urls import SourceUrl

    Take: TypeAlias = Callable[[Engines, Source], bool]

SPARE_BYTES = 3 * 2**29
"""What a child that compiles may take besides what loading takes: skl2onnx holds a graph several times over."""

NICENESS = 10
"""By how much the child's priority is lower than that of the processes that serve."""

PROVING_PART = 0.9
"""Of the time of a child, the part in which it looks for further engines: the rest is for loading and writing."""

PACKAGED = "engines/"
"""Where the engines of a package lie in it."""

_FOLDER = "engines"

logger = logging.getLogger(__name__)


class NothingToCompileError(ArtifactError):
    """There is nothing that could be compiled; the text says why."""


def why_not_compiled(model: Model) -> str | None:
    """Why there is nothing to compile; None where it may be tried."""
    if not isinstance(model, EstimatorModel):
        return f"{model.facts.model_type} is computed by its own runtime"
    if not model.is_library_code:
        return "the model runs code that no engine knows"
    if model.signature.is_open:
        return "the model does not tell its features, so that no engine can be proven"
    return None


def key_of(artifact: Artifact, timeout_s: float) -> str:
    """Under which the engines of an artifact are kept: a digest of all that they depend on."""
    parts = [identity(artifact), versions_here(), timeout_s]
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()


def packaged(artifact: Artifact, policy: TrustPolicy) -> Engines | None:
    """The engines that lie in a package, where they fit what is installed here, and somebody vouches for the package.

    An engine is read by native code that believes it: what a package says of itself is not enough.
    """
    files = {path.removeprefix(PACKAGED): data for path, data in artifact.files.items() if path.startswith(PACKAGED)}
    is_vouched = artifact.digest in policy.pins or policy.verify_key is not None or policy.level == "any"
    if INDEX not in files or not is_vouched:
        return None
    with contextlib.suppress(ArtifactError):
        engines = Engines.of(files)
        if dict(engines.versions) == versions_here():
            return engines
    return None


@dataclass(frozen=True, slots=True)
class Sought:
    """The engines of one artifact, which are looked for. Any thread; everything blocks.

    The artifact is read when its bytes are needed, and held no longer: while another process compiles, all that
    wait for it would hold a copy each.

    Attributes:
        read: gives the artifact, the same bytes each time.
        verifier: loads it in a child.
        timeout_s: how long compiling may take.
        cache: where engines are kept; None where there is no place.
        key: under which they are.
        is_packaged: whether it brings engines along that may be believed.
    """

    read: Callable[[], Artifact]
    verifier: Verifier
    timeout_s: float
    cache: EngineCache | None
    key: str
    is_packaged: bool

    @classmethod
    def of(
        cls, read: Callable[[], Artifact], verifier: Verifier, settings: Settings, model_path: Path | SourceUrl | None
    ) -> Self:
        """Read an artifact, to know which engines are its own.

        Args:
            read: as the attribute.
            verifier: likewise.
            settings: ``optimize_timeout_s`` and ``cache_dir``.
            model_path: where models are read from; None for a live one.

        Raises:
            ArtifactError: it cannot be read.
        """
        artifact, timeout_s = read(), settings.optimize_timeout_s
        is_packaged = packaged(artifact, verifier.policy) is not None
        return cls(read, verifier, timeout_s, cache_of(settings, model_path), key_of(artifact, timeout_s), is_packaged)

    def at_hand(self, take: Take) -> bool:
        """Get them from the package or from the cache, if they are there.

        Args:
            take: is given the engines; False says that they are damaged, so that others are wanted.

        Returns:
            Whether they were taken.
        """
        if self.is_packaged and (engines := packaged(self.read(), self.verifier.policy)) is not None:
            if take(engines, "package"):
                return True
            del engines
        return self._kept(take)

    def _kept(self, take: Take) -> bool:
        if self.cache is None or (kept := self.cache.get(self.key)) is None:
            return False
        with contextlib.suppress(ArtifactError):
            if take(Engines.of(kept), "cache"):
                return True
        logger.debug("compiled engines in the cache are damaged, and made again")
        return False

    def make(self, take: Take, gives_up: Callable[[], bool] = lambda: False) -> None:
        """Compile them, or get them from another process that does so already.

        Args:
            take: as :meth:`at_hand` has it.
            gives_up: whether they are wanted no more; asked now and then.

        Raises:
            NothingToCompileError: it is no model that engines compute.
            GivenUpError: they are wanted no more.
            ArtifactError: as :func:`compile_artifact`.
        """
        if self.cache is None:
            take(self._compiled(gives_up)[0], "compiled")
            return
        with self.cache.locked(self.key, 2 * self.timeout_s, gives_up):
            if gives_up():
                msg = "was given up before it was compiled"
                raise GivenUpError(msg)
            if self._kept(take):  # another process has compiled it meanwhile
                return
            engines, files = self._compiled(gives_up)
            self.cache.put(self.key, files)
        del files
        take(engines, "compiled")

    def _compiled(self, gives_up: Callable[[], bool]) -> tuple[Engines, dict[str, bytes]]:
        return compile_artifact(self.read(), self.verifier, timeout_s=self.timeout_s, gives_up=gives_up)


def compile_artifact(
    artifact: Artifact, verifier: Verifier, *, timeout_s: float, gives_up: Callable[[], bool] | None = None
) -> tuple[Engines, dict[str, bytes]]:
    """Compile a model in a confined child of low priority. Blocks.

    Args:
        artifact: the model.
        verifier: loads it in a child.
        timeout_s: how long that may take.
        gives_up: asked now and then whether they are wanted no more.

    Returns:
        The engines that were proven, and the same as files.

    Raises:
        NothingToCompileError: it is no model that engines compute.
        GivenUpError: they are wanted no more.
        UntrustedArtifactError: the policy does not let it be loaded.
        ArtifactError: it cannot be loaded, the child crashed or did not end in time, or there is no place for
            its files.
    """
    scratch = make_scratch("fitserve-compile-")
    if scratch is None:
        msg = "cannot be compiled: there is no place for temporary files"
        raise ArtifactError(msg)
    try:
        answer = replace(verifier, deadline_s=timeout_s).run_in(
            scratch,
            "fitserve.store.compile:compile_task",
            artifact,
            spare_bytes=SPARE_BYTES,
            niceness=NICENESS,
            gives_up=gives_up,
            compile_s=timeout_s * PROVING_PART,
        )
        if answer["nothing"] is not None:
            raise NothingToCompileError(answer["nothing"])
        opened = open_path(scratch / _FOLDER)
        if not isinstance(opened, Folder):
            msg = "cannot be compiled: the child has left no engines"
            raise ArtifactError(msg)
        with opened as folder:
            files = {name: folder.read(name) for name in folder.files}
        return Engines.of(files), files
    finally:
        remove_scratch(scratch)


def no_engine(report: Sequence[Mapping[str, Any]], reason: str | None) -> ArtifactError:
    """The error of a model that must have an engine and has none, with the reasons of each."""
    refusals = [f"{entry.get('engine')}: {entry['reason']}" for entry in report if entry.get("reason")]
    return ArtifactError(f"has no compiled engine, and optimize = require: {'; '.join(refusals) or reason}")


def compile_task(request: Mapping[str, Any], blobs: Sequence[memoryview]) -> dict[str, Any]:
    """In the child: load the model, compile it, and leave what was proven in the folder that is given.

    Raises:
        ArtifactError: it cannot be loaded.
    """
    if "memory_bytes" in request:
        artifact, policy, _ = enter_with(request, blobs, prepare=_import_compilers)
    else:
        artifact, policy = artifact_of(request["artifact"], blobs), policy_of_message(request["policy"])
    model = load_artifact(artifact, policy).model
    if (why := why_not_compiled(model)) is not None:
        return {"nothing": why}
    from fitserve.optimize.compile import compile_model

    assert isinstance(model, EstimatorModel)  # why_not_compiled has looked
    compiled, report = compile_model(model, deadline_s=request["compile_s"])
    folder = Path(request["scratch"], _FOLDER)
    folder.mkdir()
    for name, data in Engines(tuple(compiled), tuple(report), versions_here()).files().items():
        (folder / name).write_bytes(data)
    return {"nothing": None}


def _import_compilers() -> None:
    """Import what compiling needs before the memory is bounded; one that is missing is an engine less."""
    import importlib

    for module in ("fitserve.optimize.compile", "onnxruntime", "skl2onnx", "treelite"):
        with contextlib.suppress(Exception):
            importlib.import_module(module)
