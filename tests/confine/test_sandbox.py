"""What a confined process can and cannot do: each thing is tried for real, in a child."""

from __future__ import annotations

import errno
import os
import platform
import socket
import threading

import pytest

from fitserve.confine.landlock import landlock_abi
from fitserve.confine.sandbox import Confinement
from fitserve.errors import ArtifactError

pytestmark = pytest.mark.skipif(landlock_abi()[0] is None, reason="this kernel has no Landlock: nothing to be seen")

on_x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="system calls by their numbers on x86-64")


@pytest.fixture
def greeter():
    """A server on a port of loopback that says hello to each connection."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.send(b"hello")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def facts(path) -> tuple:
    """What may be changed of a file besides its content."""
    return path.stat().st_mode, path.stat().st_uid, path.stat().st_mtime_ns, os.listxattr(path)


@pytest.mark.parametrize("what", ["exec", "subprocess", "posix_spawn", "fork", "setuid", "chroot"])
def test_a_confined_process_starts_no_program_and_becomes_nobody_else(attempt, what):
    assert attempt(what)["error"] == "PermissionError"


@on_x86_64
@pytest.mark.parametrize(
    "what",
    ["vfork", "unshare", "mount", "setns", "bpf", "perf_event_open", "userfaultfd", "keyctl", "init_module", "reboot"],
)
def test_calls_that_administer_the_machine_are_refused(attempt, what):
    assert attempt(what)["text"] == f"[Errno {errno.EPERM}] {os.strerror(errno.EPERM)}"


@on_x86_64
@pytest.mark.parametrize("what", ["of i386", "io_uring"])
def test_calls_that_libraries_can_do_without_seem_not_to_exist(attempt, what):
    assert attempt(what)["text"] == f"[Errno {errno.ENOSYS}] {os.strerror(errno.ENOSYS)}"


@pytest.mark.parametrize("what", ["kill", "kill all", "kill own group", "signal by pidfd", "signal by file"])
def test_other_processes_get_no_signal(attempt, stranger, what):
    assert attempt(what, pid=stranger)["error"] == "PermissionError"


@on_x86_64
@pytest.mark.parametrize("what", ["ptrace", "process_vm_readv"])
def test_other_processes_are_not_looked_into(attempt, stranger, what):
    assert attempt(what, pid=stranger)["error"] == "PermissionError"


def test_the_environment_of_other_processes_is_not_read(attempt, stranger):
    assert attempt("memory of another", pid=stranger)["error"] == "PermissionError"


def test_a_process_may_signal_itself(attempt):
    assert attempt("kill itself")["result"] is None


def test_abort_ends_a_confined_process(attempt):
    with pytest.raises(ArtifactError, match="crashed with SIGABRT"):
        attempt("abort")


@pytest.mark.parametrize("what", ["raise a limit", "type into the terminal"])
def test_what_outlasts_the_process_is_refused(attempt, what):
    assert attempt(what)["error"] in {"PermissionError", "ValueError"}


@pytest.mark.parametrize(
    "what", ["write", "truncate", "open to truncate", "unlink", "chmod", "chown", "utime", "setxattr"]
)
def test_files_outside_are_not_changed(attempt, tmp_path, what):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.write_text("as it was")
    before = facts(outside)

    said = attempt(what, path=str(outside), writable=[str(inside)])

    assert said["error"] == "PermissionError"
    assert outside.read_text() == "as it was"
    assert facts(outside) == before


@pytest.mark.parametrize("what", ["write", "mkdir", "symlink", "mkfifo"])
def test_files_outside_are_not_made(attempt, tmp_path, what):
    inside = tmp_path / "inside"
    inside.mkdir()

    said = attempt(what, path=str(tmp_path / "new"), writable=[str(inside)])

    assert said["error"] == "PermissionError"
    assert list(tmp_path.iterdir()) == [inside]


def test_files_inside_are_written_and_renamed(attempt, tmp_path):
    said = attempt("write", path=str(tmp_path / "new"), writable=[str(tmp_path)])

    assert said["result"] == "written"
    assert (tmp_path / "new").read_text() == "written"


def test_a_link_inside_leads_to_no_file_outside(attempt, tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.write_text("as it was")
    (inside / "link").symlink_to(outside)

    said = attempt("write", path=str(inside / "link"), writable=[str(inside)])

    assert said["error"] == "PermissionError"
    assert outside.read_text() == "as it was"


def test_a_single_file_may_be_writable(attempt, tmp_path):
    file = tmp_path / "log"
    file.write_text("")

    assert "result" in attempt("truncate", path=str(file), writable=[str(file)])
    assert attempt("unlink", path=str(file), writable=[str(file)])["error"] == "PermissionError"


def test_a_writable_folder_that_does_not_exist_is_an_error(template, tmp_path):
    request = {"what": "write null", "writable": [str(tmp_path / "none")]}

    with pytest.raises(ArtifactError, match="FileNotFoundError"):
        template.run("confine.tasks:attempt", request, deadline_s=10)


def test_reading_and_the_null_device_go_on_working(attempt, tmp_path):
    (tmp_path / "file").write_text("text")

    assert attempt("read", path=str(tmp_path / "file"))["result"] == "text"
    assert attempt("write null")["result"] == 1


@pytest.mark.parametrize("what", ["socket", "udp socket", "unix socket", "packet socket", "listen", "datagram pair"])
def test_no_socket_is_made(attempt, what):
    assert attempt(what)["error"] == "PermissionError"


def test_a_connection_is_refused(attempt, greeter):
    assert attempt("connect", host="127.0.0.1", port=greeter)["error"] == "PermissionError"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_an_allowed_port_is_connected_to(attempt, greeter, host):
    said = attempt("connect", host=host, port=greeter, connect=[(host, greeter)])

    assert said["result"] == "hello"


@pytest.mark.skipif((landlock_abi()[0] or 0) < 4, reason="ports are told apart since Landlock 4")
def test_another_port_is_not_connected_to(attempt, greeter):
    said = attempt("connect", host="127.0.0.1", port=greeter, connect=[("127.0.0.1", 9)])

    assert said["error"] == "PermissionError"


@pytest.mark.parametrize("what", ["unix socket", "packet socket", "mptcp socket", "listen", "udp socket", "fast open"])
def test_connecting_opens_no_other_way(attempt, greeter, what):
    said = attempt(what, port=greeter, connect=[("127.0.0.1", 9)])

    assert said["error"] == "PermissionError"


def test_a_host_name_may_be_looked_up_by_datagrams(attempt):
    assert "result" in attempt("udp socket", connect=[("db.example", 5432)])


@pytest.mark.parametrize(
    ("what", "result"), [("threads", 8), ("pairs", "both ends"), ("dlopen", ".so"), ("map executable", None)]
)
def test_threads_pipes_and_libraries_go_on_working(attempt, what, result):
    assert attempt(what)["result"] == result


def test_memory_is_bounded(attempt):
    assert attempt("hold", memory_bytes=64 << 20, bytes=16 << 20)["result"] == 16 << 20
    assert attempt("hold", memory_bytes=64 << 20, bytes=128 << 20)["error"] == "MemoryError"


def test_bounded_memory_is_not_got_round_by_files_in_memory(attempt):
    assert attempt("memory file")["result"] is None
    assert attempt("memory file", memory_bytes=64 << 20)["error"] == "PermissionError"


def test_processor_time_is_bounded(attempt):
    with pytest.raises(ArtifactError, match="used more processor time than it may"):
        attempt("spin", cpu_s=1)


def test_the_size_of_files_is_bounded(attempt, tmp_path):
    said = attempt("grow file", path=str(tmp_path / "file"), writable=[str(tmp_path)], file_bytes=1000, bytes=2000)

    assert said["error"] == "OSError"
    assert (tmp_path / "file").stat().st_size <= 1000


def test_the_number_of_open_files_is_bounded(attempt):
    assert "Too many open files" in attempt("open many", count=100, open_files=50)["text"]


def test_a_process_enters_once(attempt):
    assert "already" in attempt("enter again")["text"]


def test_threads_that_ran_before_are_covered_by_seccomp_and_counted(template):
    said = template.run("confine.tasks:older_thread", {}, deadline_s=20)

    assert said["said"] == "PermissionError"
    is_told = "1 threads that ran before" in said["summary"]
    assert is_told is ((landlock_abi()[0] or 0) < 8)


def test_the_summary_says_what_is_in_force(attempt):
    assert attempt("kill itself")["summary"] == f"Landlock {landlock_abi()[0]}, seccomp"


def test_the_summary_says_what_is_not():
    off = Confinement(None, has_seccomp=False, missing=("Landlock", "seccomp"))
    partly = Confinement(3, has_seccomp=False, missing=("seccomp",))

    assert off.summary == "off: missing Landlock; seccomp"
    assert partly.summary == "Landlock 3; missing: seccomp"
