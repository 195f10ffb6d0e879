"""What a repository remembers over restarts, whatever happens to the disk and to the processes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone

import pytest
from shared_state.processes import ended, forked, kill, until

from fitserve.confine.sandbox import Sandbox, enter
from fitserve.settings import Settings
from fitserve.shared_state import database
from fitserve.shared_state.journal import Change, Choice, Journal, where
from fitserve.urls import SourceUrl

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
DIGEST, OTHER = "a" * 64, "b" * 64


def change(action: str = "promote", to: str | None = "2.0.0", **differences: object) -> Change:
    values = {"at": NOON, "who": "local", "model": "churn", "action": action, "alias": None, "from_version": "1.0.0"}
    return Change(**{**values, "to_version": to, "reason": "why", "operation": "op-1", **differences})


def record(journal: Journal, *args: object, highest_known: str = "3.0.0", **differences: object) -> None:
    journal.record(change(*args, **differences), highest_known=highest_known)


@pytest.fixture(params=["file", "memory"])
def journal(request, tmp_path):
    """A journal of each kind; nothing of it warns."""
    return Journal(tmp_path if request.param == "file" else None)


def warnings_of(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_at_first_nothing_is_known(journal, tmp_path, caplog):
    assert (journal.choice("churn"), journal.aliases("churn"), journal.history("churn")) == (None, {}, [])
    assert list(tmp_path.iterdir()) == []
    assert caplog.records == []


@pytest.mark.parametrize("action", ["promote", "rollback"])
def test_a_promotion_and_a_roll_back_are_choices(journal, action):
    record(journal, action)

    assert journal.choice("churn") == Choice("2.0.0", "2.0.0", "3.0.0", NOON)
    assert journal.choice("fraud") is None
    assert journal.history("churn") == [change(action)]


@pytest.mark.parametrize("action", ["start", "reload"])
def test_other_changes_are_history_alone(journal, action):
    record(journal, action)

    assert journal.choice("churn") is None
    assert journal.history("churn") == [change(action)]


def test_a_reload_to_another_version_ends_a_choice(journal):
    record(journal, "promote", "1.2")
    record(journal, "reload", "1.2.3")

    assert journal.choice("churn") is None


def test_a_start_leaves_a_choice_as_it_is(journal):
    record(journal, "promote", "1.0.0")
    record(journal, "start", "2.0.0")

    assert journal.choice("churn").version == "1.0.0"


def test_a_reload_of_other_bytes_of_the_chosen_version_does_not_end_the_choice(journal):
    labels = [journal.label("churn", "1.0.0", digest) for digest in (DIGEST, OTHER)]
    record(journal, "promote", labels[0])
    record(journal, "reload", labels[1])
    assert journal.choice("churn").version == "1.0.0"

    record(journal, "promote", labels[1])
    record(journal, "reload", labels[0])
    choice = journal.choice("churn")
    assert (choice.version, choice.listed_version) == (labels[1], "1.0.0")


def test_aliases_are_set_moved_and_removed(journal):
    record(journal, "alias", "1.0.0", alias="champion")
    record(journal, "alias", "2.0.0", alias="challenger")
    record(journal, "alias", "3.0.0", alias="champion")
    record(journal, "alias", "1.0.0", alias="champion", model="fraud")
    assert journal.aliases("churn") == {"challenger": "2.0.0", "champion": "3.0.0"}

    record(journal, "alias", None, alias="challenger")
    assert journal.aliases("churn") == {"champion": "3.0.0"}
    assert journal.aliases("fraud") == {"champion": "1.0.0"}
    assert journal.choice("churn") is None


def test_history_is_the_latest_first_and_as_long_as_asked(journal):
    changes = [change(to=f"{number}.0.0", operation=f"op-{number}") for number in range(5)]
    for each in changes:
        journal.record(each, highest_known="9")

    assert journal.history("churn") == changes[::-1]
    assert journal.history("churn", limit=2) == changes[:2:-1]
    assert journal.history("fraud") == []


def test_history_does_not_grow_for_ever(journal, monkeypatch):
    monkeypatch.setattr("fitserve.shared_state.journal.MAX_CHANGES", 3)
    for number in range(5):
        record(journal, to=f"{number}")

    assert [each.to_version for each in journal.history("churn")] == ["4", "3", "2"]


def test_times_are_utc_whatever_zone_they_came_in(journal):
    record(journal, at=NOON.astimezone(timezone(timedelta(hours=5))))

    (found,) = journal.history("churn")
    assert found.at == NOON
    assert found.at.utcoffset() == timedelta(0)


def test_texts_are_kept_as_they_are(journal):
    text = "'); DROP TABLE changes; -- \x00 \U0001f600 " + "x" * 10_000
    record(journal, reason=text, who=text, model=text)

    assert journal.history(text)[0].reason == text


def test_the_first_bytes_of_a_version_have_its_name_and_others_their_digest_beside_it(journal):
    labels = [journal.label("churn", "1.2.3", digest) for digest in (DIGEST, OTHER, DIGEST, OTHER)]

    assert labels == ["1.2.3", "1.2.3+bbbbbbbb"] * 2
    assert journal.label("fraud", "1.2.3", OTHER) == "1.2.3"
    assert journal.label("churn", "2.0.0", OTHER) == "2.0.0"


def test_a_version_that_has_build_metadata_has_no_second_plus(journal):
    journal.label("churn", "1.2.3+gpu", DIGEST)

    assert journal.label("churn", "1.2.3+gpu", OTHER) == "1.2.3+gpu.bbbbbbbb"


def test_two_different_bytes_never_have_the_same_label(journal):
    almost = "b" * 9 + "c" * 55
    labels = [journal.label("churn", "1", digest) for digest in (DIGEST, OTHER, almost)]
    taken = journal.label("churn", "1+cccccccc", DIGEST)

    assert labels == ["1", "1+bbbbbbbb", "1+bbbbbbbbb"]
    assert journal.label("churn", "1", "c" * 64) not in {taken, *labels}


def test_a_version_made_of_the_digest_is_its_own_label(journal, tmp_path):
    assert journal.label("churn", "sha256-aaaaaaaaaaaa", DIGEST) == "sha256-aaaaaaaaaaaa"
    assert list(tmp_path.iterdir()) == []
    journal.label("churn", "sha256-aaaaaaaaaaaa", OTHER)
    assert journal.label("churn", "sha256-aaaaaaaaaaaa", "c" * 64) == "sha256-aaaaaaaaaaaa+cccccccc"


def test_all_of_it_is_there_after_a_restart(tmp_path):
    journal = Journal(tmp_path)
    journal.label("churn", "1", DIGEST)
    record(journal)
    record(journal, "alias", "1", alias="champion")
    again = Journal(tmp_path)

    assert again.choice("churn") == journal.choice("churn") != None  # noqa: E711
    assert again.aliases("churn") == {"champion": "1"}
    assert len(again.history("churn")) == 2
    assert again.label("churn", "1", OTHER) == "1+bbbbbbbb"


def test_nobody_else_can_read_the_files(tmp_path):
    record(Journal(tmp_path))
    with contextlib.closing(sqlite3.connect(tmp_path / "state.sqlite")) as connection:
        connection.execute("SELECT * FROM changes").fetchall()
        files = [file for file in tmp_path.iterdir() if file.name.startswith("state")]

        assert len(files) == 3
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def work_of(number: int, journal: Journal, n_changes: int) -> None:
    for n in range(n_changes):
        record(journal, to=f"{number}.{n}")
        record(journal, "alias", f"{n}", alias=f"alias-{number}")
        assert journal.label("churn", "1", DIGEST) == "1"
        assert journal.aliases("churn")[f"alias-{number}"] == f"{n}"


def test_four_processes_write_at_once_and_nothing_is_lost(tmp_path, caplog):
    journal = Journal(tmp_path)
    journal.label("churn", "1", DIGEST)

    def work(number: int) -> None:
        work_of(number, journal, 25)
        assert caplog.records == []

    with contextlib.ExitStack() as stack:
        pids = [stack.enter_context(forked(lambda number=number: work(number))) for number in range(4)]

        assert [ended(pid) for pid in pids] == [0] * 4
    assert len(journal.history("churn", 1000)) == 200
    assert set(journal.aliases("churn").values()) == {"24"}


def test_threads_may_share_a_journal(journal, caplog):
    journal.label("churn", "1", DIGEST)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda number: work_of(number, journal, 5), range(4)))

    assert len(journal.history("churn", 1000)) == 40
    assert caplog.records == []


def test_a_writer_that_is_killed_leaves_whole_changes(tmp_path, caplog):
    journal = Journal(tmp_path)

    def write() -> None:
        while True:
            record(journal)

    n_before = 0
    for _ in range(10):
        with forked(write) as pid:
            until(lambda n=n_before: len(journal.history("churn", 10_000)) > n)
            kill(pid)
        n_before = len(journal.history("churn", 10_000))

    assert journal.choice("churn").version == "2.0.0"
    assert caplog.records == []


def test_a_confined_process_writes(tmp_path, caplog):
    def work() -> None:
        enter(Sandbox(writable=(tmp_path,)))
        journal = Journal(tmp_path)
        journal.label("churn", "1", DIGEST)
        record(journal)
        assert len(Journal(tmp_path).history("churn")) == 1
        assert caplog.records == []

    for _ in range(2):
        with forked(work) as pid:
            assert ended(pid) == 0
        Journal(tmp_path)._database._file.unlink()
    with forked(work) as pid:
        assert ended(pid) == 0
    assert Journal(tmp_path).choice("churn").version == "2.0.0"


def foreign(file, program: int, release: int) -> None:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.executescript(
            f"CREATE TABLE t (x); PRAGMA application_id = {program}; PRAGMA user_version = {release}"
        )


def test_a_damaged_or_foreign_file_is_moved_aside_and_told_once(tmp_path, caplog):
    makers = {
        "no database": lambda file: file.write_text("not a database " * 1000),
        "of another program": lambda file: foreign(file, 1, 1),
        "of another release": lambda file: foreign(file, database._FORMAT, 99),
    }
    for name, make in makers.items():
        folder = tmp_path / name
        folder.mkdir()
        make(folder / "state.sqlite")
        content = (folder / "state.sqlite").read_bytes()
        caplog.clear()
        journal = Journal(folder)
        record(journal)
        (aside,) = folder.glob("state.sqlite.*")

        assert journal.choice("churn").version == Journal(folder).choice("churn").version == "2.0.0"
        assert aside.read_bytes() == content
        assert len(warnings_of(caplog)) == 1
        assert "begin anew" in caplog.text


def test_a_file_that_is_damaged_later_is_moved_aside_too(tmp_path, caplog):
    journal = Journal(tmp_path)
    for _ in range(100):
        record(journal)
    with (tmp_path / "state.sqlite").open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 20_000)
    journal.history("churn")
    record(journal)

    assert journal.choice("churn") is not None
    assert len(warnings_of(caplog)) == 1


def test_several_that_find_the_file_damaged_move_it_aside_once(tmp_path):
    (tmp_path / "state.sqlite").write_text("not a database " * 1000)

    def work() -> None:
        record(Journal(tmp_path))

    with contextlib.ExitStack() as stack:
        pids = [stack.enter_context(forked(work)) for _ in range(4)]

        assert [ended(pid) for pid in pids] == [0] * 4
    assert len(list(tmp_path.glob("state.sqlite.*"))) == 1
    assert len(Journal(tmp_path).history("churn")) == 4


def test_where_nothing_can_be_written_the_process_remembers_for_itself_and_says_so_once(tmp_path, caplog):
    (tmp_path / "state.sqlite").mkdir()
    journal = Journal(tmp_path)
    record(journal)
    record(journal, "alias", "1", alias="champion")

    assert journal.choice("churn").version == "2.0.0"
    assert journal.aliases("churn") == {"champion": "1"}
    assert len(warnings_of(caplog)) == 1
    assert "not kept over a restart" in caplog.text


def test_what_was_there_is_known_when_it_can_be_written_no_more(tmp_path):
    record(Journal(tmp_path), "alias", "1", alias="champion")

    def work() -> None:
        enter(Sandbox())
        journal = Journal(tmp_path)
        record(journal, "alias", "2", alias="challenger")
        assert journal.aliases("churn") == {"champion": "1", "challenger": "2"}

    with forked(work) as pid:
        assert ended(pid) == 0
    assert Journal(tmp_path).aliases("churn") == {"champion": "1"}


def test_a_writer_that_never_ends_is_not_waited_for_for_ever(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(database, "BUSY_S", 0.05)
    journal = Journal(tmp_path)
    record(journal)

    def hold() -> None:
        connection = sqlite3.connect(tmp_path / "state.sqlite", isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        (tmp_path / "held").touch()
        signal.pause()

    with forked(hold):
        until((tmp_path / "held").exists)
        record(journal, "alias", "1", alias="champion")

        assert journal.choice("churn").version == "2.0.0"
        assert journal.aliases("churn") == {"champion": "1"}
        assert len(warnings_of(caplog)) == 1


def settings(folder) -> Settings:
    return Settings(state_dir=folder)


def test_the_folder_is_found_by_the_real_path_and_private(tmp_path):
    place = tmp_path / "models"
    place.mkdir()
    (tmp_path / "link").symlink_to(place)
    folders = [
        where(settings(tmp_path / "state"), path) for path in (place, tmp_path / "link", place / ".." / "models")
    ]

    assert folders == [tmp_path / "state" / hashlib.sha256(os.fsencode(place)).hexdigest()[:16]] * 3
    assert (folders[0] / "repository").read_text() == f"{place}\n"
    assert stat.S_IMODE(folders[0].stat().st_mode) == stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    assert where(settings(tmp_path / "state"), tmp_path / "others") != folders[0]


def test_the_folder_of_a_url_tells_no_secret(tmp_path):
    folder = where(settings(tmp_path), SourceUrl("https://me:secret@host/models?signature=secret"))

    assert (folder / "repository").read_text() == "https://host/models\n"


def test_by_default_it_is_the_users(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert where(settings(None), tmp_path).parent == tmp_path / "xdg" / "fitserve"

    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert where(settings(None), tmp_path).parent == tmp_path / ".local" / "state" / "fitserve"


def test_where_there_is_no_home_nothing_is_kept_and_it_is_told(tmp_path, monkeypatch, caplog):
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/")

    assert where(settings(None), tmp_path) is None
    assert "no home folder" in caplog.text


def test_no_folder_is_taken_that_others_can_reach(tmp_path, caplog):
    where(settings(tmp_path), tmp_path).chmod(0o750)

    assert where(settings(tmp_path), tmp_path) is None
    assert "others can reach it" in caplog.text


def test_where_none_can_be_made_it_is_told(tmp_path, caplog):
    (tmp_path / "file").touch()

    assert where(settings(tmp_path / "file"), tmp_path) is None
    assert len(warnings_of(caplog)) == 1
