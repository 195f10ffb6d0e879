"""The board: numbers and assignments that the processes of a fleet share, whoever of them is killed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time

import anyio
import pytest
from shared_state.processes import ended, forked, kill, until

from fitserve.confine.sandbox import Sandbox, enter
from fitserve.shared_state.board import COMMIT_LOCK, Board, State, locked
from fitserve.shared_state.slot import N_SLOTS


@pytest.fixture(params=["file", "memory"])
def board(request, tmp_path):
    """A board of each kind."""
    return Board.open(tmp_path) if request.param == "file" else Board.in_memory()


def assignment(number: int) -> bytes:
    """A document that tells whether it is whole: much longer than a page, and another length each time."""
    return json.dumps({"number": number, "models": [number] * (1 + number % 7 * 3000)}).encode()


def check(document: bytes) -> int:
    found = json.loads(document)
    assert found["models"] == [found["number"]] * (1 + found["number"] % 7 * 3000)
    return found["number"]


def commit(board: Board, folder) -> None:
    with locked(folder / COMMIT_LOCK, 60):
        board.commit(assignment(board.generation + 1))


def test_before_the_first_commit_there_is_no_assignment(board):
    assert (board.generation, board.order_seq, board.assignment()) == (0, 0, (0, b""))


def test_a_commit_is_read_with_its_generation(board):
    generations = [board.commit(assignment(number)) for number in (1, 2, 3)]

    assert generations == [1, 2, 3]
    assert board.generation == board.cells[0] == 3
    assert board.assignment() == (3, assignment(3))


def test_an_assignment_that_is_too_long_changes_nothing(board):
    board.commit(b"{}")
    with pytest.raises(ValueError, match="keep fewer models"):
        board.commit(bytes(512 * 1024 + 1))

    assert board.assignment() == (1, b"{}")
    assert board.commit(bytes(512 * 1024)) == 2
    assert board.assignment() == (2, bytes(512 * 1024))


def test_orders_are_counted(board):
    assert [board.next_order(), board.next_order(), board.order_seq] == [1, 2, 2]


def test_a_member_says_how_it_is(board):
    slot = board.join()
    assert slot.state == State.JOINING
    slot.state = State.READY
    slot.generation, slot.answered, slot.n_connections, slot.n_requests, slot.n_old_leases = 3, 4, 5, 6, 7
    slot.beat(8)
    (member,) = board.members()

    assert member.pid == os.getpid()
    assert (member.started_ticks > 0) == (board.folder is not None), "nobody else reads that of one in memory"
    assert member[3:] == (State.READY, 3, 4, 8, 5, 6, 7)
    assert member.number == slot.number
    assert (slot.generation, slot.n_connections) == (3, 5)


def test_a_slot_that_was_left_is_free_and_begins_at_zero(board):
    first, second = board.join(), board.join()
    first.n_connections = 9
    first.leave()
    first.leave()
    first.n_connections = 10
    assert [member.number for member in board.members()] == [second.number]

    again = board.join()
    assert again.number == first.number
    assert again.n_connections == 0


def test_sums_are_of_those_that_are_ready_and_turn(board):
    ready, also_ready, stuck, joining = slots = [board.join() for _ in range(4)]
    for slot in slots:
        slot.n_connections = 3
        slot.beat()
    for slot in (ready, also_ready, stuck):
        slot.state = State.READY
    stuck.beat(time.monotonic_ns() - 120_000_000_000)

    assert board.sums(fresh_s=60) == (2, 6)
    also_ready.state = State.LEAVING
    assert board.sums(fresh_s=60) == (1, 3)
    assert joining.state == State.JOINING


def test_no_more_members_than_slots():
    board = Board.in_memory()
    slots = [board.join() for _ in range(N_SLOTS)]
    with pytest.raises(OSError, match="512 places"):
        board.join()

    slots[300].leave()
    assert board.join().number == 300


def test_whoever_opens_a_board_sees_what_is_there(tmp_path):
    ours = Board.open(tmp_path)
    slot = ours.join()
    ours.commit(b"{}")
    others = Board.open(tmp_path)

    assert others.assignment() == (1, b"{}")
    other_slot = others.join()
    assert other_slot.number == slot.number + 1
    assert ours.members() == others.members()
    assert len(ours.members()) == 2


def test_many_processes_may_open_a_board_at_once(tmp_path):
    def work() -> None:
        board = Board.open(tmp_path)
        slot = board.join()
        slot.state = State.READY
        commit(board, tmp_path)
        until(lambda: len(board.members()) == 8)
        until(lambda: board.generation == 8)
        (tmp_path / f"done-{slot.number}").touch()
        until(lambda: len(list(tmp_path.glob("done-*"))) == 8)

    with contextlib.ExitStack() as stack:
        pids = [stack.enter_context(forked(work)) for _ in range(8)]

        assert [ended(pid) for pid in pids] == [0] * 8
    assert check(Board.open(tmp_path).assignment()[1]) == 8


def test_a_member_that_is_killed_is_one_no_more_and_its_slot_is_free(tmp_path):
    board = Board.open(tmp_path)

    def work() -> None:
        slot = board.join()
        slot.state = State.READY
        signal.pause()

    with forked(work) as pid:
        until(lambda: [member.state for member in board.members()] == [State.READY])
        assert board.members()[0].pid == pid
        kill(pid)

        assert board.members() == []
        assert board.join().number == 0


def test_a_copy_of_a_member_neither_keeps_its_slot_nor_writes_into_it(tmp_path):
    board = Board.open(tmp_path)

    def member() -> None:
        slot = board.join()
        slot.state = State.READY
        slot.n_requests = 1

        def copy() -> None:
            slot.n_requests = 2
            slot.beat(0)
            slot.leave()
            another = board.join()
            another.state = State.READY
            (tmp_path / "copied").touch()
            signal.pause()

        with forked(copy) as pid:
            until((tmp_path / "copied").exists)
            (tmp_path / "copy").write_text(str(pid))
            os.kill(os.getpid(), signal.SIGSTOP)
            os.kill(os.getpid(), signal.SIGKILL)

    with forked(member) as pid:
        os.waitpid(pid, os.WUNTRACED)
        copy = int((tmp_path / "copy").read_text())
        try:
            first, second = board.members()
            assert (first.pid, first.n_requests, first.state) == (pid, 1, State.READY)
            assert second.pid == copy
            assert first.heartbeat_ns > 0

            os.kill(pid, signal.SIGCONT)
            assert ended(pid) == -signal.SIGKILL
            assert [member.pid for member in board.members()] == [copy]
        finally:
            os.kill(copy, signal.SIGKILL)


def test_a_program_that_a_member_starts_does_not_keep_its_slot(tmp_path):
    slot = Board.open(tmp_path).join()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False) as process:
        slot.leave()
        del slot

        assert Board.open(tmp_path).join().number == 0
        process.communicate(b"\n")


def test_a_board_in_memory_is_not_shared_with_a_copy(tmp_path):
    board = Board.in_memory()
    board.commit(b"{}")

    def work() -> None:
        assert board.assignment() == (1, b"{}")
        board.commit(b"[]")
        assert board.join().number == 0

    with forked(work) as pid:
        assert ended(pid) == 0
    assert board.assignment() == (1, b"{}")
    assert board.members() == []


def test_writers_that_are_killed_leave_whole_assignments_and_a_generation_that_never_goes_back(tmp_path):
    board = Board.open(tmp_path)
    seen = 0

    def write() -> None:
        slot = board.join()
        while True:
            slot.beat()
            commit(board, tmp_path)

    generator = random.Random(0)
    for _ in range(25):
        with forked(write) as one, forked(write) as other:
            goal = board.generation + generator.randrange(1, 20)
            while board.generation < goal:
                generation, document = board.assignment()
                assert generation >= seen
                assert generation == 0 or check(document) == generation
                seen = generation
            for pid in (one, other):
                kill(pid)
        generation, document = board.assignment()
        assert check(document) == generation >= goal
        assert board.members() == []

    commit(board, tmp_path)
    assert check(board.assignment()[1]) == board.generation == generation + 1
    assert board.join().number == 0


def test_a_writer_that_dies_before_the_commit_has_changed_nothing(tmp_path):
    board = Board.open(tmp_path)
    board.commit(b"[1]")
    board.commit(b"[2]")
    head, body = board._area(3)  # as if it had been killed in the middle
    head[0] = 3
    body[:2] = b"xx"

    assert board.assignment() == (2, b"[2]")
    assert board.commit(b"[3]") == 3
    assert board.assignment() == (3, b"[3]")


def test_a_damaged_board_is_told_and_does_not_hang(board):
    board.commit(b"[1]")
    board._area(1)[1][0] ^= 1
    with pytest.raises(OSError, match="damaged"):
        board.assignment()


def test_a_confined_process_joins_and_commits(tmp_path):
    Board.open(tmp_path)

    def work() -> None:
        enter(Sandbox(writable=(tmp_path,)))
        board = Board.open(tmp_path)
        slot = board.join()
        slot.state = State.READY
        commit(board, tmp_path)
        with locked(tmp_path / COMMIT_LOCK, 60):
            board.next_order()
        assert [member.number for member in board.members()] == [slot.number]
        assert check(board.assignment()[1]) == 1

    with forked(work) as pid:
        assert ended(pid) == 0
    assert Board.open(tmp_path).order_seq == 1


def test_a_confined_process_may_make_the_board(tmp_path):
    def work() -> None:
        enter(Sandbox(writable=(tmp_path,)))
        Board.open(tmp_path).join()

    with forked(work) as pid:
        assert ended(pid) == 0


@pytest.mark.anyio
async def test_what_is_looked_at_on_the_event_loop_reads_memory_only(tmp_path):
    board = await anyio.to_thread.run_sync(Board.open, tmp_path)
    slot = await anyio.to_thread.run_sync(board.join)
    slot.beat()
    slot.state = State.READY
    slot.n_connections = 1

    assert (board.generation, board.order_seq) == (0, 0)
    assert board.assignment() == (0, b"")
    assert board.sums(fresh_s=60) == (1, 1)


def test_a_lock_that_is_held_is_waited_for_no_longer_than_asked(tmp_path):
    def ours(wait_s: float) -> bool:
        try:
            with locked(tmp_path / "lock", wait_s):
                return True
        except TimeoutError as exc:
            assert "another process has held the lock" in str(exc)
            return False

    with locked(tmp_path / "lock", 0):
        assert not ours(0)
        assert not ours(0.01)
    assert ours(0)


def test_a_lock_is_free_when_its_holder_is_killed(tmp_path):
    def hold() -> None:
        with locked(tmp_path / "lock", 60):
            (tmp_path / "held").touch()
            signal.pause()

    with forked(hold) as pid:
        until((tmp_path / "held").exists)
        with pytest.raises(TimeoutError), locked(tmp_path / "lock", 0):
            pass
        os.kill(pid, signal.SIGKILL)

        with locked(tmp_path / "lock", 60):
            pass


def test_a_lock_that_was_let_go_is_free_though_a_copy_of_the_process_has_its_descriptor(tmp_path):
    with contextlib.ExitStack() as stack:
        with locked(tmp_path / "lock", 0):
            stack.enter_context(forked(signal.pause))

        with locked(tmp_path / "lock", 0):
            pass
