"""What became of a child, in words."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass, field
from typing import Any

from fitserve.confine.wire import one_line, rebuild
from fitserve.errors import ArtifactError


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a child ended.

    Attributes:
        reply: what it answered, if it did so completely.
        exit_code: as :mod:`subprocess` has it, negative for a signal; None if it had not ended.
        stderr: the end of what it wrote there.
        is_late: the deadline has passed.
        is_long: it answered more than it may.
    """

    reply: bytes | None = None
    exit_code: int | None = None
    stderr: str = field(default="", compare=False)
    is_late: bool = False
    is_long: bool = False


TEMPLATE_ENDED = Outcome()
"""The template ended before the child did: nothing is known of the child."""


def answer(outcome: Outcome, deadline_s: float, longest_reply_bytes: int) -> dict[str, Any]:
    """The function's result.

    Raises:
        FitserveError: what the function raised.
        ArtifactError: the child did not answer, or not as it should.
    """
    if outcome.is_long:
        raise ArtifactError(f"answers with more than {longest_reply_bytes >> 20} MiB when it is tried")
    if outcome.reply is not None:
        return _open(outcome.reply)
    if outcome.is_late:
        raise ArtifactError(f"did not answer within {deadline_s:g} s when it was tried")
    raise ArtifactError(_end(outcome))


MOST_VALUES = 1_000_000
"""How many values a reply may hold: an empty list of two bytes takes 64 here."""


def _open(reply: bytes) -> dict[str, Any]:
    """Read a reply. Code of the file under trial may have written it, so that it may be anything."""
    if sum(map(reply.count, (b",", b"[", b"{"))) > MOST_VALUES:
        raise ArtifactError(f"answers with more than {MOST_VALUES} values when it is tried")
    try:
        told = json.loads(reply)
        if "error" in told:
            error: Exception = rebuild(told["error"])
        elif "memory_bytes" in told:
            error = ArtifactError(_too_much(told["memory_bytes"]))
        elif "failed" in told:
            kind, text = one_line(told["failed"], 80), one_line(told["text"])
            error = ArtifactError(f"cannot be loaded or tried: {kind}: {text}".removesuffix(": "))
        elif isinstance(told["result"], dict):
            return told["result"]
        else:
            error = TypeError()
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as exc:
        msg = "answers with something else than a JSON object when it is tried"
        raise ArtifactError(msg) from exc
    if isinstance(error, TypeError):
        raise ArtifactError("answers with something else than a JSON object when it is tried")
    raise error


def _too_much(memory_bytes: int | None) -> str:
    if memory_bytes is None:
        return "needs more memory than there is when it is tried"
    return f"needs more than the {int(memory_bytes) >> 20} MiB that it may use when it is tried"


def _end(outcome: Outcome) -> str:
    code, words = outcome.exit_code, _last_words(outcome.stderr)
    assert code is not None, "else the template has ended"
    if "bad_alloc" in words or "MemoryError" in words:
        return f"needs more memory than it may use when it is tried ({words})"
    if code >= 0:
        return f"ended its process with exit code {code} when it was tried" + (f" ({words})" if words else "")
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    if name == "SIGXCPU":
        return "used more processor time than it may when it was tried"
    if name == "SIGKILL":
        return "was killed when it was tried (SIGKILL), most likely because the machine had no memory left"
    return f"crashed with {name} when it was tried" + (f" ({words})" if words else "")


def _last_words(stderr: str) -> str:
    """The last lines that a native library wrote before it gave up, clipped."""
    lines = [one_line(line, 120) for line in stderr.splitlines() if line.strip()]
    return " ".join(lines[-2:])
