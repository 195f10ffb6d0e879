"""Reloads that must fail: the version that serves goes on, the operation says why, and nothing is left behind."""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.soak import models, processes
from bench.soak.counting import Figure, at_most, none, tally, told
from bench.soak.load import Load, Shape
from bench.soak.service import BIN, Answer, Service, SoakError, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LOAD_TIMEOUT_S = 6.0
MIB = 2.0**20


@dataclass(frozen=True)
class Place:
    """A folder with one model, which is served, and what may take its place.

    Attributes:
        served: the folder that the server was given.
        good: what lies there at first: a package of version 1.0.0.
        code: the folder of the operator's modules.
        aside: where candidates are made.
    """

    served: Path
    good: Path
    code: Path
    aside: Path

    def put(self, candidate: Path) -> None:
        """Let a copy of another folder take the place of what is served."""
        fresh = self.aside / "fresh"
        shutil.copytree(candidate, fresh)
        gone = self.aside / "gone"
        self.served.rename(gone)
        fresh.rename(self.served)
        shutil.rmtree(gone)

    def candidate(self, name: str) -> Path:
        folder = self.aside / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder


def make_place(folder: Path) -> Place:
    """The folder, with a good package in it."""
    aside = folder / "aside"
    aside.mkdir()
    model = models.linear(aside / "tell_v1.0.0.joblib", 1.0)
    good = aside / "good"
    command = [BIN / "fitserve", "pack", model, "--out", good, "--optimize", "off"]
    packed = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if packed.returncode:
        raise SoakError(f"not packed: {packed.stdout}{packed.stderr}")
    place = Place(folder / "served", good, models.code(folder / "code"), aside)
    shutil.copytree(good, place.served)
    return place


def settings(place: Place) -> dict[str, object]:
    """What the server must be told to run these trials."""
    return {"code_path": place.code, "allow": models.ALLOW, "load_timeout_s": LOAD_TIMEOUT_S, "rollback_hold_s": 1}


@contextlib.contextmanager
def serving_place(folder: Path, *, workers: int = 4, **more: object) -> Iterator[tuple[Service, Place]]:
    place = make_place(folder)
    with serving(place.served, folder, workers=workers, **settings(place), **more) as service:
        yield service, place


def _file(place: Place, write: Callable[[Path], object]) -> None:
    folder = place.candidate("file")
    write(folder / "tell_v3.0.0.joblib")
    place.put(folder)


def _bytes(place: Place) -> bytes:
    return models.forest(place.candidate("whole") / "tell_v3.0.0.joblib", 3.0, n_trees=20).read_bytes()


@contextlib.contextmanager
def broken(place: Place, _: Service) -> Iterator[None]:
    whole = _bytes(place)
    _file(place, lambda path: models.broken(path, whole))
    yield


@contextlib.contextmanager
def truncated(place: Place, _: Service) -> Iterator[None]:
    whole = _bytes(place)
    _file(place, lambda path: models.half(path, whole))
    yield


@contextlib.contextmanager
def golden(place: Place, _: Service) -> Iterator[None]:
    folder = place.candidate("golden")
    shutil.copytree(place.good, folder, dirs_exist_ok=True)
    models.spoil_golden(folder)
    place.put(folder)
    yield


@contextlib.contextmanager
def changing(place: Place, _: Service) -> Iterator[None]:
    """Written over without a pause while it is read; there is no moment at which it is whole."""
    whole = _bytes(place)
    half = len(whole) // 2
    nothing = b"\0" * (len(whole) - half)
    _file(place, lambda path: models.write_whole(path, whole[:half] + nothing))
    is_over = threading.Event()

    def write() -> None:
        with (place.served / "tell_v3.0.0.joblib").open("r+b") as file:
            while not is_over.is_set():
                for at, part in ((64, nothing[:half]), (half, whole[half:]), (half, nothing), (64, whole[64:half])):
                    file.seek(at)
                    file.write(part)
                    file.flush()

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    try:
        yield
    finally:
        is_over.set()
        writer.join()


@contextlib.contextmanager
def raising(place: Place, _: Service) -> Iterator[None]:
    """Raises when it is asked its first row."""
    _told(place, moment="asked", do="raise")
    yield


@contextlib.contextmanager
def hanging(place: Place, _: Service) -> Iterator[None]:
    """Never answers its first row."""
    _told(place, moment="asked", do="hang")
    yield


@contextlib.contextmanager
def raising_in_one(place: Place, service: Service) -> Iterator[None]:
    """Passes the trial, and raises in one of the workers when it is loaded there."""
    _told(place, moment="loaded", do="raise", pids=_one_of(service))
    yield


@contextlib.contextmanager
def hanging_in_one(place: Place, service: Service) -> Iterator[None]:
    """Passes the trial, and hangs in one of the workers when it is asked there."""
    _told(place, moment="asked", do="hang", pids=_one_of(service))
    yield


def _told(place: Place, **orders: object) -> None:
    models.control(place.code, **orders)
    value = 3.0 + random.random()  # other bytes each time: those that have passed a trial are not tried again
    _file(place, lambda path: models.faulty(path, value, place.code))


def _one_of(service: Service) -> list[int]:
    return [min(service.wait(service.serving, "a worker", 30))]


KINDS = {
    "broken": broken,
    "truncated": truncated,
    "golden samples that fail": golden,
    "replaced while it is read": changing,
    "raises in warm-up": raising,
    "hangs in warm-up": hanging,
    "raises in one worker": raising_in_one,
    "hangs in one worker": hanging_in_one,
}
"""The last leaves a thread in a worker that nobody can end; it is tried apart from those that must leave nothing."""

LEAVING_NOTHING = tuple(KINDS)[:-1]


def reload(service: Service) -> Answer:
    return service.ask("POST", "/model/reload?wait=true", timeout_s=120)


def refused(service: Service, place: Place, kind: str) -> tuple[list[Figure], Answer]:
    """One reload of one kind; the figures say whether it was refused as it must be."""
    before = service.ask("GET", "/model/info").body
    with KINDS[kind](place, service):
        answer = reload(service)
    models.calm(place.code)
    after = service.ask("GET", "/model/info").body
    has_reason = bool(answer.operation.get("error")) and answer.operation.get("state") == "failed"
    return [
        none(f"{kind}: reloads that were not refused", int(answer.status not in {422, 504}), answer.why),
        none(f"{kind}: operations without a reason", int(not has_reason), answer.body),
        none(f"{kind}: versions changed", int(before["version"] != after["version"]), after),
    ], answer


def refusals(service: Service, place: Place, kinds: dict[str, int], shape: Shape) -> list[Figure]:
    """Reloads of each kind, in turn, under load; then the good model again, which is reloaded."""
    reasons: dict[str, str] = {}
    figures: list[Figure] = []
    left = dict(kinds)
    with Load(service.port, shape) as load:
        load.wait_for(20)
        while left:
            for kind in list(left):
                found, answer = refused(service, place, kind)
                figures += [figure for figure in found if not figure.is_met]
                reasons[kind] = answer.why
                left[kind] -= 1
                if not left[kind]:
                    del left[kind]
        place.put(place.good)
        good = reload(service)
        load.wait_for(20)
    return [
        *figures,
        *(told(f"{n} times: {kind}", reasons[kind][:160]) for kind, n in kinds.items()),
        none("good reloads that failed afterwards", int(good.status != 200), good.why),
        *tally(load.records, first="1.0.0").figures(),
    ]


def held(service: Service) -> dict[int, processes.Facts]:
    found = {pid: processes.facts(pid) for pid in processes.tree(service.pid)}
    return {pid: facts for pid, facts in found.items() if facts}


def leaks(service: Service, before: dict[int, processes.Facts], within_s: float = 60.0) -> list[Figure]:
    """What the processes hold more than before; no load may be on. What is freed a little later counts as freed."""
    deadline_s = time.monotonic() + within_s
    while True:
        figures = _growth(before, held(service))
        if all(figure.is_met is not False for figure in figures) or time.monotonic() > deadline_s:
            return figures
        time.sleep(0.5)


def _growth(before: dict[int, processes.Facts], after: dict[int, processes.Facts]) -> list[Figure]:
    same = before.keys() & after.keys()
    n_fds = max((after[pid].n_fds - before[pid].n_fds for pid in same), default=0)
    n_threads = max((after[pid].n_threads - before[pid].n_threads for pid in same), default=0)
    rss = max((after[pid].rss_bytes - before[pid].rss_bytes for pid in same), default=0)
    pss = sum(facts.pss_bytes for facts in after.values()) - sum(facts.pss_bytes for facts in before.values())
    return [
        none("processes that went", len(before.keys() - after.keys())),
        at_most("most new file descriptors of a process", n_fds, 0, "{:.0f}"),
        at_most("most new threads of a process", n_threads, 0, "{:.0f}"),
        at_most("most new resident memory of a process, MiB", rss / MIB, 32),
        at_most("new memory of all together (PSS), MiB", pss / MIB, 64),
    ]
