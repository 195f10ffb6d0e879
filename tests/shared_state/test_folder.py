"""The runtime folder: private, one for each parent, removed when its server is gone."""

from __future__ import annotations

import os

import pytest

import fitserve.shared_state.folder as folder_module
from fitserve.shared_state.board import Board
from fitserve.shared_state.folder import server_folder
from fitserve.shared_state.locks import locked
from fitserve.shared_state.process import process_facts


def test_siblings_find_the_same_folder_and_others_another(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_module, "SHARED_MEMORY", str(tmp_path))

    ours, again, others = server_folder(os.getpid()), server_folder(os.getpid()), server_folder(os.getppid())

    assert ours == again != others
    assert ours.parent == tmp_path
    assert ours.stat().st_mode & 0o777 == 0o700


def unsafe():
    return pytest.raises(OSError, match="safe place")


def test_no_folder_is_taken_that_somebody_else_could_look_into(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_module, "SHARED_MEMORY", str(tmp_path / "nowhere"))
    monkeypatch.setattr(folder_module.tempfile, "tempdir", str(tmp_path))
    folder = server_folder(os.getpid())
    folder.chmod(0o750)
    with unsafe():
        server_folder(os.getpid())

    folder.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    with unsafe():
        server_folder(os.getpid())

    folder.unlink()
    folder.write_text("a file")
    with unsafe():
        server_folder(os.getpid())

    folder.unlink()
    tmp_path.chmod(0o777)
    with unsafe():
        server_folder(os.getpid())
    tmp_path.chmod(0o1777)
    assert server_folder(os.getpid()) == folder


def test_the_folders_of_servers_that_are_gone_are_removed_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_module, "SHARED_MEMORY", str(tmp_path))
    prefix = f"{folder_module.PREFIX}{os.geteuid()}"
    facts = process_facts(os.getpid())
    names = (
        "0-1",
        "gone-1",
        f"{os.getpid()}-1",
        f"{os.getpid()}-{facts.started_ticks}",
        "counts-1",
        "joined-1",
        "new-1",
    )
    folders = [tmp_path / f"{prefix}-{name}" for name in names]
    other = tmp_path / "of another program"
    for folder in [*folders, other]:
        folder.mkdir(mode=0o700)
    *_, counts, joined, new = folders
    left = Board.open(folders[1]).join()
    left.leave()
    slot = Board.open(joined).join()
    for folder in set(folders) - {new}:
        os.utime(folder, (0, 0))

    with locked(counts / "0-1-1.cells", 0):
        server_folder(os.getppid())

    assert [folder.exists() for folder in folders] == [False, False, False, True, True, True, True]
    assert other.exists()
    assert slot.number == 0
