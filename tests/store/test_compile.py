"""Compiling in a child, what a package brings along, and what is told where nothing serves."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import pytest
from store.compilers import ENTRY, Compiler, Here, entries

from fitserve.errors import ArtifactError
from fitserve.settings import Settings
from fitserve.store.compile import compile_artifact, key_of, packaged
from fitserve.store.engines import INDEX
from fitserve.store.engines_tried import try_engines
from fitserve.store.loading import load_artifact
from fitserve.store.package import Wanted, pack
from fitserve.store.repository import read_artifact
from fitserve.store.verify import Verifier
from fitserve.trust.policy import TrustPolicy


class Packing(Here):
    """Packs in this process, too."""

    def run(self, task, artifact, **request):
        return self.run_in(None, task, artifact, **request)


@pytest.fixture
def iris(models):
    return read_artifact(models / "iris_v1.2.3.joblib")


def pinned(artifact) -> TrustPolicy:
    return TrustPolicy("pinned", pins=frozenset({artifact.digest}))


def test_a_confined_child_compiles_and_leaves_its_engines(models):
    forest = read_artifact(models / "cancer_v2.joblib")

    engines, files = compile_artifact(forest, Verifier(), timeout_s=100)

    assert [entry["verdict"] for entry in engines.report] == ["used"]
    assert set(files) == {f"{engines.compiled[0].engine}.bin", INDEX}
    assert engines.compiled[0].data == files[f"{engines.compiled[0].engine}.bin"]


def test_a_key_is_of_the_model_of_what_is_said_of_it_and_of_the_time_that_compiling_may_take(iris):
    other = dataclasses.replace(iris, declared=dataclasses.replace(iris.declared, classes=("a", "b", "c")))

    keys = [key_of(iris, 120.0), key_of(other, 120.0), key_of(iris, 60.0)]

    assert len(set(keys)) == 3
    assert key_of(iris, 120.0) == keys[0]


def test_what_is_told_is_kept_for_the_server(models, iris, tmp_path, monkeypatch):
    compiler = Compiler().install(monkeypatch)
    path, settings = models / "iris_v1.2.3.joblib", Settings(cache_dir=tmp_path)

    told = [try_engines(iris, Here(), settings, path) for _ in range(2)]

    assert [one["source"] for one in told] == ["compiled", "cache"]
    assert told[0]["report"] == [ENTRY]
    assert (compiler.compiled, compiler.loaded, len(entries(tmp_path))) == (1, 0, 1)


def test_off_and_require_count_where_nothing_serves_too(models, iris, tmp_path, monkeypatch):
    Compiler(engines=0, entry={**ENTRY, "verdict": "refused", "reason": "2 labels differ"}).install(monkeypatch)
    path = models / "iris_v1.2.3.joblib"

    told = try_engines(iris, Here(), Settings(cache_dir=tmp_path, optimize="off"), path)

    assert (told["state"], told["reason"], told["report"]) == ("off", "optimize = off", [])
    with pytest.raises(ArtifactError, match="has no compiled engine.*treelite: 2 labels differ"):
        try_engines(iris, Here(), Settings(cache_dir=tmp_path, optimize="require"), path)


def test_a_model_with_its_own_runtime_is_nothing_to_compile(tmp_path):
    (tmp_path / "own.py").write_text(
        "class Model:\n    example = {'x': 1.0}\n    def predict(self, rows):\n        return [1] * len(rows)\n"
    )
    verifier = Here(TrustPolicy(code_path=(tmp_path,)))

    told = try_engines(read_artifact(tmp_path / "own.py"), verifier, Settings(cache_dir=tmp_path), tmp_path / "own.py")

    assert told["state"] == "off"
    assert "its own runtime" in told["reason"]


@pytest.fixture
def packed(models, tmp_path, monkeypatch):
    """A package with an engine, and the compiler that made it."""
    compiler = Compiler().install(monkeypatch)
    wanted = Wanted(optimize="auto")
    written = pack(models / "cancer_v2.joblib", tmp_path / "out", examples=None, wanted=wanted, verifier=Packing())
    return tmp_path / "out", written, compiler


def test_a_package_lists_its_engines_and_their_digests(packed):
    folder, written, _ = packed
    manifest = (folder / "manifest.toml").read_text()

    assert {"engines/treelite.bin", f"engines/{INDEX}"} <= set(written["files"])
    assert written["digest"] == f"sha256:{read_artifact(folder).digest}"
    assert written["optimization"]["report"] == [ENTRY]
    assert '"treelite"' in manifest
    assert hashlib.sha256((folder / "engines/treelite.bin").read_bytes()).hexdigest() in manifest


def test_engines_of_a_package_are_used_where_somebody_vouches_for_it_and_the_versions_fit(packed):
    folder, _, _ = packed
    artifact = read_artifact(folder)

    engines = packaged(artifact, pinned(artifact))

    assert [one.engine for one in engines.compiled] == ["treelite"]
    assert packaged(artifact, TrustPolicy()) is None
    index = json.loads(artifact.files[f"engines/{INDEX}"])
    index["versions"]["numpy"] = "1.0"
    files = {**artifact.files, f"engines/{INDEX}": json.dumps(index).encode()}
    assert packaged(dataclasses.replace(artifact, files=files), pinned(artifact)) is None


def test_a_package_that_is_pinned_serves_by_its_engines_without_compiling(packed, tmp_path, monkeypatch):
    from fitserve.store import takeover

    folder, _, compiler = packed
    monkeypatch.setattr(takeover, "AFTER_S", 0.0)
    verifier = Here(pinned(read_artifact(folder)))
    optimizer = takeover.Optimizer(Settings(cache_dir=tmp_path, optimize="require"), verifier, folder)
    compiler.compiled = 0

    loaded = load_artifact(read_artifact(folder), verifier.policy)
    optimizer.plan(loaded, lambda: read_artifact(folder))

    assert [form.name for form in loaded.forms.all] == ["native", "treelite"]
    assert (loaded.optimization.source, compiler.compiled) == ("package", 0)


def test_a_package_that_is_packed_again_does_not_keep_its_old_engines(packed, tmp_path):
    folder, _, _ = packed

    written = pack(folder, tmp_path / "again", examples=None, wanted=Wanted(), verifier=Packing())

    assert not [path for path in written["files"] if path.startswith("engines/")]
    assert (read_artifact(tmp_path / "again").name, written["optimization"]["state"]) == ("cancer", "off")


def test_packing_may_require_an_engine(models, tmp_path, monkeypatch):
    Compiler(engines=0, entry={**ENTRY, "verdict": "refused", "reason": "2 labels differ"}).install(monkeypatch)

    with pytest.raises(ArtifactError, match=r"out has no compiled engine.*2 labels differ"):
        pack(
            models / "iris_v1.2.3.joblib", tmp_path / "out",
            examples=None, wanted=Wanted(optimize="require"), verifier=Packing(),
        )  # fmt: skip
