"""Functions that the tests run in a child: each tries something and says how it went."""

# ruff: noqa: BLE001, PTH101, PTH102, PTH108, PTH208, PTH211, RET503, T201 - calls of the system, tried as they are

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import warnings
from pathlib import Path

from fitserve.confine.child import Template
from fitserve.confine.sandbox import Sandbox, enter
from fitserve.errors import InputIssue, InvalidInputError, SettingsError, UntrustedArtifactError


def sandbox_of(request: dict) -> Sandbox:
    return Sandbox(
        writable=tuple(Path(place) for place in request.get("writable", ())),
        connect=tuple((host, port) for host, port in request.get("connect", ())),
        memory_bytes=request.get("memory_bytes"),
        cpu_s=request.get("cpu_s"),
        file_bytes=request.get("file_bytes"),
        open_files=request.get("open_files"),
    )


def attempt(request: dict, blobs: list[memoryview]) -> dict:
    """Enter a sandbox and do what ``request["what"]`` names: what it returned, or the error that it met."""
    reached = enter(sandbox_of(request))
    try:
        result = ACTIONS[request["what"]](request)
    except Exception as exc:
        return {"error": type(exc).__name__, "text": str(exc), "summary": reached.summary}
    return {"result": result, "summary": reached.summary}


def _raw(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(ctypes.c_long(number), *arguments)
    if result == -1:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def _write(request: dict) -> str:
    path = Path(request["path"])
    path.write_text("written")
    path.rename(path.with_suffix(".moved"))
    path.with_suffix(".moved").rename(path)
    return path.read_text()


def _connect(request: dict) -> str:
    with socket.create_connection((request["host"], request["port"]), timeout=5) as connection:
        return connection.recv(100).decode()


def _listen(_: dict) -> None:
    with socket.create_server(("127.0.0.1", 0)):
        pass


def _fast_open(request: dict) -> None:
    with socket.socket() as connection:
        connection.sendto(b"x", 0x20000000, ("127.0.0.1", request["port"]))


def _threads(_: dict) -> int:
    done = []
    threads = [threading.Thread(target=done.append, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(done)


def _pairs(_: dict) -> str:
    one, other = socket.socketpair()
    with one, other:
        one.send(b"both ends")
        return other.recv(100).decode()


def _dlopen(_: dict) -> str:
    assert "_zoneinfo" not in sys.modules
    import _zoneinfo

    return Path(_zoneinfo.__file__).suffix


def _abort(_: dict) -> None:
    os.abort()


def _raise_limit(_: dict) -> None:
    # Not resource.setrlimit of a lower value: as root even a higher one would pass.
    resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 19, 1 << 20))


def _hold(request: dict) -> int:
    return len(bytearray(request["bytes"]))


def _spin(_: dict) -> None:
    while True:
        pass


def _grow_file(request: dict) -> None:
    Path(request["path"]).write_bytes(b"x" * request["bytes"])


def _open_many(request: dict) -> None:
    for _ in range(request["count"]):
        os.open(os.devnull, os.O_RDONLY)


def _in_older_thread(path: str) -> str:
    try:
        os.execv(path, [path])
    except OSError as exc:
        return type(exc).__name__


ACTIONS = {
    "write": _write,
    "write null": lambda _: Path(os.devnull).write_text("x"),
    "read": lambda request: Path(request["path"]).read_text(),
    "truncate": lambda request: os.truncate(request["path"], 0),
    "open to truncate": lambda request: os.close(os.open(request["path"], os.O_RDONLY | os.O_TRUNC)),
    "unlink": lambda request: os.unlink(request["path"]),
    "mkdir": lambda request: os.mkdir(request["path"]),
    "symlink": lambda request: os.symlink("/", request["path"]),
    "chmod": lambda request: os.chmod(request["path"], 0o777),
    "chown": lambda request: os.chown(request["path"], 1, 1),
    "utime": lambda request: os.utime(request["path"], (1, 1)),
    "setxattr": lambda request: os.setxattr(request["path"], "user.x", b"1"),
    "mkfifo": lambda request: os.mkfifo(request["path"]),
    "exec": lambda _: os.execv(sys.executable, [sys.executable, "-c", ""]),
    "subprocess": lambda _: subprocess.run([sys.executable, "-c", ""], check=True),
    "posix_spawn": lambda _: os.posix_spawn(sys.executable, [sys.executable, "-c", ""], {}),
    "fork": lambda _: os.fork(),
    "vfork": lambda _: _raw(58),
    "kill": lambda request: os.kill(request["pid"], 0),
    "kill all": lambda _: os.kill(-1, 0),
    "kill own group": lambda _: os.kill(0, 0),
    "signal by pidfd": lambda request: signal.pidfd_send_signal(os.pidfd_open(request["pid"]), 0),
    "kill itself": lambda _: os.kill(os.getpid(), 0),
    "abort": _abort,
    "ptrace": lambda request: _raw(101, 16, request["pid"], 0, 0),
    "memory of another": lambda request: Path(f"/proc/{request['pid']}/environ").read_bytes(),
    "process_vm_readv": lambda request: _raw(310, request["pid"], None, 0, None, 0, 0),
    "unshare": lambda _: _raw(272, 0x10000000),
    "mount": lambda _: _raw(165, b"none", b"/tmp", b"tmpfs", 0, None),
    "setns": lambda _: _raw(308, 0, 0),
    "bpf": lambda _: _raw(321, 0, None, 0),
    "perf_event_open": lambda _: _raw(298, None, 0, -1, -1, 0),
    "userfaultfd": lambda _: _raw(323, 0),
    "keyctl": lambda _: _raw(250, 0, -1, 0),
    "init_module": lambda _: _raw(175, None, 0, b""),
    "reboot": lambda _: _raw(169, 0, 0, 0),
    "setuid": lambda _: os.setuid(1),
    "chroot": lambda _: os.chroot("/tmp"),
    "of i386": lambda _: _raw(0x40000000 + 59, None, None, None),
    "io_uring": lambda _: _raw(425, 1, None),
    "raise a limit": _raise_limit,
    "type into the terminal": lambda _: __import__("fcntl").ioctl(0, 0x5412, b"x"),
    "signal by file": lambda request: __import__("fcntl").fcntl(0, 8, request["pid"]),
    "socket": lambda _: socket.socket(),
    "udp socket": lambda _: socket.socket(type=socket.SOCK_DGRAM).close(),
    "unix socket": lambda _: socket.socket(socket.AF_UNIX),
    "mptcp socket": lambda _: socket.socket(proto=262),
    "packet socket": lambda _: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    "datagram pair": lambda _: socket.socketpair(type=socket.SOCK_DGRAM),
    "memory file": lambda _: os.close(os.memfd_create("x")),
    "connect": _connect,
    "listen": _listen,
    "fast open": _fast_open,
    "threads": _threads,
    "pairs": _pairs,
    "dlopen": _dlopen,
    "hold": _hold,
    "spin": _spin,
    "grow file": _grow_file,
    "open many": _open_many,
    "map executable": lambda _: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close(),
    "enter again": lambda _: enter(Sandbox()),
}


def older_thread(request: dict, blobs: list[memoryview]) -> dict:
    """A thread that was started before tries to execute a program after."""
    go, said = threading.Event(), []
    thread = threading.Thread(target=lambda: (go.wait(), said.append(_in_older_thread("/bin/true"))))
    thread.start()
    reached = enter(Sandbox())
    go.set()
    thread.join()
    return {"said": said[0], "summary": reached.summary}


# ---- what the child's process is like


def echo(request: dict, blobs: list[memoryview]) -> dict:
    return {"request": request, "blobs": [bytes(blob).decode() for blob in blobs]}


def surroundings(request: dict, blobs: list[memoryview]) -> dict:
    with os.scandir("/proc/self/fd") as found:
        descriptors = [entry.name for entry in found]
    return {
        "pid": os.getpid(),
        "template": os.getppid(),
        "threads": len(os.listdir("/proc/self/task")),
        "threads of template": len(os.listdir(f"/proc/{os.getppid()}/task")),
        "command of template": Path(f"/proc/{os.getppid()}/cmdline").read_text(),
        "group": os.getpgid(0),
        "session": os.getsid(0),
        "descriptors": len(descriptors),
        "niceness": os.nice(0),
        "first to go": Path("/proc/self/oom_score_adj").read_text().strip(),
        "environment": dict(os.environ),
        "modules": [name for name in request.get("modules", ()) if name in sys.modules],
    }


def change_blob(request: dict, blobs: list[memoryview]) -> dict:
    blobs[0][0] = 1
    return {}


# ---- how it may end


def raise_untrusted(request: dict, blobs: list[memoryview]) -> dict:
    raise UntrustedArtifactError("needs os.system:\nsay --allow", digest="ab" * 32, missing=["os.system"])


def raise_ours(request: dict, blobs: list[memoryview]) -> dict:
    raise SettingsError("is set wrongly")


def raise_with_issues(request: dict, blobs: list[memoryview]) -> dict:
    raise InvalidInputError([InputIssue("a number", "text")])


def raise_other(request: dict, blobs: list[memoryview]) -> dict:
    raise ZeroDivisionError("line 1\nline 2\x1b[31m")


def leave(request: dict, blobs: list[memoryview]) -> dict:
    sys.exit(0)


def leave_at_once(request: dict, blobs: list[memoryview]) -> dict:
    os._exit(3)


def crash(request: dict, blobs: list[memoryview]) -> dict:
    enter(Sandbox())
    ctypes.string_at(0)
    return {}


def last_words(request: dict, blobs: list[memoryview]) -> dict:
    os.write(2, b"x" * 100_000 + b"\nterminate called after throwing an instance of 'Sorry'\n")
    os.abort()


def out_of_native_memory(request: dict, blobs: list[memoryview]) -> dict:
    os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\n")
    os.abort()


def fill_memory(request: dict, blobs: list[memoryview]) -> dict:
    enter(sandbox_of(request))
    return {"size": len(bytearray(request["memory_bytes"] * 2))}


def hang(request: dict, blobs: list[memoryview]) -> dict:
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP})
    Path(request["says"]).write_text(str(os.getpid()))
    signal.sigwait([signal.SIGUSR1])
    return {}


def leave_a_child(request: dict, blobs: list[memoryview]) -> dict:
    other = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    Path(request["says"]).write_text(str(other.pid))
    os._exit(0)


def chatter(request: dict, blobs: list[memoryview]) -> dict:
    os.write(1, b"\0garbage" * 100_000)
    print("more of it")
    os.write(2, b"\0garbage" * 100_000)
    return {"fine": True}


def long_reply(request: dict, blobs: list[memoryview]) -> dict:
    return {"long": "x" * request["bytes"]}


def many_values(request: dict, blobs: list[memoryview]) -> dict:
    return {"many": [[]] * request["n"]}


def unjsonable(request: dict, blobs: list[memoryview]) -> dict:
    return {"x": object()}


def no_object(request: dict, blobs: list[memoryview]) -> list:
    return [1]


def write_reply(request: dict, blobs: list[memoryview]) -> dict:
    """Be hostile: write the bytes of the request to every descriptor that is open, and end."""
    for descriptor in range(3, 32):
        try:
            os.write(descriptor, bytes.fromhex(request["hex"]))
        except OSError:
            continue
    os._exit(0)


def kill_template(request: dict, blobs: list[memoryview]) -> dict:
    """Before it is confined, a child may do this, once."""
    if Path(request["says"]).exists():
        return {"again": True}
    Path(request["says"]).write_text(str(os.getpid()))
    os.kill(os.getppid(), signal.SIGKILL)
    signal.pause()


# ---- what must work


def libraries(request: dict, blobs: list[memoryview]) -> dict:
    """Confined first, imported later: predict with each library from bytes of a model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # joblib says that it cannot make semaphores
        reached = enter(Sandbox(memory_bytes=8 << 30))
        import lightgbm
        import numpy as np
        import onnxruntime
        import xgboost
        from catboost import CatBoostClassifier
        from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

        said = {"summary": reached.summary}
        X = np.arange(400.0).reshape(100, 4)
        y = (X[:, 0] > 200).astype(int)
        said["blas"] = float((np.ones((700, 700)) @ np.ones((700, 700)))[0, 0])
        session = onnxruntime.InferenceSession(bytes(blobs[0]), providers=["CPUExecutionProvider"])
        said["onnx"] = session.run(None, {"X": X[:2].astype(np.float32)})[0].tolist()
        for model in (
            RandomForestClassifier(4, n_jobs=2),
            HistGradientBoostingClassifier(max_iter=2),
            lightgbm.LGBMClassifier(n_estimators=2, verbose=-1, n_jobs=2),
            xgboost.XGBClassifier(n_estimators=2, n_jobs=2),
            CatBoostClassifier(iterations=2, verbose=0, allow_writing_files=False),
        ):
            said[type(model).__name__] = len(model.fit(X, y).predict(X))
    return said


def many_jobs(request: dict, blobs: list[memoryview]) -> dict:
    """Work that asks for processes, of a joblib that was imported before or after."""
    if request["before"]:
        import joblib
    else:
        os.environ.pop("JOBLIB_MULTIPROCESSING")
    enter(Sandbox())
    import joblib

    return {"result": joblib.Parallel(2)(joblib.delayed(abs)(i) for i in range(3))}


def run_template_confined(request: dict, blobs: list[memoryview]) -> dict:
    """A confined process runs a task by a template that it had before, and cannot start another."""
    with Template() as early:
        early.start()
        enter(Sandbox())
        answer = early.run("confine.tasks:echo", {"a": 1}, [b"blob"], deadline_s=10)
        try:
            Template().start()
        except Exception as exc:
            answer["second"] = f"{type(exc).__name__}: {exc}"
    return answer
