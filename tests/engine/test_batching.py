"""The rules of batching, without a clock or a loop."""

from __future__ import annotations

import heapq
import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitserve.engine.batching import BatchPolicy, Lane
from fitserve.engine.job import Job
from fitserve.store.cost import Cost

BY_CALL = Cost(fixed_s=5e-3, per_row_s=10e-6)
BY_ROW = Cost(fixed_s=10e-6, per_row_s=2e-3)
POLICY = BatchPolicy(max_rows=1000, n_threads=4)


def job(n_rows=1, deadline_s=None):
    return Job(None, None, n_rows, (), deadline_s, lambda job: None)


def lane_of(*jobs, may_merge=True):
    lane = Lane("key", None, may_merge=may_merge)
    for one in jobs:
        lane.put(one)
    return lane


def test_jobs_that_wait_share_a_call():
    jobs = [job(), job(5), job(2)]
    lane = lane_of(*jobs)

    assert lane.n_rows == 8
    assert lane.take(100) == jobs
    assert (lane.n_rows, len(lane)) == (0, 0)


def test_rows_are_counted_and_not_jobs():
    jobs = [job(60), job(60), job(40)]
    lane = lane_of(*jobs)

    assert lane.take(100) == [jobs[0], jobs[2]], "what still has room is not held up by what has none"
    assert lane.take(100) == [jobs[1]]


def test_a_job_larger_than_a_full_call_is_computed_alone():
    large, small = job(1000), job()
    lane = lane_of(large, small)

    assert lane.take(100) == [large]
    assert lane.take(100) == [small]


def test_jobs_that_must_not_be_merged_are_taken_one_by_one():
    jobs = [job(), job(), job()]
    lane = lane_of(*jobs, may_merge=False)

    assert [lane.take(100) for _ in range(3)] == [[one] for one in jobs]


def test_large_and_small_jobs_take_turns():
    large = [job(1000) for _ in range(5)]
    lane = lane_of(*large)
    small = [job() for _ in range(3)]
    for one in small:
        lane.put(one)

    assert lane.take(100) == [large[0]]
    assert lane.take(100) == small
    assert lane.take(100) == [large[1]]


@given(st.lists(st.integers(1, 300), min_size=1, max_size=60), st.integers(1, 200))
def test_each_job_is_taken_once_and_none_waits_for_more_than_its_share(sizes, full_rows):
    jobs = [job(n_rows) for n_rows in sizes]
    lane = lane_of(*jobs)
    taken = []
    while lane:
        batch = lane.take(full_rows)
        rows = sum(one.n_rows for one in batch)
        assert len(batch) == 1 or rows <= full_rows
        taken.append(batch)

    assert sorted(map(id, itertools.chain(*taken))) == sorted(map(id, jobs))
    assert lane.n_rows == 0
    for call, batch in enumerate(taken):
        # The oldest job goes next, unless a small one goes between two large ones.
        oldest = min(jobs.index(one) for later in taken[call:] for one in later)
        follows_large = call > 0 and taken[call - 1][0].n_rows > full_rows
        assert jobs[oldest] in batch or (follows_large and batch[0].n_rows <= full_rows)


def test_what_nobody_waits_for_and_what_is_late_is_dropped():
    cancelled, late, good = job(3), job(4, deadline_s=10.0), job(5, deadline_s=10.5)
    lane = lane_of(cancelled, late, good)
    cancelled.cancel()

    assert lane.drop(10.0) == [cancelled, late]
    assert lane.n_rows == 5
    assert lane.take(100) == [good]


def test_halves_of_what_failed_go_first_and_get_no_company():
    jobs = [job() for _ in range(5)]
    lane = lane_of(*jobs)
    batch = lane.take(100)
    lane.put(job())
    lane.put_halves(batch)
    jobs[1].cancel()
    lane.drop(0.0)

    assert lane.n_rows == 5
    assert lane.take(100) == [jobs[0]]
    assert lane.take(100) == jobs[2:]


@given(st.integers(1, 200), st.data())
def test_finding_the_jobs_at_fault_is_bounded(n_jobs, data):
    jobs = [job() for _ in range(n_jobs)]
    faulty = data.draw(st.sets(st.sampled_from(jobs)), "faulty")
    lane = lane_of(*jobs)
    n_calls, computed, alone = 0, dict.fromkeys(jobs, 0), set()
    while lane:
        batch = lane.take(1000)
        n_calls += 1
        for one in batch:
            computed[one] += 1
        if not faulty.isdisjoint(batch):
            if len(batch) > 1:
                lane.put_halves(batch)
            else:
                alone.update(batch)

    assert alone == faulty
    assert n_calls <= 2 * n_jobs - 1
    assert max(computed.values()) <= 1 + math.ceil(math.log2(n_jobs))
    if len(faulty) == 1:
        assert n_calls <= 1 + 2 * math.ceil(math.log2(n_jobs))


@pytest.mark.parametrize(
    ("cost", "rows"),
    [(BY_CALL, 1000), (BY_ROW, 1), (Cost(1e-3, 1e-4), 100), (Cost(1e-3), 1000), (Cost(0.0, 1e-3), 1), (Cost(), 1000)],
)
def test_a_call_is_full_when_its_rows_cost_ten_times_as_much(cost, rows):
    assert POLICY.full_rows(cost) == rows


@pytest.mark.parametrize(
    ("cost", "rows"),
    [(Cost(1e-4, 1e-6), 200), (Cost(1e-4, 1e-8), 1000), (Cost(1e-3, 1e-6), 1), (Cost(1e-3), 1), (Cost(), 1000)],
)
def test_a_slice_of_work_on_the_loop_is_bounded(cost, rows):
    assert POLICY.rows_within(0.0003, cost) == pytest.approx(rows, abs=1)


def test_one_call_at_a_time_where_the_call_costs_and_several_where_the_rows_do():
    def may_begin(cost, n_calls, *, may_merge=True, n_rows=20):
        lane = lane_of(*(job() for _ in range(n_rows)), may_merge=may_merge)
        lane.n_calls = n_calls
        return POLICY.may_begin(lane, cost)

    assert may_begin(BY_CALL, 0)
    assert not may_begin(BY_CALL, 1), "they save most by waiting"
    assert may_begin(BY_CALL, 1, n_rows=1000), "no more would fit into one call"
    assert may_begin(BY_CALL, 1, may_merge=False)
    assert may_begin(BY_ROW, 1)
    assert may_begin(BY_ROW, 3)
    assert not may_begin(BY_ROW, 4), "there are no more threads"
    assert may_begin(Cost(), 1), "nothing is known"


@pytest.mark.parametrize(
    ("cost", "n_free", "rows"),
    [
        (BY_ROW, 4, 1),
        (Cost(1e-3, 1e-3), 4, 10),
        (Cost(1e-3, 1e-3), 1, 10),
        (Cost(1e-3, 1e-4), 4, 10),
        (Cost(1e-3, 1e-5), 4, 1000),
        (Cost(), 4, 10),
    ],
)
def test_rows_that_cost_are_divided_among_free_threads(cost, n_free, rows):
    lane = lane_of(*(job() for _ in range(40)))

    assert POLICY.rows_of_call(lane, cost, n_free) == rows


def simulated(cost, policy, *, n_clients, seconds, n_threads=1, sizes=(1,), merges=True):
    """Closed-loop clients on a fake clock: each sends its next job when it has its answer.

    Threads are as many processors. Returns the latencies of jobs by their number of rows.
    """
    now, count = 0.0, itertools.count()
    lane = Lane("key", None, may_merge=merges)
    latencies = {size: [] for size in sizes}
    events, sent, n_running = [], {}, 0

    def send(one):
        sent[one] = now
        lane.put(one)

    for _, size in zip(range(n_clients), itertools.cycle(sizes), strict=False):
        send(job(size))
    while True:
        while lane and n_running < n_threads and policy.may_begin(lane, cost):
            batch = lane.take(policy.rows_of_call(lane, cost, n_threads - n_running))
            lane.n_calls += 1
            n_running += 1
            heapq.heappush(events, (now + cost.expected_s(sum(one.n_rows for one in batch)), next(count), batch))
        now, _, batch = heapq.heappop(events)
        if now > seconds:
            return latencies
        lane.n_calls -= 1
        n_running -= 1
        for one in batch:
            latencies[one.n_rows].append(now - sent.pop(one))
            send(job(one.n_rows))


def test_merging_multiplies_the_throughput_where_the_call_costs():
    policy = BatchPolicy(max_rows=1000, n_threads=1)
    merged = simulated(BY_CALL, policy, n_clients=128, seconds=2.0)[1]
    alone = simulated(BY_CALL, policy, n_clients=128, seconds=2.0, merges=False)[1]

    assert len(merged) >= 15 * len(alone)
    assert max(merged) < 3 * BY_CALL.expected_s(128)


@pytest.mark.parametrize("n_clients", [1, 2, 8, 32])
@pytest.mark.parametrize("cost", [BY_ROW, Cost(1e-3, 1e-3), Cost(0.2e-3, 1e-3)])
def test_merging_does_not_make_a_row_wait_where_the_rows_cost(n_clients, cost):
    policy = BatchPolicy(max_rows=1000, n_threads=2)
    merged = simulated(cost, policy, n_clients=n_clients, n_threads=2, seconds=3.0)[1]
    alone = simulated(cost, policy, n_clients=n_clients, n_threads=2, seconds=3.0, merges=False)[1]

    assert sum(merged) / len(merged) <= 2 * sum(alone) / len(alone)
    assert sorted(merged)[int(0.99 * len(merged))] <= 2 * sorted(alone)[int(0.99 * len(alone))]
    assert len(merged) >= 0.95 * len(alone)


def test_neither_large_nor_small_jobs_starve():
    cost = Cost(0.2e-3, 0.1e-3)  # full at 20 rows
    latencies = simulated(cost, BatchPolicy(1000, 1), n_clients=16, seconds=20.0, sizes=(1000, 1))

    large_s = cost.expected_s(1000)
    assert max(latencies[1]) < 3 * large_s, "one under way, one before"
    assert max(latencies[1000]) < 8 * 1.5 * large_s, "eight clients send such"


def test_a_model_that_may_wait_does_not_keep_the_next_rows_waiting():
    policy = BatchPolicy(1000, 2)
    cost = Cost(fixed_s=0.05)
    lanes = [Lane("key", None, may_merge=True, may_wait=may_wait) for may_wait in (False, True)]
    for lane in lanes:
        lane.n_calls = 1
    assert [policy.may_begin(lane, cost) for lane in lanes] == [False, True]
    lanes[1].n_calls = 2
    assert not policy.may_begin(lanes[1], cost)
