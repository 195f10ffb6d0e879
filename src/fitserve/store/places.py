"""Where a server keeps what outlives a request, and what its confined processes may therefore write."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fitserve.shared_state.journal import where
from fitserve.store.engine_cache import cache_of

if TYPE_CHECKING:
    from pathlib import Path

    from fitserve.settings import Settings
    from fitserve.store.spool import Spool

logger = logging.getLogger(__name__)


def _artifacts(settings: Settings) -> Path | None:
    cache = cache_of(settings, settings.model_path)
    return None if cache is None else cache.folder.parents[1] / "artifacts"


def spool_of(settings: Settings) -> Spool | None:
    """The bytes that were verified, kept by content; None where nothing can be kept."""
    from fitserve.store.spool import Spool  # imports NumPy, which a process that will be confined must not have yet

    folder = _artifacts(settings)
    return None if folder is None else Spool(folder)


def writable_places(settings: Settings) -> tuple[Path, ...]:
    """The folders that a confined serving process may write in, besides its own; made if need be."""
    path = settings.model_path
    wanted = [_artifacts(settings), None if path is None else where(settings, path)]
    made = []
    for place in wanted:
        if place is None:
            continue
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as exc:
            logger.warning("%s cannot be made (%s): what would be kept there is not", place, exc.strerror)
        else:
            made.append(place)
    return tuple(made)
