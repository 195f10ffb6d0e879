"""What is kept of the heads of requests."""

from __future__ import annotations

import string
import tracemalloc
from itertools import product

from fitserve.server.heads import MAX_HEADERS, MAX_HEADS, Heads

HOT = {("POST", "/predict"): ("/predict", None, None)}.get


def head(*headers: bytes) -> bytes:
    return b"".join(line + b"\r\n" for line in (b"POST /predict HTTP/1.1", b"Content-Length: 5", *headers, b""))


def test_a_head_is_parsed_once():
    heads = Heads(HOT, 10)
    found = heads.find(head(b"A: b"))

    assert (found.method, found.path, found.route, found.n_body) == ("POST", "/predict", "/predict", 5)
    assert found.headers == {b"content-length": b"5", b"a": b"b"}
    assert heads.find(head(b"A: b")) is found


def test_a_head_of_many_headers_goes_the_longer_way():
    few = [b"x%d: y" % i for i in range(MAX_HEADERS - 1)]

    assert Heads(HOT, 10).find(head(*few)) is not None
    assert Heads(HOT, 10).find(head(*few, b"z: y")) is None


def test_what_is_kept_is_bounded_whatever_is_sent():
    heads = Heads(HOT, 10)
    short = [f"{a}{b}:".encode() for a, b in product(string.ascii_lowercase, repeat=2)]
    tracemalloc.start()
    try:
        for n_headers in (38, 300):
            for i in range(MAX_HEADS):
                heads.find(head(b"q: %d" % i, *short[:n_headers]))
            assert len(heads.known) == MAX_HEADS
            assert tracemalloc.get_traced_memory()[0] < 10 * 2**20
        for i in range(3 * MAX_HEADS):
            heads.find(head(b"q: %d" % i, b"z: " + b"z" * 1900))
            assert len(heads.known) <= MAX_HEADS
    finally:
        tracemalloc.stop()
