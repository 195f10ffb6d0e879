"""What every place for rows promises, by one suite that finds them by itself."""

from __future__ import annotations

import asyncio

import pytest
from cache.backends import OPENED, Clock

import fitserve.cache
from fitserve.cache.base import CacheBackend
from fitserve.plugins import discover

pytestmark = pytest.mark.anyio

BACKENDS = discover(fitserve.cache, CacheBackend, "CACHE")
A, B, C = bytes(16), bytes([1] * 16), bytes([2] * 16)


async def get(cache, *keys: bytes) -> list[bytes | None]:
    found: asyncio.Future[list[bytes | None]] = asyncio.get_running_loop().create_future()
    cache.get_many(keys, found.set_result)
    return await found


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=[scheme for backend in BACKENDS for scheme in backend.schemes])
def cache(request, clock):
    return OPENED[request.param](clock)


async def test_it_knows_nothing_at_first(cache):
    assert await get(cache, A, B) == [None, None]


async def test_rows_are_found_in_the_order_of_the_keys(cache):
    cache.set_many({A: b"a", B: b""})

    assert await get(cache, B, C, A, B) == [b"", None, b"a", b""]


async def test_no_keys_find_nothing(cache):
    cache.set_many({})

    assert await get(cache) == []


async def test_a_row_that_is_set_again_is_the_new_one(cache):
    cache.set_many({A: b"old"})
    cache.set_many({A: b"newer"})

    assert await get(cache, A) == [b"newer"]


async def test_a_row_is_found_until_its_time_is_over(cache, clock):
    cache.set_many({A: b"a"})
    clock.now_s += 9.9
    before = await get(cache, A)
    clock.now_s += 0.1
    after = await get(cache, A)

    assert before == [b"a"]
    assert after == [None]


async def test_looking_a_row_up_does_not_make_it_live_longer(cache, clock):
    cache.set_many({A: b"a"})
    for _ in range(4):
        clock.now_s += 2.5
        last = await get(cache, A)

    assert last == [None]


async def test_setting_a_row_again_makes_it_live_longer(cache, clock):
    cache.set_many({A: b"a"})
    clock.now_s += 6
    cache.set_many({A: b"a"})
    clock.now_s += 6

    assert await get(cache, A) == [b"a"]


async def test_it_counts_what_it_holds(cache):
    empty = cache.statistics()
    cache.set_many({A: b"a" * 100, B: b"b"})
    cache.set_many({A: b"a" * 100})
    full = cache.statistics()

    assert {"entries", "bytes", "evicted", "expired"} <= full.keys()
    assert empty["entries"] == 0
    assert full["entries"] == 2
    assert full["bytes"] >= 101
