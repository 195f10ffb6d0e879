"""The end of a server: nothing that was asked is lost, and nobody who is silent delays it."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from contextlib import contextmanager

import pytest
from server.conftest import WAITS, Gate, serving
from server.load import Load
from server.raw import ROW, TIMEOUT_S, Client, Connection, chunk, chunked, get, post

from fitserve.server.listen import listen
from fitserve.server.protocol import HttpProtocol
from fitserve.settings import Settings
from fitserve.shared_state.board import Board
from fitserve.shared_state.slot import State

SLOW = b'{"features":[%.1f,3.5,1.4,0.2]}' % WAITS
LONG_S = 600.0
"""Longer than a test may take: what waits for so long has not been waited for."""


def until(condition) -> None:
    deadline_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


@contextmanager
def member(app, board: Board, listener: socket.socket | None = None, **settings: object):
    """One process of a fleet, as far as its server is concerned; yields it, its address and its slot."""
    slot = board.join()
    with serving("fitserve", app, listener=listener, board=board, slot=slot, settings=settings) as (server, address):
        slot.state = State.READY
        yield server, address, slot


@pytest.fixture
def board() -> Board:
    return Board.in_memory()


# ── a process that is replaced ──────────────────────────────────────────────────────

LAST = {
    "hot": (post(), 200),
    "cold": (get(), 200),
    "HEAD": (get(method=b"HEAD"), 200),
    "unknown": (get(b"/nope"), 404),
    "refused": (post(b"{"), 400),
    "no row": (post(b'{"features":["a"]}'), 422),
    "chunked": (chunked(chunk(ROW)), 200),
    "no HTTP": (b"nonsense\r\n\r\n", 400),
}


@pytest.mark.parametrize("name", LAST)
def test_an_idle_connection_of_a_process_that_leaves_is_told_by_its_next_reply(board, make_kind, name):
    request, status = LAST[name]
    with (
        member(make_kind(), board, lame_duck_s=LONG_S, shutdown_timeout_s=LONG_S) as (server, address, slot),
        Client(address) as client,
    ):
        client.send(get())
        assert client.reply().status == 200
        server.should_exit = True
        until(lambda: slot.state == State.LEAVING)
        client.send(request)
        reply = client.reply(has_body=name != "HEAD")

        assert reply.status == status
        assert reply.head.lower().count(b"\r\nconnection: close") == 1
        assert client.is_closed()


def test_an_idle_connection_is_closed_after_the_lame_duck_time(board, make_kind):
    with member(make_kind(), board, lame_duck_s=0.05) as (server, address, _), Client(address) as client:
        client.send(post())
        assert client.reply().status == 200

        server.should_exit = True

        assert client.is_closed()


def test_a_request_that_has_come_unread_keeps_its_connection(runner, make_kind):
    app = make_kind()

    async def check() -> bytes:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            theirs.settimeout(TIMEOUT_S)
            made = Connection("fitserve", app)
            loop = asyncio.get_running_loop()
            transport, connection = await loop.connect_accepted_socket(
                lambda: HttpProtocol(made.protocol.config, made.state, {}, loop), ours
            )
            connection.end_soon()
            theirs.sendall(post())
            connection.close_if_idle_since(float("inf"))
            reply = await asyncio.to_thread(theirs.recv, 1 << 16)
            transport.close()
            await made.drop()
            return reply

    assert runner.run(check()).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize(
    "sent", [post(), get(), post() * 3, get() * 3, post() + get() + post(), get() + post() * 2], ids=range(6)
)
def test_requests_at_once_are_all_answered_by_a_process_that_leaves(runner, apps, sent, turns):
    app = apps("inline", "fitserve")
    n_requests = sent.count(b" HTTP/1.1\r\n")

    async def answered():
        connection = Connection("fitserve", app)
        await connection.feed(sent, turns=turns)
        connection.protocol.end_soon()
        first = await connection.quiet(n_requests)
        if not first.is_closed:
            await connection.feed(post())
        answered = await connection.quiet(n_requests)
        await connection.drop()
        return answered

    result = runner.run(answered())
    assert set(result.statuses) == {200}
    assert len(result.statuses) >= n_requests
    assert result.is_closed
    assert [b"\r\nconnection: close" in reply.head for reply in result.replies][:-1] == [False] * (
        len(result.replies) - 1
    )
    assert b"\r\nconnection: close" in result.replies[-1].head


def test_a_request_behind_the_one_that_was_the_last_becomes_the_last(runner, make_kind):
    gate = Gate()
    app = make_kind("executor", gate)

    async def answered():
        connection = Connection("fitserve", app)
        await connection.feed(chunked(chunk(SLOW)), turns=5)
        connection.protocol.end_soon()
        await connection.feed(get(), turns=5)
        gate.is_open.set()
        answered = await connection.quiet(2)
        await connection.drop()
        return answered

    result = runner.run(answered())
    assert result.statuses == (200, 200)
    assert [b"\r\nconnection: close" in reply.head for reply in result.replies] == [False, True]


def test_a_process_that_leaves_answers_what_it_computes(board, make_kind):
    gate = Gate()
    with (
        member(make_kind("executor", gate), board, lame_duck_s=0.0) as (server, address, slot),
        Client(address) as client,
    ):
        client.send(post(SLOW))
        gate.await_call()
        server.should_exit = True
        until(lambda: slot.state == State.LEAVING)
        gate.is_open.set()
        reply = client.reply()

        assert reply.status == 200
        assert b"\r\nconnection: close" in reply.head
        assert client.is_closed()


def test_processes_replaced_under_load_lose_no_request(board, make_kind):
    app = make_kind()
    listener = listen(Settings(port=0))
    address = listener.getsockname()
    with listener, Load(address) as load:
        replaced = member(app, board, listener.dup(), lame_duck_s=LONG_S, shutdown_timeout_s=LONG_S)
        replaced.__enter__()
        for _ in range(5):
            following = member(app, board, listener.dup(), lame_duck_s=LONG_S, shutdown_timeout_s=LONG_S)
            following.__enter__()
            load.await_more(50)
            replaced.__exit__(None, None, None)
            replaced = following
        load.await_more(50)
        load.stop()
        replaced.__exit__(None, None, None)

    assert load.lost == []
    assert load.n_told >= 5


# ── a server that stops ─────────────────────────────────────────────────────────────


def test_a_silent_client_does_not_keep_a_server_from_stopping(make_kind):
    with (
        serving("fitserve", make_kind(), settings={"lame_duck_s": LONG_S, "shutdown_timeout_s": LONG_S}) as (
            server,
            address,
        ),
        Client(address) as silent,
        Client(address) as begun,
        Client(address) as answered,
    ):
        begun.send(post()[:30])
        answered.send(get())
        assert answered.reply().status == 200

        server.should_exit = True

        assert silent.is_closed()
        assert begun.is_closed()
        assert answered.is_closed()


def test_a_server_that_stops_is_not_ready_first_and_serves_on_meanwhile(make_kind):
    with serving("fitserve", make_kind(), settings={"shutdown_delay_s": LONG_S}) as (server, address):
        server.should_exit = True
        until(lambda: status_of(address, get(b"/ready")) == 503)

        assert status_of(address, post()) == 200
        server.force_exit = True


def test_a_fleet_that_is_about_to_stop_is_not_ready_and_serves_on(board, make_kind):
    with member(make_kind(), board) as (server, address, slot):
        before = status_of(address, get(b"/ready"))
        server.announce_stop()

        assert before == 200
        assert status_of(address, get(b"/ready")) == 503
        assert status_of(address, post()) == 200
        assert slot.state == State.READY


def test_a_member_of_a_fleet_leaves_the_keys_of_the_terminal_to_its_parent(board, make_kind):
    with member(make_kind(), board) as (server, address, _):
        server.handle_exit(signal.SIGINT, None)

        assert not server.should_exit
        assert status_of(address, post()) == 200


def status_of(address: tuple[str, int], request: bytes) -> int:
    with Client(address) as client:
        client.send(request)
        return client.reply().status


def test_a_server_stopped_under_load_loses_no_request(make_kind):
    gate = Gate()
    app = make_kind("executor", gate)
    with (
        serving("fitserve", app) as (server, address),
        Load(address) as load,
        Client(address) as slow,
    ):
        load.await_more(50)
        slow.send(post(SLOW))
        gate.await_call()
        load.ends_with_refusal = True
        server.should_exit = True
        until(lambda: server.server_state.is_ending)
        gate.is_open.set()
        load.await_end()
        last = slow.reply()

    assert load.lost == []
    assert last.status == 200


# ── the place on the board ──────────────────────────────────────────────────────────


def test_a_server_tells_its_fleet_of_its_connections_and_requests_and_that_it_turns(board, make_kind):
    with member(make_kind(), board) as (_, address, slot):
        slot.heartbeat_ns = 0
        with Client(address) as client, Client(address):
            client.send(post())
            assert client.reply().status == 200
            until(lambda: slot.n_connections == 2)
            until(lambda: slot.n_requests == 1)
            until(lambda: slot.heartbeat_ns > 0)
        until(lambda: slot.n_connections == 0)
