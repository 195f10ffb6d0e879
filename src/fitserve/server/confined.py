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
from fitserve.confine.sandbox import Sandbox, enter
from fitserve.confine.scratch import make_scratch
from fitserve.errors import SettingsError
from fitserve.estimators.threads import bound_pools, usable_cpus
from fitserve.store.engine_cache import cache_of, prune

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

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
    if folder is not None:
        tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
    cache = None if settings.optimize == "off" else cache_of(settings, settings.local_path)
    if cache is not None:
        prune(cache.folder.parent)  # inside, it may remove nothing of other models
    bound_pools(max(1, usable_cpus() // settings.workers))
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it could neither keep nor send any, and says so
    sandbox = Sandbox(writable=own, connect=settings.destinations)
    template = shared_template(tuple(preload), sandbox=sandbox, removes=(*own, *removes))
    template.start()
    try:
        kept = () if cache is None else (cache.folder,)
        _enter(replace(sandbox, writable=(*own, *kept, *writable)), settings)
        yield
    finally:
        gc.enable()
        template.close()


def _enter(sandbox: Sandbox, settings: Settings) -> None:
    if settings.confine == "off":
        logger.info("confinement: off (confine = off)")
        return
    confinement = enter(sandbox)
    logger.info("confinement: %s", confinement.summary)
    if confinement.missing and settings.confine == "require":
        msg = f"confine = require, but this machine lacks: {'; '.join(confinement.missing)}"
        raise SettingsError(msg)
