"""What the supervisor and a process of its own say to each other: one JSON array a line, and descriptors.

A worker is confined and the supervisor is not: it takes JSON from it, no pickle, and never waits for the rest of
a line.
"""

from __future__ import annotations

import socket
from typing import Any

import orjson

LONGEST_LINE_BYTES = 64 * 2**20
"""What may be said at once: the signature of a model with a hundred thousand columns."""

_CHUNK = 1 << 18
_MOST_DESCRIPTORS = 4


class Channel:
    """One end of a socket pair. Used by one thread at a time for each direction."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._heard = bytearray()
        self._descriptors: list[int] = []

    def fileno(self) -> int:
        """The descriptor, to wait for."""
        return self._socket.fileno()

    def say(self, kind: str, content: object = None, descriptors: tuple[int, ...] = ()) -> None:
        """Send a message, and open files with it. Blocks if the socket does, until the other side has taken it.

        Raises:
            OSError: nobody is there any more; BlockingIOError if the other side does not listen.
        """
        rest = memoryview(orjson.dumps([kind, content], option=orjson.OPT_SERIALIZE_NUMPY) + b"\n")
        if descriptors:
            # With the first byte; what is sent later goes on without them.
            rest = rest[socket.send_fds(self._socket, [rest], list(descriptors)) :]
        self._socket.sendall(rest)

    def hear(self) -> list[tuple[str, Any]]:
        """What has been said since; waits for something only if the socket blocks.

        Raises:
            EOFError: the other side is gone, and everything that it has said has been heard.
            ValueError: it is no message.
        """
        try:
            data, descriptors, _, _ = socket.recv_fds(self._socket, _CHUNK, _MOST_DESCRIPTORS)
        except BlockingIOError:
            return []
        except OSError:
            data, descriptors = b"", []
        self._descriptors += descriptors
        if not data:
            raise EOFError
        self._heard += data
        *lines, rest = self._heard.split(b"\n") if b"\n" in data else (self._heard,)
        self._heard = bytearray(rest)
        if len(self._heard) > LONGEST_LINE_BYTES:
            msg = f"a message of more than {LONGEST_LINE_BYTES} bytes"
            raise ValueError(msg)
        return [_parsed(line) for line in lines]

    def descriptors(self) -> list[int]:
        """Those that have come with the messages heard so far, which are the caller's from now on."""
        taken, self._descriptors = self._descriptors, []
        return taken

    def close(self) -> None:
        """Close this end."""
        self._socket.close()


def _parsed(line: bytearray) -> tuple[str, Any]:
    message = orjson.loads(bytes(line))
    if not (isinstance(message, list) and len(message) == 2 and isinstance(message[0], str)):  # noqa: PLR2004 - kind, content
        msg = "no message"
        raise ValueError(msg)
    return message[0], message[1]
