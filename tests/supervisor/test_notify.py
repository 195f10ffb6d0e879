"""What a service manager is told, by a socket that stands in for systemd's."""

from __future__ import annotations

import os
import signal
import socket

import pytest
from e2e import servers

from fitserve.supervisor.notify import Notifier


class Manager:
    """The manager's end."""

    def __init__(self, path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    def told(self) -> list[dict[str, str]]:
        messages = []
        while True:
            try:
                text = self._socket.recv(65_536).decode()
            except BlockingIOError:
                return messages
            messages.append(dict(line.split("=", 1) for line in text.split("\n")))

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path):
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.close()


def test_without_a_manager_nothing_happens():
    notifier = Notifier({})
    notifier.ready("serving")
    notifier.watchdog(0.0)
    notifier.close()

    assert notifier.watchdog_s is None


def test_the_environment_of_other_programs_does_not_name_the_manager(manager):
    environ = {"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "10", "WATCHDOG_PID": "1", "HOME": "/"}
    notifier = Notifier(environ)
    notifier.close()

    assert environ == {"HOME": "/"}
    assert notifier.watchdog_s is None  # it watches another process


def test_each_state_is_told_in_the_managers_words(manager):
    notifier = Notifier({"NOTIFY_SOCKET": str(manager.path)})
    notifier.ready("2 workers serve")
    notifier.reloading("replacing")
    notifier.status("1 of 2")
    notifier.stopping("stopping")
    notifier.close()

    ready, reloading, status, stopping = manager.told()
    assert ready == {"READY": "1", "MAINPID": str(os.getpid()), "STATUS": "2 workers serve"}
    assert reloading["RELOADING"] == "1"
    assert reloading["MONOTONIC_USEC"].isdecimal()
    assert status == {"STATUS": "1 of 2"}
    assert stopping == {"STOPPING": "1", "STATUS": "stopping"}


def test_the_watchdog_is_told_twice_in_its_time_however_often_it_is_called(manager):
    environ = {"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "10000000", "WATCHDOG_PID": str(os.getpid())}
    notifier = Notifier(environ)
    for tenth in range(200):
        notifier.watchdog(tenth / 10)
    notifier.close()

    assert manager.told() == [{"WATCHDOG": "1"}] * 4


def test_a_manager_that_is_gone_or_does_not_listen_harms_nobody(manager, tmp_path):
    nobody = Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    nobody.ready("serving")
    full = Notifier({"NOTIFY_SOCKET": str(manager.path)})
    for _ in range(10_000):
        full.status("x")

    assert manager.told()
    full.close()


@pytest.mark.parametrize("kind", ["fitserve", "fitserve, 2 workers"])
def test_a_server_tells_when_it_serves_that_it_works_and_when_it_stops(kind, models, tmp_path, manager):
    environ = {"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "1000000", "FITSERVE_LAME_DUCK_S": "0.5"}
    told = []

    def has_told(word: str) -> bool:
        told.extend(manager.told())
        return any(word in message for message in told)

    with servers.running(kind, models / "iris_v1.2.3.joblib", tmp_path, **environ) as (_, process, _):
        servers.wait_until(lambda: has_told("READY"), 60)
        servers.wait_until(lambda: has_told("WATCHDOG"), 60)
        if kind != "fitserve":
            process.send_signal(signal.SIGHUP)
            servers.wait_until(lambda: has_told("RELOADING"), 60)
            told.clear()
            servers.wait_until(lambda: has_told("READY"), 60)
    assert has_told("STOPPING")
    assert next(message for message in told if "READY" in message)["MAINPID"] == str(process.pid)
