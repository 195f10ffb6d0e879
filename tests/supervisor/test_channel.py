"""What a supervisor takes from a process: lines of JSON, whole, and descriptors."""

from __future__ import annotations

import os
import socket
import threading

import pytest

from fitserve.supervisor.channel import LONGEST_LINE_BYTES, Channel


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield Channel(ours), Channel(theirs), theirs


def heard(channel: Channel, n: int) -> list:
    messages: list = []
    while len(messages) < n:
        messages += channel.hear()
    return messages


def test_messages_come_as_they_were_said(ends):
    ours, theirs, _ = ends
    theirs.say("ready", {"facts": "\n é"})
    theirs.say("started")

    assert heard(ours, 2) == [("ready", {"facts": "\n é"}), ("started", None)]


def test_nothing_is_waited_for(ends):
    ours, _, raw = ends
    raw.send(b'["half a ')

    assert ours.hear() == []
    assert ours.hear() == []


def test_a_message_larger_than_the_socket_holds_comes_whole(ends):
    ours, theirs, _ = ends
    speaker = threading.Thread(target=theirs.say, args=("ready", "x" * 3_000_000))
    speaker.start()

    (message,) = heard(ours, 1)
    speaker.join()

    assert message == ("ready", "x" * 3_000_000)


def test_descriptors_come_with_their_message(ends):
    ours, other, _ = ends
    read, write = os.pipe()
    ours.say("start", 1, (write,))
    os.close(write)

    (message,) = heard(other, 1)
    (descriptor,) = other.descriptors()
    os.write(descriptor, b"x")
    os.close(descriptor)

    assert message == ("start", 1)
    assert os.read(read, 2) == b"x"
    assert other.descriptors() == []
    os.close(read)


@pytest.mark.parametrize("line", [b"{}", b"[]", b'["a"]', b"[1, 2]", b'["a", 1, 2]', b"pickle", b"\xff"])
def test_what_is_no_message_is_refused(line, ends):
    ours, _, raw = ends
    raw.send(line + b"\n")

    with pytest.raises(ValueError):  # noqa: PT011 - whichever
        ours.hear()


def test_an_endless_line_is_refused(ends):
    ours, _, raw = ends
    chunk = b"x" * 65_536
    for _ in range(LONGEST_LINE_BYTES // len(chunk)):
        raw.send(chunk)
        ours.hear()
    raw.send(chunk)

    with pytest.raises(ValueError, match="more than"):
        ours.hear()


def test_the_end_comes_after_what_was_said(ends):
    ours, theirs, raw = ends
    theirs.say("failed", "why")
    raw.close()

    assert heard(ours, 1) == [("failed", "why")]
    with pytest.raises(EOFError):
        ours.hear()
