"""What a repository remembers over restarts: choices made by hand, aliases, labels, and who changed what.

It is kept in ``state_dir``, by the place of the repository: two servers of one place share it.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from fitserve.shared_state.database import Database
from fitserve.shared_state.folder import is_private
from fitserve.urls import SourceUrl

if TYPE_CHECKING:
    import sqlite3

    from fitserve.settings import Settings

logger = logging.getLogger(__name__)

Action: TypeAlias = Literal["start", "reload", "promote", "rollback", "alias"]

MAX_CHANGES = 100_000
"""How many changes of all models of a repository are remembered: the latest."""

_N_DIGITS = 8
_SCHEMA = """
CREATE TABLE changes (
    number INTEGER PRIMARY KEY, at TEXT NOT NULL, who TEXT NOT NULL, model TEXT NOT NULL, action TEXT NOT NULL,
    alias TEXT, from_version TEXT, to_version TEXT, reason TEXT NOT NULL, operation TEXT NOT NULL);
CREATE INDEX changes_of_model ON changes (model, number);
CREATE TABLE choices (model TEXT PRIMARY KEY, version TEXT NOT NULL, highest_known TEXT NOT NULL, at TEXT NOT NULL);
CREATE TABLE aliases (model TEXT, alias TEXT, version TEXT NOT NULL, PRIMARY KEY (model, alias));
CREATE TABLE labels (
    model TEXT, version TEXT, digest TEXT, label TEXT NOT NULL,
    PRIMARY KEY (model, version, digest), UNIQUE (model, label))
"""
_CHANGES = """
SELECT at, who, model, action, alias, from_version, to_version, reason, operation
FROM changes WHERE model = ? ORDER BY number DESC LIMIT ?
"""
_CHOICE = """
SELECT version, highest_known, at, (SELECT l.version FROM labels AS l WHERE l.model = c.model AND l.label = c.version)
FROM choices AS c WHERE model = ?
"""


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a model.

    Attributes:
        at: when, in UTC.
        who: made it.
        model: its name.
        action: what was done.
        alias: that was set or removed, with ``alias``.
        from_version: that served, or had the alias, before; None if none did.
        to_version: that does since; None if the alias was removed.
        reason: of whoever made it.
        operation: its id.
    """

    at: datetime
    who: str
    model: str
    action: Action
    alias: str | None
    from_version: str | None
    to_version: str | None
    reason: str
    operation: str


@dataclass(frozen=True, slots=True)
class Choice:
    """A version that somebody has chosen by hand.

    Attributes:
        version: that is to serve, by its label.
        listed_version: as which the repository has it, or had it: :meth:`Journal.label` makes a label of it.
        highest_known: the highest version that there was then; a higher one ends the choice.
        at: when, in UTC.
    """

    version: str
    listed_version: str
    highest_known: str
    at: datetime


class Journal:
    """The memory of a repository. Thread-safe, and for any number of processes; blocks for about a millisecond.

    Nothing raises because of the disk: where nothing can be kept, the log says so once, and this process remembers
    for itself.
    """

    def __init__(self, folder: Path | None) -> None:
        """Describe where it is; nothing is opened before it is used.

        Args:
            folder: of :func:`where`; None keeps it in memory.
        """
        self._database = Database(folder and folder / "state.sqlite", schema=_SCHEMA, release=1)

    def choice(self, model: str) -> Choice | None:
        """What was chosen by hand, and is still in force."""

        def question(connection: sqlite3.Connection) -> Choice | None:
            found = connection.execute(_CHOICE, (model,)).fetchone()
            if found is None:
                return None
            version, highest_known, at, listed = found
            return Choice(version, listed or version, highest_known, datetime.fromisoformat(at))

        return self._database.read(question, None)

    def aliases(self, model: str) -> dict[str, str]:
        """The version of each alias."""

        def question(connection: sqlite3.Connection) -> dict[str, str]:
            rows = connection.execute("SELECT alias, version FROM aliases WHERE model = ? ORDER BY alias", (model,))
            return dict(rows.fetchall())

        return self._database.read(question, {})

    def history(self, model: str, limit: int = 100) -> list[Change]:
        """Changes of a model, the latest first."""

        def question(connection: sqlite3.Connection) -> list[Change]:
            rows = connection.execute(_CHANGES, (model, limit))
            return [Change(datetime.fromisoformat(at), *others) for at, *others in rows]

        return self._database.read(question, [])

    def record(self, change: Change, *, highest_known: str) -> None:
        """Remember a change and what follows of it, both or neither.

        ``promote`` and ``rollback`` are choices; a reload to another version than the chosen one ends the choice;
        ``alias`` sets an alias, or removes it.

        Args:
            change: what was done.
            highest_known: the highest version that the model has.
        """

        def write(connection: sqlite3.Connection) -> None:
            at = change.at.astimezone(UTC).isoformat()
            values = (at, *astuple(change)[1:])
            connection.execute("INSERT INTO changes VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
            connection.execute(
                "DELETE FROM changes WHERE number <= (SELECT max(number) FROM changes) - ?", (MAX_CHANGES,)
            )
            _follow(connection, change, highest_known, at)

        self._database.write(write)

    def label(self, model: str, version: str, digest: str) -> str:
        """How these bytes are called, where a version may have been the version of others before.

        The version itself for the first bytes that had it; else with the beginning of their digest, as build
        metadata (``1.2.3+22be5e2e``, ``1.2.3+gpu.22be5e2e``). The same bytes always get the same label, and no
        others get it.

        Args:
            model: its name.
            version: as the repository says.
            digest: of the bytes, in hex.
        """
        if _is_of_digest(version, digest):
            return version

        def find(connection: sqlite3.Connection) -> str:
            key = (model, version, digest)
            rows = connection.execute("SELECT label FROM labels WHERE model = ? AND version = ? AND digest = ?", key)
            if (found := rows.fetchone()) is not None:
                return str(found[0])
            rows = connection.execute("SELECT label FROM labels WHERE model = ?", (model,))
            label = _free_label(version, digest, {taken for (taken,) in rows})
            connection.execute("INSERT INTO labels VALUES (?, ?, ?, ?)", (*key, label))
            return label

        return self._database.write(find)


def _follow(connection: sqlite3.Connection, change: Change, highest_known: str, at: str) -> None:
    """Make the choice or the alias that a change makes."""
    model, version = change.model, change.to_version
    if change.action in {"promote", "rollback"}:
        values = (model, version, highest_known, at)
        connection.execute("INSERT OR REPLACE INTO choices VALUES (?, ?, ?, ?)", values)
    elif change.action == "reload":
        found = connection.execute(_CHOICE, (model,)).fetchone()
        # Other bytes of the chosen version have a label of their own, and are the chosen version still.
        if found is not None and _listed(connection, model, version) != (found[3] or found[0]):
            connection.execute("DELETE FROM choices WHERE model = ?", (model,))
    elif change.action == "alias" and version is None:
        connection.execute("DELETE FROM aliases WHERE model = ? AND alias = ?", (model, change.alias))
    elif change.action == "alias":
        connection.execute("INSERT OR REPLACE INTO aliases VALUES (?, ?, ?)", (model, change.alias, version))


def _listed(connection: sqlite3.Connection, model: str, label: str | None) -> str | None:
    """The version that a label was made of."""
    rows = connection.execute("SELECT version FROM labels WHERE model = ? AND label = ?", (model, label))
    (found,) = rows.fetchone() or (label,)
    return found


def _is_of_digest(version: str, digest: str) -> bool:
    """Whether the version is made of the digest, so that other bytes have another."""
    return version.startswith("sha256-") and digest.startswith(version.removeprefix("sha256-"))


def _free_label(version: str, digest: str, taken: set[str]) -> str:
    if version not in taken:
        return version
    mark = "." if "+" in version else "+"
    labels = (f"{version}{mark}{digest[:n]}" for n in range(_N_DIGITS, len(digest) + 1))
    return next(label for label in labels if label not in taken)


def where(settings: Settings, place: Path | SourceUrl) -> Path | None:
    """The folder of a repository's journal, made if need be; None, and a line in the log, where there is none.

    Two paths that lead to the same place have the same folder. A text file in it says whose it is.

    Args:
        settings: name ``state_dir``.
        place: of the repository.
    """
    root = _root(settings)
    if root is None:
        logger.warning("aliases and choices of versions are not kept: there is no home folder; state_dir names another")
        return None
    name, told = _key(place)
    folder = root / name
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        if is_private(folder):
            with contextlib.suppress(OSError):
                _tell(folder / "repository", told)
            return folder
        why = f"others can reach it: chmod go-rwx {folder} {root}"
    except OSError as exc:
        why = str(exc.strerror)
    logger.warning("aliases and choices of versions are not kept over a restart: %s: %s (state_dir)", folder, why)
    return None


def _root(settings: Settings) -> Path | None:
    if settings.state_dir is not None:
        return settings.state_dir.absolute()
    given = os.environ.get("XDG_STATE_HOME", "")
    if given.startswith("/"):
        return Path(given) / "fitserve"
    with contextlib.suppress(RuntimeError):
        home = Path.home()
        if home.is_dir() and home != Path("/"):
            return home / ".local" / "state" / "fitserve"
    return None


def _key(place: Path | SourceUrl) -> tuple[str, str]:
    if isinstance(place, SourceUrl):
        return place.key, str(place)
    real = os.path.realpath(place)
    return hashlib.sha256(os.fsencode(real)).hexdigest()[:16], real


def _tell(file: Path, text: str) -> None:
    line = os.fsencode(text) + b"\n"
    if not file.exists() or file.read_bytes() != line:
        file.write_bytes(line)
