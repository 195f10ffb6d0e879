"""Engines of many versions: one after the other, before a fork, before a switch, and not at all any more."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field

import joblib
import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from store.compilers import ENTRY, Compiler, Here

from fitserve.confine.child import GivenUpError
from fitserve.errors import ArtifactError
from fitserve.settings import Settings
from fitserve.store import takeover
from fitserve.store.loading import load_artifact
from fitserve.store.repository import read_artifact
from fitserve.store.takeover import Optimizer
from fitserve.store.verify import Verifier
from fitserve.trust.policy import TrustPolicy

MIB = 2**20


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(takeover, "AFTER_S", 0.0)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Three models that differ."""
    folder = tmp_path_factory.mktemp("forests")
    X = np.random.default_rng(0).normal(size=(60, 3))
    for version in (1, 2, 3):
        forest = RandomForestClassifier(20, random_state=version).fit(X, np.where(X[:, 0] > 0, "yes", "no"))
        joblib.dump(forest, folder / f"forest_v{version}.joblib")
    return [folder / f"forest_v{version}.joblib" for version in (1, 2, 3)]


class Reads:
    """Reads an artifact, and counts how often."""

    def __init__(self, path) -> None:
        self.path, self.n = path, 0

    def __call__(self):
        self.n += 1
        return read_artifact(self.path)


def load(path):
    return load_artifact(read_artifact(path), TrustPolicy())


def names(loaded) -> list[str]:
    return [form.name for form in loaded.forms.all]


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "fitserve-optimize"]


def finish() -> None:
    for thread in threads():
        thread.join(60)
        assert not thread.is_alive()


def until(is_so) -> None:
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end
        threading.Event().wait(0.01)


@dataclass(frozen=True)
class Slow(Here):
    """Compiles for ever, until it is told to go on or that it is given up."""

    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    may_go_on: threading.Event = field(default_factory=threading.Event)

    def run_in(self, scratch, task, artifact, *, gives_up=None, **request):
        self.begun.release()
        end = time.monotonic() + 60
        while not self.may_go_on.wait(0.01):
            assert time.monotonic() < end
            if gives_up():
                raise GivenUpError("given up")
        return super().run_in(scratch, task, artifact, gives_up=gives_up, **request)


@pytest.fixture
def make(tmp_path, files):
    """Make an optimizer of a repository."""

    def build(verifier=None, **options):
        settings = {name: options.pop(name) for name in list(options) if name in Settings.model_fields}
        chosen = Settings(**{"cache_dir": tmp_path / "cache", **settings})
        return Optimizer(chosen, verifier or Here(), files[0].parent, **options)

    return build


# ── planned ─────────────────────────────────────────────────────────────────────────


def test_versions_are_compiled_one_after_the_other_by_one_thread_and_read_only_then(files, make, monkeypatch):
    compiler = Compiler().install(monkeypatch)
    slow = Slow()
    optimizer = make(slow)
    versions, reads = [load(path) for path in files], [Reads(path) for path in files]

    for loaded, read in zip(versions, reads, strict=True):
        optimizer.plan(loaded, read)
        optimizer.begin()
    assert slow.begun.acquire(timeout=60)

    assert len(threads()) == 1
    assert [read.n for read in reads[1:]] == [0, 0]
    assert [loaded.optimization.state for loaded in versions] == ["running"] * 3
    slow.may_go_on.set()
    finish()
    assert [names(loaded) for loaded in versions] == [["native", "treelite"]] * 3
    assert compiler.compiled == 3


def test_the_version_that_serves_by_default_comes_first(files, make, monkeypatch, caplog):
    Compiler().install(monkeypatch)
    versions = [load(path) for path in files]
    optimizer = make(preferred=lambda: versions[1])

    for loaded, path in zip(versions, files, strict=True):
        optimizer.plan(loaded, Reads(path))
    with caplog.at_level("INFO"):
        optimizer.begin()
        finish()

    told = [line.split(" is computed")[0] for line in caplog.messages if "is computed" in line]
    assert told == ["forest 2", "forest 1", "forest 3"]


def test_a_version_that_has_gone_is_passed_over(files, make, monkeypatch):
    compiler = Compiler().install(monkeypatch)
    optimizer = make()
    versions, reads = [load(path) for path in files[:2]], [Reads(path) for path in files[:2]]
    for loaded, read in zip(versions, reads, strict=True):
        optimizer.plan(loaded, read)

    del versions[0], loaded
    gc.collect()
    optimizer.begin()
    finish()

    assert (reads[0].n, names(versions[0])) == (0, ["native", "treelite"])
    assert compiler.compiled == 1


def test_a_version_that_goes_while_it_is_compiled_is_not_held_and_the_child_is_ended(files, make, monkeypatch):
    compiler = Compiler().install(monkeypatch)
    slow = Slow()
    optimizer, loaded = make(slow), load(files[0])
    optimizer.plan(loaded, Reads(files[0]))
    optimizer.begin()
    assert slow.begun.acquire(timeout=60)

    del loaded
    gc.collect()
    finish()

    assert compiler.compiled == 0


def test_what_cannot_be_read_any_more_fails_and_the_next_one_is_compiled(files, make, monkeypatch, tmp_path):
    Compiler().install(monkeypatch)
    optimizer, versions = make(), [load(path) for path in files[:2]]

    optimizer.plan(versions[0], lambda: read_artifact(tmp_path / "gone.joblib"))
    optimizer.plan(versions[1], Reads(files[1]))
    optimizer.begin()
    finish()

    assert [loaded.optimization.state for loaded in versions] == ["failed", "done"]


def test_a_version_is_planned_once(files, make, monkeypatch):
    compiler = Compiler().install(monkeypatch)
    optimizer, loaded = make(), load(files[0])

    for _ in range(2):
        optimizer.plan(loaded, Reads(files[0]))
        optimizer.begin()
    finish()
    optimizer.plan(loaded, Reads(files[0]))
    optimizer.begin()
    finish()

    assert (compiler.compiled, names(loaded)) == (1, ["native", "treelite"])


# ── prepared for a switch ───────────────────────────────────────────────────────────


def test_a_version_that_is_prepared_has_its_engines_when_it_is_switched_to(files, make, monkeypatch):
    Compiler().install(monkeypatch)
    optimizer, loaded = make(), load(files[0])

    assert optimizer.prepare(loaded, Reads(files[0]), 60)

    assert (names(loaded), loaded.optimization.state) == (["native", "treelite"], "done")
    assert optimizer.prepare(loaded, Reads(files[0]), 60)
    assert names(loaded) == ["native", "treelite"]
    finish()


def test_after_its_time_preparing_goes_on_in_the_background(files, make, monkeypatch):
    Compiler().install(monkeypatch)
    slow = Slow()
    optimizer, loaded = make(slow), load(files[0])

    assert not optimizer.prepare(loaded, Reads(files[0]), 0.01)

    assert (names(loaded), loaded.optimization.state) == (["native"], "running")
    slow.may_go_on.set()
    finish()
    assert (names(loaded), loaded.optimization.state) == (["native", "treelite"], "done")


def test_a_version_that_is_prepared_does_not_wait_for_those_that_are_planned(files, make, monkeypatch):
    Compiler().install(monkeypatch)
    slow = Slow()
    optimizer, (planned, prepared) = make(slow), (load(path) for path in files[:2])
    optimizer.plan(planned, Reads(files[0]))
    optimizer.begin()
    assert slow.begun.acquire(timeout=60)

    assert optimizer.prepare(prepared, Reads(files[1]), 60, Here())

    assert (names(planned), names(prepared)) == (["native"], ["native", "treelite"])
    slow.may_go_on.set()
    finish()


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_version_that_was_planned_is_prepared_and_compiled_once(files, make, monkeypatch, has_begun):
    compiler = Compiler().install(monkeypatch)
    slow = Slow()
    optimizer, loaded = make(slow), load(files[0])
    optimizer.plan(loaded, Reads(files[0]))
    if has_begun:
        optimizer.begin()
        assert slow.begun.acquire(timeout=60)

    threading.Timer(0.05, slow.may_go_on.set).start()
    assert optimizer.prepare(loaded, Reads(files[0]), 60)

    optimizer.begin()
    finish()
    assert (compiler.compiled, names(loaded)) == (1, ["native", "treelite"])


def test_a_switch_to_a_version_without_the_engine_that_is_required_fails(files, make, monkeypatch):
    refused = {**ENTRY, "verdict": "refused", "reason": "3 labels differ"}
    Compiler(engines=0, entry=refused).install(monkeypatch)
    optimizer, loaded = make(optimize="require"), load(files[0])

    with pytest.raises(ArtifactError, match="no compiled engine.*treelite: 3 labels differ"):
        optimizer.prepare(loaded, Reads(files[0]), 0.0)

    finish()


def test_a_version_that_is_no_matter_of_engines_is_prepared_at_once(files, make):
    optimizer, loaded = make(optimize="off"), load(files[0])

    assert optimizer.prepare(loaded, Reads(files[0]), 60)

    assert (loaded.optimization.state, loaded.optimization.reason) == ("off", "optimize = off")


# ── cancelled ───────────────────────────────────────────────────────────────────────


def test_what_is_cancelled_stops_and_does_not_serve(files, make, monkeypatch):
    compiler = Compiler().install(monkeypatch)
    slow = Slow()
    optimizer, (running, waiting) = make(slow), (load(path) for path in files[:2])
    assert not optimizer.prepare(running, Reads(files[0]), 0.0)
    optimizer.plan(waiting, read := Reads(files[1]))
    assert slow.begun.acquire(timeout=60)

    for loaded in (running, waiting):
        optimizer.cancel(loaded)
    finish()
    optimizer.begin()
    finish()

    assert (compiler.compiled, read.n) == (0, 0)
    assert [one.optimization.state for one in (running, waiting)] == ["off", "off"]
    assert "given up" in running.optimization.reason


def test_a_version_that_is_cancelled_while_another_process_compiles_it_does_not_wait(files, make, monkeypatch):
    compiler = Compiler().install(monkeypatch)
    slow = Slow()
    one, other = make(slow), make()
    first, second = load(files[0]), load(files[0])
    one.plan(first, Reads(files[0]))
    one.begin()
    assert slow.begun.acquire(timeout=60)

    assert not other.prepare(second, Reads(files[0]), 0.05)
    other.cancel(second)
    until(lambda: len(threads()) == 1)

    assert second.optimization.state == "off"
    slow.may_go_on.set()
    finish()
    assert (compiler.compiled, names(first)) == (1, ["native", "treelite"])


def test_many_that_are_given_up_leave_nothing(files, make):
    optimizer = make(Verifier(deadline_s=60))

    def give_up() -> None:
        loaded = load(files[0])
        optimizer.prepare(loaded, Reads(files[0]), 0.02)
        optimizer.cancel(loaded)

    give_up()
    until(lambda: not threads())
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(20):
        give_up()
    until(lambda: not threads())

    assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208


# ── before a fork ───────────────────────────────────────────────────────────────────


def test_what_is_at_hand_is_loaded_before_a_fork_without_a_thread(files, make, monkeypatch):
    compiler = Compiler().install(monkeypatch)
    make().prepare(load(files[0]), Reads(files[0]), 60)  # so that it is in the cache
    finish()
    optimizer, loaded = make(workers=4), load(files[0])
    started = []
    monkeypatch.setattr(threading.Thread, "start", started.append)

    assert optimizer.preload(loaded, Reads(files[0]))

    assert (names(loaded), loaded.optimization.source) == (["native", "treelite"], "cache")
    assert (started, compiler.compiled) == ([], 1)


def test_what_is_not_at_hand_is_planned_for_the_processes_that_serve(files, make, monkeypatch):
    compiler = Compiler().install(monkeypatch)
    optimizer, loaded = make(workers=4), load(files[0])

    assert not optimizer.preload(loaded, Reads(files[0]))

    assert (names(loaded), loaded.optimization.state, compiler.compiled) == (["native"], "running", 0)
    optimizer.begin()
    finish()
    assert (names(loaded), loaded.optimization.state) == (["native", "treelite"], "done")


def test_what_is_required_is_compiled_before_a_fork(files, make, monkeypatch):
    Compiler().install(monkeypatch)
    loaded = load(files[0])

    assert make(workers=4, optimize="require").preload(loaded, Reads(files[0]))
    assert names(loaded) == ["native", "treelite"]

    Compiler(engines=0, entry={**ENTRY, "verdict": "refused", "reason": "3 labels differ"}).install(monkeypatch)
    with pytest.raises(ArtifactError, match="3 labels differ"):
        make(workers=4, optimize="require").preload(load(files[1]), Reads(files[1]))


# ── memory ──────────────────────────────────────────────────────────────────────────


def test_an_engine_too_large_for_each_of_several_processes_waits_until_they_share_it(files, make, monkeypatch):
    compiler = Compiler(entry={**ENTRY, "memory_bytes": 200 * MIB}).install(monkeypatch)
    asked: list[str] = []
    optimizer, loaded = make(workers=4, ask_to_share=asked.append), load(files[0])

    optimizer.plan(loaded, Reads(files[0]))
    optimizer.begin()
    finish()

    state = loaded.optimization
    assert (names(loaded), compiler.loaded, state.wants_sharing) == (["native"], 0, True)
    assert "share" in state.reason
    assert f"{128 * MIB} are left for what each process holds by itself" in state.report[0]["reason"]
    assert asked == [loaded.digest]
    shared = load(files[0])
    assert make(workers=4).preload(shared, Reads(files[0]))
    assert (names(shared), shared.optimization.wants_sharing) == (["native", "treelite"], False)


@pytest.mark.parametrize(
    ("memory_bytes", "workers", "asks"), [(40 * MIB, 4, True), (4 * MIB, 4, False), (40 * MIB, 1, False)]
)
def test_a_large_engine_serves_and_is_to_be_shared_where_there_are_several(
    files, make, monkeypatch, memory_bytes, workers, asks
):
    Compiler(entry={**ENTRY, "memory_bytes": memory_bytes}).install(monkeypatch)
    asked: list[str] = []
    optimizer, loaded = make(workers=workers, ask_to_share=asked.append), load(files[0])

    optimizer.plan(loaded, Reads(files[0]))
    optimizer.begin()
    finish()

    assert (names(loaded), bool(asked)) == (["native", "treelite"], asks)


def test_nobody_asks_for_what_no_other_process_would_find(files, make, monkeypatch, tmp_path):
    Compiler(entry={**ENTRY, "memory_bytes": 200 * MIB}).install(monkeypatch)
    (tmp_path / "file").write_bytes(b"")
    asked: list[str] = []
    optimizer, loaded = make(workers=4, ask_to_share=asked.append, cache_dir=tmp_path / "file"), load(files[0])

    optimizer.plan(loaded, Reads(files[0]))
    optimizer.begin()
    finish()

    assert (asked, loaded.optimization.state, loaded.optimization.wants_sharing) == ([], "done", False)


def test_versions_share_the_memory_for_engines_but_one_that_takes_the_place_of_another(files, make, monkeypatch):
    Compiler(entry={**ENTRY, "memory_bytes": 300 * MIB}).install(monkeypatch)
    optimizer, versions = make(), [load(path) for path in files]

    for loaded, path in zip(versions[:2], files, strict=False):
        optimizer.plan(loaded, Reads(path))
    optimizer.begin()
    finish()
    assert optimizer.prepare(versions[2], Reads(files[2]), 60)

    assert [names(loaded) for loaded in versions] == [["native", "treelite"], ["native"], ["native", "treelite"]]
    assert f"of optimize_memory_bytes are {212 * MIB} left" in versions[1].optimization.report[0]["reason"]
    finish()


# ── and a fork ──────────────────────────────────────────────────────────────────────

FORKING = """
import os, sys, threading
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}
from pathlib import Path
import numpy as np
from fitserve.settings import Settings
from fitserve.store import takeover
from fitserve.store.loading import load_artifact
from fitserve.store.repository import read_artifact
from fitserve.store.verify import Verifier

takeover.AFTER_S = 0.0
one, other, cache = map(Path, sys.argv[1:])
settings = Settings(cache_dir=cache, workers=2)
optimizer = takeover.Optimizer(settings, Verifier(), one.parent)
at_hand, planned = (load_artifact(read_artifact(path), Verifier().policy) for path in (one, other))
assert optimizer.preload(at_hand, lambda: read_artifact(one)), at_hand.optimization
assert not optimizer.preload(planned, lambda: read_artifact(other))
assert len(os.listdir("/proc/self/task")) == 1
form = at_hand.forms.all[1]
X = np.random.default_rng(0).normal(size=(500, 3))
wanted = at_hand.model.predict(X)

def serve():
    optimizer.begin()
    for i in range(len(X)):
        came = form.predict(X[i : i + 1], ())
        assert came.predictions.tolist() == wanted.predictions[i : i + 1].tolist()
        assert np.allclose(came.probabilities[0], wanted.probabilities[0][i : i + 1], rtol=0, atol=1e-6)
    for thread in threading.enumerate():
        if thread.name == "fitserve-optimize":
            thread.join(100)
    assert len(planned.forms.all) == 2, planned.optimization

workers = []
for _ in range(2):
    if (pid := os.fork()) == 0:
        try:
            serve()
            os._exit(0)
        except BaseException as exc:
            print(repr(exc), flush=True)
            os._exit(1)
    workers.append(pid)
print([os.waitpid(pid, 0)[1] for pid in workers], form.name, optimizer.preload(planned, None))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks, and looks into /proc")
def test_copies_of_a_process_share_its_engines_and_go_on_with_what_was_planned(files, make):
    make(Verifier(deadline_s=100)).prepare(load(files[0]), Reads(files[0]), 100)
    cache = make()._settings.cache_dir

    run = subprocess.run(
        [sys.executable, "-c", FORKING, str(files[0]), str(files[1]), str(cache)],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip

    assert run.stderr == ""
    assert run.stdout.startswith("[0, 0] "), run.stdout
