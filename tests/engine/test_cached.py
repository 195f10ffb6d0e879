"""The cache in front of the model: the same answers as without it, computed less often."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from cache.backends import Clock
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.tree import DecisionTreeClassifier

from fitserve.cache.memory import ENTRY_BYTES, MemoryCache
from fitserve.engine.batcher import Batcher
from fitserve.engine.cached import CachedBatcher
from fitserve.engine.executor import Executor
from fitserve.engine.job import Job
from fitserve.errors import FitserveError, InputIssue, InvalidInputError, ModelFailedError
from fitserve.signature import Field, Signature, count_rows
from fitserve.store.catalog import LoadedModel
from fitserve.store.cost import Cost
from fitserve.store.forms import NATIVE, Form, Forms
from fitserve.store.loading import adopt_model
from fitserve.store.trial import Trial
from fitserve.types import ModelFacts, Outputs

NUMBERS = Signature(
    inputs=(Field("a"), Field("b")),
    is_named=True,
    classes=(("no", "yes"),),
    outputs=("predict", "predict_proba", "transform"),
)
MIXED = replace(NUMBERS, inputs=(Field("a"), Field("b", "any", is_nullable=True)))
BAD = -1.0


class Model:
    """Answers each row by its bits and types, and refuses those that begin with ``BAD``."""

    is_library_code = True

    def __init__(self, signature: Signature = NUMBERS, salt: str = "", *, has_object_labels: bool = False) -> None:
        self.signature = signature
        self.facts = ModelFacts("Test", {})
        self.n_computed: Counter[str] = Counter()
        self._salt = salt
        self._has_object_labels = has_object_labels

    def predict(self, inputs, asked=()) -> Outputs:
        columns = inputs.T if isinstance(inputs, np.ndarray) else list(inputs.values())
        texts = [self._salt + repr(row) for row in zip(*[column.tolist() for column in columns], strict=True)]
        self.n_computed.update(texts)
        for i, value in enumerate(columns[0]):
            if value == BAD:
                raise InvalidInputError([InputIssue("a good row", "a bad one", i)])
        labels = np.array(texts, dtype=object if self._has_object_labels else "<U40")
        numbers = np.array([[len(text) / 7, sum(text.encode()) / 3] for text in texts])
        extras = {"transform": numbers.astype(np.float32)} if "transform" in asked else {}
        return Outputs(labels, (numbers,), extras)


def leased(model: Model | None = None, *, digest: str = "d1", is_row_wise: bool = True) -> LoadedModel:
    model = model or Model()
    return LoadedModel(
        name="m",
        version="1",
        digest=digest,
        size_bytes=0,
        format="test",
        model=model,
        loaded_at=datetime.now(UTC),
        loaded_monotonic_s=0.0,
        metadata={},
        verification={},
        forms=Forms(Form(NATIVE, model.predict, Cost())),
        trial=Trial(has_answered=True, is_row_wise=is_row_wise, keeps_labels=is_row_wise),
    )


class Stepped:
    """A batcher that runs what it was given when it is told to."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def submit(self, job: Job) -> None:
        self.jobs.append(job)

    def run(self, index: int = 0, *, error: BaseException | None = None) -> None:
        job = self.jobs.pop(index)
        if job.is_cancelled:
            return
        job.started_s, job.ended_s = 1.0, 2.0
        try:
            if error is not None:
                raise error
            job.outputs = job.lease.model.predict(job.inputs, job.extras)
        except FitserveError as exc:
            job.error = exc
        job.on_done(job)

    def run_all(self) -> None:
        while self.jobs:
            self.run()


@dataclass
class House:
    """A cache over a stepped batcher, and what was told of each job."""

    max_bytes: int = 2**20
    metrics: object = None
    clock: Clock = field(default_factory=Clock)
    done: list[Job] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.batcher = Stepped()
        self.cache = MemoryCache(self.max_bytes, 10, self.clock)
        self.cached = CachedBatcher(self.batcher, self.cache, self.metrics)

    def submit(self, lease: LoadedModel, table, *extras: str, deadline_s: float | None = None) -> Job:
        inputs = lease.model.signature.check(table)
        return self.submit_job(Job(lease, inputs, count_rows(table), extras, deadline_s, self.done.append))

    def submit_job(self, job: Job) -> Job:
        self.cached.submit(job)
        return job

    def answered(self, lease: LoadedModel, table, *extras: str) -> Job:
        job = self.submit(lease, table, *extras)
        self.batcher.run_all()
        return job


def same(left: Outputs, right: Outputs) -> bool:
    pairs = [
        (left.predictions, right.predictions),
        *zip(left.probabilities, right.probabilities, strict=True),
        *((left.extras[name], right.extras[name]) for name in {*left.extras, *right.extras}),
    ]
    return all(
        one.dtype == other.dtype and one.shape == other.shape and one.tolist() == other.tolist() for one, other in pairs
    )


def direct(job: Job) -> Outputs:
    return job.lease.model.predict(job.inputs, job.extras)


def test_a_row_is_computed_once_and_answered_twice():
    house, lease = House(), leased()
    first = house.answered(lease, [[1, 2]])
    second = house.submit(lease, [{"b": 2, "a": 1}])

    assert house.done == [first, second]
    assert (first.is_cached, second.is_cached) == (False, True)
    assert sum(lease.model.n_computed.values()) == 1
    assert same(second.outputs, direct(first))
    assert 0 < second.submitted_s <= second.started_s <= second.ended_s


def test_a_batch_computes_only_its_missing_rows_each_once_and_keeps_their_order():
    house, lease = House(), leased()
    house.answered(lease, [[1, 1], [2, 2]])
    lease.model.n_computed.clear()
    job = house.answered(
        lease,
        {"a": [3, 1, 4, 3, 2], "b": [3, 1, 4, 3, 2]},
    )

    assert lease.model.n_computed == {"(3.0, 3.0)": 1, "(4.0, 4.0)": 1}
    assert job.is_cached is False
    assert same(job.outputs, direct(job))
    assert job.started_s == 1.0
    assert job.ended_s >= job.submitted_s
    assert house.cached.statistics().items() >= {"hit": 2, "miss": 4, "shared": 1, "entries": 4}.items()


@pytest.mark.parametrize("has_object_labels", [False, True])
def test_outputs_keep_their_types_and_extras_are_apart(has_object_labels):
    house, lease = House(), leased(Model(MIXED, has_object_labels=has_object_labels))
    table = [[1, "x"], [1, None], [1, True], [1, 1.0], [1, 1]]
    house.answered(lease, table)
    with_extra = house.answered(lease, table, "transform")
    again = [house.submit(lease, table), house.submit(lease, table, "transform")]

    assert with_extra.is_cached is False
    assert [job.is_cached for job in again] == [True, True]
    assert all(same(job.outputs, direct(job)) for job in again)
    assert len(set(again[0].outputs.predictions)) == 5


@pytest.mark.parametrize("missing", [np.nan, -np.nan])
def test_a_missing_number_is_one_value_whatever_its_bits(missing):
    house, lease = House(), leased(Model(replace(NUMBERS, inputs=(Field("a", is_nullable=True), Field("b")))))
    known = house.answered(lease, [[None, 2]])
    job = Job(lease, np.array([[missing, 2.0]]), 1, (), None, house.done.append)
    house.submit_job(job)

    assert job.is_cached is True
    assert same(job.outputs, known.outputs)


def test_a_switch_to_other_bytes_of_the_same_name_and_version_never_serves_an_old_answer():
    house, old, new = House(), leased(Model(salt="old"), digest="d1"), leased(Model(salt="new"), digest="d2")
    house.answered(old, [[1, 2]])
    job = house.answered(new, [[1, 2]])

    assert job.is_cached is False
    assert same(job.outputs, direct(job))
    assert job.outputs.predictions[0].startswith("new")


def test_a_job_does_not_wait_for_rows_of_another_version():
    house, old, new = House(), leased(Model(salt="old"), digest="d1"), leased(Model(salt="new"), digest="d2")
    house.submit(old, [[1, 2]])
    house.submit(new, [[1, 2]])

    assert [job.lease for job in house.batcher.jobs] == [old, new]


def test_a_manifest_that_gives_the_same_bytes_other_classes_is_another_version():
    house, one = House(), leased()
    signature = replace(NUMBERS, classes=(("good", "bad"),))
    house.answered(one, [[1, 2]])

    assert house.answered(leased(Model(signature, salt="other")), [[1, 2]]).is_cached is False


def test_the_same_bytes_loaded_again_find_what_is_known():
    house = House()
    house.answered(leased(), [[1, 2]])

    assert house.answered(leased(), [[1, 2]]).is_cached is True


def test_a_version_is_let_go_of():
    house, lease = House(), leased()
    house.answered(lease, [[1, 2]])
    is_alive = weakref.ref(lease)
    house.done.clear()
    del lease
    gc.collect()

    assert is_alive() is None
    assert house.cached._keys == {}


@pytest.mark.parametrize("is_library_code", [False, True])
def test_what_may_hang_on_more_than_the_row_is_not_cached(is_library_code):
    model = Model()
    model.is_library_code = is_library_code
    house, lease = House(), leased(model, is_row_wise=not is_library_code)
    jobs = [house.answered(lease, [[1, 2]]) for _ in range(2)]

    assert [job.is_cached for job in jobs] == [False, False]
    assert sum(model.n_computed.values()) == 2


def test_jobs_that_come_while_a_row_is_computed_wait_for_it():
    house, lease = House(), leased()
    jobs = [house.submit(lease, [[1, 2]]), house.submit(lease, [[1, 2]]), house.submit(lease, [[3, 4], [1, 2]])]
    house.batcher.run_all()

    assert set(house.done) == set(jobs)
    assert lease.model.n_computed == {"(1.0, 2.0)": 1, "(3.0, 4.0)": 1}
    assert [job.is_cached for job in jobs] == [False] * 3
    assert all(same(job.outputs, direct(job)) for job in jobs)
    assert house.cached.statistics().items() >= {"hit": 0, "miss": 2, "shared": 2}.items()


def test_a_job_that_waits_for_several_is_done_when_the_last_one_is():
    house, lease = House(), leased()
    house.submit(lease, [[1, 1]])
    house.submit(lease, [[2, 2]])
    both = house.submit(lease, [[1, 1], [2, 2]])
    house.batcher.run(1)
    before = both in house.done
    house.batcher.run()

    assert not before
    assert both in house.done
    assert same(both.outputs, direct(both))


def test_who_waited_for_a_call_that_failed_is_computed_without_it():
    house, lease = House(), leased()
    first, second = house.submit(lease, [[1, 2]], deadline_s=5.0), house.submit(lease, [[1, 2]])
    house.batcher.run(error=ModelFailedError("too late"))

    assert house.done == [first]
    assert isinstance(first.error, ModelFailedError)
    assert [job.deadline_s for job in house.batcher.jobs] == [None]

    house.batcher.run_all()

    assert second.error is None
    assert same(second.outputs, direct(second))


def test_one_bad_row_hurts_only_who_sent_it_and_is_named_by_its_place_in_his_request():
    house, lease = House(), leased()
    house.answered(lease, [[1, 1]])
    bad = house.submit(lease, [[1, 1], [2, 2], [BAD, 0]])
    good = house.submit(lease, [[2, 2], [3, 3]])
    house.batcher.run_all()

    assert bad.error.issues[0].row == 2
    assert good.error is None
    assert same(good.outputs, direct(good))


def test_an_error_is_not_kept():
    house, lease = House(), leased()
    house.submit(lease, [[1, 2]])
    house.batcher.run(error=ModelFailedError("once"))
    again = house.answered(lease, [[1, 2]])

    assert again.is_cached is False
    assert again.error is None


def test_a_cancelled_job_is_not_computed_and_not_told():
    house, lease = House(), leased()
    job = house.submit(lease, [[1, 2]])
    job.cancel()
    house.batcher.run_all()

    assert house.done == []
    assert lease.model.n_computed == {}


def test_a_cancelled_job_does_not_take_the_rows_from_who_waits_for_them():
    house, lease = House(), leased()
    first, second = house.submit(lease, [[1, 2]]), house.submit(lease, [[1, 2]])
    first.cancel()
    house.batcher.run_all()

    assert house.done == [second]
    assert same(second.outputs, direct(second))


def test_a_row_that_nobody_waited_for_any_more_is_computed_for_who_comes_later():
    house, lease = House(), leased()
    house.submit(lease, [[1, 2]]).cancel()
    later = house.submit(lease, [[1, 2]])
    house.batcher.run_all()

    assert house.done == [later]
    assert later.error is None


def test_a_job_cancelled_by_the_callback_of_another_one_is_not_told():
    house, lease = House(), leased()
    first, second = house.submit(lease, [[1, 2]]), house.submit(lease, [[1, 2]])
    first.on_done = lambda _: second.cancel()
    house.batcher.run_all()

    assert house.done == []


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_callback_that_raises_harms_nobody_else(is_whole, caplog):
    house, lease = House(), leased()
    if not is_whole:
        house.answered(lease, [[3, 4]])
    house.done.clear()
    first, second = house.submit(lease, [[1, 2], [3, 4]]), house.submit(lease, [[1, 2]])
    first.on_done = lambda _: 1 / 0
    house.batcher.run_all()

    assert house.done == [second]
    assert "ZeroDivisionError" in caplog.text


def test_deadlines_go_with_the_rows():
    house, lease = House(), leased()
    house.submit(lease, [[1, 2], [1, 2]], deadline_s=3.5)

    assert house.batcher.jobs[0].deadline_s == 3.5


@pytest.mark.parametrize(
    "outputs",
    [
        Outputs(np.zeros(3)),
        Outputs(np.array([object(), object()])),
        Outputs(np.zeros(2), (np.zeros((1, 2)),)),
    ],
    ids=["too many rows", "no plain objects", "too few probabilities"],
)
def test_outputs_that_cannot_be_kept_go_as_they_are_to_each_job(outputs, monkeypatch):
    house, lease = House(), leased()
    monkeypatch.setattr(lease.model, "predict", lambda inputs, asked: outputs)
    jobs = [
        house.submit(lease, [[1, 1], [2, 2]]),
        house.submit(lease, [[2, 2], [1, 1]]),
        house.submit(lease, [[1, 1]] * 2),
    ]
    house.batcher.run_all()

    assert [job.outputs for job in jobs] == [outputs] * 3
    assert house.cached.statistics()["entries"] == 0


def test_rows_of_calls_that_gave_other_types_are_computed_together(monkeypatch):
    house, lease = House(), leased()
    monkeypatch.setattr(
        lease.model, "predict", lambda inputs, _: Outputs(np.array(["x" * int(a) for a in inputs[:, 0]]))
    )
    for a in (1, 2):
        house.answered(lease, [[a, 0]])
    job = house.answered(lease, [[1, 0], [2, 0]])

    assert job.outputs.predictions.dtype == "<U2"
    assert job.is_cached is False


def test_old_rows_are_computed_anew():
    house, lease = House(), leased()
    house.answered(lease, [[1, 2]])
    house.clock.now_s += 10

    assert house.answered(lease, [[1, 2]]).is_cached is False


def test_a_cache_that_answers_later_finds_a_job_that_was_cancelled_meanwhile():
    house, lease = House(), leased()
    waiting = []
    house.cache.get_many = lambda keys, then: waiting.append((keys, then))
    gone, job = house.submit(lease, [[1, 2]]), house.submit(lease, [[1, 2]])
    gone.cancel()
    for keys, then in waiting:
        then([None] * len(keys))
    house.batcher.run_all()

    assert house.done == [job]


def test_metrics_and_statistics_tell_of_every_row():
    class Metrics:
        def __init__(self):
            self.events = Counter()
            self.n_bytes = 0

        def cache(self, event, n_rows):
            self.events[event] += n_rows

        def cache_bytes(self, n_bytes):
            self.n_bytes = n_bytes

    metrics = Metrics()
    house, lease = House(max_bytes=2 * (ENTRY_BYTES + 400), metrics=metrics), leased()
    house.answered(lease, [[1, 1], [1, 1], [2, 2]])
    house.answered(lease, [[2, 2]])
    house.answered(lease, [[3, 3]])
    house.clock.now_s += 10
    house.answered(lease, [[3, 3]])
    statistics = house.cached.statistics()

    assert metrics.events == {"hit": 1, "miss": 4, "shared": 1, "evicted": 1, "expired": 1}
    assert statistics.items() >= metrics.events.items()
    assert metrics.n_bytes == statistics["bytes"] > 0


ROWS = st.lists(
    st.tuples(st.sampled_from([BAD, 0.0, -0.0, 1.0, 2.0]), st.sampled_from(["1", 1, 1.0, True, None])),
    min_size=1,
    max_size=6,
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), ROWS, st.sampled_from("lox"), st.integers(0, 2), st.booleans()),
        st.tuples(st.just("run"), st.integers(0, 20)),
        st.tuples(st.just("fail"), st.integers(0, 20)),
        st.tuples(st.just("cancel"), st.integers(0, 20)),
        st.tuples(st.just("wait"), st.floats(0, 12)),
    ),
    max_size=40,
)


def in_form(rows, form: str):
    if form == "l":
        return [list(row) for row in rows]
    if form == "o":
        return [dict(zip("ba", row[::-1], strict=True)) for row in rows]
    return {"a": [row[0] for row in rows], "b": [row[1] for row in rows]}


@settings(max_examples=300, deadline=None)
@given(STEPS, st.sampled_from([1000, 3000, 10**6]))
def test_whatever_happens_each_job_gets_the_answer_that_it_gets_without_a_cache(steps, max_bytes):
    house = House(max_bytes)
    leases = [
        leased(Model(MIXED, "one"), digest="d1"),
        leased(Model(MIXED, "two", has_object_labels=True), digest="d2"),
        leased(Model(MIXED, "one"), digest="d1"),
    ]
    jobs: list[Job] = []
    passing = ModelFailedError("passing")
    for step in steps:
        match step:
            case "submit", rows, form, version, has_extra:
                extras = ("transform",) if has_extra else ()
                jobs.append(house.submit(leases[version], in_form(rows, form), *extras))
            case "run", number if house.batcher.jobs:
                house.batcher.run(number % len(house.batcher.jobs))
            case "fail", number if house.batcher.jobs:
                house.batcher.run(number % len(house.batcher.jobs), error=passing)
            case "cancel", number if jobs:
                jobs[number % len(jobs)].cancel()
            case "wait", seconds:
                house.clock.now_s += seconds
    house.batcher.run_all()

    told = Counter(house.done)
    assert house.cached._flights == {}
    assert set(told.values()) <= {1}
    assert all(job in told or job.is_cancelled for job in jobs)
    for job in told:
        if job.error is passing:
            continue
        try:
            wanted = direct(job)
        except InvalidInputError as exc:
            assert str(job.error) == str(exc)
            assert job.is_cached is False
        else:
            assert job.error is None
            assert same(job.outputs, wanted)


@pytest.fixture(scope="module")
def real_models() -> dict[str, LoadedModel]:
    """Models whose labels are numbers, texts of one width, and objects; and one of columns."""
    X, y = load_iris(return_X_y=True)
    species = load_iris().target_names[y]
    frame = pd.DataFrame({"x": X[:, 0], "kind": np.where(X[:, 1] > 3, "wide", "slim")})
    mixed = make_pipeline(
        ColumnTransformer([("kind", OneHotEncoder(handle_unknown="ignore"), ["kind"])], remainder="passthrough"),
        LogisticRegression(),
    )
    found = {
        "numbers": LogisticRegression(max_iter=1000).fit(X, y),
        "texts": RandomForestClassifier(10, random_state=0).fit(X, species),
        "objects": DecisionTreeClassifier(random_state=0).fit(X, species.astype(object)),
        "several": RandomForestRegressor(10, random_state=0).fit(X, X[:, :2]),
        "columns": mixed.fit(frame, species),
    }
    return {name: adopt_model(model, name=name, version="1") for name, model in found.items()}


@pytest.mark.parametrize("name", ["numbers", "texts", "objects", "several", "columns"])
@pytest.mark.anyio
async def test_many_callers_of_a_real_model_get_what_they_get_without_a_cache(real_models, name):
    lease, random = real_models[name], np.random.default_rng(0)
    X = load_iris().data
    pool = [[x, kind] for x in (5.0, 5.5, 6.1) for kind in ("wide", "slim")] if name == "columns" else X[::15].tolist()
    batcher = Batcher(Executor(2))
    cached = CachedBatcher(batcher, MemoryCache(10_000, 10, Clock()))
    tables = [[pool[i] for i in random.integers(0, len(pool), random.integers(1, 8))] for _ in range(100)]

    async def ask(to, rows) -> Outputs:
        await asyncio.sleep(0)
        done = asyncio.get_running_loop().create_future()
        to.submit(Job(lease, lease.model.signature.check(rows), len(rows), (), None, done.set_result))
        job = await done
        assert job.error is None
        return job.outputs

    answers = [await asyncio.gather(*[ask(cached, rows) for rows in tables[i : i + 10]]) for i in range(0, 100, 10)]
    wanted = [await ask(batcher, rows) for rows in tables]

    counts = cached.statistics()
    assert counts["hit"] > 0 < counts["shared"]
    for got, want in zip([one for ten in answers for one in ten], wanted, strict=True):
        assert got.predictions.dtype == want.predictions.dtype
        assert got.predictions.tolist() == want.predictions.tolist()
        assert (got.probabilities is None) == (want.probabilities is None)
        for one, other in zip(got.probabilities or (), want.probabilities or (), strict=True):
            # A sum of products may differ in its last digit between one row and many.
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=0)
