"""The names that a model file may use under the trust level ``allowlist``, and how.

``allowlist.txt`` lies beside this module: exact full names, no prefixes. Each has the uses that were
reviewed, so that a class that may be *restored* can still not be *called* with a file's arguments:

===========  ===========================================================================================
``new``      a class: an empty instance may be made (``cls.__new__``) and given its attributes
``call``     a class or function that may be called at loading; see :mod:`fitserve.trust.reconstruct`
``type``     a class that may be named to such a function, or whose instances such a function returns
``value``    a class or function that a model may hold, and may call when it predicts
===========  ===========================================================================================

``scripts/survey_estimators.py`` compares the list with what fitted estimators need.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fitserve.trust.policy import TrustPolicy

Use: TypeAlias = Literal["new", "call", "type", "value"]
EVERY_USE: frozenset[Use] = frozenset(get_args(Use))


@cache
def allowed_names() -> Mapping[str, frozenset[Use]]:
    """Return the reviewed uses by full name."""
    text = files("fitserve.trust").joinpath("allowlist.txt").read_text(encoding="utf-8")
    return parse(text)


def parse(text: str) -> dict[str, frozenset[Use]]:
    """Read lines of ``package.module.Name use [use …]``; ``#`` starts a comment.

    Raises:
        ValueError: a line is something else, or a name stands there twice.
    """
    names: dict[str, frozenset[Use]] = {}
    for line in text.splitlines():
        name, *words = line.partition("#")[0].split() or [""]
        if not name:
            continue
        uses = frozenset(use for use in EVERY_USE if use in words)
        if name in names or len(uses) != len(words) or not words or not is_full_name(name):
            raise ValueError(f"allowlist.txt: {line!r} is no line of it")
        names[name] = uses
    return names


def is_full_name(name: str) -> bool:
    """Tell whether this is ``package.module.Name``: two or more identifiers."""
    parts = name.split(".")
    return len(parts) > 1 and all(part.isidentifier() for part in parts)


def uses_of(name: str, policy: TrustPolicy) -> frozenset[Use]:
    """Return how a file may use a name; empty where it may not.

    What the operator adds with ``--allow`` may be used in every way.
    """
    return EVERY_USE if name in policy.allow else allowed_names().get(current_name(name), frozenset())


def current_name(name: str) -> str:
    """Return what a name of an older version of its library is called today.

    Source: NumPy 2.0 release notes, "numpy.core is now private": ``numpy.core`` became ``numpy._core``.
    """
    return name.replace("numpy.core.", "numpy._core.", 1) if name.startswith("numpy.core.") else name
