"""A class of the operator's own: a ``model.py`` with ``predict(rows)``.

The contract, told to users in docs/howto/serve-your-own-class.md::

    class Model:
        example = {"city": "Oslo", "age": 30.0}      # a valid row; or
        features = {"city": "string", "age": "number?"}  # kinds, with a ? where null is taken
        classes_ = ["no", "yes"]                     # only with predict_proba

        def start(self): ...                         # optional: open pools, before the first prediction
        def stop(self): ...                          # optional: close them, after the last
        def predict(self, rows): ...                 # a list of dicts in, one output a row out
        def predict_proba(self, rows): ...           # optional: one list of probabilities a row

The file is code, whatever it says: it is run only if the very same bytes lie below a folder that the
operator names (``code_path``), or if they are vouched for. It is run out of the bytes that were read.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from fitserve.errors import ArtifactError, UntrustedArtifactError, clip
from fitserve.estimators.user_class import UserModel
from fitserve.formats.base import Format, is_vouched_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from fitserve.trust.policy import TrustPolicy
    from fitserve.types import Artifact

MARK: Final = "__fitserve_model__"
"""Stands in a module that was made here, so that loading it anew may replace it."""

DEEPEST: Final = 3
"""How many folders below one of ``code_path`` the file may lie."""


def load(artifact: Artifact, policy: TrustPolicy) -> UserModel:
    """Run the file and make its class.

    Raises:
        UntrustedArtifactError: it lies below no folder of ``code_path`` and nothing else vouches for it.
        ArtifactError: it raises, has no class with ``predict`` or several, or does not tell its features.
    """
    path = _trusted_path(artifact, policy)
    for folder in policy.code_path:
        if str(folder) not in sys.path:
            sys.path.append(str(folder))  # last, so that nothing there takes the place of a library
    module = _module(artifact, path or Path(artifact.file_name))
    kind = _model_class(module, artifact.file_name)
    instance = _guarded(kind, artifact.file_name)
    return UserModel(instance, artifact.declared)


def _trusted_path(artifact: Artifact, policy: TrustPolicy) -> Path | None:
    """Where the operator has the same bytes; None if they are vouched for in another way."""
    if policy.level != "data":
        for folder in policy.code_path:
            for depth in range(DEEPEST + 1):
                for path in folder.glob("*/" * depth + artifact.file_name):
                    if path.is_file() and path.read_bytes() == artifact.data:
                        return path
    if is_vouched_for(artifact, policy):
        return None
    reason = "is Python code, and trust = data loads none"
    if policy.level != "data":
        reason = (
            "is Python code, which runs when it is loaded: if it is yours, name the folder that it lies in: "
            "--code-path DIR"
        )
    raise UntrustedArtifactError(reason, digest=artifact.digest)


def _module(artifact: Artifact, path: Path) -> ModuleType:
    """The module that the bytes make, known by the name of the file while it is served."""
    name = path.stem
    known = sys.modules.get(name)
    if not name.isidentifier() or (known is not None and not hasattr(known, MARK)):
        msg = f"is called {clip(path.name)!r}, which is no name for a module here: give it another, such as model.py"
        raise ArtifactError(msg)
    module = ModuleType(name)
    module.__file__ = str(path)
    setattr(module, MARK, True)
    sys.modules[name] = module  # dataclasses and pickle look there
    try:
        _guarded(lambda: _run(artifact.data, path, module), artifact.file_name)
    except ArtifactError:
        if known is None:
            del sys.modules[name]
        else:
            sys.modules[name] = known
        raise
    return module


def _run(data: bytes, path: Path, module: ModuleType) -> None:
    exec(compile(data, str(path), "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - the policy has agreed


def _guarded(call: Callable[[], Any], file_name: str) -> Any:
    """Call code of the file.

    Raises:
        ArtifactError: it raised; the text names the line of the file.
    """
    try:
        return call()
    except SyntaxError as exc:
        msg = f"has a syntax error in line {exc.lineno} of {Path(exc.filename or file_name).name}: {exc.msg}"
        raise ArtifactError(msg) from exc
    except (Exception, SystemExit) as exc:
        lines = [
            frame.lineno for frame in traceback.extract_tb(exc.__traceback__) if Path(frame.filename).name == file_name
        ]
        place = f" in line {lines[-1]} of {file_name}" if lines else ""
        msg = f"raised {type(exc).__name__}{place}: {clip(str(exc), 300)}"
        raise ArtifactError(msg) from exc


def _model_class(module: ModuleType, file_name: str) -> type:
    """The only public class with ``predict`` that the file defines; of several the one called Model."""
    found = [
        value
        for name, value in vars(module).items()
        if isinstance(value, type)
        and value.__module__ == module.__name__
        and not name.startswith("_")
        and callable(getattr(value, "predict", None))
    ]
    found = list(dict.fromkeys(found))
    if len(found) > 1:
        found = [kind for kind in found if kind.__name__ == "Model"] or found
    if len(found) > 1:
        names = ", ".join(kind.__name__ for kind in found)
        msg = f"has several classes with predict ({names}): call the one to serve Model"
        raise ArtifactError(msg)
    if not found:
        msg = f"has no class with predict: write one into {file_name}, with a method predict(self, rows)"
        raise ArtifactError(msg)
    return found[0]


def _matches(artifact: Artifact) -> bool:
    """Python's source has no mark: it is text in a file that is called so."""
    return artifact.file_name.lower().endswith(".py") and b"\0" not in artifact.data[:4096]


FORMAT = Format(name="python", suffixes=(".py",), matches=_matches, load=load, holds_code=True)
