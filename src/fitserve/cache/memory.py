"""Rows in the memory of this process: ``memory://?max_bytes=67108864&ttl_s=300``."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from fitserve.cache.base import CacheBackend
from fitserve.errors import SettingsError, clip, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from urllib.parse import SplitResult

MAX_BYTES = 64 * 2**20
TTL_S = 300.0

ENTRY_BYTES = 288
"""What a row takes besides its own bytes: key, expiry, tuple, and its places in the table and the order.

Measured on CPython 3.11: 225 to 267 bytes by tracemalloc for 5 000 to 200 000 rows, as the tables have just
doubled or not, and up to 30 more since memory is given in pieces of 16.
"""


class MemoryCache:
    """A table of rows that drops the least recently used ones beyond ``max_bytes``, and each after ``ttl_s``.

    A row that is out of date goes when it is asked for or when its place is needed, so it never
    answers, and never takes more than ``max_bytes``. Called from any thread.
    """

    def __init__(self, max_bytes: int, ttl_s: float, clock: Callable[[], float]) -> None:
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        self._rows: OrderedDict[bytes, tuple[float, bytes]] = OrderedDict()
        self._changing = threading.Lock()
        self._bytes = 0
        self._n_evicted = 0
        self._n_expired = 0

    def get_many(self, keys: Sequence[bytes], then: Callable[[list[bytes | None]], None]) -> None:
        """Look rows up; ``then`` is called before this returns."""
        rows, now = self._rows, self._clock()
        found: list[bytes | None] = []
        with self._changing:
            for key in keys:
                entry = rows.get(key)
                if entry is None:
                    found.append(None)
                elif entry[0] <= now:
                    self._drop(key)
                    self._n_expired += 1
                    found.append(None)
                else:
                    rows.move_to_end(key)
                    found.append(entry[1])
        then(found)

    def set_many(self, rows: Mapping[bytes, bytes]) -> None:
        """Keep rows; one that is larger than the whole cache is not kept."""
        expires_s = self._clock() + self._ttl_s
        with self._changing:
            for key, row in rows.items():
                if key in self._rows:
                    self._drop(key)
                size = ENTRY_BYTES + len(row)
                if size > self._max_bytes:
                    continue
                while self._bytes + size > self._max_bytes:
                    self._drop(next(iter(self._rows)))
                    self._n_evicted += 1
                self._rows[key] = (expires_s, row)
                self._bytes += size

    def statistics(self) -> dict[str, int]:
        """Rows and bytes held, and how many rows were dropped for want of place or for their age."""
        return {
            "entries": len(self._rows),
            "bytes": self._bytes,
            "evicted": self._n_evicted,
            "expired": self._n_expired,
        }

    def _drop(self, key: bytes) -> None:
        self._bytes -= ENTRY_BYTES + len(self._rows.pop(key)[1])


def _open(url: SplitResult, options: Mapping[str, str], clock: Callable[[], float]) -> MemoryCache:
    known = ("max_bytes", "ttl_s")
    if url.netloc or url.path or url.fragment:
        msg = "cache: memory:// has no place in it: wanted memory://, or memory://?max_bytes=67108864&ttl_s=300"
        raise SettingsError(msg)
    for name in options:
        if name not in known:
            hint = did_you_mean(name, known)
            msg = f"cache: memory:// has no option {clip(name)!r}; known: {', '.join(known)}"
            raise SettingsError(f"{msg}; {hint}" if hint else msg)
    max_bytes = _positive(options, "max_bytes", MAX_BYTES, int, "a whole number of bytes, 1 at least")
    ttl_s = _positive(options, "ttl_s", TTL_S, float, "a number of seconds above 0")
    return MemoryCache(int(max_bytes), ttl_s, clock)


def _positive(options: Mapping[str, str], name: str, default: float, kind: type[int | float], wanted: str) -> float:
    text = options.get(name)
    if text is None:
        return default
    try:
        value = kind(text)
    except ValueError:
        value = 0
    if not 0 < value < math.inf:
        msg = f"cache: {name}: wanted {wanted}; came {clip(text)!r}"
        raise SettingsError(msg)
    return value


CACHE = CacheBackend(schemes=("memory",), open=_open)
