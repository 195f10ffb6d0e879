"""The listening socket: made, handed over, removed."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys

import pytest
from server.conftest import serving
from server.raw import Client, get, post

from fitserve.errors import SettingsError
from fitserve.server.listen import base_url, listen, release
from fitserve.settings import Settings


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Where a Unix-domain socket may be: their paths are short."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "s"


def test_a_server_answers_at_a_unix_socket(path, make_kind):
    settings = Settings(uds=path)

    with serving("fitserve", make_kind(), listener=listen(settings)) as (_, address), Client(address) as client:
        client.send(post() + get(b"/health"))
        statuses = client.reply().status, client.reply().status

    assert statuses == (200, 200)


def test_a_caller_at_a_unix_socket_is_on_this_machine(path, make_kind):
    settings = Settings(uds=path)

    with serving("fitserve", make_kind(), listener=listen(settings)) as (_, address), Client(address) as client:
        client.send(post(b"", path=b"/model/reload"))
        status = client.reply().status

    assert status != 403


def test_a_unix_socket_is_for_the_user_and_the_group(path):
    mask = os.umask(0)
    try:
        with listen(Settings(uds=path)):
            mode = stat.S_IMODE(path.stat().st_mode)
            now = os.umask(0)
    finally:
        os.umask(mask)

    assert mode == 0o660
    assert now == 0


def test_the_url_of_a_unix_socket_names_its_path(path):
    with listen(Settings(uds=path)) as listener:
        url = base_url(listener)

    assert url == "http+unix://" + str(path).replace("/", "%2F")


def test_a_socket_that_a_server_has_left_is_taken_over(path):
    listen(Settings(uds=path)).close()

    with listen(Settings(uds=path)), Client(str(path)):
        pass


def test_the_socket_of_a_server_that_listens_is_not_taken(path):
    with listen(Settings(uds=path)), pytest.raises(SettingsError, match="another server listens there"):
        listen(Settings(uds=path))


def test_a_file_is_not_taken_for_a_socket(path):
    path.write_text("precious")

    with pytest.raises(SettingsError, match="something else than a socket"):
        listen(Settings(uds=path))

    assert path.read_text() == "precious"


def test_a_unix_socket_that_cannot_be_made_is_refused_with_its_path(tmp_path):
    path = tmp_path / "missing" / "s"

    with pytest.raises(SettingsError, match=str(path)):
        listen(Settings(uds=path))


def test_a_unix_socket_is_removed_by_whoever_made_it(path):
    settings = Settings(uds=path)
    listen(settings).close()

    release(settings)

    assert not path.exists()


def test_a_unix_socket_at_which_another_listens_by_now_is_not_removed(path):
    settings = Settings(uds=path)

    with listen(settings):
        release(settings)

        assert path.exists()


def test_a_socket_is_taken_over_by_its_number():
    with socket.create_server(("127.0.0.1", 0)) as ours:
        with listen(Settings(fd=os.dup(ours.fileno()))) as listener:
            address = listener.getsockname()
            no_delay = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

        assert address == ours.getsockname()
        assert no_delay


def test_a_number_that_is_no_listening_socket_is_refused():
    with socket.socket() as silent, open(os.devnull) as no_socket:  # noqa: PTH123 - its descriptor is what counts
        with pytest.raises(SettingsError, match="does not listen"):
            listen(Settings(fd=silent.fileno()))
        with pytest.raises(SettingsError, match="is no open socket"):
            listen(Settings(fd=no_socket.fileno()))

        assert silent.fileno() >= 0
        assert silent.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 0


LISTENS = """
import os, sys
number, count, pid = map(int, sys.argv[1:])
os.dup2(number, 3)
os.environ.update(LISTEN_PID=str(pid or os.getpid()), LISTEN_FDS=str(count), LISTEN_FDNAMES="http")

from fitserve.server.listen import listen
from fitserve.settings import Settings
print(listen(Settings(port=0)).getsockname()[1], [name for name in os.environ if name.startswith("LISTEN_")])
"""


def handed_over(listener: socket.socket, count: int, pid: int = 0) -> subprocess.CompletedProcess[str]:
    """A process whose first socket is the listener, as systemd starts it; it tells where it listens."""
    number = str(listener.fileno())
    return subprocess.run(
        [sys.executable, "-c", LISTENS, number, str(count), str(pid)],
        pass_fds=[listener.fileno()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )


def test_a_socket_of_systemd_is_served_and_its_words_go_no_further():
    with socket.create_server(("127.0.0.1", 0)) as ours:
        said = handed_over(ours, 1)

        assert said.stdout == f"{ours.getsockname()[1]} []\n"


def test_of_several_sockets_of_systemd_the_first_is_served_with_a_warning():
    with socket.create_server(("127.0.0.1", 0)) as ours:
        said = handed_over(ours, 2)

        assert said.stdout.startswith(f"{ours.getsockname()[1]} ")
        assert "2 sockets were handed over" in said.stderr


def test_sockets_that_systemd_hands_to_another_process_are_left_alone():
    with socket.create_server(("127.0.0.1", 0)) as ours:
        said = handed_over(ours, 1, pid=1)

        assert not said.stdout.startswith(f"{ours.getsockname()[1]} ")
