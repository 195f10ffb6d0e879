"""Temporary files get a private folder, or none where nothing can be written."""

from __future__ import annotations

import os
import shutil
import tempfile

from fitserve.confine.scratch import SHARED_MEMORY, make_scratch, remove_scratch


def test_it_is_private():
    folder = make_scratch("fitserve-test-")

    assert folder.stat().st_mode & 0o777 == 0o700
    folder.rmdir()


def test_a_read_only_file_system_leaves_shared_memory(monkeypatch):
    made = tempfile.mkdtemp

    def only_in_memory(**options):
        if options["dir"] != SHARED_MEMORY:
            raise FileNotFoundError("No usable temporary directory found")
        return made(**options)

    monkeypatch.setattr(tempfile, "mkdtemp", only_in_memory)
    folder = make_scratch("fitserve-test-")

    assert str(folder).startswith(SHARED_MEMORY)
    shutil.rmtree(folder)


def test_where_nothing_can_be_written_there_is_none(monkeypatch):
    def refuse(**_):
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)

    assert make_scratch("fitserve-test-") is None


def test_what_hostile_code_leaves_behind_is_removed_and_no_link_followed(tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / "link").symlink_to(kept)
    locked = scratch / "locked"
    locked.mkdir()
    (locked / "file").touch()
    locked.chmod(0)
    deepest = os.open(scratch, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=deepest)
        below = os.open("d", os.O_RDONLY, dir_fd=deepest)
        os.close(deepest)
        deepest = below
    os.close(deepest)

    remove_scratch(scratch)

    assert [entry.name for entry in tmp_path.iterdir()] == ["kept"]
    assert (kept / "file").exists()
