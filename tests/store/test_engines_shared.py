"""A worker asks once for workers that share an engine, and nothing goes wrong where it cannot."""

from __future__ import annotations

from fitserve.store.engines_shared import SHARE, ask_to_share, asked_to_share


def test_each_digest_is_asked_for_once(tmp_path):
    assert asked_to_share(tmp_path) == frozenset()

    for digest in ("aa", "bb", "aa"):
        ask_to_share(tmp_path, digest)

    assert asked_to_share(tmp_path) == {"aa", "bb"}
    assert (tmp_path / SHARE).read_text() == "aa\nbb\n"
    assert (tmp_path / SHARE).stat().st_mode & 0o777 == 0o600


def test_a_line_that_is_half_written_is_not_believed(tmp_path):
    (tmp_path / "orders").mkdir()
    (tmp_path / SHARE).write_text("aa\nbb")

    assert asked_to_share(tmp_path) == {"aa"}


def test_where_the_folder_is_gone_nothing_happens(tmp_path):
    ask_to_share(tmp_path / "gone" / "away", "aa")

    assert asked_to_share(tmp_path / "gone" / "away") == frozenset()
    assert list(tmp_path.iterdir()) == []
