"""Work that leaves the event loop."""

from __future__ import annotations

import asyncio
import threading

import pytest

from fitserve.engine.executor import Executor

pytestmark = pytest.mark.anyio


async def test_a_call_runs_in_another_thread():
    assert await Executor(1).run(threading.get_ident) != threading.get_ident()


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, StopIteration])
async def test_whatever_a_call_raises_comes_back(error):
    def fail():
        raise error

    executor = Executor(1)
    with pytest.raises(RuntimeError if error is StopIteration else error):
        await executor.run(fail)

    assert await executor.run(lambda: "alive") == "alive"


async def test_the_loop_turns_while_calls_run():
    release = threading.Event()
    executor = Executor(2)
    calls = [asyncio.create_task(executor.run(lambda: release.wait(10))) for _ in range(2)]
    await asyncio.sleep(0)

    release.set()  # reached only if nothing above blocked the loop

    assert await asyncio.gather(*calls) == [True, True]


async def test_a_cancelled_call_that_waits_is_never_made():
    release, made = threading.Event(), []
    executor = Executor(1)
    first = asyncio.create_task(executor.run(lambda: release.wait(10)))
    await asyncio.sleep(0)
    second = asyncio.create_task(executor.run(lambda: made.append("second")))
    await asyncio.sleep(0)
    second.cancel()
    release.set()
    await first

    await executor.run(lambda: made.append("third"))

    assert made == ["third"]


async def test_a_cancelled_call_that_runs_harms_nobody():
    release = threading.Event()
    executor = Executor(1)
    running = asyncio.create_task(executor.run(lambda: release.wait(10)))
    neighbour = asyncio.create_task(executor.run(lambda: "neighbour"))
    await asyncio.sleep(0)
    running.cancel()
    release.set()

    assert await neighbour == "neighbour"
    with pytest.raises(asyncio.CancelledError):
        await running


def test_threads_do_not_keep_the_process_alive():
    executor = Executor(3)
    asyncio.run(executor.run(lambda: None))

    assert all(thread.daemon for thread in threading.enumerate() if thread.name.startswith("fitserve-inference"))


async def test_each_thread_begins_with_what_it_is_told_to_do_first():
    begun: list[int] = []
    executor = Executor(2)
    executor.on_start = lambda: begun.append(threading.get_ident())

    worked = {await executor.run(threading.get_ident) for _ in range(5)}

    assert worked <= set(begun)
