"""What engines may take: shared ones once, those of each process as often as there are processes."""

from __future__ import annotations

import weakref

import pytest

from fitserve.store.engines_memory import EngineMemory, Room


class Version:
    """As much of a loaded version as an account needs."""

    def __init__(self, name: str = "churn") -> None:
        self.name = name


def test_one_process_may_take_all_and_what_has_gone_is_free_again():
    memory, version = EngineMemory(100, 1), Version()

    memory.take(version, 70)

    assert memory.room() == Room(30, 30)
    gone = weakref.ref(version)
    del version
    assert gone() is None
    assert memory.room() == Room(100, 100)


def test_one_of_several_processes_may_take_its_part_by_itself_and_all_where_it_is_shared():
    memory = EngineMemory(100, 4)

    assert memory.room() == Room(25, 100)
    assert memory.room(is_before_fork=True) == Room(100, 100)


def test_what_was_loaded_before_a_fork_counts_once_and_what_a_process_loads_counts_for_each():
    memory, first, second = EngineMemory(100, 4), Version(), Version("price")
    memory.take(first, 60, is_before_fork=True)

    assert memory.room() == Room(10, 40)
    memory.take(second, 7)
    assert memory.room() == Room(3, 33)
    assert memory.room(is_before_fork=True) == Room(33, 33)


def test_all_that_a_process_has_is_shared_by_its_copies():
    memory, version = EngineMemory(100, 4), Version()
    memory.take(version, 20)

    memory.in_copy()

    assert memory.room() == Room(20, 80)


@pytest.mark.parametrize("is_before_fork", [False, True])
def test_a_version_does_not_count_for_the_one_that_takes_its_place(is_before_fork):
    memory, version = EngineMemory(100, 2), Version()
    memory.take(version, 50, is_before_fork=is_before_fork)

    assert memory.room(instead_of="churn") == Room(50, 100)
    assert memory.room(instead_of="price").here_bytes < 50


def test_there_is_never_less_than_nothing_left():
    memory, version = EngineMemory(100, 2), Version()
    memory.take(version, 150, is_before_fork=True)

    assert memory.room() == Room(0, 0)
    assert Room(10, 5).less(7) == Room(3, 0)
