"""Ratios of paired rounds, and which targets they reach."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from bench.load import page, report
from bench.load.closed_loop import Plan
from bench.load.cold_start import Starts
from bench.load.figures import CPU, P99, PER_S, TIMES, Result
from bench.load.open_loop import Latencies
from bench.load.rounds import Round
from bench.load.scenarios import IRIS, MIXED, SCENARIOS, Scenario, save, write_bodies
from bench.load.servers import Cores
from bench.load.verdicts import TARGETS, Findings, verdicts


def a_round(per_s, p99_ms=10.0, cpu_us=100.0):
    return Round(int(per_s), 1.0, 1.0, p99_ms, cpu_us * per_s / 1e6, 0.1, 0.0)


def a_result(name="iris", **rounds):
    return Result(next(one for one in SCENARIOS if one.name == name), rounds, "native")


def hand_rolled_and(**ours):
    return {"hand-rolled": [a_round(1000, p99_ms=100.0, cpu_us=1000.0)] * 3} | ours


def test_a_ratio_is_the_median_of_rounds_that_ran_one_after_the_other():
    result = a_result(
        **{"hand-rolled": [a_round(1), a_round(10), a_round(100)], "fitserve": [a_round(5), a_round(40), a_round(300)]}
    )

    assert result.better(PER_S).pairs == [5.0, 4.0, 3.0]
    assert result.better(PER_S).median == 4.0
    assert result.better(PER_S).spread == "3.00-5.00"


def test_less_is_better_of_latency_and_cpu_time():
    result = a_result(**hand_rolled_and(fitserve=[a_round(1000, p99_ms=5.0, cpu_us=50.0)] * 3))

    assert result.better(P99).median == pytest.approx(20)
    assert result.better(CPU).median == pytest.approx(20)


def test_a_machine_that_was_busy_otherwise_is_told():
    quiet = a_result(**hand_rolled_and(fitserve=[a_round(1000)] * 3))
    busy = a_result(**hand_rolled_and(fitserve=[replace(a_round(1000), others_cpu_s=0.5)] * 3))

    assert not any("not to be trusted" in note for note in quiet.notes())
    assert any("other processes took 50% of a core" in note for note in busy.notes())


def test_a_target_is_reached_at_its_figure_and_missed_below():
    reached = a_result(**hand_rolled_and(fitserve=[a_round(40_000, p99_ms=5.0)] * 3))
    missed = a_result(**hand_rolled_and(fitserve=[a_round(39_000, p99_ms=5.1)] * 3))

    assert [one.is_reached for one in verdicts(Findings(results=[reached]))] == [True, True]
    assert [one.is_reached for one in verdicts(Findings(results=[missed]))] == [False, False]


def test_cpu_is_set_beside_nginx_for_both_paths():
    rounds = hand_rolled_and(
        fitserve=[a_round(40_000, cpu_us=24.0)] * 3,
        asgi=[a_round(20_000, cpu_us=56.0)] * 3,
        nginx=[a_round(90_000, cpu_us=8.0)] * 3,
    )
    found = verdicts(Findings(results=[a_result(**rounds)]))

    assert [(one.target, one.is_reached) for one in found[2:]] == [(f"≤ 3.5{TIMES}", True), (f"≤ 6{TIMES}", False)]


def test_health_and_cold_start_have_targets():
    findings = Findings(
        health=[Latencies("hand-rolled", 100.0, [900.0], [0.0]), Latencies("fitserve", 100.0, [20.5], [0.0])],
        starts=[Starts("all cores", {"hand-rolled": [1.0, 1.0], "fitserve": [1.1, 1.2]})],
    )

    assert [one.is_reached for one in verdicts(findings)] == [False, True]


def test_every_target_names_a_scenario():
    assert {target.scenario for target in TARGETS} <= {scenario.name for scenario in SCENARIOS}


def test_what_is_missed_or_fails_stands_in_both_reports():
    findings = Findings(
        results=[a_result(**hand_rolled_and(fitserve=[a_round(2000)] * 3))], failures=["forest: the servers differ"]
    )
    console = Console(width=130, file=io.StringIO())
    report.show_verdicts(console, findings)
    printed = console.file.getvalue()
    written = page.markdown(findings, Plan(2.0, 3, Cores(0, 1), console), "python -m bench.load")

    assert printed.count("missed") == written.count("| missed |") == 2
    assert "not measured: forest: the servers differ" in printed
    assert "not measured: forest: the servers differ" in written


@pytest.mark.parametrize(
    ("scenario", "begins"),
    [
        (Scenario("one", IRIS, 1), '{"features": ['),
        (Scenario("many", IRIS, 1, n_rows=200), '{"instances": [['),
        (Scenario("named", MIXED, 1), '{"features": {"age": '),
    ],
)
def test_each_kind_of_request_is_written_one_a_line(scenario, begins, tmp_path):
    _, table = save(scenario.model, tmp_path)
    lines = write_bodies(scenario, table, tmp_path).read_text().splitlines()

    assert len(lines) == 50
    assert len(set(lines)) > 25
    assert all(line.startswith(begins) for line in lines)
