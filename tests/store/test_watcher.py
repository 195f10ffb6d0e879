"""What lies at a path is noticed when it has changed, has been left alone, and is whole."""

from __future__ import annotations

import asyncio
import pickle
from pathlib import Path

import pytest
from sklearn.linear_model import LogisticRegression

from fitserve.store import watcher
from fitserve.store.fingerprint import fingerprint
from fitserve.store.watcher import changes

pytestmark = pytest.mark.anyio

MODEL = pickle.dumps(LogisticRegression().fit([[0.0], [1.0]], [0, 1]))
QUIET_S = 0.25
PATIENT_S = 60.0


class Watch:
    """A watch that is under way, and how often it has told of a change."""

    def __init__(self, path: Path, mode: str, **options: object) -> None:
        self.n_told = 0
        self.seen: list[object] = []
        self._path = path
        self._mode = mode
        self._options = {"quiet_s": QUIET_S, **options}

    async def __aenter__(self):
        self._options.setdefault("since", await asyncio.to_thread(fingerprint, self._path))
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.result()

    async def _run(self) -> None:
        async for _ in changes(self._path, self._mode, 0.1, **self._options):
            self.seen.append(await asyncio.to_thread(contents, self._path))
            self.n_told += 1

    async def told(self, times: int = 1) -> None:
        async with asyncio.timeout(PATIENT_S):
            while self.n_told < times:
                await asyncio.sleep(0.01)


def contents(path: Path) -> object:
    if path.is_file():
        return path.read_bytes()
    return {str(file.relative_to(path)): file.stat().st_size for file in sorted(path.rglob("*")) if file.is_file()}


@pytest.fixture
def models(tmp_path) -> Path:
    root = tmp_path / "models"
    (root / "churn/1.0").mkdir(parents=True)
    (root / "churn/1.0/m.pkl").write_bytes(MODEL)
    (root / "iris_v1.pkl").write_bytes(MODEL)
    return root


@pytest.fixture(params=["poll", "notify"])
def mode(request) -> str:
    return request.param


@pytest.mark.parametrize(
    ("watched", "changed"),
    [
        ("iris_v1.pkl", "iris_v1.pkl"),
        ("iris_v1.pkl", "iris_v1.manifest.toml"),
        ("", "churn/1.0/m.pkl"),
        ("", "b/1/m.pkl"),
    ],
)
async def test_a_change_is_noticed(watched, changed, mode, models):
    async with Watch(models / watched, mode) as watch:
        (models / changed).parent.mkdir(parents=True, exist_ok=True)
        (models / changed).write_bytes(b'name = "x"\n' if changed.endswith("toml") else MODEL + b"2")

        await watch.told()


async def test_a_file_that_is_renamed_into_place_is_noticed(mode, models):
    async with Watch(models / "iris_v1.pkl", mode) as watch:
        (models / "other.tmp").write_bytes(MODEL + b"2")
        (models / "other.tmp").rename(models / "iris_v1.pkl")

        await watch.told()

    assert watch.seen == [MODEL + b"2"]


async def test_a_file_that_is_written_slowly_is_noticed_when_it_is_whole(mode, models):
    path = models / "iris_v1.pkl"

    async with Watch(path, mode, quiet_s=1.5) as watch:
        with path.open("wb", buffering=0) as file:
            for at in range(0, len(MODEL), 100):
                file.write(MODEL[at : at + 100])
                await asyncio.sleep(0.1)
        await watch.told()

    assert watch.seen == [MODEL]


async def test_a_package_whose_manifest_comes_before_its_files_is_waited_for(mode, models):
    async with Watch(models, mode) as watch:
        (models / "new").mkdir()
        lines = 'schema = 1\nname = "new"\nversion = "1"\nmodel = "m.pkl"\n[files]\n'
        (models / "new/manifest.toml").write_text(f'{lines}"m.pkl" = "{"0" * 64}"\n')
        await watching_for(4 * QUIET_S)
        n_early = watch.n_told
        (models / "new/m.pkl").write_bytes(MODEL)
        await watch.told()

    assert n_early == 0
    assert watch.seen[0]["new/m.pkl"] == len(MODEL)


@pytest.mark.parametrize(
    ("name", "half", "whole"),
    [
        ("b_v1.manifest.toml", b'name = "b', b'name = "b"\n'),
        ("b_v1.pkl", b"", MODEL),
        ("b/manifest.toml", b"sch", None),
    ],
)
async def test_what_is_half_written_is_waited_for(name, half, whole, mode, models):
    async with Watch(models, mode) as watch:
        (models / name).parent.mkdir(exist_ok=True)
        (models / "b_v1.pkl").write_bytes(MODEL)
        (models / name).write_bytes(half)
        await watching_for(4 * QUIET_S)
        n_early = watch.n_told
        (models / name).unlink() if whole is None else (models / name).write_bytes(whole)
        (models / name).parent.rmdir() if whole is None else None
        await watch.told()

    assert n_early == 0


async def test_what_stays_broken_holds_up_nothing_for_ever(mode, models):
    async with Watch(models, mode, patience_s=3 * QUIET_S) as watch:
        (models / "bad_v1.pkl").touch()
        await watch.told()

    assert "bad_v1.pkl" in watch.seen[0]


async def test_what_was_broken_before_holds_up_nothing(mode, models):
    (models / "bad_v1.pkl").touch()

    async with Watch(models, mode, patience_s=10 * PATIENT_S) as watch:
        await watching_for(4 * QUIET_S)
        (models / "iris_v2.pkl").write_bytes(MODEL)
        await watch.told()


async def test_each_of_two_changes_is_noticed_and_rest_is_not(mode, models):
    async with Watch(models, mode) as watch:
        (models / "iris_v2.pkl").write_bytes(MODEL)
        await watch.told()
        await watching_for(4 * QUIET_S)
        n_first = watch.n_told
        (models / "iris_v3.pkl").write_bytes(MODEL)
        await watch.told(2)

    assert n_first == 1


async def test_a_link_that_is_turned_to_another_folder_is_noticed_again_and_again(mode, models, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/iris_v2.pkl").write_bytes(MODEL)
    link = tmp_path / "current"
    link.symlink_to("models")

    async with Watch(link, mode) as watch:
        (tmp_path / "next").symlink_to("other")
        (tmp_path / "next").rename(link)
        await watch.told()
        (tmp_path / "other/iris_v3.pkl").write_bytes(MODEL)
        await watch.told(2)

    assert [set(seen) for seen in watch.seen] == [{"iris_v2.pkl"}, {"iris_v2.pkl", "iris_v3.pkl"}]


async def test_a_path_that_is_away_for_a_while_is_waited_for(mode, models, tmp_path):
    async with Watch(models, mode, patience_s=10 * PATIENT_S) as watch:
        models.rename(tmp_path / "away")
        await watching_for(3 * QUIET_S)
        n_early = watch.n_told
        (tmp_path / "away/iris_v1.pkl").rename(tmp_path / "away/iris_v2.pkl")
        (tmp_path / "away").rename(models)
        await watch.told()

    assert n_early == 0


async def test_a_change_since_a_known_state_is_noticed(mode, models):
    known = await asyncio.to_thread(fingerprint, models)
    (models / "iris_v2.pkl").write_bytes(MODEL)

    async with Watch(models, mode, since=known) as watch:
        await watch.told()


async def test_files_that_never_rest_are_told_in_the_log(models, monkeypatch, caplog):
    monkeypatch.setattr(watcher, "RESTLESS_S", 0.0)

    async with Watch(models, "poll") as watch, asyncio.timeout(PATIENT_S):
        n_written = 0
        while "keep changing" not in caplog.text:
            n_written += 1
            (models / "iris_v2.pkl").write_bytes(MODEL + bytes(n_written))
            await asyncio.sleep(0.02)
        n_early = watch.n_told
        await watch.told()

    assert n_early == 0
    assert caplog.text.count("keep changing") == 1


async def watching_for(seconds: float) -> None:
    """Let a watch look several times: what it must not tell shows only with time."""
    await asyncio.sleep(seconds)
