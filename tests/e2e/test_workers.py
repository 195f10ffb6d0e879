"""Workers that die, hang, leak, crash, are replaced and stopped under load."""

from __future__ import annotations

import random
from functools import partial

import pytest
from e2e.loads import Shape, ailing, dying, ending, missed, models, serving

LIGHT = Shape(120.0, n_kept=8)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """Four workers that serve two versions of a model."""
    folder = tmp_path_factory.mktemp("fleet")
    with serving(models.repository(folder / "models"), folder) as service:
        yield service


@pytest.fixture
def serving_faulty(tmp_path):
    """Serve a model that does what the first feature tells it to."""

    def start(workers: int = 2, **settings: object):
        code = models.code(tmp_path / "code")
        path = models.faulty(tmp_path / "tell_v1.0.0.joblib", 1.5, code)
        return serving(path, tmp_path, workers=workers, code_path=code, allow=models.ALLOW, **settings)

    return start


def test_killed_workers_take_only_their_own_requests_with_them(fleet):
    assert missed(dying.kills(fleet, 6, LIGHT)) == []


def test_a_worker_killed_in_a_switch_neither_blocks_it_nor_comes_back_with_another_version(fleet):
    assert missed(dying.killed_in_a_switch(fleet, 3, LIGHT)) == []


def test_a_rolling_replacement_loses_nothing(fleet):
    assert missed(ending.replaced(fleet, 3, LIGHT)) == []


def test_a_blocked_event_loop_is_noticed_and_its_worker_replaced(serving_faulty):
    with serving_faulty(heartbeat_timeout_s=4) as service:
        assert missed(ailing.blocked(service, LIGHT, "1.0.0")) == []


def test_workers_that_leak_are_recycled_without_loss(serving_faulty):
    with serving_faulty(recycle_memory_bytes=256 * 2**20) as service:
        assert missed(ailing.recycled(service, LIGHT, "1.0.0", "memory", leak_mib=4.0)) == []


def test_workers_that_have_answered_their_number_of_requests_are_recycled_without_loss(serving_faulty):
    with serving_faulty(recycle_requests=150) as service:
        assert missed(ailing.recycled(service, LIGHT, "1.0.0", "requests")) == []


def test_workers_that_crash_at_their_start_are_started_less_and_less_often(tmp_path):
    path = ailing.make_crashing(tmp_path / "code")
    light = Shape(60.0, (b'{"features": {"a": 1, "b": 1, "c": 1, "d": 1}}',), n_kept=8)
    with serving(path, tmp_path, workers=2, code_path=tmp_path / "code") as service:
        kill = partial(dying.kill_one, service, random.Random(0))

        assert missed(ailing.crashing(service, tmp_path / "code", kill, light)) == []


def test_a_server_that_is_stopped_answers_what_it_has_let_in(serving_faulty):
    slow = Shape(10.0, (b'{"features": [1, 1.0, 0, 0]}',), n_kept=16)
    with serving_faulty(workers=4, inference_threads=8) as service:
        assert missed(ending.stopped(service, slow, 60, "1.0.0")) == []
