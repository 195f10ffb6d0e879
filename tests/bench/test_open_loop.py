"""The client that asks at a constant rate."""

import socket
import threading

import pytest

from bench.load.open_loop import Latencies, Reply, get, post, run
from bench.load.servers import BenchError

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nContent-Length: 2\r\n\r\n{}"


def test_a_reply_is_complete_with_its_last_byte_however_it_is_cut():
    reply = Reply()

    assert [reply.is_complete(OK[i : i + 1]) for i in range(len(OK))] == [False] * (len(OK) - 1) + [True]
    assert reply.is_complete(OK), "the next reply begins anew"


@pytest.mark.parametrize(
    "data", [OK.replace(b"200 OK", b"503 Service Unavailable"), OK.replace(b"Content-Length: 2\r\n", b"")]
)
def test_what_is_no_200_of_known_length_stops_the_run(data):
    with pytest.raises(BenchError, match="wanted a 200"):
        Reply().is_complete(data)


def test_a_request_says_how_long_its_body_is():
    assert post("/predict", b"[1, 2]").endswith(b"Content-Length: 6\r\n\r\n[1, 2]")


def test_requests_leave_though_none_has_been_answered():
    n_requests = 20
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listening:
        server = threading.Thread(target=_answer_when_all_have_come, args=(listening, n_requests))
        server.start()
        found = run("late", listening.getsockname()[1], [get("/health")], per_s=1000, seconds=n_requests / 1000)
        server.join()

    assert len(found.answered_ms) == len(found.late_ms) == n_requests


def test_a_server_that_hangs_up_is_told():
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listening:
        server = threading.Thread(target=_hang_up, args=(listening,))
        server.start()
        with pytest.raises(BenchError, match="hangs up.*closed|connection ended"):
            run("hangs up", listening.getsockname()[1], [get("/health")], per_s=1000, seconds=1)
        server.join()


def test_percentiles_are_of_the_ordered_latencies():
    latencies = Latencies("x", 10.0, [5.0, 1.0, 4.0, 2.0, 3.0], [0.0])

    assert [latencies.percentile(share) for share in (0.5, 0.99)] == [3.0, 5.0]


def _hang_up(listening):
    listening.accept()[0].close()


def _answer_when_all_have_come(listening, n_requests):
    """Deadlocks with a client that waits for one answer before it asks again."""
    asked = []
    while len(asked) < n_requests:
        connection, _ = listening.accept()
        if connection.recv(65536):
            asked.append(connection)
    for connection in asked:
        connection.sendall(OK)
    for connection in asked:
        connection.recv(65536)  # until the client closes
        connection.close()
