"""Notices that a model file has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

QUIET_MS = 300
"""How long a file must be left alone before it counts as written."""


async def changes(path: Path) -> AsyncIterator[None]:
    """Yield once whenever the model or its manifest has changed and been quiet for ``QUIET_MS``.

    Of a model that is a file its folder is watched: most programs write another file and rename it.
    """
    from watchfiles import awatch

    from fitserve.store.repository import MANIFEST_SUFFIX, model_stem

    if path.is_dir():
        watching = awatch(path, step=QUIET_MS)
    else:
        names = {path.name, model_stem(path) + MANIFEST_SUFFIX}
        watching = awatch(
            path.parent,
            watch_filter=lambda _, changed: changed.rpartition("/")[2] in names,
            recursive=False,
            step=QUIET_MS,
        )
    async for _ in watching:
        yield
