"""Temporary files get a private folder, or none where nothing can be written."""

from __future__ import annotations

import shutil
import tempfile

from fitserve.confine.scratch import SHARED_MEMORY, make_scratch


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
