"""Compiled engines kept on disk: whole or not at all, by one process at a time, and never at the cost of serving."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fitserve.settings import Settings
from fitserve.store.engine_cache import ABANDONED_S, EngineCache, cache_of, prune

KEY = "a" * 64


@pytest.fixture
def cache(tmp_path) -> EngineCache:
    found = cache_of(Settings(cache_dir=tmp_path), Path("model.joblib"))
    assert found is not None
    return found


def test_what_was_put_is_got_and_nothing_after_it_is_removed(cache):
    assert cache.get(KEY) is None

    cache.put(KEY, {"engines.json": b"{}", "treelite.bin": b"123"})

    assert cache.get(KEY) == {"engines.json": b"{}", "treelite.bin": b"123"}
    cache.put(KEY, {"engines.json": b"[]"})
    assert cache.get(KEY) == {"engines.json": b"[]"}
    cache.remove(KEY)
    assert cache.get(KEY) is None


def test_each_path_of_a_model_has_a_folder_of_its_own_for_its_user_alone(tmp_path):
    settings = Settings(cache_dir=tmp_path)

    folders = [cache_of(settings, path).folder for path in (Path("a.joblib"), Path("b.joblib"), None)]

    assert len(set(folders)) == 3
    assert cache_of(settings, Path("a.joblib").absolute()).folder == folders[0]
    assert {folder.stat().st_mode & 0o777 for folder in (*folders, tmp_path / "engines")} == {0o700}


def test_the_folder_is_where_the_user_keeps_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_of(Settings(), None).folder == tmp_path / "xdg/fitserve/engines/live"

    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_of(Settings(), None).folder == tmp_path / ".cache/fitserve/engines/live"

    monkeypatch.setenv("HOME", str(tmp_path / "none"))
    assert cache_of(Settings(), None) is None


def test_a_folder_that_others_can_write_to_is_not_believed(tmp_path):
    (tmp_path / "engines").mkdir()
    (tmp_path / "engines").chmod(0o777)

    assert cache_of(Settings(cache_dir=tmp_path), None) is None


def test_a_place_where_no_folder_can_be_made_is_no_cache(tmp_path):
    (tmp_path / "file").write_bytes(b"")

    assert cache_of(Settings(cache_dir=tmp_path / "file"), None) is None


def test_nothing_is_kept_and_nothing_raises_where_the_folder_is_gone_or_damaged(cache, tmp_path):
    (cache.folder / KEY).write_bytes(b"a file in its place")
    assert cache.get(KEY) is None
    cache.put(KEY, {"engines.json": b"{}"})
    assert cache.get(KEY) == {"engines.json": b"{}"}
    assert [path.name for path in cache.folder.iterdir()] == [KEY]

    gone = EngineCache(tmp_path / "file" / "engines")
    (tmp_path / "file").write_bytes(b"")
    gone.put(KEY, {"engines.json": b"{}"})
    assert gone.get(KEY) is None
    with gone.locked(KEY, 1.0):
        pass


HOLDER = f"""
import sys
from pathlib import Path
from fitserve.store.engine_cache import EngineCache
with EngineCache(Path(sys.argv[1])).locked({KEY!r}, 10.0):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_process_holds_a_key_and_its_death_frees_it(cache):
    command = [sys.executable, "-c", HOLDER, str(cache.folder)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    asked = []

    def kill_holder() -> bool:
        asked.append(1)  # it is asked only where the lock could not be had
        holder.kill()
        holder.communicate()
        return False

    with cache.locked(KEY, 60.0, kill_holder):
        pass

    assert asked == [1]


def test_who_has_waited_long_enough_goes_on_without_the_lock(cache):
    with cache.locked(KEY, 1.0), cache.locked(KEY, 0.0), cache.locked(KEY, 60.0, lambda: True):
        pass


def test_entries_that_were_used_longest_ago_go_first(cache):
    for i, key in enumerate("abc"):
        cache.put(key, {"engine.bin": bytes(1000)})
        for path in ((cache.folder / key), *(cache.folder / key).iterdir()):
            os.utime(path, (i, i))
    assert cache.get("a")  # used now

    prune(cache.folder.parent, limit_bytes=2100)

    assert [cache.get(key) is not None for key in "abc"] == [True, False, True]
    prune(cache.folder.parent, limit_bytes=0, keep=cache.folder / "c")
    assert [cache.get(key) is not None for key in "abc"] == [False, False, True]


def test_what_a_process_left_behind_when_it_died_goes_after_a_while(cache):
    for name in (".abc.half", ".abc.new"):
        (cache.folder / name).mkdir()
    os.utime(cache.folder / ".abc.half", (0, 0))

    prune(cache.folder.parent)

    assert [path.name for path in cache.folder.iterdir()] == [".abc.new"]
    assert ABANDONED_S > 600


def test_the_versions_of_many_models_lie_side_by_side_and_all_count(tmp_path):
    settings = Settings(cache_dir=tmp_path)
    one, other = (cache_of(settings, Path(name)) for name in ("repository", "another"))
    keys = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(50)]
    for age, key in enumerate(keys):
        (one if age % 5 else other).put(key, {"engine.bin": bytes(1000)})
        place = (one if age % 5 else other).folder / key
        for path in (place, *place.iterdir()):
            os.utime(path, (age, age))

    prune(tmp_path / "engines", limit_bytes=20_500)

    left = [key for key in keys if one.get(key) or other.get(key)]
    assert left == keys[-20:]


def test_hardly_two_models_wait_for_each_other(cache):
    asked = []

    with cache.locked("ab" + KEY, 60.0), cache.locked("ac" + KEY, 60.0, lambda: bool(asked.append(1))):
        pass

    assert asked == []
