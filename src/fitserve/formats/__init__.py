"""Model formats. One file is one format: it exports ``FORMAT`` and is found by its name."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from fitserve.errors import ArtifactError
from fitserve.formats.base import Format
from fitserve.plugins import discover

if TYPE_CHECKING:
    from fitserve.types import Artifact

_GIT_LFS = b"version https://git-lfs.github.com/spec/"
"""How the stand-in for a file begins that Git has not fetched.

Source: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
"""

_OLD_PICKLE = re.compile(rb"\(?c[\w.]{1,100}\n\w{1,100}\n")
"""A pickle of Python 2's usual protocol begins with a global, by its name. Source: Python's Lib/pickletools.py"""


def identify(artifact: Artifact) -> Format:
    """Say which format the bytes are of. The name of the file plays no part.

    Raises:
        ArtifactError: none that is known, or another one than the manifest states.
    """
    formats = discover(sys.modules[__name__], Format, "FORMAT")
    matching = [known for known in formats if known.matches(artifact)]
    if not matching:
        raise ArtifactError(_explain(artifact.data, formats))
    # Each format knows its own head, and no two heads are alike.
    found = matching[0]
    stated = artifact.declared.format
    if stated is not None and stated != found.name:
        msg = f"is a file of {found.name}, but its manifest says {stated}"
        raise ArtifactError(msg)
    return found


def _explain(data: bytes, formats: list[Format]) -> str:
    if data.startswith(_GIT_LFS):
        return "is only the stand-in for a file that Git LFS has not fetched: run `git lfs pull`"
    if _OLD_PICKLE.match(data):
        return "is a pickle of protocol 0 or 1, which is not read: load it where you trust it, and save it with joblib"
    known = ", ".join(known.name for known in formats)
    return f"is damaged, or of no format that is known here ({known})"
