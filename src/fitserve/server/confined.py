"""A serving process of our own, confined: it computes, answers, and does little else."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from fitserve.confine.sandbox import Sandbox, enter
from fitserve.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fitserve.settings import Settings

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def runtime_folder() -> Iterator[Path]:
    """A private folder for this process's temporary files, the only place where it may write once it is confined."""
    with tempfile.TemporaryDirectory(prefix="fitserve-", ignore_cleanup_errors=True) as folder:
        tempfile.tempdir = os.environ["TMPDIR"] = folder
        yield Path(folder)


def sandbox_of(settings: Settings, folder: Path) -> Sandbox:
    """What a serving process may do: write below its runtime folder, and connect where ``allow_connect`` says."""
    return Sandbox(writable=(folder,), connect=settings.destinations)


def confine(settings: Settings, folder: Path) -> None:
    """Confine this process for good, before it loads a model.

    Call it in the main thread, after binding the socket and before starting other threads: they
    inherit from this one what may not be done.

    Raises:
        SettingsError: ``confine = require``, and the kernel cannot.
    """
    if settings.confine == "off":
        logger.info("confinement: off (confine = off)")
        return
    confinement = enter(sandbox_of(settings, folder))
    logger.info("confinement: %s", confinement.summary)
    if confinement.missing and settings.confine == "require":
        msg = f"confine = require, but this machine lacks: {'; '.join(confinement.missing)}"
        raise SettingsError(msg)
