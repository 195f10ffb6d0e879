"""A worker asks once for workers that share an engine, and nothing goes wrong where it cannot."""

from __future__ import annotations

import os

import pytest

from fitserve.store.engines_shared import SHARING, ask_to_share, asked_to_share


def test_each_digest_is_asked_for_once(tmp_path):
    assert asked_to_share(tmp_path) == frozenset()

    for digest in ("aa", "bb", "aa"):
        ask_to_share(tmp_path, digest)

    assert asked_to_share(tmp_path) == {"aa", "bb"}
    assert (tmp_path / SHARING).read_text() == "aa\nbb\n"
    assert (tmp_path / SHARING).stat().st_mode & 0o777 == 0o600


def test_a_line_that_is_half_written_is_not_believed(tmp_path):
    (tmp_path / SHARING).write_text("aa\nbb")

    assert asked_to_share(tmp_path) == {"aa"}


@pytest.mark.parametrize("kind", ["a pipe", "a link", "a folder", "nothing below nothing"])
def test_what_is_no_file_is_neither_waited_for_nor_followed(tmp_path, kind):
    (tmp_path / "other").write_text("aa\n")
    folder = tmp_path / "runtime"
    if kind != "nothing below nothing":
        folder.mkdir()
    if kind == "a pipe":
        os.mkfifo(folder / SHARING)
    elif kind == "a link":
        (folder / SHARING).symlink_to(tmp_path / "other")
    elif kind == "a folder":
        (folder / SHARING).mkdir()

    ask_to_share(folder, "bb")

    assert asked_to_share(folder) == frozenset()
    assert (tmp_path / "other").read_text() == "aa\n"
