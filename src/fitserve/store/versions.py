"""The order of versions: which of two is the higher one. Pure: no I/O.

From the lowest to the highest:

1. versions made of a digest (``sha256-22be5e2ea862``): the same bytes have no before and after;
2. words (``blue``, ``rc1``, ``1.0.0rc1``), in which numbers count as numbers: ``run9`` < ``run10``;
3. numbered versions: semantic ones (``2.10.0`` > ``2.9.0`` > ``2.9.0-rc.1``), whole numbers (``10`` > ``9``), dates and
   times (``2026-11-23``, ``20261123-0930``).

Source of the order of semantic versions: https://semver.org/spec/v2.0.0.html, item 11.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

VersionKey: TypeAlias = tuple[object, ...]
"""What :func:`version_key` gives: comparable with each other."""

DIGEST_PREFIX = "sha256-"
"""How a version begins that is made of a digest."""

_DIGESTS, _WORDS, _NUMBERED = range(3)

_NUMBERS = re.compile(
    r"""[vV]?
    (?P<core>
        [0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T_-][0-9]+)*Z?     # a date, and a time
      | [0-9]{8}(?:[T_-][0-9]+)+Z?                       # the same without hyphens
      | [0-9]+(?:\.[0-9]+)*                              # 3, 1.2, 1.2.3, 20261123
    )
    (?:-(?P<before>[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?  # a pre-release
    (?:\+(?P<build>[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?
    """,
    re.VERBOSE,
)


def is_numbered(version: str) -> bool:
    """Whether it is a semantic version, a whole number or a date, perhaps after a ``v``: what folders are called."""
    return _NUMBERS.fullmatch(version) is not None


def version_key(version: str) -> VersionKey:
    """The place of a version in the order of all; two different texts never have the same.

    Parts that are missing are 0: 1.2 stands with 1.2.0, of which the longer text is the later one. Build metadata
    (``1.2.3+4``) decides only between versions that are the same otherwise.
    """
    if version.startswith(DIGEST_PREFIX):
        return _DIGESTS, version
    match = _NUMBERS.fullmatch(version)
    if match is None:
        return _WORDS, _identifiers(re.findall(r"[0-9]+|[^0-9]+", version)), version
    numbers = [_identifier(number) for number in re.findall("[0-9]+", match["core"])]
    while numbers and numbers[-1] == _ZERO:
        numbers.pop()
    before, build = match["before"], match["build"]
    core = version.partition("+")[0]
    return (
        _NUMBERED,
        tuple(numbers),
        (before is None, _identifiers(before.split(".")) if before else ()),
        (len(core), core),
        _identifiers(build.split(".")) if build else (),
        version,
    )


def highest(versions: Iterable[str]) -> str:
    """The highest of some versions.

    Raises:
        ValueError: there is none.
    """
    return max(versions, key=version_key)


def _identifiers(parts: Iterable[str]) -> VersionKey:
    return tuple(_identifier(part) for part in parts)


def _identifier(part: str) -> tuple[bool, int, str]:
    """Numbers before words, and by size: digits are compared as text, as int() refuses thousands of them."""
    is_word = re.fullmatch("[0-9]+", part) is None
    text = part if is_word else part.lstrip("0")
    return is_word, 0 if is_word else len(text), text


_ZERO = _identifier("0")
