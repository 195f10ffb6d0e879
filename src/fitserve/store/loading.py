"""From an artifact, or a live estimator, to a loaded model in this process."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import hashlib
import logging
import os
import pickle
import re
import sys
import threading
import time
import weakref
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fitserve.errors import ArtifactError, FitserveError, clip
from fitserve.estimators.model import EstimatorModel
from fitserve.estimators.threads import bound_jobs, jobs_of, postpone_jobs, usable_cpus
from fitserve.formats import identify
from fitserve.formats.base import hooks_of
from fitserve.store.catalog import LoadedModel
from fitserve.store.forms import NATIVE, Form, Forms
from fitserve.store.repository import IDENTIFIER, digest_version
from fitserve.store.trial import TRIAL_ROWS, try_model
from fitserve.trust.judge import require_vouched
from fitserve.types import Artifact

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from fitserve.formats.base import Model
    from fitserve.store.cost import Cost
    from fitserve.store.trial import Trial
    from fitserve.trust.policy import TrustPolicy
    from fitserve.types import Hooks

logger = logging.getLogger(__name__)

LARGE_BYTES = 16 * 2**20
"""Of a smaller model it is not worth a tenth of a second to give back the memory that loading took."""

THREADS_FROM_S = 0.05
"""Where :data:`~fitserve.store.trial.TRIAL_ROWS` rows take longer, ``n_jobs`` of the estimator counts, as far as there
are processors. Starting threads takes a call some milliseconds, and requests are many calls at once already."""

KEPT = ("confinement", "golden", "n_self_made_rows")
"""What of a report stays with the loaded model, to be shown."""


def load_artifact(artifact: Artifact, policy: TrustPolicy, *, report: Mapping[str, Any] | None = None) -> LoadedModel:
    """Load an artifact's bytes in this process and let the model answer a row. Blocks.

    Call it where nothing is at stake, as :mod:`fitserve.store.verify` does, before calling it
    in a process that serves.

    Args:
        artifact: its bytes are loaded.
        policy: judges it first.
        report: what trying it elsewhere has shown.

    Raises:
        UntrustedArtifactError: the policy does not let it be loaded.
        ArtifactError: it cannot be served; the text names no path.
    """
    found = identify(artifact)
    require_vouched(artifact, holds_code=found.holds_code, format_name=found.name, policy=policy)
    extend_path(policy.code_path)
    model = found.load(artifact, policy)
    _start(model)
    cost, trial = _tried(model)
    return LoadedModel(
        name=artifact.name,
        version=artifact.version,
        digest=artifact.digest,
        size_bytes=sum(map(len, artifact.files.values())) or len(artifact.data),
        format=found.name,
        model=model,
        loaded_at=datetime.now(UTC),
        loaded_monotonic_s=time.monotonic(),
        metadata=artifact.metadata,
        verification={"trust": policy.level, **{name: report[name] for name in KEPT if report and name in report}},
        forms=Forms(Form(NATIVE, model.predict, cost)),
        trial=trial,
    )


def _tried(model: Model) -> tuple[Cost, Trial]:
    """Try a model with as many threads as are good for it: one, unless a call of some rows takes long."""
    if not isinstance(model, EstimatorModel) or not (jobs := jobs_of(model.estimator)):
        return try_model(model)
    bound_jobs(jobs, 1)
    cost, trial = try_model(model)
    is_slow = trial.has_answered and cost.expected_s(TRIAL_ROWS) > THREADS_FROM_S
    if is_slow and not postpone_jobs(jobs) and (n_cpus := usable_cpus()) > 1:
        bound_jobs(jobs, n_cpus)
        return try_model(model)
    return cost, trial


def _start(model: Model) -> None:
    """Let a model of the operator's own class open its pools.

    Raises:
        ArtifactError: it raised.
    """
    hooks = hooks_of(model)
    if hooks is None:
        return
    try:
        hooks.start()
    except (Exception, SystemExit) as exc:
        msg = f"has a start() that raised {type(exc).__name__}: {clip(str(exc), 300)}"
        raise ArtifactError(msg) from exc


def stop_when_unused(loaded: LoadedModel) -> None:
    """Let a model that is out of service close its pools once the last request has let go of it."""
    hooks = hooks_of(loaded.model)
    if hooks is not None:
        # In a thread: the last to let go is the event loop.
        weakref.finalize(loaded, threading.Thread(target=_stop, args=(hooks,), daemon=True).start)


def stop(loaded: LoadedModel) -> None:
    """Let a model close its pools now: its process ends. Blocks."""
    hooks = hooks_of(loaded.model)
    if hooks is not None:
        _stop(hooks)


def _stop(hooks: Hooks) -> None:
    try:
        hooks.stop()
    except (Exception, SystemExit):
        logger.exception("the stop() of a model failed")


def give_back_memory() -> None:
    """Return to the system what loading has freed: glibc keeps it, in gaps between the arrays of the model.

    Source: https://man7.org/linux/man-pages/man3/malloc_trim.3.html
    """
    gc.collect()  # a reader of pickles refers to itself
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library has no such function
        ctypes.CDLL(None).malloc_trim(0)


def extend_path(folders: tuple[Path, ...]) -> None:
    """Let the operator's own modules be imported, after everything that is installed."""
    sys.path += [str(folder) for folder in folders if str(folder) not in sys.path]


def adopt_model(estimator: object, *, name: str, version: str | None) -> LoadedModel:
    """Take a live estimator into service, as :func:`adopt` does."""
    return adopt(estimator, name=name, version=version)[0]


def adopt(estimator: object, *, name: str, version: str | None) -> tuple[LoadedModel, Artifact | None]:
    """Take a live estimator into service as it is now; later changes to it change nothing here.

    Returns:
        The loaded model, and its pickle for another process; None where it cannot be pickled.

    Raises:
        ArtifactError: it has no predict, is not fitted or cannot be copied, or its name or version
            is none that could stand in a header.
    """
    for word in (name, version or "0"):
        if not re.fullmatch(IDENTIFIER, word):
            msg = f"{clip(word)!r} is no name or version: wanted letters, digits and . _ + - up to 64"
            raise ArtifactError(msg)
    from fitserve.formats.sklearn import snapshot

    try:
        model = snapshot(estimator)
    except FitserveError as exc:
        msg = f"the model {exc}"
        raise ArtifactError(msg) from exc
    except Exception as exc:
        msg = f"the model cannot be copied ({type(exc).__name__}): save it to a file and serve that"
        raise ArtifactError(msg) from exc
    try:
        data = pickle.dumps(estimator)
    except Exception:  # noqa: BLE001 - a live model need not be picklable
        data = b""
    digest = hashlib.sha256(data or os.urandom(16)).hexdigest()
    cost, trial = _tried(model)
    loaded = LoadedModel(
        name=name,
        version=version or digest_version(digest),
        digest=digest,
        size_bytes=len(data),
        format="in memory",
        model=model,
        loaded_at=datetime.now(UTC),
        loaded_monotonic_s=time.monotonic(),
        metadata={},
        verification={},
        forms=Forms(Form(NATIVE, model.predict, cost)),
        trial=trial,
    )
    return loaded, Artifact(loaded.name, loaded.version, digest, data, f"{name}.pkl") if data else None
