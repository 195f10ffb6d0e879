"""Rows in memory: no more bytes than it may take, honestly counted."""

from __future__ import annotations

import gc
import tracemalloc

import pytest
from cache.backends import Clock
from hypothesis import given, settings
from hypothesis import strategies as st

from fitserve.cache import open_cache
from fitserve.cache.memory import ENTRY_BYTES, MemoryCache

PAYLOAD = b"x" * 100
SIZE = ENTRY_BYTES + len(PAYLOAD)


def key(number: int) -> bytes:
    return number.to_bytes(16, "little")


def held(cache: MemoryCache, *keys: bytes) -> list[bytes | None]:
    found: list[bytes | None] = []
    cache.get_many(keys, found.extend)
    return found


def test_the_least_recently_used_row_makes_place():
    cache = MemoryCache(3 * SIZE, 10, Clock())
    cache.set_many({key(i): PAYLOAD for i in range(3)})
    held(cache, key(0))
    cache.set_many({key(3): PAYLOAD})

    assert held(cache, *map(key, range(4))) == [PAYLOAD, None, PAYLOAD, PAYLOAD]
    assert cache.statistics() == {"entries": 3, "bytes": 3 * SIZE, "evicted": 1, "expired": 0}


def test_a_row_larger_than_the_cache_is_not_kept_and_drives_nobody_out():
    cache = MemoryCache(2 * SIZE, 10, Clock())
    cache.set_many({key(0): PAYLOAD})
    cache.set_many({key(1): b"x" * 2 * SIZE})

    assert held(cache, key(0), key(1)) == [PAYLOAD, None]


def test_a_row_whose_new_value_is_too_large_does_not_answer_with_the_old_one():
    cache = MemoryCache(2 * SIZE, 10, Clock())
    cache.set_many({key(0): PAYLOAD})
    cache.set_many({key(0): b"x" * 2 * SIZE})

    assert held(cache, key(0)) == [None]
    assert cache.statistics()["bytes"] == 0


def test_a_row_that_is_out_of_date_gives_its_place_back():
    clock = Clock()
    cache = MemoryCache(10 * SIZE, 10, clock)
    cache.set_many({key(0): PAYLOAD, key(1): PAYLOAD})
    clock.now_s += 10

    assert held(cache, key(0)) == [None]
    assert cache.statistics() == {"entries": 1, "bytes": SIZE, "evicted": 0, "expired": 1}


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 400), st.floats(0, 6)), max_size=50), st.integers(1, 2500))
def test_whatever_comes_it_takes_no_more_than_it_may_and_knows_only_what_is_true(steps, max_bytes):
    clock = Clock()
    cache = MemoryCache(max_bytes, 10, clock)
    told: dict[bytes, tuple[float, bytes]] = {}
    for number, n_bytes, seconds in steps:
        clock.now_s += seconds
        new = bytes([number]) * n_bytes
        cache.set_many({key(number): new})
        told[key(number)] = (clock.now_s, new)
        statistics = cache.statistics()
        assert statistics["bytes"] <= max_bytes
        for one, (set_s, row) in told.items():
            assert held(cache, one)[0] in ({None, row} if clock.now_s < set_s + 10 else {None})

    clock.now_s += 10
    held(cache, *told)
    assert cache.statistics()["entries"] == cache.statistics()["bytes"] == 0


def test_what_it_says_it_takes_is_what_it_takes():
    n_rows = 20_000
    gc.collect()
    tracemalloc.start()
    try:
        cache = MemoryCache(2**30, 10, Clock())
        before, _ = tracemalloc.get_traced_memory()
        for i in range(n_rows):
            cache.set_many({key(i): bytes(100)})
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    # The tables double now and then, so that a row takes more or less of them.
    assert (after - before) == pytest.approx(cache.statistics()["bytes"], rel=0.2)


def test_the_url_says_how_much_and_how_long():
    clock = Clock()
    cache = open_cache(f"memory://?max_bytes={SIZE}&ttl_s=0.5", clock=clock)
    cache.set_many({key(0): PAYLOAD})
    cache.set_many({key(1): PAYLOAD})
    before = held(cache, key(0), key(1))
    clock.now_s += 0.5

    assert before == [None, PAYLOAD]
    assert held(cache, key(1)) == [None]
