"""Notices that what lies at a path has changed, and waits until it is whole."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import stat
import time
from typing import TYPE_CHECKING, Literal

from fitserve.errors import ArtifactError
from fitserve.store.fingerprint import fingerprint, watched_beside
from fitserve.store.listing import list_repository

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from pathlib import Path

logger = logging.getLogger(__name__)

QUIET_S = 1.0
"""How long nothing must have changed before it counts as written."""

DEV_QUIET_S = 0.3
"""The same where somebody waits in front of it: ``fitserve dev``."""

PATIENCE_S = 30.0
"""How long something that has stopped changing may be incomplete: then it is broken, and the rest goes on."""

RESTLESS_S = 60.0
"""After so long a time of changes the log tells that they are waited for."""


async def changes(
    path: Path,
    mode: Literal["poll", "notify"] = "notify",
    interval_s: float = 5.0,
    *,
    quiet_s: float = QUIET_S,
    patience_s: float = PATIENCE_S,
    since: str | None = None,
) -> AsyncIterator[None]:
    """Yield once whenever what lies at a path has changed, has been left alone, and is whole.

    It is whole when nothing in it is skipped that was not skipped before: a manifest that ends early, a package that
    lacks files, an empty file. What stays so for ``patience_s`` is taken as it is. Changes while the caller is busy
    with one yield together lead to one more. Files are looked at in threads.

    Args:
        path: of a file or a folder; it may be away for a while.
        mode: ``notify`` also looks as soon as the kernel tells of a change, where it does: not of links that are
            turned elsewhere above the path, nor of changes that other machines make on a network file system.
        interval_s: how often to look in any case.
        quiet_s: how long nothing must have changed.
        patience_s: how long something incomplete is waited for.
        since: the :func:`~fitserve.store.fingerprint.fingerprint` that is known; by default the present one.
    """
    known = await asyncio.to_thread(fingerprint, path) if since is None else since
    broken = await asyncio.to_thread(_incomplete, path)
    if await asyncio.to_thread(fingerprint, path) != known:
        broken = frozenset()  # what is incomplete may have come since, and be written now
    async with contextlib.aclosing(_told(path, interval_s) if mode == "notify" else _ticks(interval_s)) as wakes:
        async for _ in wakes:
            if await asyncio.to_thread(fingerprint, path) == known:
                continue
            now = await _settled(path, quiet_s, patience_s, broken)
            if now != known:
                known, broken = now, await asyncio.to_thread(_incomplete, path)
                yield


async def _settled(path: Path, quiet_s: float, patience_s: float, broken: frozenset[str]) -> str:
    """Wait until nothing changes and nothing is incomplete that was not before; return the fingerprint."""
    began = time.monotonic()
    is_told = False
    now, since = await asyncio.to_thread(fingerprint, path), began
    while True:
        await asyncio.sleep(quiet_s)
        again = await asyncio.to_thread(fingerprint, path)
        if again != now:
            now, since = again, time.monotonic()
            if not is_told and since - began > RESTLESS_S:
                is_told = True
                logger.warning("files at %s keep changing: a reload waits until they have been left alone", path)
        elif time.monotonic() - since > patience_s or not await asyncio.to_thread(_incomplete, path) - broken:
            return now


def _incomplete(path: Path) -> frozenset[str]:
    """What cannot be taken as it is now, by its place below the path; "" for the whole."""
    try:
        return frozenset(place for place, _ in list_repository(path).skipped)
    except ArtifactError:
        return frozenset({""})


async def _ticks(interval_s: float) -> AsyncGenerator[None]:
    while True:
        await asyncio.sleep(interval_s)
        yield


async def _told(path: Path, interval_s: float) -> AsyncGenerator[None]:
    """Yield when the kernel tells of a change, and after each interval without one."""
    from watchfiles import awatch

    names = {path.name, *(beside.name for beside in watched_beside(path))}

    def concerns(_: object, changed: str) -> bool:
        return changed.rpartition("/")[2] in names

    while True:
        is_folder, inode = await asyncio.to_thread(_which, path)
        watch = awatch(
            path if is_folder else path.parent,
            watch_filter=None if is_folder else concerns,
            recursive=is_folder,
            rust_timeout=max(1, int(1000 * interval_s)),
            yield_on_timeout=True,
        )
        try:
            async with contextlib.aclosing(watch):
                async for _ in watch:
                    yield
                    if is_folder and await asyncio.to_thread(_which, path) != (is_folder, inode):
                        break  # another folder lies there now
        except (OSError, RuntimeError) as exc:  # it is away, or the kernel has no watches left
            logger.warning(
                "the kernel does not tell of changes at %s (%s): looked at again in %g s", path, exc, interval_s
            )
            await asyncio.sleep(interval_s)
            yield


def _which(path: Path) -> tuple[bool, int]:
    try:
        status = path.stat()
    except OSError:
        return False, 0
    return stat.S_ISDIR(status.st_mode), status.st_ino
