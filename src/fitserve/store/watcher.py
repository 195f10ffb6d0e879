"""Notices that a model file has changed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

QUIET_MS = 300
"""How long a file must be left alone before it counts as written."""


async def changes(path: Path) -> AsyncIterator[None]:
    """Yield once whenever the model or its manifest has changed and been quiet for ``QUIET_MS``."""
    async for _ in await asyncio.to_thread(_watch, path):
        yield


def _watch(path: Path) -> AsyncIterator[object]:
    from watchfiles import awatch

    from fitserve.store.repository import MANIFEST_SUFFIX, model_stem

    if path.is_dir():
        return awatch(path, step=QUIET_MS)
    # The folder is watched, not the file: most programs write another file and rename it.
    names = {path.name, model_stem(path) + MANIFEST_SUFFIX}
    return awatch(
        path.parent, watch_filter=lambda _, changed: changed.rpartition("/")[2] in names, recursive=False, step=QUIET_MS
    )
