"""A confined process that may make copies of itself, and what its copies give up."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time

import pytest

from fitserve.confine.landlock import landlock_abi

needs_landlock = pytest.mark.skipif(landlock_abi()[0] is None, reason="this kernel has no Landlock: nothing to be seen")

HEAD = """
    import json, os, signal, sys
    from pathlib import Path
    from fitserve.confine.sandbox import Sandbox, end_forking, enter

    def outcome(call, *arguments):
        try:
            result = call(*arguments)
        except OSError as exc:
            return type(exc).__name__
        return "done" if result is None else result

    def fork():
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        return os.waitpid(pid, 0)[1]

    def tries():
        return {
            "fork": outcome(fork),
            "exec": outcome(os.execv, "/bin/true", ["true"]),
            "signal": outcome(os.kill, int(sys.argv[2]), 0),
            "own signal": outcome(os.kill, os.getpid(), 0),
            "write": outcome(Path(sys.argv[1], str(os.getpid())).touch),
            "write elsewhere": outcome(Path("/tmp/fitserve-elsewhere").touch),
        }
"""

COPY = """
    enter(Sandbox(writable=(Path(sys.argv[1]),), may_fork=True))
    receiver, sender = os.pipe()
    if os.fork() == 0:
        reached = end_forking()
        os.write(sender, json.dumps({**tries(), "summary": reached.summary}).encode())
        os._exit(0)
    os.wait()
    print(json.dumps([tries(), json.loads(os.read(receiver, 65536))]))
"""

ITSELF = """
    import threading
    enter(Sandbox(writable=(Path(sys.argv[1]),), may_fork=True))
    stop, told = threading.Event(), {}
    def work():
        stop.wait()
        told.update(tries())
    thread = threading.Thread(target=work)  # one that runs already
    thread.start()
    end_forking()
    stop.set()
    thread.join()
    print(json.dumps(told))
"""


def run(script: str, *arguments: object) -> object:
    code = textwrap.dedent(HEAD) + textwrap.dedent(script)
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_landlock
def test_it_may_fork_and_start_no_program_and_its_copy_may_not_even_fork(tmp_path, stranger):
    original, copy = run(COPY, tmp_path, stranger)

    assert original["fork"] == 0
    assert copy["fork"] == "PermissionError"
    for one in (original, copy):
        assert one["exec"] == one["write elsewhere"] == "PermissionError"
        assert one["own signal"] == one["write"] == "done"
    assert copy["signal"] == "PermissionError"
    assert copy["summary"].startswith("Landlock")
    assert "missing" not in copy["summary"]


@needs_landlock
def test_giving_forks_up_covers_threads_that_run(tmp_path, stranger):
    told = run(ITSELF, tmp_path, stranger)

    assert told["fork"] == told["exec"] == told["signal"] == "PermissionError"


def test_a_process_that_is_not_confined_gives_nothing_up():
    assert run("print(json.dumps([end_forking() is None, fork()]))") == [True, 0]


@needs_landlock
def test_a_process_that_may_not_fork_cannot_give_it_up():
    script = """
        enter(Sandbox())
        try:
            end_forking()
        except RuntimeError as exc:
            print(json.dumps(str(exc)))
    """

    assert run(script) == "this process may not fork as it is"


ECHO = """
def echo(request, blobs):
    return {"text": request["text"], "n_bytes": len(blobs[0])}
"""

CONCURRENT = """
    sys.path.append(sys.argv[1])
    from fitserve.confine.child import Template

    def asked(n):
        for i in range(5):
            text = f"{n}-{i}"
            told = template.run("echo:echo", {"text": text}, [bytes(1000 * n)], deadline_s=60)
            if told != {"text": text, "n_bytes": 1000 * n}:
                return 1
        return 0

    template = Template(is_shared=True)
    template.start()
    for n in range(4):
        if os.fork() == 0:
            enter(Sandbox())  # it can start no template of its own
            os._exit(asked(n))
    codes = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(4)]
    print(json.dumps([codes, asked(5)]))
"""


def test_copies_share_one_template_and_each_gets_its_own_answers(tmp_path):
    (tmp_path / "echo.py").write_text(ECHO)

    assert run(CONCURRENT, tmp_path) == [[0] * 4, 0]


OUTLIVED = """
    sys.path.append(sys.argv[1])
    from fitserve.confine.child import Template

    scratch = Path(sys.argv[1], "scratch")
    scratch.mkdir()
    template = Template(is_shared=True, removes=(scratch,))
    template.start()
    receiver, sender = os.pipe()
    original = os.getpid()
    if os.fork() == 0:
        while os.getppid() == original:
            signal.sigtimedwait([], 0.01)
        told = template.run("echo:echo", {"text": "still there"}, [b""], deadline_s=60)
        print(json.dumps([told["text"], scratch.exists()]), flush=True)
    os._exit(0)
"""


def test_a_copy_goes_on_with_the_template_when_the_original_is_gone_and_the_last_one_ends_it(tmp_path):
    (tmp_path / "echo.py").write_text(ECHO)

    told = run(OUTLIVED, tmp_path)

    assert told == ["still there", True]
    end_s = time.monotonic() + 60
    while (tmp_path / "scratch").exists():
        assert time.monotonic() < end_s, "the template goes on"
        time.sleep(0.05)
