"""Damaged model files of every format against a real server: it refuses or answers, and never dies.

``make qa`` does the same with 300 of each format.
"""

from __future__ import annotations

import collections

import pytest
from e2e import damage, servers
from mutations import FILES, mutants

N = 40
"""Of each format: a minute for all."""

SEED = 20


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One server for all formats, its process and log, and the link to what it serves."""
    folder = tmp_path_factory.mktemp("mutations")
    current = folder / "current"
    damage.point(current, FILES["joblib"]().write(folder / "good"))
    # What compiles an engine of a damaged model is tried by `make qa`, which has the time.
    environ = damage.ENVIRON | {"FITSERVE_OPTIMIZE": "off"}
    with servers.running("fitserve", current, folder, **environ) as (client, process, log):
        yield client, process, log, current


@pytest.mark.parametrize("kind", FILES)
def test_no_damage_ends_the_server(kind, server):
    client, process, log, current = server
    counts = collections.Counter()

    for i, outcome in enumerate(damage.outcomes(client, current, FILES[kind](), N, SEED)):
        counts[outcome] += 1
        assert process.poll() is None, (i, log.read_text()[-2000:])

    assert counts["died"] == 0
    assert sum(counts.values()) == N


def test_no_damage_passes_a_pin(tmp_path):
    goods = {kind: make() for kind, make in FILES.items()}
    paths = {kind: good.write(tmp_path / f"good-{kind.replace(' ', '-')}") for kind, good in goods.items()}
    current = tmp_path / "current"
    damage.point(current, paths["joblib"])
    statuses = {kind: collections.Counter() for kind in FILES}
    pins = ",".join(f"sha256:{good.digest}" for good in goods.values())

    with servers.running("fitserve", current, tmp_path, FITSERVE_PIN=pins) as (client, process, _):
        for kind, good in goods.items():
            for i, damaged in enumerate(mutants(good, N, SEED)):
                damage.point(current, damaged.write(tmp_path / f"{kind.replace(' ', '-')}-{i}"))
                reply = client.post("/model/reload?wait=true")
                statuses[kind][reply.status_code, "pinned" in reply.text] += 1
            damage.point(current, paths[kind])
            assert client.post("/model/reload?wait=true").status_code == 200, kind
        assert process.poll() is None

    assert statuses == {kind: {(422, True): N} for kind in FILES}
