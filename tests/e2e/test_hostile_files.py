"""Hostile files against a real server, at every trust level: no payload has an effect, and the server goes on."""

from __future__ import annotations

import hashlib
import warnings

import hostile_files
import hostile_formats
import pytest
import skops.io
from e2e import servers

LEVELS = ("data", "allowlist", "pinned", "any")
ROW = {"features": [5.1, 3.5, 1.4, 0.2]}
MAY_LOAD = {"any", "pinned"}
"""Levels at which a file is loaded because somebody vouches for it: its code then runs, confined."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """The marker that payloads would touch, and the hostile files by name."""
    folder = tmp_path_factory.mktemp("hostile")
    marker = folder / "marker"
    paths = hostile_formats.build(folder, marker)
    for name, data in hostile_files.pickles(marker).items():
        paths[f"pickle-{name}"] = folder / f"{name}.pkl"
        paths[f"pickle-{name}"].write_bytes(data)
    return marker, paths


def test_the_corpus_is_large_enough(corpus):
    assert len(corpus[1]) >= 65


@pytest.mark.parametrize("level", LEVELS)
def test_no_hostile_file_has_an_effect_and_the_server_goes_on(level, corpus, tmp_path):
    marker, paths = corpus
    good = tmp_path / "good.skops"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        skops.io.dump(hostile_formats.fitted(), good)
    digests = [f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}" for path in paths.values() if path.is_file()]
    pins = [*digests, f"sha256:{hashlib.sha256(good.read_bytes()).hexdigest()}"] if level == "pinned" else []
    current = tmp_path / "current"
    point(current, good)
    environ = {
        "FITSERVE_TRUST": level,
        "FITSERVE_PIN": ",".join(pins),
        "FITSERVE_LOAD_TIMEOUT_S": "5",
        "FITSERVE_CONFINE": "require",
    }
    accepted = {}
    with servers.running("fitserve", current, tmp_path, **environ) as (client, process, log):
        expected = client.post("/predict", json=ROW).json()["probabilities"]
        for name, path in paths.items():
            point(current, path)
            reply = client.post("/model/reload")
            assert not marker.exists(), name
            assert process.poll() is None, (name, log.read_text()[-2000:])
            assert reply.status_code in {200, 422}, (name, reply.text)
            assert client.get("/health").status_code == 200, name
            if reply.status_code == 200:
                accepted[name] = reply.json()
                point(current, good)
                assert client.post("/model/reload").status_code == 200, name
            assert client.post("/predict", json=ROW).json()["probabilities"] == expected, name

    if level not in MAY_LOAD:
        assert accepted == {}


@pytest.mark.parametrize("level", LEVELS[1:])
def test_what_is_harmless_is_served(level, tmp_path):
    files = hostile_files.benign()
    good = tmp_path / "good.skops"
    skops.io.dump(hostile_formats.fitted(), good)
    current = tmp_path / "current"
    point(current, good)
    with servers.running("fitserve", current, tmp_path, FITSERVE_TRUST=level) as (client, _, log):
        for name, data in files.items():
            path = tmp_path / f"{name}.pkl"
            path.write_bytes(data)
            point(current, path)

            reply = client.post("/model/reload")

            assert reply.status_code == 200, (name, reply.text, log.read_text()[-2000:])


def point(link, target) -> None:
    """Let a link lead to another file, at once, as a deployment does."""
    fresh = link.with_name("fresh")
    fresh.symlink_to(target)
    fresh.replace(link)
