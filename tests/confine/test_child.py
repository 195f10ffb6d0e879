"""A function in a child: what it gets, what comes back, and every way in which it may end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fitserve.confine.child import GivenUpError, Template, shared_template
from fitserve.confine.wire import LENGTH
from fitserve.errors import ArtifactError, FitserveError, RequestError, SettingsError, UntrustedArtifactError

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture
def run(template):
    def call(name: str, request: dict | None = None, blobs: tuple = (), deadline_s: float = 20) -> dict:
        return template.run(f"confine.tasks:{name}", request or {}, blobs, deadline_s=deadline_s)

    return call


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(is_so, what: str) -> None:
    end = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < end, what
        os.sched_yield()


def test_a_request_and_its_blobs_arrive_and_the_result_comes_back(run):
    said = run("echo", {"text": "é\ud83d", "number": 1.5, "nothing": None}, (b"", b"one", memoryview(b"two")))

    assert said == {"request": {"text": "é\ud83d", "number": 1.5, "nothing": None}, "blobs": ["", "one", "two"]}


def test_blobs_cannot_be_written(run):
    with pytest.raises(ArtifactError, match="TypeError"):
        run("change_blob", blobs=(b"x",))


@on_linux
def test_a_child_has_one_thread_four_descriptors_and_its_own_group(run):
    said = run("surroundings")

    assert said["threads"] == said["threads of template"] == 1
    assert said["group"] == said["pid"]
    assert said["session"] == said["template"] != os.getsid(0)
    assert said["descriptors"] <= 5  # the three of the shell, the reply, and the one that lists them


@on_linux
def test_a_child_may_be_given_a_lower_priority_and_is_the_first_that_lack_of_memory_ends(template):
    said = template.run("confine.tasks:surroundings", {}, deadline_s=20, niceness=7)

    assert said["niceness"] == min(os.nice(0) + 7, 19)
    assert said["first to go"] == "1000"


@on_linux
def test_a_template_that_has_imported_the_libraries_has_one_thread():
    names = ["numpy", "pandas", "joblib", "sklearn.ensemble", "lightgbm", "xgboost", "catboost", "skops.io"]
    # onnxruntime starts a thread when it is imported.
    with Template((*names, "no_such_module", "onnxruntime")) as template:
        said = template.run("confine.tasks:surroundings", {"modules": names}, deadline_s=20)

    assert said["threads of template"] == 1
    assert said["modules"] == names


@on_linux
def test_the_environment_is_the_parents_but_for_the_number_of_threads_and_processes(run):
    said = run("surroundings")["environment"]

    changed = {name for name in said if said[name] != os.environ.get(name)}
    changed -= {"PYTEST_CURRENT_TEST", "COLUMNS", "LINES", "JOBLIB_MULTIPROCESSING"}  # the tests' own, and readline's
    changed -= {"ORT_DISABLE_TELEMETRY"}
    assert changed <= {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"}
    assert "PYTHONPATH" not in said or said["PYTHONPATH"] == os.environ.get("PYTHONPATH")


def test_modules_are_found_where_the_parent_finds_them_now(template, tmp_path, monkeypatch):
    (tmp_path / "of_the_user.py").write_text("def f(request, blobs): return {'here': True}")
    template.start()
    monkeypatch.syspath_prepend(tmp_path)

    assert template.run("of_the_user:f", {}, deadline_s=20) == {"here": True}


def test_an_error_of_ours_is_raised_again(run):
    with pytest.raises(UntrustedArtifactError) as caught:
        run("raise_untrusted")

    assert str(caught.value) == "needs os.system:\nsay --allow"
    assert caught.value.digest == "ab" * 32
    assert caught.value.missing == ("os.system",)
    with pytest.raises(SettingsError, match="^is set wrongly$"):
        run("raise_ours")


def test_an_error_that_is_not_made_of_its_text_becomes_its_base(run):
    with pytest.raises(FitserveError, match="wanted a number; came text") as caught:
        run("raise_with_issues")

    assert type(caught.value) is RequestError


def test_another_error_is_told_in_one_line_without_control_characters(run):
    with pytest.raises(ArtifactError, match="^cannot be loaded or tried: ZeroDivisionError: line 1 line 2�\\[31m$"):
        run("raise_other")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("leave", "SystemExit: 0"),
        ("leave_at_once", "ended its process with exit code 3"),
        ("crash", "crashed with SIGSEGV when it was tried"),
        (
            "last_words",
            "crashed with SIGABRT when it was tried .*terminate called after throwing an instance of 'Sorry'",
        ),
        ("out_of_native_memory", "needs more memory than it may use when it is tried .*bad_alloc"),
        ("unjsonable", "TypeError: Object of type object is not JSON serializable"),
        ("no_object", "answers with something else than a JSON object"),
        ("no_such_function", "AttributeError"),
    ],
)
def test_a_child_that_fails_is_an_artifact_error(run, name, text):
    with pytest.raises(ArtifactError, match=text) as caught:
        run(name)

    assert len(str(caught.value)) < 500


def test_memory_that_does_not_suffice_is_told_with_the_bound(template):
    with pytest.raises(ArtifactError, match="needs more than the 32 MiB that it may use"):
        template.run("confine.tasks:fill_memory", {"memory_bytes": 32 << 20}, deadline_s=20)


@on_linux
def test_a_child_that_does_not_answer_is_killed(run, tmp_path):
    with pytest.raises(ArtifactError, match=r"did not answer within 0.5 s"):
        run("hang", {"says": str(tmp_path / "pid")}, deadline_s=0.5)

    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: not is_alive(pid), "the child lives on")


@on_linux
def test_a_child_whose_answer_nobody_wants_any_more_is_killed_and_leaves_nothing_open(template, tmp_path):
    template.start()
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208

    for number in range(3):
        says = tmp_path / str(number)
        with pytest.raises(GivenUpError, match="given up"):
            template.run(
                "confine.tasks:hang", {"says": str(says)}, deadline_s=100,
                gives_up=lambda says=says: says.exists() and says.stat().st_size > 0,
            )  # fmt: skip
        pid = int(says.read_text())
        wait_until(lambda pid=pid: not is_alive(pid), "the child lives on")

    assert set(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208


@on_linux
def test_what_a_child_has_started_ends_with_it(run, tmp_path):
    with pytest.raises(ArtifactError, match="ended its process"):
        run("leave_a_child", {"says": str(tmp_path / "pid")})
    pid = int((tmp_path / "pid").read_text())

    wait_until(lambda: not is_alive(pid), "the grandchild lives on")


def test_what_a_child_prints_harms_nothing(run):
    assert run("chatter") == {"fine": True}


def test_a_reply_has_a_bound():
    with Template(longest_reply_bytes=1 << 20) as template:
        fits = template.run("confine.tasks:long_reply", {"bytes": 1_000_000}, deadline_s=20)
        with pytest.raises(ArtifactError, match="answers with more than 1 MiB"):
            template.run("confine.tasks:long_reply", {"bytes": 1 << 20}, deadline_s=20)

    assert len(fits["long"]) == 1_000_000


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"\0",
        LENGTH.pack(1 << 63),
        LENGTH.pack(100) + b"{}",
        LENGTH.pack(2) + b"{}more",
        LENGTH.pack(26) + b'{"memory_bytes": Infinity}',
        LENGTH.pack(3) + b"\xff\xff\xff",
        LENGTH.pack(100_000) + b"[" * 100_000,
        LENGTH.pack(2) + b"[]",
        LENGTH.pack(4) + b"null",
        LENGTH.pack(15) + b'{"error": null}',
        LENGTH.pack(28) + b'{"error": {"kind": "object"}}'[:28],
        LENGTH.pack(41) + b'{"error": {"kind": "Exit", "text": "bye"}}'[:41],
        LENGTH.pack(21) + b'{"memory_bytes": "x"}',
        LENGTH.pack(26) + b'{"failed": 1, "text": "x"}',
    ],
)
def test_a_hostile_reply_is_an_artifact_error(run, reply):
    with pytest.raises(ArtifactError):
        run("write_reply", {"hex": reply.hex()})


def test_a_reply_of_many_values_is_not_parsed(run):
    with pytest.raises(ArtifactError, match="answers with more than 1000000 values"):
        run("many_values", {"n": 1_000_001})


def test_a_child_that_says_more_than_its_reply_does_not_end_the_template(run, template):
    run("many_values", {"n": 1})
    before = template._control
    reply = LENGTH.pack(14) + b'{"result": {}}' + b"more"

    assert run("write_reply", {"hex": reply.hex()}) == {}
    assert template._control is before


def test_several_tasks_run_at_once(template):
    said: list[dict] = []

    def ask(number: int) -> None:
        said.append(template.run("confine.tasks:echo", {"number": number}, deadline_s=20))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(one["request"]["number"] for one in said) == list(range(12))


@on_linux
def test_a_template_that_has_died_is_started_again(tmp_path):
    with Template() as template:
        first = template.run("confine.tasks:surroundings", {}, deadline_s=20)["template"]
        os.kill(first, signal.SIGKILL)
        second = template.run("confine.tasks:surroundings", {}, deadline_s=20)["template"]
        under_way = template.run("confine.tasks:kill_template", {"says": str(tmp_path / "once")}, deadline_s=20)

    assert first != second
    assert under_way == {"again": True}
    orphan = int((tmp_path / "once").read_text())
    wait_until(lambda: not is_alive(orphan), "the child of the dead template lives on")


@on_linux
def test_an_idle_template_gives_its_memory_back_and_serves_again():
    with Template(("numpy",), idle_s=0.1) as template:
        first = template.run("confine.tasks:surroundings", {"modules": ["numpy"]}, deadline_s=20)
        place = Path(f"/proc/{first['template']}/cmdline")
        assert first["modules"] == ["numpy"]
        wait_until(lambda: "\0cold\0" in place.read_text(), "the template does not cool down")
        second = template.run("confine.tasks:surroundings", {"modules": ["numpy"]}, deadline_s=20)

    assert second["template"] == first["template"]
    assert second["modules"] == ["numpy"]


@on_linux
def test_a_template_ends_when_it_is_closed_and_outlives_the_keys_of_a_terminal():
    with Template() as template:
        pid = template.run("confine.tasks:surroundings", {}, deadline_s=20)["template"]
        os.kill(pid, signal.SIGINT)
        assert template.run("confine.tasks:surroundings", {}, deadline_s=20)["template"] == pid

    assert not is_alive(pid)


PARENT = """
import os, signal, sys, threading
from fitserve.confine.child import Template
template = Template()
def ask():
    try:
        template.run("confine.tasks:hang", {"says": sys.argv[1]}, deadline_s=60)
    except Exception:
        pass
threading.Thread(target=ask, daemon=True).start()
print(template.run("confine.tasks:surroundings", {}, deadline_s=60)["template"], flush=True)
signal.pause()
"""


@on_linux
def test_template_and_child_end_with_a_parent_that_is_killed(tmp_path):
    says = tmp_path / "pid"
    command = [sys.executable, "-c", PARENT, str(says)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as parent:
        template = int(parent.stdout.readline())
        wait_until(lambda: says.exists() and says.read_text(), "the child did not start")
        child = int(says.read_text())
        assert is_alive(template)
        assert is_alive(child)
        parent.kill()

    wait_until(lambda: not is_alive(template) and not is_alive(child), "they live on")


@on_linux
def test_a_confined_process_still_runs_tasks_by_the_template_that_it_had(run):
    said = run("run_template_confined", deadline_s=60)

    assert said["request"] == {"a": 1}
    assert said["blobs"] == ["blob"]
    assert said["second"].startswith("ArtifactError: cannot be tried: ")
    assert "start it before this process is confined" in said["second"]


def test_a_forked_process_does_not_use_the_template_of_its_parent():
    mine = shared_template()
    assert shared_template() is mine
    before = mine.run("confine.tasks:surroundings", {}, deadline_s=20)["template"]
    reader, writer = os.pipe()

    pid = os.fork()
    if pid == 0:
        try:
            said = shared_template().run("confine.tasks:surroundings", {}, deadline_s=20)["template"]
            os.write(writer, str(said).encode())
            shared_template().close()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    theirs = int(os.read(reader, 100))
    after = mine.run("confine.tasks:surroundings", {}, deadline_s=20)["template"]
    mine.close()
    os.close(reader)
    os.close(writer)

    assert before == after != theirs


def test_where_a_fork_is_unsafe_the_child_is_a_new_program():
    with Template(executes=True) as template:
        said = template.run("confine.tasks:echo", {"a": 1}, [b"blob"], deadline_s=30)
        with pytest.raises(ArtifactError, match="crashed with SIGSEGV"):
            template.run("confine.tasks:crash", {}, deadline_s=30)

    assert said == {"request": {"a": 1}, "blobs": ["blob"]}
