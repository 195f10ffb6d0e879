"""What is counted, in one process and in several, whatever becomes of them."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics_parser

from fitserve.observe import cells, siblings
from fitserve.observe import metrics as module
from fitserve.observe.definitions import METRICS
from fitserve.observe.metrics import Metrics
from fitserve.shared_state.folder import server_folder
from fitserve.shared_state.locks import locked
from fitserve.shared_state.process import process_facts

PAGE = Path(__file__).resolve().parents[2] / "docs/reference/metrics.md"


@pytest.fixture
def processes(tmp_path, monkeypatch):
    """Make metrics as another process of the same server has them; close their store, and it has ended."""
    numbers = itertools.count(1)
    monkeypatch.setattr(module, "process_name", lambda group: f"{group}-{next(numbers)}-1")

    def make(group: str = "0") -> Metrics:
        metrics = Metrics(lambda: tmp_path)
        metrics._group = group
        return metrics

    return make


def one(metrics: Metrics, name: str, *labels: str) -> list[float]:
    metrics.open()
    return metrics.totals()[(name, labels)]


def n_requests(metrics: Metrics) -> float:
    return one(metrics, "fitserve_requests_total", "/predict", "200", "iris", "1")[0]


def count(metrics: Metrics, n: int = 1) -> None:
    for _ in range(n):
        metrics.request("/predict", 200, "iris", "1", 0.001)


def end(metrics: Metrics) -> None:
    metrics._store.close()


def everything(metrics: Metrics) -> None:
    metrics.in_flight(1)
    count(metrics, 3)
    metrics.phases("iris", "1", 1e-5, 0.0, 8e-5, 2e-5)
    metrics.batch("iris", "1", "native", 2, 30, 0.004)
    metrics.queued(7)
    metrics.cache("hit", 5)
    metrics.cache_bytes(1000)
    metrics.rejected("invalid-input")
    metrics.models([{"model": "iris", "version": "1", "format": "sklearn", "digest": "ab", "model_type": "Ridge"}])


def samples(text: str, families=parser.text_string_to_metric_families) -> dict:
    found = [sample for family in families(text) for sample in family.samples]
    keys = {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in found}
    assert len(keys) == len(found), "no series stands there twice"
    return keys


def test_both_formats_are_read_by_their_parsers_and_say_the_same():
    metrics = Metrics()
    everything(metrics)

    plain = samples(metrics.exposition(is_openmetrics=False).decode())
    text = metrics.exposition(is_openmetrics=True).decode()
    openmetrics = samples(text, openmetrics_parser.text_string_to_metric_families)

    assert text.endswith("# EOF\n")
    moving = {"fitserve_process_cpu_seconds_total", "fitserve_process_resident_memory_bytes"}
    assert {k: v for k, v in plain.items() if k[0] not in moving} == {
        k: v for k, v in openmetrics.items() if k[0] not in moving
    }
    assert plain[("fitserve_workers", ())] == 1
    assert plain[("fitserve_phase_seconds_sum", (("model", "iris"), ("phase", "predict"), ("version", "1")))] == 8e-5
    families = {family.name for family in parser.text_string_to_metric_families(text.replace("# EOF\n", ""))}
    assert {d.name.removesuffix("_total").removesuffix("_info") for d in METRICS} <= {
        name.removesuffix("_info") for name in families
    }


def test_every_metric_has_a_series_when_everything_has_been_counted():
    metrics = Metrics()
    everything(metrics)

    assert {name for name, _ in metrics.totals()} == {definition.name for definition in METRICS}


def test_a_bucket_counts_what_is_not_larger_than_its_bound():
    metrics = Metrics()
    for seconds in (0.0, 0.001, 0.0011, 10.0, 10.1, 1000.0):
        metrics.request("/predict", 200, "iris", "1", seconds)

    found = samples(metrics.exposition(is_openmetrics=False).decode())

    def below(bound: str) -> float:
        labels = (("le", bound), ("model", "iris"), ("route", "/predict"), ("version", "1"))
        return found[("fitserve_request_seconds_bucket", labels)]

    assert [below(bound) for bound in ("5e-05", "0.0005", "0.001", "0.0025", "10.0", "+Inf")] == [1, 1, 2, 3, 4, 6]
    rest = (("model", "iris"), ("route", "/predict"), ("version", "1"))
    assert found[("fitserve_request_seconds_count", rest)] == 6
    assert found[("fitserve_request_seconds_sum", rest)] == pytest.approx(1020.1021)


def test_gauges_say_what_is_now():
    metrics = Metrics()
    everything(metrics)
    metrics.in_flight(1)
    metrics.in_flight(-1)
    metrics.queued(2)
    metrics.cache_bytes(10)
    metrics.models([{"model": "iris", "version": "2"}])

    assert one(metrics, "fitserve_in_flight") == [1]
    assert one(metrics, "fitserve_queue_rows") == [2]
    assert one(metrics, "fitserve_cache_bytes") == [10]
    text = metrics.exposition(is_openmetrics=False).decode()
    assert [line for line in text.splitlines() if line.startswith("fitserve_model_info")] == [
        'fitserve_model_info{digest="",format="",model="iris",model_type="",version="2"} 1.0'
    ]


def test_a_label_may_hold_what_breaks_lines_or_is_no_text(tmp_path, processes):
    odd = 'a"b\\c\nd é \udcff'
    writer, reader = processes(), processes()
    writer.request("/predict", 200, odd, "1", 0.1)

    found = samples(reader_text(reader))

    assert found[
        ("fitserve_requests_total", (("model", 'a"b\\c\nd é ?'), ("route", "/predict"), ("status", "200"), ("version", "1")))
    ] == 1  # fmt: skip


def reader_text(metrics: Metrics) -> str:
    metrics.open()
    return metrics.exposition(is_openmetrics=False).decode()


def test_whichever_process_is_asked_answers_for_all(processes):
    first, second, third = processes(), processes(), processes()
    for metrics, n in ((first, 1), (second, 2), (third, 4)):
        everything(metrics)
        count(metrics, n)

    for metrics in (first, second, third):
        assert n_requests(metrics) == 3 * 3 + 7
        assert one(metrics, "fitserve_workers") == one(metrics, "fitserve_in_flight") == [3]
        assert one(metrics, "fitserve_queue_rows") == [21]
        assert one(metrics, "fitserve_batch_rows", "iris", "1")[-1] == 90
        assert one(metrics, "fitserve_model_info", "iris", "1", "sklearn", "ab", "Ridge") == [1]
        starts = [m._snapshot().totals[("fitserve_start_time_seconds", ())][0] for m in (first, second, third)]
        assert one(metrics, "fitserve_start_time_seconds") == [min(starts)]


def test_applications_of_one_process_do_not_mix(processes):
    first, second = processes("1"), processes("10")
    count(first, 1)
    count(second, 2)

    assert (n_requests(first), n_requests(second)) == (1, 2)


def test_what_an_ended_process_counted_stays_and_its_gauges_go(processes, tmp_path):
    lives, ended = processes(), processes()
    for metrics in (lives, ended):
        everything(metrics)
    end(ended)

    for _ in range(2):  # the first time it is put with the other ended ones
        assert n_requests(lives) == 6
        assert one(lives, "fitserve_workers") == one(lives, "fitserve_in_flight") == [1]
        assert one(lives, "fitserve_queue_rows") == [7]
    assert len(list(tmp_path.glob("*.cells"))) == 1


def test_many_replacements_leave_few_files_and_lose_nothing(processes, tmp_path):
    for _ in range(100):
        metrics = processes()
        count(metrics)
        end(metrics)

    last = processes()
    assert n_requests(last) == 100
    assert len(list(tmp_path.iterdir())) <= 4


def test_files_do_not_pile_up_where_nobody_asks(processes, tmp_path):
    for _ in range(20):
        metrics = processes()
        count(metrics)
        end(metrics)

    assert len(list(tmp_path.glob("*.cells"))) == 1


def test_one_that_ends_while_it_adds_up_counts_nothing_twice(processes, tmp_path):
    lives, ended = processes(), processes()
    count(ended, 5)
    end(ended)
    copies = {path: path.read_bytes() for path in tmp_path.glob("0-1-1.*")}
    lives.open()
    before = n_requests(lives)
    for path, content in copies.items():  # as if it had been killed before it removed them
        assert not path.exists()
        path.write_bytes(content)
    (tmp_path / "0.new-ended").write_bytes(b'{"half')

    again = [n_requests(lives), n_requests(lives)]
    late = processes()
    count(late)
    end(late)

    assert (before, again, n_requests(lives)) == (5, [5, 5], 6)
    assert len(list(tmp_path.glob("*.cells"))) == 1


def test_a_full_disk_loses_nothing_that_was_counted(processes, tmp_path, monkeypatch):
    lives, ended = processes(), processes()
    count(ended, 5)
    end(ended)
    lives.open()

    with monkeypatch.context() as full:
        full.setattr(siblings, "_write_ended", raise_full)
        assert [n_requests(lives), n_requests(lives)] == [5, 5]
    assert n_requests(lives) == 5


def raise_full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_where_no_series_can_be_added_counting_goes_on(processes, monkeypatch, caplog):
    metrics = processes()
    count(metrics)
    monkeypatch.setattr(cells, "_write", raise_full)

    everything(metrics)
    everything(metrics)

    assert n_requests(metrics) == 7
    assert len([record for record in caplog.records if "No space left" in record.message]) == 1
    samples(reader_text(metrics))


def test_where_no_file_can_be_made_a_process_counts_alone(processes, monkeypatch, caplog, tmp_path):
    monkeypatch.setattr(cells, "_write", raise_full)
    metrics = processes()
    everything(metrics)

    assert n_requests(metrics) == 3
    assert list(tmp_path.iterdir()) == []
    assert len(caplog.records) == 1


def test_where_the_folder_goes_a_process_counts_alone(processes, tmp_path, caplog):
    metrics, other = processes(), processes()
    count(metrics)
    count(other)
    metrics.open()
    shutil.rmtree(tmp_path)

    everything(metrics)

    assert n_requests(metrics) == n_requests(metrics) == 4
    assert len(caplog.records) == 1


def test_more_series_than_there_was_room_for_at_first_are_seen_by_others(processes):
    writer, reader = processes(), processes()
    for version in range(300):
        writer.request("/predict", 200, "iris", str(version), 0.1)
        writer.request("/predict", 200, "iris", "0", 0.1)

    totals = (reader.open(), reader.totals())[1]

    assert totals[("fitserve_requests_total", ("/predict", "200", "iris", "0"))] == [301]
    assert all(totals[("fitserve_requests_total", ("/predict", "200", "iris", str(v)))] == [1] for v in range(1, 300))


def test_half_a_name_is_passed_over(processes, tmp_path):
    writer, reader = processes(), processes()
    count(writer)
    with next(tmp_path.glob("0-1-1.names")).open("ab") as names:
        names.write(b'["fitserve_reque')

    assert n_requests(reader) == 1


def test_what_another_release_counted_otherwise_is_passed_over(processes, tmp_path):
    writer, reader = processes(), processes()
    count(writer)
    with next(tmp_path.glob("0-1-1.names")).open("ab") as names:
        names.write(
            b'["fitserve_old_total",[],0,1]\n["fitserve_in_flight",[],0,9]\n["fitserve_queue_rows",["x"],0,1]\n'
        )

    assert n_requests(reader) == 1
    samples(reader_text(reader))


def test_one_that_never_stops_reading_is_not_waited_for_for_ever(processes, tmp_path):
    reader = processes()
    count(reader)
    with locked(tmp_path / "lock", 0.0), pytest.raises(TimeoutError, match="another process has held"):
        siblings.read_siblings(tmp_path, "0", "none", wait_s=0.0)


WORKER = """
    import sys
    from pathlib import Path
    from fitserve.observe.metrics import Metrics

    metrics = Metrics(lambda: Path(sys.argv[1]))
    metrics.in_flight(1)
    for _ in range(int(sys.argv[2])):
        metrics.request("/predict", 200, "iris", "1", 0.001)
"""


def start(script: str, *arguments: object) -> subprocess.Popen:
    """Run a program that says one line, and wait for it."""
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.said = process.stdout.readline().strip()
    return process


def test_a_process_that_is_killed_leaves_its_counters_and_not_its_gauges(tmp_path):
    reader = Metrics(lambda: tmp_path)
    reader._group = "0"
    workers = [start(WORKER + '    print("ready", flush=True)\n    input()\n', tmp_path, n) for n in (10, 100)]
    try:
        assert n_requests(reader) == 110
        assert one(reader, "fitserve_in_flight") == [2]
        assert one(reader, "fitserve_workers") == [3]
        cpu = one(reader, "fitserve_process_cpu_seconds_total")[0]
        memory = one(reader, "fitserve_process_resident_memory_bytes")[0]
        facts = [process_facts(pid) for pid in (os.getpid(), *(worker.pid for worker in workers))]
        assert sum(fact.cpu_s for fact in facts) >= cpu >= sum(fact.cpu_s for fact in facts) - 5
        assert memory == pytest.approx(sum(fact.resident_bytes for fact in facts), rel=0.3)
        workers[1].kill()
        workers[1].wait()

        assert n_requests(reader) == 110
        assert one(reader, "fitserve_in_flight") == [1]
        assert one(reader, "fitserve_workers") == [2]
        assert one(reader, "fitserve_process_cpu_seconds_total")[0] >= cpu
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


def test_a_copy_of_a_process_begins_at_zero_and_counts_for_itself(tmp_path):
    script = (
        WORKER
        + """
    import os
    pid = os.fork()
    if pid == 0:
        metrics.request("/predict", 200, "iris", "1", 0.001)
        mine = metrics._snapshot().totals[("fitserve_requests_total", ("/predict", "200", "iris", "1"))]
        os._exit(0 if mine == [1] and metrics.totals()[("fitserve_workers", ())] == [2] else 1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    totals = metrics.totals()
    print(code, totals[("fitserve_requests_total", ("/predict", "200", "iris", "1"))], totals[("fitserve_workers", ())])
"""
    )

    process = start(script, tmp_path, 5)
    process.communicate()

    assert process.said == "0 [6.0] [1]"


def test_a_copy_that_lives_on_does_not_keep_the_original_alive(tmp_path):
    script = (
        WORKER
        + """
    import os, time
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
    print(pid, flush=True)
    os._exit(0)
"""
    )
    process = start(script, tmp_path, 5)
    process.wait()
    try:
        reader = Metrics(lambda: tmp_path)
        reader._group = "0"

        assert n_requests(reader) == 5
        assert one(reader, "fitserve_workers") == [1]
    finally:
        os.kill(int(process.said), 9)
        process.communicate()


def test_where_there_is_no_safe_folder_a_process_counts_alone_and_says_so(caplog):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    metrics = Metrics(lambda: server_folder(process.pid))
    everything(metrics)

    assert n_requests(metrics) == 3
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_one_process_alone_makes_no_files_and_says_nothing(caplog):
    metrics = Metrics()
    everything(metrics)

    assert n_requests(metrics) == 3
    assert metrics._folder is None
    assert caplog.records == []


def test_names_and_labels_keep_to_the_conventions():
    for definition in METRICS:
        assert definition.name.startswith("fitserve_")
        assert definition.name.endswith("_total") == (definition.kind == "counter")
        assert definition.name.endswith("_info") == (definition.kind == "info")
        assert list(definition.bounds) == sorted(set(definition.bounds))
        assert bool(definition.bounds) == (definition.kind == "histogram")
        assert definition.n_cells <= cells.N_SINK_CELLS


def test_the_page_lists_every_metric():
    page = PAGE.read_text()

    rows = [line for line in page.splitlines() if line.startswith("| `fitserve_")]

    assert rows == [
        f"| `{d.name}` | {d.kind} | {', '.join(f'`{label}`' for label in d.labels)} | {d.help} |".replace("|  |", "| |")
        for d in METRICS
    ]
