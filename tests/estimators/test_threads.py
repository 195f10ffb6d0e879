"""The libraries start as many threads as the process has processors, and the event loop none."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from lightgbm import LGBMClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import ThreadpoolController

from fitserve.estimators.threads import bound_jobs, bound_pools, jobs_of, one_thread_here, usable_cpus
from fitserve.store import loading
from fitserve.store.loading import adopt_model

X = np.random.default_rng(0).normal(size=(50, 3))
Y = X[:, 0] > 0


@pytest.mark.parametrize(
    ("text", "n_cpus"),
    [
        ("100000 100000", 1),
        ("50000 100000", 1),
        ("250000 100000", 2),
        ("max 100000", 8),
        ("", 8),
        ("9900000 100000", 8),
    ],
)
def test_a_quota_of_the_container_bounds_the_processors(tmp_path, monkeypatch, text, n_cpus):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    (tmp_path / "cpu.max").write_text(text)

    assert usable_cpus(tmp_path / "cpu.max") == n_cpus
    assert usable_cpus(tmp_path / "none") == 8


def test_the_pools_of_the_libraries_are_bounded_unless_the_operator_says_otherwise(monkeypatch):
    monkeypatch.setattr(os, "environ", {"OPENBLAS_NUM_THREADS": "7"})

    bound_pools(3)

    assert (os.environ["OMP_NUM_THREADS"], os.environ["OPENBLAS_NUM_THREADS"]) == ("3", "7")


def test_the_module_loads_no_numeric_library():
    code = "import sys, fitserve.estimators.threads; print('numpy' in sys.modules)"

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert run.stdout == "False\n"


def openmp_threads() -> set[int]:
    return {pool["num_threads"] for pool in ThreadpoolController().select(user_api="openmp").info()}


def test_openmp_is_held_to_one_thread_where_it_is_told_and_nowhere_else():
    RandomForestClassifier(2).fit(X, Y)  # loads OpenMP
    before, inside = openmp_threads(), set()

    def loop() -> None:
        one_thread_here()
        inside.update(openmp_threads())

    thread = threading.Thread(target=loop)
    thread.start()
    thread.join()

    assert inside == {1}
    assert openmp_threads() == before


def test_jobs_are_found_in_every_part_and_lowered_never_raised():
    forest = RandomForestClassifier(2, n_jobs=-1).fit(X, Y)
    pipeline = make_pipeline(StandardScaler(), RandomForestClassifier(2, n_jobs=3).fit(X, Y))

    jobs = jobs_of([forest, pipeline, LogisticRegression(), LGBMClassifier()])
    bound_jobs(jobs, 2)

    assert sorted(wanted for _, wanted in jobs) == [-1, -1, 3]
    assert (forest.n_jobs, pipeline[-1].n_jobs) == (2, 2)
    bound_jobs(jobs, 64)
    assert pipeline[-1].n_jobs == 3


def test_a_quick_model_has_one_thread_and_a_slow_one_as_many_as_there_are_processors(monkeypatch):
    forest = RandomForestClassifier(20, n_jobs=-1).fit(X, Y)
    monkeypatch.setattr(loading, "usable_cpus", lambda: 2)

    quick = adopt_model(forest, name="m", version=None)
    monkeypatch.setattr(loading, "THREADS_FROM_S", 0.0)
    slow = adopt_model(forest, name="m", version=None)

    assert [loaded.model.estimator.n_jobs for loaded in (quick, slow)] == [1, 2]
    assert forest.n_jobs == -1


POSTPONED = """
import os, sys
from fitserve.estimators.threads import begin_threads, one_thread_before_forks, openmp_threads_here, postpone_jobs

os.environ.pop("OPENBLAS_NUM_THREADS", None)
os.environ["OMP_NUM_THREADS"] = sys.argv[1]
kept = one_thread_before_forks(os.environ)
import sklearn.ensemble, threadpoolctl

class Part:
    n_jobs = 1

def numbers():
    pools = threadpoolctl.threadpool_info()
    return [max(pool["num_threads"] for pool in pools if pool["user_api"] == api) for api in ("openmp", "blas")]

part = Part()
told = [postpone_jobs([(part, -1)]), *numbers()]
if os.fork() == 0:
    begin_threads(3, kept)
    openmp_threads_here()
    print(*told, *numbers(), part.n_jobs, os.environ["MKL_NUM_THREADS"], postpone_jobs([]), flush=True)
    os._exit(0)
os.wait()
"""


@pytest.mark.parametrize(("operator", "openmp"), [("2", 2), ("4", 4)])
def test_threads_are_postponed_until_after_the_fork_and_the_operators_number_counts(operator, openmp):
    done = subprocess.run(
        [sys.executable, "-c", POSTPONED, operator], capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout.split() == ["True", "1", "1", str(openmp), str(openmp), "3", "3", "False"]
