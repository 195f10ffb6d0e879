"""How many threads the numeric libraries may start: as many as the process has processors, not the machine.

The libraries look at the machine, or at the processors that a process is pinned to. In a container that may use one
of sixty-four they start sixty-four threads, which then wait for each other.
"""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

CPU_MAX = Path("/sys/fs/cgroup/cpu.max")
"""Source: https://docs.kernel.org/admin-guide/cgroup-v2.html"""

POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "BLIS_NUM_THREADS")
"""What the libraries read when they are loaded."""


def usable_cpus(cpu_max: Path = CPU_MAX) -> int:
    """The processors that this process may use: those it is pinned to, within the cgroup's quota."""
    n_cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    try:
        quota, period = cpu_max.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return n_cpus
    return n_cpus if quota == "max" else max(1, min(n_cpus, round(int(quota) / int(period))))


def bound_pools(n_cpus: int) -> None:
    """Bound the pools of OpenMP and BLAS of this process, which must be ours and have loaded neither.

    What the operator has set in the environment stays.
    """
    for name in POOLS:
        os.environ.setdefault(name, str(n_cpus))


def one_thread_here() -> None:
    """Let OpenMP use the calling thread alone for what is called from it; others keep their pools.

    For the event loop: what runs there takes less time than waking other threads does. Does nothing for libraries
    that are loaded later.
    """
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    # OpenMP keeps this number for each thread; BLAS has one for all, and uses few for small tables anyway.
    ThreadpoolController().select(user_api="openmp").limit(limits=1)


def jobs_of(estimator: object) -> list[tuple[Any, int]]:
    """The parts of an estimator that start threads, and for how many each asks; -1 for as many as there are."""
    from fitserve.estimators.walk import package_of, parts_of

    found = []
    for part in parts_of(estimator):
        own = getattr(part, "__dict__", {})
        wanted = own.get("n_jobs", 0)
        if wanted is None and package_of(part) == "lightgbm":
            wanted = -1  # it counts the processors of the machine itself
        if isinstance(wanted, int) and not isinstance(wanted, bool) and (wanted > 1 or wanted < 0):
            found.append((part, wanted))
    return found


def bound_jobs(jobs: list[tuple[Any, int]], n_jobs: int) -> None:
    """Let parts that :func:`jobs_of` has found start ``n_jobs`` threads at most, each no more than it asked for.

    The estimator must be ours alone. Its answers stay: each thread has rows or trees of its own.
    """
    for part, wanted in jobs:
        part.__dict__["n_jobs"] = n_jobs if wanted < 0 else min(wanted, n_jobs)


_postponed: list[tuple[weakref.ref[Any], int]] | None = None


def one_thread_before_forks(environ: MutableMapping[str, str]) -> dict[str, str]:
    """Let nothing in this process start threads, because copies of it are to be made: they would not be in the copies.

    Args:
        environ: what the libraries will read when they are loaded; none has been.

    Returns:
        What the operator had set there, for :func:`begin_threads`.
    """
    global _postponed  # noqa: PLW0603 - a property of the process
    _postponed = []
    kept = {name: environ[name] for name in POOLS if name in environ}
    environ.update(dict.fromkeys(POOLS, "1"))
    return kept


def postpone_jobs(jobs: list[tuple[Any, int]]) -> bool:
    """Let parts that are slow enough for threads have them after the fork; False if this process may start them now."""
    if _postponed is not None:
        _postponed.extend((weakref.ref(part), wanted) for part, wanted in jobs)
    return _postponed is not None


def begin_threads(n_threads: int, kept: Mapping[str, str]) -> None:
    """In a copy that may start threads: let the libraries use so many, those that are loaded already too.

    BLAS has one number for the process. OpenMP has one for each thread, see :func:`openmp_threads_here`.

    Args:
        n_threads: for those whose number the operator has not set.
        kept: what the operator has set, as :func:`one_thread_before_forks` returned it.
    """
    global _postponed  # noqa: PLW0603 - a property of the process
    from threadpoolctl import ThreadpoolController

    os.environ.update(dict.fromkeys(POOLS, str(n_threads)) | dict(kept))
    n_blas = kept.get("OPENBLAS_NUM_THREADS", kept.get("OMP_NUM_THREADS", str(n_threads)))
    if n_blas != "1" and n_blas.isdecimal():
        ThreadpoolController().select(user_api="blas").limit(limits=int(n_blas))
    jobs = [(part, wanted) for ref, wanted in _postponed or () if (part := ref()) is not None]
    _postponed = None
    bound_jobs(jobs, n_threads)


def openmp_threads_here() -> None:
    """Let OpenMP use as many threads for calls of the calling thread as the environment says now.

    It was read when the library was loaded, before the fork.
    """
    from threadpoolctl import ThreadpoolController

    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdecimal():
        ThreadpoolController().select(user_api="openmp").limit(limits=int(wanted))
