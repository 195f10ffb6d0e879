"""Serve damaged model files one after the other, and tell what becomes of each."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import httpx2
from mutations import Good, mutants

OUTCOMES = ("refused", "same", "other", "raised", "died")
"""``same`` and ``other``: it was accepted, and answers the good rows as the good file does, or otherwise;
``raised``: it was accepted, and a row made it raise; ``died``: the server did not answer any more."""

ENVIRON = {"FITSERVE_LOAD_TIMEOUT_S": "10", "FITSERVE_CONFINE": "require"}


def outcomes(client: httpx2.Client, current: Path, good: Good, n: int, seed: int) -> Iterator[str]:
    """Serve ``n`` damaged versions of a good file; ``current`` is the link to what is served."""
    rng = random.Random(seed)
    point(current, good.write(current.with_name(f"whole-{good.digest[:8]}")))
    reply = client.post("/model/reload?wait=true")
    assert reply.status_code == 200, reply.text
    expected = answers(client, good.rows)
    # Else the answers would prove nothing of the damaged: all could be refused for one and the same reason.
    assert expected[0] == 200, expected
    assert answers(client, [scattered(good.rows[0], rng) for _ in range(20)])[0] == 200
    for i, damaged in enumerate(mutants(good, n, seed)):
        point(current, damaged.write(current.with_name(f"damaged-{good.digest[:8]}-{i}")))
        try:
            found = _outcome(client, good.rows, expected, rng)
            assert client.get("/health").status_code == 200
        except httpx2.TransportError:
            found = "died"
        yield found


def _outcome(client: httpx2.Client, rows: list, expected: list, rng: random.Random) -> str:
    reply = client.post("/model/reload?wait=true")
    if reply.status_code == 422:
        return "refused"
    assert reply.status_code == 200, reply.text
    found = answers(client, rows)
    # What is accepted must bear rows that the trial did not think of.
    statuses = [answers(client, [scattered(rows[0], rng)])[0] for _ in range(4)]
    if 500 in {found[0], *statuses}:
        return "raised"
    return "same" if found == expected else "other"


def answers(client: httpx2.Client, rows: list) -> list:
    """The status, and what is answered; a status that no damage excuses is an error."""
    reply = client.post("/predict/batch", json={"instances": rows})
    assert reply.status_code in {200, 422, 500}, reply.text
    document = reply.json()
    return [reply.status_code, document.get("predictions"), document.get("probabilities")]


def scattered(row: list, rng: random.Random) -> list:
    """A row of the same columns with other numbers, large ones among them that float32 can hold."""
    return [rng.choice((rng.gauss(0, 3), 0.0, -1e30, 1e30)) for _ in row]


def point(link: Path, target: Path) -> None:
    """Let a link lead to another file, at once."""
    fresh = link.with_name("fresh")
    fresh.symlink_to(target)
    fresh.replace(link)
