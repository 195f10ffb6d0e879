"""Where models are read from: a path of this machine, or a URL whose content is fetched each time it is read."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Literal

from fitserve.errors import ArtifactError, SettingsError
from fitserve.urls import SourceUrl

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from fitserve.store.fetcher import Fetcher
    from fitserve.store.fetching import Progress

logger = logging.getLogger(__name__)

TELLS_EACH_S = 10.0
"""How often the log tells how far fetching is."""


class Origin:
    """The place that an operator has named. Thread-safe as far as its fetcher is; a forked copy works too.

    Attributes:
        place: as it was named: what state and caches are kept by.
    """

    def __init__(self, place: Path | SourceUrl, fetcher: Fetcher | None = None) -> None:
        """Take a place.

        Args:
            place: a path, or a URL.
            fetcher: of the URL.

        Raises:
            SettingsError: it is a URL, and there is no process that fetches it.
        """
        if isinstance(place, SourceUrl) and fetcher is None:
            msg = f"model_path: {place} is a URL, and nobody has been started who fetches it"
            raise SettingsError(msg)
        self.place = place
        self._fetcher = fetcher
        self._known: str | None = None

    def here(self, *, or_kept: bool = False, progress: Callable[[Progress], None] | None = None) -> Path:
        """The path of what lies there now: of a URL, a snapshot that is never changed. Blocks.

        Args:
            or_kept: if the source cannot be reached, content oneself with what was fetched last.
            progress: told how far it is; the log, if not given.

        Raises:
            ArtifactError: as :meth:`~fitserve.store.fetcher.Fetcher.fetch`.
        """
        if isinstance(self.place, SourceUrl):
            assert self._fetcher is not None  # else there would be no Origin
            told = progress or logged(self.place)
            snapshot = self._fetcher.fetch(or_kept=or_kept, progress=told)
            if snapshot.failure is not None:
                logger.warning("%s cannot be reached (%s): what was fetched last is read", self.place, snapshot.failure)
            self._known = snapshot.fingerprint
            return snapshot.path
        if self._known is None:  # before the first look: what changes from here on is noticed
            from fitserve.store.fingerprint import fingerprint  # NumPy: as below

            self._known = fingerprint(self.place)
        return self.place

    def changes(
        self, mode: Literal["poll", "notify"], interval_s: float, *, quiet_s: float | None = None
    ) -> AsyncIterator[None]:
        """Yield once whenever what lies there has changed, and has been left alone.

        A source is asked every ``interval_s``, in either mode: it has been left alone when two answers are the same.
        """
        if isinstance(self.place, SourceUrl):
            return self._remote_changes(interval_s)
        from fitserve.store.watcher import QUIET_S, changes  # NumPy: not in a process that is still to be confined

        quiet_s = QUIET_S if quiet_s is None else quiet_s
        return changes(self.place, mode, interval_s, quiet_s=quiet_s, since=self._known)

    async def _remote_changes(self, interval_s: float) -> AsyncIterator[None]:
        assert self._fetcher is not None  # else there would be no Origin
        before, is_away = self._known, False
        while True:
            await asyncio.sleep(interval_s)
            try:
                now = await asyncio.to_thread(self._fetcher.fingerprint)
            except ArtifactError as exc:
                if not is_away:
                    logger.warning("%s; it is asked again every %g s", exc, interval_s)
                is_away = True
                continue
            is_away = False
            if self._known is None:
                self._known = now
            has_settled, before = now == before, now
            if has_settled and now != self._known:
                self._known = now
                yield


def logged(url: SourceUrl, clock: Callable[[], float] = time.monotonic) -> Callable[[Progress], None]:
    """Tells the log every now and then how far fetching is."""
    told_s = clock()

    def tell(progress: Progress) -> None:
        nonlocal told_s
        if clock() - told_s >= TELLS_EACH_S:
            told_s = clock()
            done, total = progress.n_done_bytes / 1e6, progress.n_bytes / 1e6
            logger.info(
                "%s: %.0f of %.0f MB, %d of %d files", url, done, total, progress.n_done_files, progress.n_files
            )

    return tell
