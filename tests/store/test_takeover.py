"""Engines take over where they are proven and faster, and whatever goes wrong with them harms no request."""

from __future__ import annotations

import logging

import joblib
import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from store.compilers import ENTRY, Compiler, Here, entries

from fitserve.errors import ArtifactError
from fitserve.settings import Settings
from fitserve.store import takeover
from fitserve.store.describe import describe_model
from fitserve.store.loading import adopt, load_artifact
from fitserve.store.repository import read_artifact
from fitserve.store.takeover import Optimizer
from fitserve.trust.policy import TrustPolicy


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(takeover, "AFTER_S", 0.0)


@pytest.fixture(scope="module")
def forest_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("forest") / "forest_v1.joblib"
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 3))
    joblib.dump(RandomForestClassifier(20, random_state=0).fit(X, np.where(X[:, 0] > 0, "yes", "no")), path)
    return path


@pytest.fixture
def start(forest_file, tmp_path):
    """Load a file, let its engines be made, and wait for them."""

    def begin(path=forest_file, *, policy: TrustPolicy | None = None, **settings):
        verifier = Here(policy or TrustPolicy())
        artifact = read_artifact(path)
        loaded = load_artifact(artifact, verifier.policy)
        optimizer = Optimizer(Settings(**{"cache_dir": tmp_path / "cache", **settings}), verifier, path)
        optimizer.plan(loaded, lambda: artifact)
        optimizer.begin()
        finish()
        return loaded

    return begin


def finish() -> None:
    import threading

    for thread in threading.enumerate():
        if thread.name == "fitserve-optimize":
            thread.join(60)


def names(loaded) -> list[str]:
    return [form.name for form in loaded.forms.all]


def test_an_engine_takes_over_when_it_is_proven_and_the_log_tells_so(start, monkeypatch, caplog):
    Compiler().install(monkeypatch)

    with caplog.at_level(logging.DEBUG):
        loaded = start()

    told = describe_model(loaded)["optimization"]
    assert (told["state"], told["source"], told["reason"], told["report"]) == ("done", "compiled", None, [ENTRY])
    assert [form["name"] for form in told["forms"]] == ["native", "treelite"]
    assert loaded.forms.cheapest(1).name == "treelite"
    assert "forest 1 is computed by treelite" in caplog.text
    inputs = loaded.model.signature.check([[1.0, 0.0, 0.0]])
    assert loaded.forms.cheapest(1).predict(inputs, ()).predictions.tolist() in (["yes"], ["no"])


def test_it_serves_natively_until_then_and_no_thread_is_started_before_it_is_told(forest_file, tmp_path, monkeypatch):
    compiler = Compiler().install(monkeypatch)
    optimizer = Optimizer(Settings(cache_dir=tmp_path), Here(), forest_file)
    artifact = read_artifact(forest_file)
    loaded = load_artifact(artifact, TrustPolicy())

    optimizer.plan(loaded, artifact)

    assert (names(loaded), loaded.optimization.state, compiler.compiled) == (["native"], "running", 0)
    optimizer.begin()
    optimizer.begin()
    finish()
    assert (names(loaded), compiler.compiled) == (["native", "treelite"], 1)


def test_the_second_start_takes_the_engines_from_the_cache(start, monkeypatch):
    compiler = Compiler().install(monkeypatch)

    first, second = start(), start()

    assert [one.optimization.source for one in (first, second)] == ["compiled", "cache"]
    assert names(second) == ["native", "treelite"]
    assert compiler.compiled == 1


@pytest.mark.parametrize("damage", ["changed", "answers otherwise", "not listed"])
def test_a_damaged_entry_of_the_cache_is_made_again(start, monkeypatch, tmp_path, damage):
    compiler = Compiler().install(monkeypatch)
    start()
    (entry,) = entries(tmp_path / "cache")
    if damage == "changed":
        (entry / "treelite.bin").write_bytes(b"bad")
    else:
        from fitserve.store.engines import Engines

        files = {path.name: path.read_bytes() for path in entry.iterdir()}
        kept = Engines.of(files)
        compiled = tuple(type(one)(one.engine, b"wrong", one.note) for one in kept.compiled)
        report = () if damage == "not listed" else kept.report
        for name, data in Engines(compiled, report, kept.versions).files().items():
            (entry / name).write_bytes(data)

    loaded = start()

    assert (loaded.optimization.source, names(loaded), compiler.compiled) == ("compiled", ["native", "treelite"], 2)
    assert start().optimization.source == "cache"


@pytest.mark.parametrize(
    ("data", "why"),
    [(b"wrong", "it answers otherwise in this process"), (b"broken", "it raised ValueError in this process")],
)
def test_an_engine_that_is_not_what_was_proven_is_refused(start, monkeypatch, data, why):
    Compiler(data).install(monkeypatch)

    loaded = start()

    assert names(loaded) == ["native"]
    (entry,) = loaded.optimization.report
    assert (entry["verdict"], entry["reason"][: len(why)]) == ("refused", why)


def test_an_engine_beyond_the_bound_of_memory_is_left_alone(start, monkeypatch):
    compiler = Compiler(entry={**ENTRY, "memory_bytes": 10**9}).install(monkeypatch)

    loaded = start()

    assert (names(loaded), compiler.loaded) == (["native"], 0)
    assert "optimize_memory_bytes" in loaded.optimization.report[0]["reason"]
    assert loaded.optimization.reason == "no engine is both proven and faster than the library's own call"


def test_an_engine_that_saves_next_to_nothing_is_not_even_loaded(start, monkeypatch):
    costs = {"cost": {"fixed_s": 8e-6, "per_row_s": 7e-8}, "native_cost": {"fixed_s": 7e-6, "per_row_s": 13e-8}}
    compiler = Compiler(entry={**ENTRY, **costs}).install(monkeypatch)

    loaded = start()

    assert (names(loaded), compiler.loaded) == (["native"], 0)
    assert loaded.optimization.report[0]["reason"] == "it saves too little to be worth its memory"


def test_what_the_engine_cannot_compute_the_library_does(start, monkeypatch):
    Compiler().install(monkeypatch)
    loaded = start()
    inputs = loaded.model.signature.check([[1234567.0, 0.0, 0.0]])

    form = loaded.forms.cheapest(1)

    assert form.name == "treelite"
    assert form.predict(inputs, ()).predictions.tolist() == loaded.model.predict(inputs).predictions.tolist()


def test_a_compiler_that_fails_leaves_the_model_as_it_is(start, monkeypatch):
    compiler = Compiler().install(monkeypatch)
    compiler.entry = None  # it raises

    loaded = start()

    assert names(loaded) == ["native"]
    assert (loaded.optimization.state, loaded.optimization.reason) == ("failed", "it raised TypeError")


def test_without_a_cache_each_start_compiles(start, monkeypatch, tmp_path):
    compiler = Compiler().install(monkeypatch)
    (tmp_path / "file").write_bytes(b"")

    loaded = [start(cache_dir=tmp_path / "file") for _ in range(2)]

    assert [one.optimization.source for one in loaded] == ["compiled", "compiled"]
    assert compiler.compiled == 2


def test_off_does_nothing(start, monkeypatch):
    compiler = Compiler().install(monkeypatch)

    loaded = start(optimize="off")

    assert (loaded.optimization.state, loaded.optimization.reason) == ("off", "optimize = off")
    assert (names(loaded), compiler.compiled) == (["native"], 0)


def test_require_compiles_before_it_serves_and_fails_with_the_reasons(start, forest_file, monkeypatch):
    Compiler().install(monkeypatch)
    assert names(start(optimize="require")) == ["native", "treelite"]

    Compiler(engines=0, entry={**ENTRY, "verdict": "refused", "reason": "3 labels differ"}).install(monkeypatch)
    with pytest.raises(ArtifactError, match=r"has no compiled engine.*treelite: 3 labels differ"):
        start(optimize="require", optimize_timeout_s=77)
    with pytest.raises(ArtifactError, match="more than optimize_memory_bytes"):
        start(optimize="require", optimize_memory_bytes=10)


def test_a_model_with_a_runtime_of_its_own_is_not_compiled(models, tmp_path, start):
    (tmp_path / "own.py").write_text(
        "class Model:\n    example = {'x': 1.0}\n    def predict(self, rows):\n        return [1] * len(rows)\n"
    )
    policy = TrustPolicy(code_path=(tmp_path,))

    loaded = start(tmp_path / "own.py", policy=policy)

    assert (loaded.optimization.state, names(loaded)) == ("off", ["native"])
    assert "its own runtime" in loaded.optimization.reason
    with pytest.raises(ArtifactError, match="no compiled engine"):
        start(tmp_path / "own.py", policy=policy, optimize="require")


@pytest.fixture
def optimizer(tmp_path):
    """An optimizer of live models, whose policy for files says nothing of what is live here already."""
    return Optimizer(Settings(cache_dir=tmp_path / "cache"), Here(TrustPolicy("data")), None)


def test_a_model_of_code_of_its_own_is_not_compiled(monkeypatch, optimizer):
    class Own(LogisticRegression):
        pass

    monkeypatch.setattr(Own, "__module__", "somewhere")
    compiler = Compiler().install(monkeypatch)
    loaded, artifact = adopt(Own().fit([[0.0], [1.0]], [0, 1]), name="live", version=None)

    optimizer.plan(loaded, artifact, Here())
    optimizer.begin()

    assert (loaded.optimization.state, compiler.compiled) == ("off", 0)
    assert loaded.optimization.reason == "the model runs code that no engine knows"


def test_a_live_estimator_is_compiled_from_its_pickle(monkeypatch, optimizer):
    compiler = Compiler().install(monkeypatch)
    X = np.random.default_rng(0).normal(size=(40, 3))
    loaded, artifact = adopt(RandomForestClassifier(20).fit(X, X[:, 0] > 0), name="live", version=None)

    optimizer.plan(loaded, artifact, Here())
    optimizer.begin()
    finish()

    assert (names(loaded), compiler.compiled) == (["native", "treelite"], 1)


def test_a_live_estimator_that_cannot_be_pickled_serves_natively(optimizer, monkeypatch):
    class Local(list):
        def __reduce__(self):
            raise TypeError("never")

    model = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    model.unwanted_ = Local()
    monkeypatch.setattr("copy.deepcopy", lambda it: it)  # which would ask for the same
    loaded, artifact = adopt(model, name="live", version=None)

    optimizer.plan(loaded, artifact)
    optimizer.begin()

    assert loaded.optimization.state == "off"
    assert "cannot be pickled" in loaded.optimization.reason


def test_the_form_that_is_never_the_fastest_is_not_kept(start, monkeypatch):
    class Slow(Compiler):
        def load_compiled(self, compiled, model):
            return lambda inputs, asked: (model.predict(inputs), model.predict(inputs))[1]

    Slow().install(monkeypatch)

    loaded = start()

    assert names(loaded) == ["native"]
    assert loaded.optimization.state == "done"
    assert "faster" in loaded.optimization.reason


def test_forms_are_measured_on_many_rows_without_ties_or_nulls(start, monkeypatch, forest_file):
    measured = []

    class Watching(Compiler):
        def load_compiled(self, compiled, model):
            engine = super().load_compiled(compiled, model)

            def predict(inputs, asked):
                measured.append(inputs)
                return engine(inputs, asked)

            return predict

    Watching().install(monkeypatch)

    loaded = start()

    compared, *timed = measured
    assert len(compared) >= 2
    for inputs in timed:
        first, second = np.sort(loaded.model.predict(inputs).probabilities[0], axis=1)[:, ::-1][:, :2].T
        assert (first - second > 1e-6).all()
        assert np.isfinite(inputs).all()
    assert max(len(np.unique(inputs, axis=0)) for inputs in timed) > 64
