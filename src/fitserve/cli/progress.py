"""Models that are fetched while somebody waits: how far it is, and the path in the end."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fitserve.settings import read_settings
from fitserve.store.origin import Origin, logged
from fitserve.urls import SourceUrl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from fitserve.store.fetching import Progress


@contextlib.contextmanager
def local(place: str, flags: Mapping[str, Any]) -> Iterator[tuple[Path, Path | SourceUrl]]:
    """The path of a model, which is fetched first if ``place`` is a URL; and the place as it may be told.

    Raises:
        SettingsError: it is no URL of a source, or a flag is wrong.
        ArtifactError: it cannot be fetched.
    """
    settings, _ = read_settings({**flags, "model_path": place})
    if not isinstance(settings.model_path, SourceUrl):
        yield Path(place), Path(place)
        return
    from fitserve.store.fetcher import Fetcher

    fetcher = Fetcher.start(settings.model_path, settings)
    try:
        with shown(settings.model_path) as progress:
            path = Origin(settings.model_path, fetcher).here(progress=progress)
        yield path, settings.model_path
    finally:
        fetcher.close()


@contextlib.contextmanager
def shown(url: SourceUrl) -> Iterator[Callable[[Progress], None]]:
    """Show how far fetching is: a bar on a terminal, else a line in the log every now and then."""
    if not sys.stderr.isatty():
        yield logged(url)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    from fitserve.cli.card import safe

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(safe(str(url)), total=None)
        yield lambda progress: bar.update(task, total=progress.n_bytes or None, completed=progress.n_done_bytes)
