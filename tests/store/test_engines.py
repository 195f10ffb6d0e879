"""Compiled engines as files: what is written is what is read, and anything else is refused."""

from __future__ import annotations

import json

import pytest

from fitserve.errors import ArtifactError
from fitserve.optimize.base import Compiled
from fitserve.store.engines import INDEX, Engines, versions_here

ENGINES = Engines(
    (Compiled("onnx-float32", b"one", {"gives": ["label"]}), Compiled("treelite", b"two", {})),
    ({"engine": "onnx-float64", "verdict": "refused", "largest": 0.5},),
    {"python": "3.11"},
)


def test_engines_are_read_as_they_were_written():
    files = ENGINES.files()

    assert set(files) == {"onnx-float32.bin", "treelite.bin", INDEX}
    assert Engines.of(files) == ENGINES


def changed(**members: object) -> bytes:
    return json.dumps({**json.loads(ENGINES.files()[INDEX]), **members}).encode()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"treelite.bin": b"twO"}, "an engine treelite that is not the one that was compiled"),
        ({"treelite.bin": None}, "an engine treelite that is not the one"),
        ({INDEX: None}, "engines.json is wrong"),
        ({INDEX: b"{"}, "engines.json is wrong"),
        ({INDEX: b" " * 2**23}, "engines.json is wrong: 8388608 bytes, at most 4194304"),
        ({INDEX: changed(schema=2)}, "engines.json is wrong"),
        ({INDEX: changed(engines=[{"engine": "../../x", "sha256": "", "note": {}}])}, "engines.json is wrong"),
        ({INDEX: changed(report=[{}] * 100)}, "engines.json is wrong"),
    ],
)
def test_files_that_were_changed_are_refused(change, why):
    files = {name: data for name, data in {**ENGINES.files(), **change}.items() if data is not None}

    with pytest.raises(ArtifactError, match=why):
        Engines.of(files)


def test_the_versions_name_what_is_installed_and_the_machine():
    versions = versions_here()

    assert {"python", "machine", "compiler", "numpy", "scikit-learn", "treelite", "onnxruntime"} <= set(versions)
    assert versions == versions_here()
