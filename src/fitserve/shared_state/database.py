"""A small SQLite database that several processes use, and that never keeps a server from starting.

A connection is opened for each use: a copy of the process by ``fork`` must not use one of its original, and
opening costs a fraction of a millisecond, which a database that is asked once per change of a model can afford.
The write-ahead log lets others read while one writes.

Sources: https://www.sqlite.org/wal.html, https://www.sqlite.org/howtocorrupt.html (2.6: fork; 2.7: links)
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import time
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

from fitserve.shared_state.locks import locked

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

BUSY_S = 5.0
"""How long to wait for another process that writes, which takes milliseconds."""

_N_TRIES = 3
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_FORMAT = 0x66697473
"""``fits``, the application id in the head of the file. Source: https://www.sqlite.org/fileformat.html, 1.3.17"""


class _ForeignError(Exception):
    """It is a database, and another program's, or that of a release with other tables."""


class Database:
    """A database in a file; in memory where there is no place for one. Thread-safe; blocks; for any process.

    What is wrong with the file is told in the log, once: one that is damaged or foreign is moved aside and made
    anew; where one cannot be made, written or waited for, this process goes on in memory with what it could read.
    """

    def __init__(self, file: Path | None, *, schema: str, release: int) -> None:
        """Describe the database; nothing is opened.

        Args:
            file: where it is, or will be made by the first write. Its folder is there.
            schema: the statements that make its tables.
            release: of the schema; a file that has another is foreign.
        """
        self._file = file
        self._schema = f"{schema}; PRAGMA application_id = {_FORMAT}; PRAGMA user_version = {release}"
        self._release = release
        self._memory: sqlite3.Connection | None = None
        self._lock = threading.Lock()
        if file is None:
            self._go_on_in_memory()

    def read(self, question: Callable[[sqlite3.Connection], _T], otherwise: _T) -> _T:
        """The answer to a question; ``otherwise`` where nothing has been written yet. Never raises."""
        if self._memory is None and self._file is not None and not self._file.exists():
            return otherwise
        return self._run(question, "BEGIN")

    def write(self, change: Callable[[sqlite3.Connection], _T]) -> _T:
        """Make a change in one transaction, and return what it returns. Never raises; it may be called twice."""
        return self._run(change, "BEGIN IMMEDIATE")

    def _run(self, task: Callable[[sqlite3.Connection], _T], begin: str) -> _T:
        for n_left in range(_N_TRIES, -1, -1):
            if (memory := self._memory) is not None:
                with self._lock:
                    return _in_transaction(memory, task, begin)
            assert self._file is not None
            try:
                with contextlib.closing(_connect(self._file)) as connection:
                    self._prepare(connection)
                    return _in_transaction(connection, task, begin)
            except (sqlite3.Error, OSError, _ForeignError) as exc:
                self._mend(exc, may_move=n_left > 1)
        raise AssertionError  # the last try was in memory

    def _prepare(self, connection: sqlite3.Connection) -> None:
        found = _found(connection)
        if found == (_FORMAT, self._release):
            return
        if found is not None:
            raise _ForeignError
        assert self._file is not None
        with locked(self._file.with_name("lock"), BUSY_S):
            if _found(connection) is None:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.executescript(f"BEGIN IMMEDIATE; {self._schema}; COMMIT")

    def _mend(self, exc: Exception, *, may_move: bool) -> None:
        """Move a file aside that is no database of ours; go on in memory after any other error."""
        assert self._file is not None
        is_damaged = isinstance(exc, sqlite3.Error) and getattr(exc, "sqlite_errorcode", 0) & 0xFF in _DAMAGED
        if may_move and (is_damaged or isinstance(exc, _ForeignError)):
            try:
                with locked(self._file.with_name("lock"), BUSY_S):
                    if not self._is_sound():  # another process may have made it anew
                        self._move_aside("of another program or release" if not is_damaged else "damaged")
            except OSError as failure:
                exc = failure
            else:
                return
        with self._lock:
            if self._memory is None:
                why = getattr(exc, "strerror", None) or exc
                logger.warning("aliases and choices of versions are not kept over a restart: %s: %s", self._file, why)
                self._go_on_in_memory()

    def _is_sound(self) -> bool:
        assert self._file is not None
        try:
            with contextlib.closing(_connect(self._file)) as connection:
                is_whole = connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
                return is_whole and _found(connection) in {None, (_FORMAT, self._release)}
        except sqlite3.Error:
            return False

    def _move_aside(self, why: str) -> None:
        assert self._file is not None
        aside = self._file.with_name(f"{self._file.name}.{time.time_ns()}")
        self._file.rename(aside)
        for suffix in ("-wal", "-shm"):  # they belong to the file: another one would be damaged by them
            with contextlib.suppress(FileNotFoundError):
                self._file.with_name(self._file.name + suffix).rename(f"{aside}{suffix}")
        logger.warning("%s was %s, and is now %s; aliases and choices of versions begin anew", self._file, why, aside)

    def _go_on_in_memory(self) -> None:
        for way in ("mode=ro", "immutable=1"):  # the second where no write-ahead log can be made
            memory = _in_memory()
            if self._file is not None and _copy(self._file, way, memory) and _found(memory) == (_FORMAT, self._release):
                self._memory = memory
                return
            memory.close()
        memory = _in_memory()
        memory.executescript(self._schema)
        self._memory = memory


def _in_memory() -> sqlite3.Connection:
    return sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)


def _copy(file: Path, way: str, to: sqlite3.Connection) -> bool:
    """Copy what can be read of a file that may not be written."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{quote(os.fsencode(file))}?{way}", uri=True)) as connection:
            connection.backup(to)
    except sqlite3.Error:
        return False
    return True


def _connect(file: Path) -> sqlite3.Connection:
    # Made by us, so that nobody else may read it: the log and its index get the same rights.
    os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(file, timeout=BUSY_S, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous = NORMAL")
    except BaseException:
        connection.close()
        raise
    return connection


def _found(connection: sqlite3.Connection) -> tuple[int, int] | None:
    """Whose database it is, and of which release; None of an empty one."""
    if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        return None
    marks = ("application_id", "user_version")
    program, release = (int(connection.execute(f"PRAGMA {mark}").fetchone()[0]) for mark in marks)
    return program, release


def _in_transaction(connection: sqlite3.Connection, task: Callable[[sqlite3.Connection], _T], begin: str) -> _T:
    connection.execute(begin)
    try:
        result = task(connection)
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
    return result
