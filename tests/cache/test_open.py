"""The setting `cache`: what it takes, and what it says of what it does not take."""

from __future__ import annotations

import pytest

from fitserve.cache import open_cache
from fitserve.cache.memory import MemoryCache
from fitserve.errors import SettingsError


def test_empty_is_off():
    assert open_cache("") is None


@pytest.mark.parametrize("url", ["memory://", "memory://?ttl_s=5", "memory://?max_bytes=1&ttl_s=1e9"])
def test_memory_is_a_cache(url):
    assert isinstance(open_cache(url), MemoryCache)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("memcached://here", r"'memcached://here' is of no kind that is known here \(memory://"),
        ("memmory://", r"did you mean 'memory'\?"),
        ("memory", r"known here \(memory://"),
        ("true", r"known here \(memory://"),
        ("memory://?size=5", r"no option 'size'; known: max_bytes, ttl_s"),
        ("memory://?max_byte=5", r"did you mean 'max_bytes'\?"),
        ("memory://?max_bytes=5&max_bytes=6", "gives an option twice"),
        ("memory://?max_bytes", "is no URL"),
        ("memory://[", "is no URL"),
        ("memory://localhost", "has no place in it"),
        ("memory:///tmp", "has no place in it"),
        ("memory://?max_bytes=0", "max_bytes: wanted a whole number of bytes, 1 at least; came '0'"),
        ("memory://?max_bytes=1.5", "max_bytes: wanted a whole number"),
        ("memory://?max_bytes=64MB", "max_bytes: wanted a whole number"),
        ("memory://?ttl_s=0", "ttl_s: wanted a number of seconds above 0; came '0'"),
        ("memory://?ttl_s=-1", "ttl_s: wanted"),
        ("memory://?ttl_s=nan", "ttl_s: wanted"),
        ("memory://?ttl_s=inf", "ttl_s: wanted"),
        ("memory://?ttl_s=", "ttl_s: wanted"),
    ],
)
def test_what_is_not_understood_is_refused_with_what_is_known(url, said):
    with pytest.raises(SettingsError, match=said):
        open_cache(url)
