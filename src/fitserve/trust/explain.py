"""Why a pickle is not loaded, in words for the person who wrote it, or who runs it."""

from __future__ import annotations

import pickle
import re
from typing import TYPE_CHECKING

from fitserve.errors import FitserveError, clip
from fitserve.trust.allowlist import uses_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fitserve.trust.policy import TrustPolicy

MAX_NAMES = 20
"""How many names one message lists. All of them are in the error's ``missing``."""


def explain(exc: BaseException, *, name: str | None = None) -> str:
    """Return why a pickle did not load: a predicate that follows the file's name.

    ``name`` is the full name that was looked for, where that is known.
    """
    match exc:
        case ModuleNotFoundError(name=str(module)) if re.fullmatch(r"\w+(\.\w+)*", module):
            return _missing_module(module, name)
        case AttributeError() if found := _in_main(str(exc), name):
            return in_main([found])
        case ImportError() | AttributeError() if name:
            return f"needs {name}, which the installed version of {name.partition('.')[0]!r} does not have"
        case FitserveError():
            return str(exc)
        case _ if isinstance(exc, EOFError) or re.search("truncated|exhausted|ran out|EOF", str(exc)):
            return "is truncated: it ends before the model does"
        case MemoryError() | RecursionError():
            return f"is damaged, or larger than this machine can load ({type(exc).__name__})"
        case KeyError() | IndexError() | UnicodeDecodeError() | pickle.UnpicklingError() | ModuleNotFoundError():
            return "is damaged, or no joblib or pickle file"  # what it says of opcodes helps nobody
        case _:
            return f"is damaged, or no joblib or pickle file ({type(exc).__name__}: {clip(str(exc), 200)})"


def _missing_module(module: str, name: str | None) -> str:
    package = module.partition(".")[0]
    text = f"needs the package {package!r}, which is not installed here"
    if package != module:
        return f"needs the module {module!r}, which the installed version of {package!r} does not have, or {text[6:]}"
    wanted = f" ({name})" if name else ""
    return f"{text}{wanted}: install it, or give the folder with that module by --code-path DIR"


def _in_main(text: str, name: str | None) -> str | None:
    if name and name.startswith("__main__."):
        return name.removeprefix("__main__.")
    found = re.search(r"attribute '(\w+)' on <module '__main__'|module '__main__' has no attribute '(\w+)'", text)
    return (found[1] or found[2]) if found else None


def in_main(names: Sequence[str]) -> str:
    """Return what to do about classes that were defined in a notebook or script."""
    classes = ", ".join(names)
    first = re.sub(r"\W", "_", names[0].partition(".")[0]).lower() or "features"
    return (
        f"uses {classes}, defined in a notebook or script (__main__), which is not here: "
        f"move {'it' if len(names) == 1 else 'them'} into a module, say {first}.py, import it from there, "
        "fit and save the model again, and give the module's folder by --code-path DIR"
    )


def missing_names(missing: Sequence[str], policy: TrustPolicy) -> str:
    """Return what is not allowed of the names that a file uses."""
    local = [name.removeprefix("__main__").lstrip(".:") for name in missing if re.match(r"__main__[.:]", name)]
    others = [name for name in missing if not re.match(r"__main__[.:]", name)]
    if local:
        rest = f"; it also {_not_listed(others, policy)}" if others else ""
        return in_main([clip(name) for name in local[:MAX_NAMES]]) + rest
    level = "" if policy.level == "allowlist" else f" (trust is {policy.level!r}, and nothing vouches for this file)"
    return _not_listed(others, policy) + level


def _not_listed(names: Sequence[str], policy: TrustPolicy) -> str:
    """Tell names that are not on the list from those that are there for another use."""
    misused = [name for name in names if uses_of(name, policy)]
    absent = [name for name in names if name not in misused]
    parts = []
    if absent:
        parts.append(f"needs {_listed(absent)}, which {'is' if len(absent) == 1 else 'are'} not on the allow-list")
    if misused:
        what = "it" if len(misused) == 1 else "them"
        parts.append(f"uses {_listed(misused)} in a way that the allow-list does not have for {what}")
    return ", and ".join(parts)


def _listed(names: Sequence[str]) -> str:
    shown = [clip(re.sub(r"[^\w.:<>]", "?", name), 128) for name in names[:MAX_NAMES]]
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(shown) + more
