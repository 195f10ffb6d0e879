"""The client of the soak: asks at its rate, over kept and fresh connections, and hides no loss."""

from __future__ import annotations

import contextlib
import json
import socket
import threading

import pytest

from bench.soak.load import Load, Record, Reply, Shape


def reply(version: str = "1.0.0", value: object = 1.5, more: str = "") -> bytes:
    body = json.dumps({"prediction": value, "model_version": version})
    return f"HTTP/1.1 200 OK\r\nX-Model-Version: {version}\r\nContent-Length: {len(body)}\r\n{more}\r\n{body}".encode()


@contextlib.contextmanager
def server(answer, *, is_hanging_up: bool = False):
    """Gives each request the bytes that ``answer`` says, and may hang up then."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:

        def serve(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                while connection.recv(65536):
                    connection.sendall(answer())
                    if is_hanging_up:
                        return

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    threading.Thread(target=serve, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)


def test_it_asks_over_kept_and_fresh_connections():
    with server(reply) as port, Load(port, Shape(400.0, n_kept=4, fresh=0.25)) as load:
        load.wait_for(80)

    fresh = [record for record in load.records if record.is_fresh]
    assert [record for record in load.records if record.has_failed] == []
    assert 0.2 < len(fresh) / len(load.records) < 0.3
    assert len({record.port for record in load.records if not record.is_fresh}) == 4
    assert {(record.value, record.version, record.labelled) for record in load.records} == {(1.5, "1.0.0", "1.0.0")}
    assert all(record.due_s <= record.sent_s < record.ended_s for record in load.records)


def test_it_does_not_wait_for_a_reply_before_it_asks_again():
    together = threading.Barrier(8)

    def answer():
        with contextlib.suppress(threading.BrokenBarrierError):
            together.wait(30)
        return reply()

    with server(answer) as port, Load(port, Shape(200.0, n_kept=8, fresh=0.0)) as load:
        load.wait_for(8)
        together.abort()

    assert sum(not record.has_failed for record in load.records) >= 8


def test_a_connection_that_was_told_to_close_is_not_used_again():
    with (
        server(lambda: reply(more="Connection: close\r\n")) as port,
        Load(port, Shape(200.0, n_kept=2, fresh=0)) as load,
    ):
        load.wait_for(20)

    assert [record for record in load.records if record.has_failed] == []
    assert len({record.port for record in load.records}) == len(load.records)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "closed before its reply"),
        (reply()[:50], "within its reply"),
        (reply().replace(b"200 OK", b"503 No"), "status 503"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{", "no JSON"),
    ],
)
def test_what_goes_wrong_is_told(data, why):
    with server(lambda: data, is_hanging_up=True) as port, Load(port, Shape(100.0, n_kept=2, fresh=0.5)) as load:
        load.wait_for(10)

    assert any(why in record.why for record in load.records)
    assert all(record.has_failed for record in load.records)


def test_nobody_there_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with Load(port, Shape(200.0, n_kept=2, fresh=0.5)) as load:
        load.wait_for(20)

    assert {record.why for record in load.records} == {"refused"}


def test_it_asks_as_fast_as_it_is_answered():
    with server(reply) as port, Load(port, Shape(0.0, n_kept=4, fresh=0.0)) as load:
        load.wait_for(200)

    assert all(not record.has_failed for record in load.records)


def test_a_reply_is_complete_with_its_last_byte_however_it_is_cut():
    data, record, found = reply("2.0.0", 2.5), Record(0.0), Reply()

    assert [found.is_complete(data[i : i + 1], record) for i in range(len(data))] == [False] * (len(data) - 1) + [True]
    assert (record.status, record.value, record.version) == (200, 2.5, "2.0.0")


def test_waiting_for_replies_that_do_not_come_ends():
    with server(reply) as port:
        load = Load(port, Shape(100.0))
        with load:
            load.wait_for(1)
        with pytest.raises(TimeoutError):
            load.wait_for(1, within_s=0.1)
