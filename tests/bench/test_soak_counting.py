"""What a soak counts: lost requests, replies of the wrong version, whose fault they were."""

from __future__ import annotations

import math

import pytest

from bench.soak.counting import (
    Figure,
    Switch,
    allowed,
    busiest,
    by_whole_part,
    lost_elsewhere,
    missed,
    percentile,
    tally,
)
from bench.soak.load import Record

SWITCHES = (Switch("2.0.0", 10.0, 11.0), Switch("1.0.0", 20.0, 21.0))


def answered(sent_s: float, ended_s: float, version: str, value: float | None = None, labelled: str = "") -> Record:
    value = float(version[0]) + 0.5 if value is None else value
    return Record(sent_s, False, sent_s, ended_s, 1, 200, "", value, version, labelled or version)


def test_what_was_good_is_not_counted_as_bad():
    found = tally(
        [answered(1, 2, "1.0.0"), answered(12, 13, "2.0.0"), answered(22, 23, "1.0.0")], SWITCHES, first="1.0.0"
    )

    assert missed(found.figures()) == []
    assert (found.n_requests, found.n_late, found.latencies_ms) == (3, 0, [1000.0] * 3)


def test_a_value_of_another_version_than_the_named_one_is_mixed():
    assert tally([answered(1, 2, "1.0.0", 2.5)], first="1.0.0").n_mixed == 1
    assert tally([answered(1, 2, "1.0.0", math.nan)], first="1.0.0", is_of=lambda *_: False).n_mixed == 1


def test_a_header_that_names_another_version_is_counted():
    assert tally([answered(1, 2, "1.0.0", labelled="2.0.0")], first="1.0.0").n_mislabelled == 1


def test_an_earlier_version_is_stale_only_if_it_was_sent_for_after_the_report():
    found = tally([answered(11.5, 12, "1.0.0"), answered(10.5, 12, "1.0.0")], SWITCHES, first="1.0.0")

    assert (found.n_stale, found.n_late) == (1, 1)


def test_a_version_that_nobody_had_switched_to_is_stale():
    assert tally([answered(1, 2, "2.0.0")], SWITCHES, first="1.0.0").n_stale == 1
    assert tally([answered(1, 2, "3.0.0")], SWITCHES, first="1.0.0").n_stale == 1


def test_while_a_switch_goes_on_either_version_may_answer():
    assert allowed(SWITCHES, 9, 10.5, "1.0.0") == {"1.0.0", "2.0.0"}
    assert allowed(SWITCHES, 10.2, 10.5, "1.0.0") == {"1.0.0", "2.0.0"}


@pytest.mark.parametrize(
    ("sent_s", "ended_s", "expected"),
    [
        (1, 2, {"1.0.0"}),
        (11.0, 15, {"2.0.0"}),
        (11.5, 20.5, {"1.0.0", "2.0.0"}),
        (25, 26, {"1.0.0"}),
        (9, 30, {"1.0.0", "2.0.0"}),
    ],
)
def test_a_request_may_meet_what_served_and_what_was_switched_to_since(sent_s, ended_s, expected):
    assert allowed(SWITCHES, sent_s, ended_s, "1.0.0") == expected


def test_each_reason_of_a_failure_is_told():
    records = [Record(1, failure="refused"), Record(1, status=503), Record(1, failure="refused")]

    found = tally(records, first="1.0.0")

    assert found.failures == {"refused": 2, "status 503": 1}
    assert missed(found.figures()) == ["failed requests: 3: 2 refused, 1 status 503 (wanted 0)"]


def test_a_loss_belongs_to_the_killed_process_that_had_the_connection():
    records = [
        Record(1, port=100, ended_s=5.0, failure="closed before its reply"),
        Record(1, port=200, ended_s=5.0, failure="closed before its reply"),
        Record(1, port=100, ended_s=3.0, failure="closed before its reply"),
        Record(1, port=0, ended_s=5.0, failure="refused"),
        answered(1, 6, "1.0.0"),
    ]

    assert lost_elsewhere(records, [(4.0, frozenset({100}))]) == records[1:4]


def test_values_between_two_versions_belong_to_the_lower():
    assert by_whole_part(2.9, "2.0.0")
    assert not by_whole_part(3.0, "2.0.0")
    assert by_whole_part(2.9999999, "3.0.0"), "a sum of floats may end just below"
    assert not by_whole_part(None, "2.0.0")


def test_percentiles_are_the_least_values_that_a_share_does_not_exceed():
    assert [percentile([5, 1, 4, 2, 3], share) for share in (0.5, 0.99, 1.0)] == [3, 5, 5]
    assert percentile(range(1, 101), 0.99) == 99
    assert math.isnan(percentile([], 0.5))


def test_the_busiest_of_four_with_half_has_twice_its_share():
    assert busiest([4, 2, 1, 1], 4) == 2.0
    assert math.isnan(busiest([0, 0], 2))


def test_a_figure_of_which_nothing_was_wanted_is_never_missed():
    assert missed([Figure("told", "7"), Figure("kept", "0", "0", is_met=True)]) == []
