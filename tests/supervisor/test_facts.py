"""What a supervisor looks up, in places where its workers may have written anything."""

from __future__ import annotations

import mmap
import os

import pytest

from fitserve.supervisor.facts import ask_for_reload, is_switching, private_bytes


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="this system does not tell")  # noqa: PTH110
def test_the_memory_of_a_process_for_itself_counts_what_it_writes():
    before = private_bytes(os.getpid())
    with mmap.mmap(-1, 64 * 2**20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        for page in range(0, len(memory), mmap.PAGESIZE):
            memory[page] = 1
        after = private_bytes(os.getpid())

    assert before is not None
    assert after - before > 60 * 2**20


def test_the_memory_of_a_process_that_is_gone_is_not_known():
    assert private_bytes(2**22 + 1) is None


def test_an_operation_is_under_way_as_long_as_its_note_is_there(tmp_path):
    before = is_switching(tmp_path)
    (tmp_path / "running").mkdir()
    (tmp_path / "running" / ".half-written").touch()
    empty = is_switching(tmp_path)
    (tmp_path / "running" / "op-1").touch()

    assert (before, empty, is_switching(tmp_path)) == (False, False, True)


def test_a_reload_is_asked_for_by_an_empty_order(tmp_path):
    (tmp_path / "orders").mkdir()
    ask_for_reload(tmp_path)
    ask_for_reload(tmp_path)

    assert (tmp_path / "orders" / "reload").read_bytes() == b""


def test_asking_for_a_reload_makes_no_file_elsewhere(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "orders").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "orders").mkdir()
    (tmp_path / "orders" / "reload").symlink_to(tmp_path / "elsewhere" / "file")
    for folder in (tmp_path, tmp_path / "linked"):
        ask_for_reload(folder)

    assert list((tmp_path / "elsewhere").iterdir()) == []
