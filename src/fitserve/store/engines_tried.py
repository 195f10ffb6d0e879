"""What compiling a model shows, where nothing serves: for ``fitserve check`` and ``fitserve pack``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fitserve.errors import ArtifactError
from fitserve.store.compile import NothingToCompileError, Sought, compile_artifact, no_engine
from fitserve.store.layouts import MLFLOW

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from fitserve.settings import Settings
    from fitserve.store.engines import Engines
    from fitserve.store.optimization import Source
    from fitserve.store.verify import Verifier
    from fitserve.types import Artifact

_OFF: Final[Mapping[str, Any]] = {"state": "off", "reason": "optimize = off", "source": None, "report": []}


def try_engines(artifact: Artifact, verifier: Verifier, settings: Settings, model_path: Path) -> dict[str, Any]:
    """What a server would find out about the engines of a model; nothing is loaded in this process. Blocks.

    Returns:
        JSON: ``state``, ``reason``, ``source`` and ``report``, as /model/info has them.

    Raises:
        ArtifactError: ``optimize = require``, and no engine was proven; the text names no path.
    """
    told = dict(_OFF)
    if settings.optimize == "off":
        return told

    def take(engines: Engines, source: Source) -> bool:
        told.update(state="done", reason=None, source=source, report=list(engines.report))
        return True

    try:
        sought = Sought.of(lambda: artifact, verifier, settings, model_path)
        if not sought.at_hand(take):
            sought.make(take)
    except NothingToCompileError as exc:
        told["reason"] = str(exc)
    except ArtifactError as exc:
        told |= {"state": "failed", "reason": str(exc)}
    _require(settings.optimize, told, has_engine=any(entry.get("verdict") == "used" for entry in told["report"]))
    return told


def engines_to_pack(
    packed: Artifact, verifier: Verifier, optimize: str, timeout_s: float
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Compile a package for itself. Blocks.

    Returns:
        The files of its engines, none if none was proven, and what is told of them, as :func:`try_engines` has it.

    Raises:
        ArtifactError: ``optimize = require``, and no engine was proven; the text names no path.
    """
    told = dict(_OFF)
    if optimize == "off":
        return {}, told
    files: dict[str, bytes] = {}
    try:
        engines, found = compile_artifact(packed, verifier, timeout_s=timeout_s)
        told |= {"state": "done", "reason": None, "source": "compiled", "report": list(engines.report)}
        files = found if engines.compiled else {}
    except NothingToCompileError as exc:
        told["reason"] = str(exc)
    except ArtifactError as exc:
        told |= {"state": "failed", "reason": str(exc)}
    if MLFLOW in packed.files and files:
        # What lies beside an MLflow folder is not among the files of the model, which are what is signed.
        files, told["reason"] = {}, "beside an MLflow folder no engines are packed: they are compiled where it serves"
    _require(optimize, told, has_engine=bool(files))
    return files, told


def _require(optimize: str, told: Mapping[str, Any], *, has_engine: bool) -> None:
    if optimize == "require" and not has_engine:
        raise no_engine(told["report"], told["reason"])
