"""What a supervisor decides, from facts alone."""

from __future__ import annotations

import pytest

from fitserve.supervisor.plan import START_S, Drain, EndNursery, Kill, Limits, Plan, Seen, StartNursery, StartWorker


class Table:
    """A plan, and what became of its actions; the clock is a number."""

    def __init__(self, **limits: float) -> None:
        self.plan = Plan(Limits(**{"n_workers": 2, **limits}))
        self.now_s = 1000.0
        self.seen: dict[int, Seen] = {}
        self.generation = 1
        self.is_switching = False

    def decide(self, after_s: float = 0.0) -> list:
        self.now_s += after_s
        self.plan.see(self.now_s, self.seen, self.generation, is_switching=self.is_switching)
        return self.plan.decide(self.now_s)

    def ready(self, nursery: int, *, can_fork: bool = True) -> None:
        self.plan.nursery_is_ready(nursery, can_fork=can_fork, generation=self.generation)

    def carry_out(self, after_s: float = 0.0, *, can_fork: bool = True) -> list:
        """One turn in which everything succeeds at once; the actions."""
        actions = self.decide(after_s)
        for action in actions:
            if isinstance(action, StartNursery):
                self.ready(action.nursery, can_fork=can_fork)
            elif isinstance(action, StartWorker):
                self.plan.worker_is_ready(action.worker)
            elif isinstance(action, Drain):
                self.plan.worker_has_ended(action.worker, self.now_s)
        return actions

    def serving(self, n_workers: int = 2, *, can_fork: bool = True) -> list[int]:
        """Bring all workers into service; their numbers."""
        numbers: list[int] = []
        while self.plan.n_ready < n_workers:
            actions = self.carry_out(can_fork=can_fork)
            assert actions, "it has come to a stand"
            numbers += [action.worker for action in actions if isinstance(action, StartWorker)]
        assert self.decide() == []
        return numbers

    def replaced(self, n_workers: int, *, can_fork: bool = True) -> list:
        """Go on until so many workers have been replaced; all actions."""
        actions: list = []
        while sum(isinstance(action, Drain) for action in actions) < n_workers:
            now = self.carry_out(1, can_fork=can_fork)
            assert now, "it has come to a stand"
            actions += now
        return actions

    def of(self, kind: type, after_s: float = 0.0) -> list:
        return [action for action in self.decide(after_s) if isinstance(action, kind)]


@pytest.fixture
def table() -> Table:
    return Table()


def test_one_nursery_loads_and_all_workers_are_forked_from_it(table):
    (nursery,) = table.of(StartNursery)
    waiting = table.decide()
    table.ready(nursery.nursery)

    started = table.of(StartWorker)

    assert waiting == []
    assert [action.nursery for action in started] == [nursery.nursery] * 2
    assert table.decide() == []


def test_each_worker_has_a_nursery_of_its_own_where_none_can_be_copied(table):
    (first,) = table.decide()
    table.ready(first.nursery, can_fork=False)

    worker, second = table.decide()
    table.ready(second.nursery, can_fork=False)
    (other,) = table.decide()

    assert [worker.nursery, other.nursery] == [first.nursery, second.nursery]
    assert table.decide() == []


def test_a_worker_that_has_served_is_replaced_at_once(table):
    first, _ = table.serving()
    table.plan.worker_has_ended(first, table.now_s)

    assert len(table.of(StartWorker)) == 1


def test_workers_that_die_before_they_serve_are_started_with_growing_pauses(table):
    first, _ = table.serving()
    table.plan.worker_has_ended(first, table.now_s)
    pauses = []
    for _ in range(8):
        start_s = table.now_s
        while not (started := table.of(StartWorker, after_s=0.25)):
            pass
        pauses.append(table.now_s - start_s)
        assert table.plan.worker_has_ended(started[0].worker, table.now_s) is False

    assert pauses[:2] == [0.25, 0.25]
    assert pauses[2:] == [1, 2, 4, 8, 16, 30]


def test_one_that_serves_ends_the_pauses(table):
    first, _ = table.serving()
    table.plan.worker_has_ended(first, table.now_s)
    for _ in range(4):
        started = table.of(StartWorker, after_s=60)
        table.plan.worker_has_ended(started[0].worker, table.now_s)
    (again,) = table.of(StartWorker, after_s=60)
    table.plan.worker_is_ready(again.worker)
    table.plan.worker_has_ended(again.worker, table.now_s)

    assert len(table.of(StartWorker)) == 1


def test_a_stuck_event_loop_is_killed_and_replaced_in_the_same_turn(table):
    first, second = table.serving()
    table.seen = {first: Seen(table.now_s), second: Seen(table.now_s + 31)}

    actions = table.decide(after_s=31)

    assert [type(action) for action in actions] == [Kill, StartWorker]
    assert actions[0] == Kill(first, "its event loop has not moved for 31 s")
    assert table.plan.worker_has_ended(first, table.now_s) is False
    assert table.decide() == []


def test_a_worker_that_does_not_begin_to_serve_is_killed(table):
    (nursery,) = table.decide()
    table.ready(nursery.nursery)
    started = table.decide()

    assert [kill.worker for kill in table.of(Kill, after_s=START_S + 1)] == [action.worker for action in started]


def test_renewing_loads_first_and_replaces_one_by_one(table):
    workers = table.serving()
    table.plan.renew("as SIGHUP asks")
    first_turn = table.decide()
    table.ready(first_turn[0].nursery)

    second_turn = table.decide()
    third_turn = table.decide()
    table.plan.worker_is_ready(second_turn[1].worker)
    fourth_turn = table.decide()
    fifth_turn = table.decide()
    table.plan.worker_has_ended(workers[0], table.now_s)
    sixth_turn = table.decide()

    assert [type(action) for action in first_turn] == [StartNursery]
    assert [type(action) for action in second_turn] == [EndNursery, StartWorker]
    assert second_turn[1].replaces == workers[0]
    assert third_turn == []
    assert fourth_turn == [Drain(workers[0], "as SIGHUP asks")]
    assert fifth_turn == []  # half of them serve, and no fewer
    assert sixth_turn[0].replaces == workers[1]


def test_renewing_ends_with_as_many_workers(table):
    workers = table.serving()
    table.plan.renew("as SIGHUP asks")

    replaced = [action.worker for action in table.replaced(2) if isinstance(action, Drain)]

    assert replaced == workers
    assert table.plan.n_ready == 2
    assert table.decide() == []
    assert not table.plan.is_renewing


def test_workers_that_cannot_be_copied_are_renewed_with_a_nursery_each(table):
    workers = table.serving(can_fork=False)
    table.plan.renew("as SIGHUP asks")

    actions = table.replaced(2, can_fork=False)

    assert [action.worker for action in actions if isinstance(action, Drain)] == workers
    assert sum(isinstance(action, StartNursery) for action in actions) == 2
    assert table.decide() == []


def test_a_nursery_that_cannot_load_changes_nothing(table):
    table.serving()
    table.plan.renew("as SIGHUP asks")
    (nursery,) = table.of(StartNursery)

    assert table.plan.nursery_has_ended(nursery.nursery, table.now_s) is True
    assert table.decide(after_s=100) == []
    assert not table.plan.is_renewing


def test_a_replacement_that_dies_changes_nothing(table):
    table.serving()
    table.plan.renew("as SIGHUP asks")
    (nursery,) = table.of(StartNursery)
    table.ready(nursery.nursery)
    (started,) = table.of(StartWorker)

    assert table.plan.worker_has_ended(started.worker, table.now_s) is True
    assert table.of(Drain, after_s=100) == []
    assert table.plan.n_ready == 2


def test_the_replaced_may_die_before_its_successor_is_ready(table):
    first, _ = table.serving()
    table.plan.renew("as SIGHUP asks")
    (nursery,) = table.of(StartNursery)
    table.ready(nursery.nursery)
    (started,) = table.of(StartWorker)
    table.plan.worker_has_ended(first, table.now_s)
    table.plan.worker_is_ready(started.worker)

    (other,) = table.decide()

    assert isinstance(other, StartWorker)
    assert other.replaces is not None


def test_a_second_wish_supersedes_the_first(table):
    table.serving()
    table.plan.renew("as SIGHUP asks")
    (first,) = table.of(StartNursery)
    table.plan.renew("as SIGHUP asks")

    actions = table.decide()

    assert actions[0] == EndNursery(first.nursery)
    assert isinstance(actions[1], StartNursery)
    assert table.plan.nursery_has_ended(first.nursery, table.now_s) is False
    assert table.decide() == []


@pytest.mark.parametrize(
    ("limits", "seen", "why"),
    [
        ({"recycle_age_s": 100}, Seen(), "old"),
        ({"recycle_requests": 1000}, Seen(n_requests=1200), "requests"),
        ({"recycle_memory_bytes": 1000}, Seen(private_bytes=1200), "memory"),
    ],
)
def test_a_worker_that_has_served_enough_is_replaced_by_one_that_is_ready_before(limits, seen, why):
    table = Table(**limits)
    workers = table.serving()
    early = table.decide(after_s=80)
    table.seen = dict.fromkeys(workers, seen)

    (started,) = table.decide(after_s=40)
    table.plan.worker_is_ready(started.worker)
    (drain,) = table.decide()

    assert early == []
    assert isinstance(started, StartWorker)
    assert why in started.why
    assert drain.worker == started.replaces == workers[0]


def test_workers_of_one_age_are_not_all_recycled_at_once():
    table = Table(n_workers=10, recycle_age_s=1000)
    table.serving(10)
    ages_s = []
    while len(ages_s) < 10:
        ages_s += [table.now_s - 1000] * sum(isinstance(action, Drain) for action in table.carry_out(1))

    assert 900 <= min(ages_s) < 930
    assert 1070 < max(ages_s) <= 1101
    assert len(set(ages_s)) == 10


def test_memory_is_shared_again_once_a_switch_is_old_enough():
    table = Table(hold_s=60)
    table.serving()
    table.generation += 1
    early = table.decide(), table.decide(after_s=59)
    table.generation += 1  # another switch
    again = table.decide(after_s=2), table.decide(after_s=59)

    (action,) = table.decide(after_s=2)

    assert early == again == ([], [])
    assert isinstance(action, StartNursery)
    assert "share the memory" in action.why


def test_memory_is_not_shared_while_an_operation_is_under_way():
    table = Table(hold_s=60)
    table.serving()
    table.generation += 1
    table.is_switching = True
    meanwhile = table.decide(), table.decide(after_s=100)
    table.is_switching = False

    assert meanwhile == ([], [])
    assert table.decide(after_s=59) == []
    assert len(table.decide(after_s=2)) == 1


def test_what_could_not_be_shared_is_not_tried_again_and_again():
    table = Table(hold_s=60)
    table.serving()
    table.generation += 1
    table.decide()
    (action,) = table.decide(after_s=61)
    table.plan.nursery_has_ended(action.nursery, table.now_s)

    assert [table.decide(after_s=10) for _ in range(20)] == [[]] * 20


def test_a_nursery_that_dies_is_made_anew_and_no_worker_is_replaced(table):
    (nursery,) = table.of(StartNursery)
    table.ready(nursery.nursery)
    table.serving()
    table.plan.nursery_has_ended(nursery.nursery, table.now_s)
    (again,) = table.decide(after_s=1)
    table.ready(again.nursery)

    assert isinstance(again, StartNursery)
    assert table.decide() == []


def test_one_that_was_told_to_end_and_does_not_is_killed_once():
    table = Table(leave_s=40)
    first, _ = table.serving()
    table.plan.renew("as SIGHUP asks")
    (nursery,) = table.decide()
    table.ready(nursery.nursery)
    (started,) = table.of(StartWorker)
    table.plan.worker_is_ready(started.worker)
    assert table.of(Drain)

    assert table.of(Kill, after_s=39) == []
    assert table.of(Kill, after_s=2) == [Kill(first, "it did not end within 40 s")]
    assert table.of(Kill, after_s=100) == []
