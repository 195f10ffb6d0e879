"""Changes of version under load: nobody loses a request, nobody is answered by another version than told."""

from __future__ import annotations

import pytest
from e2e.loads import Shape, bad_files, missed, models, serving, switching

LIGHT = Shape(120.0, n_kept=8)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """Four workers that serve two versions of a model."""
    folder = tmp_path_factory.mktemp("fleet")
    with serving(models.repository(folder / "models"), folder) as service:
        yield service


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Four workers that serve a package, and what may take its place."""
    with bad_files.serving_place(tmp_path_factory.mktemp("place")) as found:
        yield found


def test_the_highest_version_serves_at_first(fleet):
    assert switching.serving_version(fleet) == models.SECOND


def test_promoting_what_serves_changes_nothing(fleet):
    assert missed(switching.repeated(fleet, LIGHT)) == []


def test_forty_switches_lose_no_request_and_mix_no_versions(fleet):
    assert missed(switching.switches(fleet, 40, LIGHT)) == []


def test_connections_are_spread_over_the_workers(fleet):
    assert missed(switching.spread(fleet)) == []


@pytest.mark.parametrize("kind", ["uvicorn", "gunicorn"])
def test_switches_are_the_same_under_other_process_managers(kind, tmp_path):
    with serving(models.repository(tmp_path / "models"), tmp_path, kind=kind, workers=2) as service:
        assert missed(switching.switches(service, 10, LIGHT)) == []


def test_what_cannot_be_served_changes_nothing_and_says_why(place):
    service, folder = place
    kinds = {kind: 1 if kind.startswith("hangs") else 2 for kind in bad_files.LEAVING_NOTHING}

    assert missed(bad_files.refusals(service, folder, kinds, LIGHT)) == []


def test_refused_reloads_leave_nothing_behind(place):
    service, folder = place
    quick = [kind for kind in bad_files.LEAVING_NOTHING if not kind.startswith("hangs")]
    before = bad_files.held(service)

    bad_files.refusals(service, folder, dict.fromkeys(quick, 2), LIGHT)

    assert missed(bad_files.leaks(service, before)) == []


def test_a_worker_that_hangs_while_it_prepares_holds_up_nothing(place):
    service, folder = place

    assert missed(bad_files.refusals(service, folder, {"hangs in one worker": 1}, LIGHT)) == []
