"""Our protocol class against uvicorn's: the same bytes for whatever is sent."""

from __future__ import annotations

import time

import pytest
from server.cases import CASES, Case
from server.raw import QUIET_TURNS, Answered, Client, Connection, Reply, get

PAUSE_S = 0.003
"""Between segments that shall arrive apart. If they do not, less is tested, and nothing fails."""


def over_a_socket(address: tuple[str, int], case: Case, statuses: tuple[int, ...]) -> Answered:
    """Send a case; read the replies that are expected, and what is there besides."""
    with Client(address) as client:
        for i, segment in enumerate(case.segments):
            if i:
                time.sleep(PAUSE_S if len(case.segments) < 10 else 0)
            client.send(segment)
        replies: list[Reply] = []
        while len(replies) < len(statuses) and (reply := client.reply(has_body=len(replies) not in case.bodyless)):
            replies.append(reply)
        is_closed = client.is_closed() if case.is_closed else not is_kept(client, case)
        return Answered(replies, client.data, is_closed)


def is_kept(client: Client, case: Case) -> bool:
    """Whether the connection serves on: asked with another request, where the last one was answered."""
    if not case.statuses:
        client.socket.settimeout(0.05)
        return not client.is_closed()
    client.send(get())
    reply = client.reply()
    return reply is not None and reply.status == 200


def expected(case: Case, way: str) -> tuple[int, ...]:
    return case.uvicorn if way == "uvicorn" and case.uvicorn is not None else case.statuses


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_over_a_socket_both_ways_give_the_same_bytes(addresses, case):
    ours = over_a_socket(addresses(case.kind, "fitserve"), case, expected(case, "fitserve"))
    theirs = over_a_socket(addresses(case.kind, "uvicorn"), case, expected(case, "uvicorn"))

    assert ours.statuses == expected(case, "fitserve")
    assert theirs.statuses == expected(case, "uvicorn")
    assert ours.is_closed == theirs.is_closed == case.is_closed
    assert ours.rest == theirs.rest
    if case.uvicorn is None:
        assert ours.replies == theirs.replies


async def without_a_socket(way: str, app: object, case: Case, turns: int) -> Answered:
    connection = Connection(way, app)
    await connection.feed(*case.segments, turns=turns)
    answered = await connection.quiet(len(expected(case, way)), case.bodyless)
    await connection.drop()
    return answered


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_without_a_socket_both_ways_give_the_same_bytes(runner, apps, case):
    app, other = apps(case.kind, "fitserve"), apps(case.kind, "uvicorn")

    ours = runner.run(without_a_socket("fitserve", app, case, turns=QUIET_TURNS))
    theirs = runner.run(without_a_socket("uvicorn", other, case, turns=QUIET_TURNS))

    assert ours.statuses == expected(case, "fitserve")
    assert theirs.statuses == expected(case, "uvicorn")
    assert ours.is_closed == theirs.is_closed == case.is_closed
    assert ours.rest == theirs.rest == b""
    if case.uvicorn is None:
        assert ours.replies == theirs.replies


@pytest.mark.parametrize("case", [case for case in CASES if len(case.segments) > 1], ids=lambda case: case.name)
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_segments_may_come_while_an_answer_is_under_way(runner, apps, case, turns):
    app = apps(case.kind, "fitserve")

    answered = runner.run(without_a_socket("fitserve", app, case, turns))

    assert answered.statuses == case.statuses
    assert answered.is_closed == case.is_closed
