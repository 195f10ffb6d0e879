"""Jobs on their way: merged, divided again, and never each other's fault."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from fitserve.engine.batcher import INLINE_S, Batcher
from fitserve.engine.executor import Executor
from fitserve.engine.job import Job
from fitserve.errors import DeadlineExceededError, InputIssue, InvalidInputError, ModelFailedError
from fitserve.signature import Field, Signature
from fitserve.store.cost import Cost
from fitserve.store.forms import NATIVE, Form, Forms
from fitserve.store.loading import adopt_model
from fitserve.types import Outputs

pytestmark = pytest.mark.anyio

BAD, ENDS, REFUSED, EXTRA_ROW = -13.0, -14.0, -15.0, -16.0
"""First features at which the model raises, ends the process, refuses the row, and answers once more."""

SLOW = 1.0
"""A cost that no event loop bears."""


class KnownCost(Cost):
    """One that learns nothing, so that it is known where a call runs."""

    def learn(self, n_rows, seconds):
        pass


class Version:
    """A version as the batcher sees one: row-wise, and of library code. Notes its calls; waits at its gate."""

    def __init__(self, fixed_s=1e-6, per_row_s=0.0, *, is_row_wise=True, is_library_code=True, is_gated=False):
        self.name, self.version = "m", "1"
        self.model = SimpleNamespace(is_library_code=is_library_code)
        self.trial = SimpleNamespace(has_answered=True, keeps_labels=is_row_wise)
        self.forms = Forms(Form(NATIVE, self.predict, KnownCost(fixed_s, per_row_s)))
        self.calls = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()
        if not is_gated:
            self.gate.set()

    def predict(self, inputs, asked=()):
        self.calls.append((inputs, threading.current_thread() is threading.main_thread()))
        self.entered.release()
        assert self.gate.wait(30)
        first = inputs[:, 0] if isinstance(inputs, np.ndarray) else inputs["a"]
        what = first.tolist()
        if BAD in what:
            raise ValueError("bad")
        if ENDS in what:
            raise SystemExit
        if REFUSED in what:
            raise InvalidInputError([InputIssue("another row", "this", row=what.index(REFUSED))])
        if EXTRA_ROW in what:
            first = np.append(first, 0.0)
        probabilities = np.column_stack([first / 3, first * 0.1])
        return Outputs(first * 2, (probabilities,), dict.fromkeys(asked, first + 1))

    @property
    def sizes(self):
        return [len(inputs if isinstance(inputs, np.ndarray) else inputs["a"]) for inputs, _ in self.calls]


class Callers:
    """Submit jobs, and wait until all have been told."""

    def __init__(self, batcher):
        self.batcher = batcher
        self.jobs = []
        self.told = []

    def submit(self, version, *rows, extras=(), deadline_s=None, inputs=None):
        X = np.array([[float(row), 0.0] for row in rows]) if inputs is None else inputs
        n_rows = len(X) if isinstance(X, np.ndarray) else len(next(iter(X.values())))
        job = Job(version, X, n_rows, extras, deadline_s, self.told.append)
        self.jobs.append(job)
        self.batcher.submit(job)
        return job

    async def all_told(self, timeout_s=30):
        deadline_s = time.monotonic() + timeout_s
        while len(self.told) < len([job for job in self.jobs if not job.is_cancelled]):
            assert time.monotonic() < deadline_s, "a job was forgotten"
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.005)
        assert len(set(map(id, self.told))) == len(self.told), "a job was told twice"


@pytest.fixture
def callers():
    return Callers(Batcher(Executor(2), max_rows=100))


def answers(job):
    """The outputs of a job, as lists."""
    return job.outputs and (job.outputs.predictions.tolist(), job.outputs.probabilities[0].tolist())


def alone(*rows):
    """What rows get alone."""
    outputs = Version().predict(np.array([[float(row), 0.0] for row in rows]))
    return outputs.predictions.tolist(), outputs.probabilities[0].tolist()


async def await_call(version):
    assert await asyncio.to_thread(version.entered.acquire, timeout=30)


# ── where and when ──────────────────────────────────────────────────────────────────────


async def test_what_comes_in_one_turn_of_the_loop_is_computed_together_on_it(callers):
    version = Version()
    callers.submit(version, 1)
    callers.submit(version, 2, 3)
    callers.submit(version, 4)
    nobody_yet = not callers.told
    await callers.all_told()

    assert nobody_yet
    assert version.sizes == [4]
    assert version.calls[0][1], "on the event loop"
    assert [answers(job) for job in callers.jobs] == [alone(1), alone(2, 3), alone(4)]
    assert callers.told == callers.jobs


async def test_a_lone_job_is_computed_in_the_next_turn(callers):
    job = callers.submit(Version(), 5)
    await asyncio.sleep(0)

    assert callers.told == [job]
    assert answers(job) == alone(5)
    assert job.submitted_s <= job.started_s <= job.ended_s


class Ticking(Version):
    """Each call takes ``call_s`` on a clock of its own."""

    def __init__(self, call_s, **costs):
        self.now_s, self.call_s = 100.0, call_s
        super().__init__(**costs)

    def predict(self, inputs, asked=()):
        self.now_s += self.call_s
        return super().predict(inputs, asked)

    def clock(self):
        return self.now_s


async def test_a_job_that_ends_the_turn_is_computed_at_once_but_after_those_before_it(callers):
    version = Version()
    first = Job(version, np.ones((1, 2)), 1, (), None, callers.told.append)
    callers.batcher.submit(first, ends_turn=True)
    told = list(callers.told)
    before = callers.submit(version, 2)
    second = Job(version, np.ones((1, 2)), 1, (), None, callers.told.append)
    callers.batcher.submit(second, ends_turn=True)
    not_yet = len(callers.told)
    await asyncio.sleep(0)

    assert told == [first]
    assert not_yet == 1
    assert callers.told == [first, before, second]
    assert version.sizes == [1, 2]


async def test_work_on_the_loop_is_sliced_with_the_loop_in_between():
    version = Ticking(2 * INLINE_S, per_row_s=INLINE_S / 4)
    callers = Callers(Batcher(Executor(1), max_rows=100, clock=version.clock))
    calls_by_turn = []

    def turn():
        calls_by_turn.append(len(version.calls))
        if len(calls_by_turn) < 6:
            asyncio.get_running_loop().call_soon(turn)

    for i in range(12):
        callers.submit(version, i)
    turn()
    await callers.all_told()

    assert version.sizes == [3, 3, 3, 3]
    assert calls_by_turn == [0, 1, 2, 3, 4, 4]
    assert all(on_loop for _, on_loop in version.calls)


@pytest.mark.parametrize(
    "version",
    [Version(SLOW), Version(is_library_code=False), Version(0.0, INLINE_S)],
    ids=["slow", "a user's own", "slow by row"],
)
async def test_what_the_loop_must_not_wait_for_runs_on_a_thread(callers, version):
    callers.submit(version, 1)
    await callers.all_told()

    assert [on_loop for _, on_loop in version.calls] == [False]
    assert answers(callers.jobs[0]) == alone(1)


async def test_a_model_that_has_not_answered_yet_runs_on_a_thread(callers):
    version = Version()
    version.trial.has_answered = False
    callers.submit(version, 1)
    await callers.all_told()

    assert [on_loop for _, on_loop in version.calls] == [False]


async def test_what_comes_while_the_model_is_busy_is_computed_together_after(callers):
    version = Version(SLOW, is_gated=True)
    callers.submit(version, 0)
    await await_call(version)
    for i in range(1, 50):
        callers.submit(version, i)
    version.gate.set()
    await callers.all_told()

    assert version.sizes == [1, 49]
    assert [answers(job) for job in callers.jobs] == [alone(i) for i in range(50)]


async def test_a_call_has_no_more_rows_than_the_policy_allows():
    callers = Callers(Batcher(Executor(1), max_rows=100))
    version = Version(SLOW, is_gated=True)
    callers.submit(version, 0)
    await await_call(version)
    for i in range(30):
        callers.submit(version, *range(i, i + 9))
    version.gate.set()
    await callers.all_told()

    assert version.sizes == [1, 99, 99, 72]


async def test_rows_that_cost_are_computed_on_all_threads_at_once(callers):
    version = Version(0.0, SLOW, is_gated=True)
    for i in range(4):
        callers.submit(version, i)
    await await_call(version)
    await await_call(version)
    version.gate.set()
    await callers.all_told()

    assert version.sizes == [1, 1, 1, 1]


async def test_a_busy_version_does_not_keep_another_one_waiting():
    callers = Callers(Batcher(Executor(1), max_rows=100))
    busy, other = Version(0.0, SLOW, is_gated=True), Version(SLOW)
    for i in range(10):
        callers.submit(busy, i)
    await await_call(busy)
    last = callers.submit(other, 1)
    busy.gate.set()
    await callers.all_told()

    assert callers.told.index(last) <= 2


async def test_by_default_nobody_waits_for_company(callers):
    version = Version(SLOW, is_gated=True)
    callers.submit(version, 1)

    await await_call(version)
    version.gate.set()
    await callers.all_told()


async def test_with_a_wait_the_first_job_waits_for_company():
    callers = Callers(Batcher(Executor(2), max_rows=100, wait_s=0.05))
    version = Version(SLOW)
    callers.submit(version, 1)
    await asyncio.sleep(0.01)
    before = version.sizes
    callers.submit(version, 2)
    await callers.all_told()

    assert before == []
    assert version.sizes == [2]


async def test_a_full_call_and_one_that_would_be_late_do_not_wait():
    callers = Callers(Batcher(Executor(2), max_rows=10, wait_s=1.0))
    full, late = Version(SLOW), Version(SLOW)
    callers.submit(full, *range(6))
    callers.submit(full, *range(4))
    callers.submit(late, 1, deadline_s=time.perf_counter() + 0.9)
    await callers.all_told(timeout_s=0.8)

    assert full.sizes == [10]
    assert callers.jobs[2].error is None


# ── who may share a call ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("fixed_s", [1e-6, SLOW], ids=["loop", "thread"])
async def test_a_model_that_is_not_row_wise_gets_each_job_alone(callers, fixed_s):
    version = Version(fixed_s, is_row_wise=False)
    for i in range(6):
        callers.submit(version, i, i)
    await callers.all_told()

    assert version.sizes == [2] * 6


@pytest.mark.parametrize("fixed_s", [1e-6, SLOW], ids=["loop", "thread"])
async def test_only_jobs_of_one_kind_share_a_call(fixed_s):
    callers = Callers(Batcher(Executor(1), max_rows=100))
    busy, one, other = Version(SLOW, is_gated=True), Version(fixed_s), Version(fixed_s)
    callers.submit(busy, 0)
    await await_call(busy)
    words = np.array(["x"], dtype=object)
    for _ in range(2):
        callers.submit(one, 1)
        callers.submit(other, 2)
        callers.submit(one, inputs=np.array([[3.0, 0.0, 0.0]]))
        callers.submit(one, inputs={"a": np.array([4.0]), "b": words})
        callers.submit(one, inputs={"a": np.array([5.0]), "b": np.array([None], dtype=object)})
        callers.submit(one, inputs={"a": np.array([6.0], dtype=object), "b": words})
    busy.gate.set()
    await callers.all_told()

    def kinds(version):
        return sorted(
            {float(value) for value in (X[:, 0] if isinstance(X, np.ndarray) else X["a"])} for X, _ in version.calls
        )

    assert sorted(map(min, kinds(one))) == [1, 3, 4, 5, 6]
    assert all(len(kind) == 1 for kind in kinds(one))
    assert one.sizes == [2] * 5
    assert other.sizes == [2]
    assert [job.outputs.predictions.tolist() for job in callers.jobs[1:7]] == [[2], [4], [6], [8], [10], [12]]


async def test_what_is_asked_besides_is_divided_too_and_teaches_nothing():
    callers = Callers(Batcher(Executor(1), max_rows=100))
    version = Version(SLOW, is_gated=True)
    learnt = []
    version.forms.native.cost.learn = lambda n_rows, seconds: learnt.append(n_rows)
    callers.submit(version, 0)
    await await_call(version)
    asked = [callers.submit(version, i, i + 1, extras=("decision_function",)) for i in range(3)]
    callers.submit(version, 9)
    version.gate.set()
    await callers.all_told()

    assert sorted(version.sizes) == [1, 1, 6]
    assert [job.outputs.extras["decision_function"].tolist() for job in asked] == [[1, 2], [2, 3], [3, 4]]
    assert learnt == [1, 1]


async def test_columns_are_put_together_by_name(callers):
    version = Version()
    for i in range(3):
        callers.submit(version, inputs={"a": np.array([float(i)]), "b": np.array([str(i)], dtype=object)})
    await callers.all_told()

    merged = version.calls[0][0]
    assert merged["a"].tolist() == [0, 1, 2]
    assert merged["b"].tolist() == ["0", "1", "2"]
    assert merged["b"].dtype == object


# ── faults ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("fixed_s", [1e-6, SLOW], ids=["loop", "thread"])
@pytest.mark.parametrize("what", [BAD, ENDS, REFUSED])
async def test_one_bad_row_hurts_one_caller(fixed_s, what):
    callers = Callers(Batcher(Executor(1), max_rows=100))
    busy, version = Version(SLOW, is_gated=True), Version(fixed_s)
    callers.submit(busy, 0)
    await await_call(busy)
    for i in range(9):
        callers.submit(version, *([1, 2, what] if i == 4 else [i, i]))
    busy.gate.set()
    await callers.all_told()

    jobs = callers.jobs[1:]
    bad = jobs.pop(4)
    assert isinstance(bad.error, InvalidInputError if what == REFUSED else ModelFailedError)
    assert bad.outputs is None
    if what == REFUSED:
        assert bad.error.issues[0].row == 2, "the row of its own request"
    else:
        assert type(bad.error.__cause__) in {ValueError, SystemExit}
    assert [answers(job) for job in jobs] == [alone(i, i) for i in (0, 1, 2, 3, 5, 6, 7, 8)]
    assert all(job.error is None for job in jobs)
    assert len(version.calls) <= 1 + 2 * 4


async def test_a_model_that_fails_always_gives_each_job_its_own_error(callers):
    version = Version()
    for _ in range(8):
        callers.submit(version, BAD)
    await callers.all_told()

    assert len({id(job.error) for job in callers.jobs}) == 8
    assert len(version.calls) == 15


async def test_rows_are_never_given_to_another_where_their_number_is_wrong(callers):
    version = Version()
    for i in (1, 2, EXTRA_ROW, 4):
        callers.submit(version, i)
    await callers.all_told()

    good = [callers.jobs[i] for i in (0, 1, 3)]
    assert [answers(job) for job in good] == [alone(1), alone(2), alone(4)]
    assert len(callers.jobs[2].outputs.predictions) == 2, "the engine looks at what a job got alone"


async def test_a_callback_that_raises_harms_no_neighbour(callers, caplog):
    version = Version()
    jobs = [callers.submit(version, i) for i in range(3)]
    told = []

    def fail(job):
        told.append(job)
        raise RuntimeError("ours")

    jobs[1].on_done = fail
    callers.jobs.remove(jobs[1])
    await callers.all_told()
    again = callers.submit(version, 7)
    await callers.all_told()

    assert told == [jobs[1]]
    assert callers.told == [jobs[0], jobs[2], again]
    assert "the callback of a job raised" in caplog.text


async def test_a_callback_may_submit_the_next_job(callers):
    for version in (Version(), Version(SLOW)):
        left = [20]
        done = asyncio.get_running_loop().create_future()

        def again(job, left=left, done=done, version=version):
            left[0] -= 1
            if left[0] > 2:
                callers.batcher.submit(Job(version, np.zeros((1, 2)), 1, (), None, again))
            elif left[0] == 0:
                done.set_result(None)

        for _ in range(3):
            callers.batcher.submit(Job(version, np.zeros((1, 2)), 1, (), None, again))
        await asyncio.wait_for(done, 30)

        assert sum(version.sizes) == 20


async def test_those_who_come_back_at_once_share_the_next_call(callers):
    version = Version(SLOW, is_gated=True)
    callers.submit(version, 0)
    await await_call(version)

    def again(job):
        callers.told.append(job)
        callers.submit(version, 5)

    for i in range(1, 5):
        callers.submit(version, i).on_done = again
    version.gate.set()
    await callers.all_told()

    assert version.sizes == [1, 4, 4]


async def test_where_no_thread_can_be_started_each_job_is_told():
    class Exhausted(Executor):
        def submit(self, call, done):
            raise RuntimeError("can't start new thread")

    callers = Callers(Batcher(Exhausted(1), max_rows=100))
    for i in range(3):
        callers.submit(Version(SLOW), i)
    await callers.all_told()

    assert all(isinstance(job.error, ModelFailedError) for job in callers.jobs)


# ── those who leave, and those who are late ─────────────────────────────────────────────


@pytest.mark.parametrize("fixed_s", [1e-6, SLOW], ids=["loop", "thread"])
async def test_a_cancelled_job_is_dropped_and_harms_no_neighbour(fixed_s):
    callers = Callers(Batcher(Executor(1), max_rows=100))
    busy, version = Version(SLOW, is_gated=True), Version(fixed_s)
    callers.submit(busy, 0)
    await await_call(busy)
    jobs = [callers.submit(version, i) for i in range(4)]
    jobs[0].cancel()
    jobs[2].cancel()
    busy.gate.set()
    await callers.all_told()

    assert version.sizes == [2]
    assert [answers(jobs[1]), answers(jobs[3])] == [alone(1), alone(3)]
    assert callers.batcher.statistics()["cancelled_jobs"] == 2


async def test_a_job_that_is_cancelled_while_it_is_computed_is_not_told(callers):
    version = Version(SLOW, is_gated=True)
    job = callers.submit(version, 1)
    await await_call(version)
    neighbours = [callers.submit(version, i) for i in (2, 3)]
    job.cancel()
    version.gate.set()
    await callers.all_told()

    assert callers.told == neighbours


async def test_a_lone_job_that_is_cancelled_is_not_computed(callers):
    version = Version()
    callers.submit(version, 1).cancel()
    await callers.all_told()

    assert version.calls == []


@pytest.mark.parametrize("n_jobs", [1, 3])
async def test_what_is_late_is_not_computed(callers, n_jobs):
    version = Version()
    for i in range(n_jobs):
        callers.submit(version, i, deadline_s=time.perf_counter() - 1)
    await callers.all_told()

    assert version.calls == []
    assert all(isinstance(job.error, DeadlineExceededError) for job in callers.jobs)
    assert callers.batcher.statistics()["expired_jobs"] == n_jobs


async def test_a_job_is_told_at_its_deadline_though_the_model_is_stuck():
    callers = Callers(Batcher(Executor(1), max_rows=100))
    version = Version(SLOW, is_gated=True)
    stuck = callers.submit(version, 0)
    await await_call(version)
    now = time.perf_counter()
    late = [callers.submit(version, i, deadline_s=now + wait) for i, wait in ((1, 0.05), (2, 0.02))]
    patient = callers.submit(version, 3, deadline_s=now + 60)
    while len(callers.told) < 2:
        await asyncio.sleep(0.005)
    first_told = list(callers.told)
    version.gate.set()
    await callers.all_told()

    assert first_told == late[::-1]
    assert all(isinstance(job.error, DeadlineExceededError) for job in late)
    assert [answers(stuck), answers(patient)] == [alone(0), alone(3)]
    assert version.sizes == [1, 1]


async def test_a_deadline_holds_while_the_job_at_fault_is_looked_for():
    version = Ticking(1.0)
    callers = Callers(Batcher(Executor(1), max_rows=100, clock=version.clock))
    for row in (1, 2, 3, BAD):
        callers.submit(version, row, deadline_s=101.5)
    await callers.all_told()

    assert [answers(job) for job in callers.jobs[:2]] == [alone(1), alone(2)]
    assert [type(job.error) for job in callers.jobs[2:]] == [DeadlineExceededError] * 2
    assert version.sizes == [4, 2]


# ── what stays ──────────────────────────────────────────────────────────────────────────


async def test_statistics_tell_what_was_done(callers):
    version = Version(SLOW, is_gated=True)
    callers.submit(version, 0)
    await await_call(version)
    for row in (1, 2, BAD):
        callers.submit(version, row, row)
    busy = callers.batcher.statistics()
    version.gate.set()
    await callers.all_told()
    after = callers.batcher.statistics()

    assert (busy["queued_jobs"], busy["queued_rows"], busy["calls_in_flight"]) == (3, 6, 1)
    assert busy["versions"][0]["forms"] == {"native": {"fixed_s": SLOW, "per_row_s": 0.0}}
    assert (after["queued_jobs"], after["queued_rows"], after["calls_in_flight"]) == (0, 0, 0)
    assert (after["calls"], after["jobs"], after["rows"]) == (3, 3, 5)
    assert after["bisections"] == 2
    assert after["mean_rows"] == pytest.approx(5 / 3)


async def test_metrics_are_told_of_each_call_and_of_what_waits():
    class Metrics:
        def __init__(self):
            self.batches, self.waiting = [], []

        def batch(self, model, version, form, n_jobs, n_rows, seconds):
            self.batches.append((model, version, form, n_jobs, n_rows))
            assert seconds >= 0

        def queued(self, n_rows):
            self.waiting.append(n_rows)

    metrics = Metrics()
    callers = Callers(Batcher(Executor(1), max_rows=100, metrics=metrics))
    version = Version(SLOW, is_gated=True)
    callers.submit(version, 0)
    await await_call(version)
    callers.submit(version, 1, 2)
    callers.submit(version, 3)
    version.gate.set()
    await callers.all_told()

    assert metrics.batches == [("m", "1", NATIVE, 1, 1), ("m", "1", NATIVE, 2, 3)]
    assert max(metrics.waiting) == 3
    assert metrics.waiting[-1] == 0


async def test_each_call_takes_the_form_that_is_cheapest_for_its_rows(callers):
    version = Version(100e-6, 0.1e-6)
    quick = Version(1e-6, 10e-6)
    version.forms.add(Form("onnx-float64", quick.predict, KnownCost(1e-6, 10e-6)))
    callers.submit(version, 1)
    await callers.all_told()
    for i in range(20):
        callers.submit(version, i)
    await callers.all_told()

    assert quick.sizes == [1]
    assert version.sizes == [20]


async def test_costs_are_learnt(callers):
    version = Version()
    version.forms = Forms(Form(NATIVE, version.predict, Cost(SLOW)))
    for i in range(100):
        callers.submit(version, i)
        await callers.all_told()

    assert version.forms.native.cost.expected_s(1) < SLOW / 10


async def test_a_version_goes_when_nobody_needs_it(callers):
    for fixed_s in (1e-6, SLOW):
        version = Version(fixed_s)
        callers.submit(version, 1)
        callers.submit(version, 2)
        await callers.all_told()
        seen = weakref.ref(version)
        callers.jobs.clear()
        callers.told.clear()
        version.forms = None  # its own circle
        del version

        assert seen() is None


# ── properties ──────────────────────────────────────────────────────────────────────────

WHAT = st.sampled_from([BAD, ENDS, REFUSED]) | st.integers(0, 9).map(float)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(WHAT, min_size=1, max_size=4),
            st.sampled_from(["loop", "thread", "by row", "alone"]),
            st.booleans(),
            st.booleans(),
        ),
        min_size=1,
        max_size=40,
    ),
    st.integers(1, 3),
)
def test_whatever_the_company_a_job_gets_what_it_gets_alone(requests, n_threads):
    """Bit for bit, within one form; errors are one's own; who left is not told."""

    async def run():
        versions = {
            "loop": Version(INLINE_S / 9, INLINE_S / 9),
            "thread": Version(SLOW),
            "by row": Version(0.0, SLOW),
            "alone": Version(is_row_wise=False),
        }
        callers = Callers(Batcher(Executor(n_threads), max_rows=10))
        for rows, where, leaves, pauses in requests:
            job = callers.submit(versions[where], *rows)
            if leaves and pauses:
                job.cancel()
            if pauses:
                await asyncio.sleep(0)
        await callers.all_told()
        return callers

    callers = asyncio.run(run())

    for (rows, *_), job in zip(requests, callers.jobs, strict=True):
        bad = {BAD, ENDS, REFUSED}.intersection(rows)
        if job.is_cancelled:
            assert job not in callers.told
        elif bad:
            assert job.outputs is None
            assert isinstance(job.error, InvalidInputError | ModelFailedError)
            if isinstance(job.error, InvalidInputError):
                assert rows[job.error.issues[0].row] == REFUSED
        else:
            assert job.error is None
            assert answers(job) == alone(*rows)


@pytest.mark.parametrize(
    "estimator",
    [LogisticRegression(max_iter=1000), RandomForestClassifier(20, random_state=0)],
    ids=["logistic regression", "forest"],
)
async def test_labels_of_real_models_do_not_depend_on_the_company(callers, estimator):
    X, y = load_iris(return_X_y=True)
    version = await asyncio.to_thread(adopt_model, estimator.fit(X, y), name="iris", version="1")
    for row in X:
        callers.submit(version, inputs=row[np.newaxis])
    await callers.all_told()
    expected = [version.model.predict(row[np.newaxis]) for row in X]

    assert callers.batcher.statistics()["merged_jobs"] > 100
    for job, outputs in zip(callers.jobs, expected, strict=True):
        assert job.outputs.predictions.tolist() == outputs.predictions.tolist()
        np.testing.assert_allclose(job.outputs.probabilities[0], outputs.probabilities[0], rtol=0, atol=1e-9)


async def test_rows_of_an_open_signature_merge_by_their_width(callers):
    signature = Signature(inputs=(), is_open=True)
    version = Version()
    for row in ([1, 2], [1, 2, 3], [4, 5]):
        callers.submit(version, inputs=signature.check([row]))
    await callers.all_told()

    assert sorted(version.sizes) == [1, 2]
    assert Signature(inputs=(Field("a"),)).check([[1]]).shape == (1, 1)
