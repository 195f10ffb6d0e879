"""A serving process of our own, confined: it computes, answers, and does little else."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import tempfile
from dataclasses import replace
from typing import TYPE_CHECKING

from fitserve.confine.child import shared_template
from fitserve.confine.sandbox import Sandbox, end_forking, enter
from fitserve.confine.scratch import make_scratch
from fitserve.errors import SettingsError
from fitserve.estimators.threads import bound_pools, usable_cpus
from fitserve.store import PRELOAD
from fitserve.store.engine_cache import cache_of, prune
from fitserve.store.places import writable_places

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from fitserve.confine.sandbox import Confinement
    from fitserve.settings import Settings

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def confined(
    settings: Settings,
    *,
    preload: Sequence[str] = (),
    removes: tuple[Path, ...] = (),
    writable: tuple[Path, ...] = (),
) -> Iterator[None]:
    """Confine this process for good; inside, it may write below a runtime folder of its own, which ends with it.

    It may also write where the compiled engines of its model are kept, as :mod:`fitserve.store.engine_cache` has it;
    the children that try models may not.

    Enter it in the main thread, after binding the socket and before NumPy or a model library is
    imported: the threads that these start would not all be covered. The template that tries models
    in children is started first, because a confined process starts no program; what its children
    may do is fixed here, and is no more than what this process may.

    Args:
        settings: say whether, and what may be connected to.
        preload: what the template imports ahead, beside what this process does.
        removes: folders of the caller's that this process will not be able to remove.
        writable: folders of the caller's in which this process may write besides; its children may not.

    Raises:
        SettingsError: ``confine = require``, and the kernel cannot.
    """
    gc.disable()  # until it serves: what is imported stays, and looking for cycles meanwhile takes a tenth of the time
    folder = make_scratch("fitserve-")
    own = () if folder is None else (folder,)
    kept = _places(settings, folder)
    bound_pools(max(1, usable_cpus() // settings.workers))
    sandbox = Sandbox(writable=own, connect=settings.destinations)
    template = shared_template(tuple(preload), sandbox=sandbox, removes=(*own, *removes))
    template.start()
    try:
        _enter(replace(sandbox, writable=(*own, *kept, *writable)), settings)
        yield
    finally:
        gc.enable()
        template.close()


def confine_nursery(settings: Settings, folder: Path | None, *, writable: tuple[Path, ...] = ()) -> None:
    """Confine this process as :func:`confined` does, for good, but let it make copies of itself.

    Its copies go on with its template, and are confined further by :func:`confine_worker`.

    Args:
        settings: as :func:`confined` has them.
        folder: in which this process, its copies and its template's children may write. Who made it removes it; if
            nobody can, the template does.
        writable: folders in which this process and its copies may write besides.

    Raises:
        SettingsError: ``confine = require``, and the kernel cannot.
    """
    own = () if folder is None else (folder,)
    kept = _places(settings, folder)
    sandbox = Sandbox(writable=own, connect=settings.destinations)
    shared_template(PRELOAD, sandbox=sandbox, removes=own, is_shared=True).start()
    _enter(replace(sandbox, writable=(*own, *kept, *writable), may_fork=True), settings)


def confine_worker(settings: Settings) -> None:
    """Take from this process, which :func:`confine_nursery` confined or a copy of it, what it had for copies only.

    Raises:
        SettingsError: ``confine = require``, and the kernel cannot.
    """
    confinement = end_forking()
    if confinement is not None:
        if confinement.missing:
            logger.info("confinement of process %d: %s", os.getpid(), confinement.summary)
        _judge(confinement, settings)


def _places(settings: Settings, folder: Path | None) -> tuple[Path, ...]:
    """Let temporary files be made in a folder, and return the others where this process may write besides."""
    if folder is not None:
        tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it could neither keep nor send any, and says so
    kept = writable_places(settings)
    cache = None if settings.optimize == "off" else cache_of(settings, settings.model_path)
    if cache is None:
        return kept
    prune(cache.folder.parent)  # inside, it may remove nothing of other models
    return (*kept, cache.folder)


def _enter(sandbox: Sandbox, settings: Settings) -> None:
    if settings.confine == "off":
        logger.info("confinement: off (confine = off)")
        return
    confinement = enter(sandbox)
    logger.info("confinement: %s", confinement.summary)
    _judge(confinement, settings)


def _judge(confinement: Confinement, settings: Settings) -> None:
    if confinement.missing and settings.confine == "require":
        msg = f"confine = require, but this machine lacks: {'; '.join(confinement.missing)}"
        raise SettingsError(msg)
