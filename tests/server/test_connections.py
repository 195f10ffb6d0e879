"""The ends of a connection, its silences and its floods, over both protocol classes."""

from __future__ import annotations

import asyncio
import io
import json
import re
import socket
import time

import pytest
from server.conftest import WAITS, Gate, serving
from server.raw import ROW, WAYS, Client, Connection, batch, chunk, chunked, get, masked, post, take_replies, until

from fitserve.observe.logs import AccessLog

SLOW = b'{"features":[%.1f,3.5,1.4,0.2]}' % WAITS
"""A row that waits for its gate, in an executor's thread."""

MANY_ROWS = b'{"instances":[' + b",".join([b"[5.1,3.5,1.4,0.2]"] * 100) + b"]}"

both_ways = pytest.mark.parametrize("way", WAYS)


def test_a_whole_request_for_a_hot_route_is_answered_without_an_asgi_cycle(runner, apps):
    app = apps("inline", "fitserve")

    async def cycle_after(sent: bytes) -> object:
        connection = Connection("fitserve", app)
        await connection.feed(sent)
        assert (await connection.quiet(1)).statuses == (200,)
        await connection.drop()
        return connection.protocol.cycle

    assert runner.run(cycle_after(post())) is None
    assert runner.run(cycle_after(batch())) is None
    assert runner.run(cycle_after(get())) is not None


def test_a_server_that_was_told_of_a_prefix_gives_the_same_bytes(runner, apps):
    made = {way: apps("inline", way) for way in WAYS}

    async def answered(way):
        connection = Connection(way, made[way], root_path="/ml")
        await connection.feed(post() + get() + post(path=b"/ml/predict"))
        answered = await connection.quiet(3)
        await connection.drop()
        return answered

    ours, theirs = (runner.run(answered(way)) for way in ("fitserve", "uvicorn"))
    assert ours == theirs


def test_a_reply_has_the_date_of_its_second(runner, apps):
    app = apps("inline", "fitserve")

    async def written() -> bytes:
        connection = Connection("fitserve", app)
        await connection.feed(post())
        await connection.quiet(1)
        connection.state.default_headers = [(b"date", b"Thu, 01 Jan 1970 00:00:01 GMT"), (b"x-more", b"1")]
        await connection.feed(post())
        await connection.quiet(2)
        await connection.drop()
        return bytes(connection.transport.written)

    first, second = runner.run(written()).split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert first.startswith(b"date: Thu, 01 Jan 1970 00:00:00 GMT\r\ncontent-type: ")
    assert second.startswith(b"date: Thu, 01 Jan 1970 00:00:01 GMT\r\nx-more: 1\r\ncontent-type: ")


# ── silence ─────────────────────────────────────────────────────────────────────────


class HandLoop:
    """The running event loop, but for its clock, which is set by hand."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timers: list[tuple[float, asyncio.Handle]] = []
        self.now_s = 0.0

    def __getattr__(self, name):
        return getattr(self._loop, name)

    def time(self):
        return self.now_s

    def call_later(self, delay_s, callback, *args):
        handle = asyncio.Handle(callback, args, self._loop)
        self._timers.append((self.now_s + delay_s, handle))
        return handle

    async def advance(self, to_s: float) -> None:
        while due := [timer for timer in self._timers if timer[0] <= to_s]:
            timer = min(due, key=lambda timer: timer[0])
            self._timers.remove(timer)
            self.now_s = timer[0]
            if not timer[1].cancelled():
                timer[1]._run()
        self.now_s = to_s
        await asyncio.sleep(0)


COLD, HOT, BEGUN, HALF = get(), post(), post()[:30], post()[:-5]


@both_ways
@pytest.mark.parametrize(
    ("sent", "closes_after_s"),
    [
        ([(0, HOT)], 5),
        ([(0, COLD)], 5),
        ([(0, HOT), (4, HOT), (8, HOT)], 13),
        ([(0, COLD), (4, COLD)], 9),
        ([(0, HOT), (4, COLD)], 9),
        ([(0, COLD), (4, HOT)], 9),
        ([(0, COLD), (4, HOT), (8, COLD), (12, HOT), (16, HOT)], 21),
        ([(0, HOT * 3), (4, COLD * 2 + HOT)], 9),
        ([(0, HOT), (4, BEGUN)], None),
        ([(0, COLD), (4, HALF)], None),
        ([(0, HOT), (4, HALF), (8, HOT[-5:])], 13),
    ],
)
def test_a_connection_is_closed_when_it_has_been_idle_for_the_keep_alive_time(runner, apps, way, sent, closes_after_s):
    app = apps("inline", way)

    async def closed_after_s() -> float | None:
        loop = HandLoop()
        connection = Connection(way, app, loop)
        connection.protocol.timeout_keep_alive = 5
        for at_s, data in sent:
            await loop.advance(at_s)
            assert not connection.transport.is_closing()
            await connection.feed(data)
            await connection.quiet()
        for half_s in range(2 * sent[-1][0], 100):
            await loop.advance(half_s / 2)
            if connection.transport.is_closing():
                return half_s / 2
        await connection.drop()
        return None

    assert runner.run(closed_after_s()) == closes_after_s


@both_ways
@pytest.mark.parametrize("before", [b"", COLD, HOT], ids=["first", "after a cold one", "after a hot one"])
def test_a_long_computation_is_no_idle_time(runner, make_kind, way, before):
    gate = Gate()
    app = make_kind("executor", gate)

    async def check() -> None:
        loop = HandLoop()
        connection = Connection(way, app, loop)
        connection.protocol.timeout_keep_alive = 5
        await connection.feed(before)
        await connection.quiet(len(before) > 0)
        await loop.advance(4)
        await connection.feed(post(SLOW))
        await loop.advance(20)
        assert not connection.transport.is_closing()
        gate.is_open.set()
        assert (await connection.quiet(1 + (len(before) > 0))).statuses[-1] == 200
        await loop.advance(24.5)
        assert not connection.transport.is_closing()
        await loop.advance(25)
        assert connection.transport.is_closing()
        await connection.drop()

    runner.run(check())


@both_ways
def test_a_server_closes_an_idle_connection(make_kind, way):
    with serving(way, make_kind(), timeout_keep_alive=0.1) as (_, address), Client(address) as client:
        client.send(post())

        assert client.reply().status == 200
        assert client.is_closed()


# ── the server stops ────────────────────────────────────────────────────────────────


@both_ways
@pytest.mark.parametrize("turns", [0, 1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("sent", [post(), post() * 3, post() + get() + post(), get() + post() * 2], ids=range(4))
def test_requests_that_have_come_are_answered_by_a_server_that_stops(runner, apps, way, sent, turns):
    app = apps("inline", way)
    n_requests = sent.count(b" HTTP/1.1\r\n")

    async def answered():
        connection = Connection(way, app)
        await connection.feed(sent, turns=turns)
        connection.protocol.shutdown()
        answered = await connection.quiet(n_requests)
        await connection.drop()
        return answered

    result = runner.run(answered())
    assert result.statuses == (200,) * n_requests
    assert result.is_closed


def test_the_last_reply_of_a_server_that_stops_is_the_same(runner, apps):
    made = {way: apps("inline", way) for way in WAYS}

    async def answered(way):
        connection = Connection(way, made[way])
        await connection.feed(post(), turns=0)
        connection.protocol.shutdown()
        answered = await connection.quiet(1)
        await connection.drop()
        return answered

    ours, theirs = (runner.run(answered(way)) for way in ("fitserve", "uvicorn"))
    assert ours == theirs
    assert b"\r\nconnection: close" in ours.replies[0].head


@pytest.mark.parametrize("sent", [b"", COLD, HOT], ids=["new", "after a cold one", "after a hot one"])
@pytest.mark.parametrize("begun", [b"", BEGUN, HALF], ids=["idle", "head begun", "body begun"])
def test_a_server_that_stops_ends_a_connection_alike(runner, apps, sent, begun):
    made = {way: apps("inline", way) for way in WAYS}

    async def answered(way):
        connection = Connection(way, made[way])
        await connection.feed(sent)
        await connection.quiet()
        await connection.feed(begun)
        connection.protocol.shutdown()
        before = await connection.quiet()
        if begun == HALF:
            await connection.feed(HOT[-5:])
        answered = await connection.quiet()
        await connection.drop()
        return before, answered

    ours, theirs = (runner.run(answered(way)) for way in ("fitserve", "uvicorn"))
    assert ours == theirs
    assert ours[1].is_closed


@both_ways
def test_a_server_that_stops_answers_what_it_computes_and_takes_no_connection_more(make_kind, way):
    gate = Gate()
    with (
        serving(way, make_kind("executor", gate)) as (server, address),
        Client(address) as client,
        Client(address) as idle,
    ):
        idle.send(get())
        assert idle.reply().status == 200
        client.send(post(SLOW))
        gate.await_call()

        server.should_exit = True
        assert idle.is_closed()
        with pytest.raises(ConnectionRefusedError):
            Client(address)
        gate.is_open.set()
        reply = client.reply()

        assert reply.status == 200
        assert b"\r\nconnection: close" in reply.head
        assert client.is_closed()


def test_a_server_that_waits_no_longer_says_so(make_kind):
    replies = {}
    for way in WAYS:
        gate = Gate()
        app = make_kind("executor", gate)
        with (
            serving(way, app, timeout_graceful_shutdown=0.2) as (server, address),
            Client(address) as client,
        ):
            app._is_standalone = True  # it alone may answer what is cancelled
            client.send(post(SLOW))
            gate.await_call()
            server.should_exit = True
            client.socket.settimeout(2)
            replies[way] = client.reply()
            gate.is_open.set()

    assert replies["uvicorn"].status == 503
    assert replies["fitserve"] == replies["uvicorn"]


# ── the client goes ─────────────────────────────────────────────────────────────────


@both_ways
def test_a_client_that_leaves_costs_its_own_answer_only(make_kind, way):
    gate = Gate()
    app = make_kind("executor", gate)
    with serving(way, app) as (server, address), Client(address) as other:
        with Client(address) as client:
            client.send(post(SLOW) + post() + b"POST /pre")
            gate.await_call()
        other.send(post(SLOW))
        gate.is_open.set()

        assert other.reply().status == 200
        deadline_s = time.monotonic() + 5
        while len(server.server_state.connections) > 1:
            assert time.monotonic() < deadline_s
            time.sleep(0.005)


@both_ways
@pytest.mark.parametrize("turns", [0, 1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("sent", [post() * 3, post() + get(), post()[:-5]], ids=["hot", "hot and cold", "half"])
def test_a_connection_may_be_lost_at_any_turn(runner, apps, caplog, way, sent, turns):
    app = apps("inline", way)

    async def check() -> None:
        connection = Connection(way, app)
        await connection.feed(sent, turns=turns)
        connection.lose()
        n_written = len(connection.transport.written)
        await connection.quiet()
        assert len(connection.transport.written) == n_written
        await until(lambda: not connection.state.tasks)
        assert not connection.state.connections

    runner.run(check())
    assert not caplog.records


@pytest.mark.parametrize("kind", ["inline", "executor"])
@pytest.mark.parametrize(
    "sent",
    [post(), batch(), get(), chunked(chunk(ROW)), post() * 3, post() + get() + post(), get() + post()],
    ids=["hot", "batch", "cold", "chunked", "hot ones", "hot and cold", "cold and hot"],
)
def test_a_client_that_has_ended_its_side_is_answered(addresses, kind, sent):
    with Client(addresses(kind, "fitserve")) as client:  # uvicorn's class closes at once
        client.send(sent)
        client.socket.shutdown(socket.SHUT_WR)

        assert [client.reply().status for _ in range(sent.count(b" HTTP/1.1\r\n"))] == [200] * sent.count(
            b" HTTP/1.1\r\n"
        )
        assert client.is_closed()


@both_ways
@pytest.mark.parametrize("sent", [b"", HOT, COLD, BEGUN, HALF, HOT + BEGUN], ids=range(6))
def test_a_client_that_ends_its_side_without_a_request_is_let_go(addresses, way, sent):
    with Client(addresses("inline", way)) as client:
        client.send(sent)
        if sent in {HOT, COLD, HOT + BEGUN}:
            assert client.reply().status == 200
        client.socket.shutdown(socket.SHUT_WR)

        assert client.is_closed()


# ── floods ──────────────────────────────────────────────────────────────────────────


@both_ways
def test_a_client_that_does_not_read_is_answered_no_further(runner, apps, way):
    app = apps("inline", way)
    ids = [b"id-%d" % i for i in range(1000)]
    stream = b"".join(batch(MANY_ROWS, b"X-Request-ID: " + name) for name in ids)
    segments = [stream[i : i + 65536] for i in range(0, len(stream), 65536)]

    async def check() -> None:
        connection = Connection(way, app)
        transport = connection.transport
        transport.is_stalled, transport.high_water_bytes = True, 8192
        feeding = asyncio.create_task(connection.feed(*segments))
        await connection.quiet()
        assert len(transport.written) < 2 * transport.high_water_bytes
        assert transport.is_reading_paused
        assert not feeding.done()

        transport.read_all()
        replies = (await connection.quiet(len(ids))).replies
        await feeding
        await connection.drop()
        assert [reply.status for reply in replies] == [200] * len(ids)
        assert all(b"x-request-id: " + name in reply.head for name, reply in zip(ids, replies, strict=True))

    runner.run(check())


def test_a_client_that_sends_faster_than_it_is_answered_is_made_to_wait(runner, apps):
    app = apps("inline", "fitserve")
    one = batch(MANY_ROWS)
    segment = one * (65536 // len(one))

    async def check() -> None:
        connection = Connection("fitserve", app)
        n_sent, most_waiting = 0, 0
        async with asyncio.timeout(10):
            while n_sent < 2000:
                if not connection.transport.is_reading_paused:
                    connection.protocol.data_received(segment)
                    n_sent += len(segment) // len(one)
                    most_waiting = max(most_waiting, n_sent - connection.state.total_requests)
                await asyncio.sleep(0)
        answered = await connection.quiet(n_sent)
        await connection.drop()
        assert answered.statuses == (200,) * n_sent
        assert most_waiting * len(one) < 4 * 65536

    runner.run(check())


def test_a_client_is_made_to_wait_each_time_that_it_sends_faster(runner, make_kind):
    gate = Gate()
    app = make_kind("executor", gate)
    many = get() * (2 + 65536 // len(get()))

    async def check() -> None:
        connection = Connection("fitserve", app)
        n_replies = 0
        for _ in range(2):
            gate.is_open.clear()
            await connection.feed(post(SLOW), many[:65536], many[65536:])
            assert connection.transport.is_reading_paused
            gate.is_open.set()
            n_replies += 1 + many.count(b"GET ")
            await connection.quiet(n_replies)
            assert not connection.transport.is_reading_paused
        await connection.drop()

    runner.run(check())


@both_ways
def test_a_large_request_behind_another_does_not_stop_the_reading(runner, make_kind, way):
    app = make_kind(max_body_bytes=1 << 20)

    async def answered():
        connection = Connection(way, app)
        await connection.feed(post(), batch(MANY_ROWS + b" " * 200_000), post(), turns=0)
        answered = await connection.quiet(3)
        await connection.drop()
        return answered

    assert runner.run(answered()).statuses == (200, 200, 200)


@both_ways
def test_a_thousand_requests_at_once_are_answered_in_order(addresses, way):
    ids = [b"id-%d" % i for i in range(1000)]
    with Client(addresses("inline", way)) as client:
        client.send(b"".join(post(ROW, b"X-Request-ID: " + name) for name in ids))

        for name in ids:
            reply = client.reply()
            assert reply.status == 200
            assert b"x-request-id: " + name in reply.head


def test_many_connections_each_get_their_own_answer(runner, apps):
    made = {way: apps("inline", way) for way in WAYS}
    bodies = [b'{"features":[%.1f,%.1f,1.4,0.2]}' % (4 + i / 50, 2 + i / 100) for i in range(100)]
    bodies[7] = bodies[50] = b'{"features":["a"]}'

    async def answered(way):
        connections = [Connection(way, made[way]) for _ in bodies]
        for connection, body in zip(connections, bodies, strict=True):
            connection.protocol.data_received(post(body))
        found = [await connection.quiet(1) for connection in connections]
        for connection in connections:
            await connection.drop()
        return [(answer.statuses, answer.replies[0].body[:60]) for answer in found]

    assert runner.run(answered("fitserve")) == runner.run(answered("uvicorn"))


def test_many_sockets_are_answered(addresses):
    address = addresses("inline", "fitserve")
    clients = [Client(address) for _ in range(100)]
    for client in clients:
        client.send(post() + get())
    for client in clients:
        assert [client.reply().status, client.reply().status] == [200, 200]
        client.socket.close()


# ── what is told of it ──────────────────────────────────────────────────────────────


def told(runner, app: object, way: str) -> tuple[list[bytes], list[bytes]]:
    """The access lines and the counts of an application that was sent one request of each sort."""
    sent = [
        post(), batch(), post(b"{"), post(b'{"features":["a"]}'), post(b'{"features":[66,1,1,1]}'), get(), get(b"/nope"),
        post(path=b"/predict?secret=1"), post(ROW, b"X-Request-ID: mine"), get(b"/predict"), chunked(chunk(ROW)),
        post(b'{"features":[5,3,1,0],"model_version":"9"}'), post(b" " * 5000), post(ROW, b"Connection: close"),
    ]  # fmt: skip
    stream = io.StringIO()
    app.access_log = AccessLog("json", stream, is_enabled=True)

    async def run() -> int:
        connection = Connection(way, app)
        for data in sent:
            await connection.feed(data)
            await connection.quiet()
        await connection.drop()
        app.access_log.flush()
        return len(take_replies(bytes(connection.transport.written))[0])

    assert runner.run(run()) == len(sent)
    lines = [masked(line.encode()) for line in stream.getvalue().splitlines()]
    assert len(lines) == len(sent)
    metrics = getattr(app.services, "metrics", None)
    if metrics:
        metrics.open()
    counts = (
        re.findall(rb"(?m)^\w+_(?:count|total)(?:\{.*)? .*$", metrics.exposition(is_openmetrics=False))
        if metrics
        else []
    )
    return lines, [count for count in counts if not count.startswith(b"fitserve_process")]


def test_both_ways_tell_the_same_of_each_request(runner, make_kind):
    made = {way: make_kind() for way in WAYS}

    lines, counts = told(runner, made["fitserve"], "fitserve")
    same_lines, same_counts = told(runner, made["uvicorn"], "uvicorn")

    assert lines == same_lines
    assert counts == same_counts


def test_a_client_that_has_left_is_told_of(runner, make_kind):
    app, stream = make_kind(), io.StringIO()
    app.access_log = AccessLog("json", stream, is_enabled=True)

    async def leave() -> None:
        connection = Connection("fitserve", app)
        await connection.feed(post(ROW, b"X-Request-ID: mine"), turns=0)
        connection.lose()
        app.access_log.flush()

    runner.run(leave())

    line = json.loads(stream.getvalue())
    assert (line["status"], line["request_id"], line["path"]) == (499, "mine", "/predict")
