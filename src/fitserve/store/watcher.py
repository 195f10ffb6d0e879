"""Notices that a model file has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fitserve.store.repository import MANIFEST_SUFFIX, model_stem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

QUIET_MS = 300
"""How long a file must be left alone before it counts as written."""


async def changes(path: Path, *, is_folder: bool) -> AsyncIterator[None]:
    """Yield once whenever the model or its manifest has changed and been quiet for ``QUIET_MS``.

    Of a model that is a file its folder is watched: most programs write another file and rename it.
    """
    from watchfiles import awatch

    names = {path.name, model_stem(path) + MANIFEST_SUFFIX}
    async for _ in awatch(
        path if is_folder else path.parent,
        watch_filter=lambda _, changed: is_folder or changed.rpartition("/")[2] in names,
        recursive=is_folder,
        step=QUIET_MS,
    ):
        yield
