"""The files of one source on this machine: by content, as they come, and in the shape that they have there.

Nothing here is believed because it lies here: bytes are hashed again before they are used again, so neither a crash
in the middle of a write nor a disk that forgets needs any other care.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from fitserve.store.sources.base import RemoteFile

_LISTING = ".listing.json"
_PIECE = 1 << 20


class Receiving:
    """A file on its way: what has come of it, over all attempts. Use it in a ``with``.

    Attributes:
        n_bytes: how many have come.
    """

    def __init__(self, partial: Path, whole: Path, known: Path, file: RemoteFile) -> None:
        self._partial = partial
        self._whole = whole
        self._known = known
        self._tag = file.tag
        self._file = partial.open("a+b")
        self._file.seek(0)
        self._hash = hashlib.sha256()
        self.n_bytes = 0
        while piece := self._file.read(_PIECE):
            self._hash.update(piece)
            self.n_bytes += len(piece)
        # All of it is here, and yet it was not kept: what the source tells of its digest is not known any more.
        if not file.tag or self.n_bytes >= file.size:
            self.begin_anew()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def digest(self) -> str:
        """sha256 of what has come, in hex."""
        return self._hash.hexdigest()

    def write(self, chunk: bytes) -> None:
        """Add the next bytes."""
        self._file.write(chunk)
        self._hash.update(chunk)
        self.n_bytes += len(chunk)

    def begin_anew(self) -> None:
        """Forget what has come."""
        self._file.truncate(0)
        self._hash = hashlib.sha256()
        self.n_bytes = 0

    def keep(self) -> str:
        """The file is whole: keep it by its content. Returns its digest."""
        self._file.close()
        digest = self.digest
        self._partial.rename(self._whole / digest)
        if self._tag:
            self._known.write_text(digest)
        return digest


class Blobs:
    """The folder of one source. The caller holds its lock, and may use several threads for different files."""

    def __init__(self, place: Path) -> None:
        """Take a folder that is this user's alone; what it lacks is made."""
        self._whole, self._known_files, self._partial, self._snapshots = (
            place / name for name in ("blobs", "known", "partial", "snapshots")
        )
        for folder in (self._whole, self._known_files, self._partial, self._snapshots):
            folder.mkdir(mode=0o700, exist_ok=True)

    def known(self, file: RemoteFile) -> str | None:
        """The digest of a file, if its bytes are here and sound. Damaged ones are removed."""
        digest = self._digest(file)
        if digest is None:
            return None
        if _digest_of(self._whole / digest) == digest:
            return digest
        (self._whole / digest).unlink(missing_ok=True)
        return None

    def receive(self, file: RemoteFile) -> Receiving:
        """Go on with a file, from what has come of it."""
        key = _key(file)
        return Receiving(self._partial / key, self._whole, self._known_files / key, file)

    def present_bytes(self, files: Iterable[RemoteFile]) -> int:
        """How many bytes of files are here, by the sizes of what lies here."""
        here = 0
        for file in files:
            digest = self._digest(file)
            for path in (self._partial / _key(file), *([self._whole / digest] if digest else [])):
                with contextlib.suppress(OSError):
                    here += path.stat().st_size
        return here

    def free_bytes(self) -> int:
        """How many more could be kept."""
        return shutil.disk_usage(self._whole).free

    def arrange(self, main: str, digests: Mapping[str, str], fingerprint: str, *, keep: int) -> Path:
        """Put blobs together in the shape of the source, whole or not at all. Returns the path of ``main``.

        Args:
            main: the path of the file or folder that is wanted.
            digests: of each file, by its path.
            fingerprint: of the source, for :meth:`newest`.
            keep: how many arrangements stay, the newest ones; the blobs of others go.
        """
        told = json.dumps({"main": main, "files": digests}, sort_keys=True)
        target = self._snapshots / hashlib.sha256(told.encode()).hexdigest()[:32]
        if not self._is_sound(target, digests):
            made = target.with_name(f".new-{os.getpid()}")
            shutil.rmtree(made, ignore_errors=True)
            for path, digest in digests.items():
                (made / path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                _link(self._whole / digest, made / path)
            _remove(target)
            made.rename(target)
        listing = target / _LISTING
        listing.with_name(".listing.new").write_text(
            json.dumps({"main": main, "files": digests, "fingerprint": fingerprint})
        )
        listing.with_name(".listing.new").rename(listing)
        os.utime(target)  # its time tells the newest
        self._prune(keep)
        return target / main

    def newest(self, wanted: str | None) -> tuple[Path, str] | None:
        """The path of what was arranged last, and the fingerprint that its source had; None without a sound one.

        Args:
            wanted: the digest that its main file must have, if any.
        """
        for snapshot in self._by_age():
            listing = _listing(snapshot)
            if listing is None or wanted not in {None, listing["files"].get(listing["main"])}:
                continue
            if all(_digest_of(snapshot / path) == digest for path, digest in listing["files"].items()):
                return snapshot / listing["main"], listing["fingerprint"]
        return None

    def _is_sound(self, target: Path, digests: Mapping[str, str]) -> bool:
        """Whether an arrangement is there; its files are the blobs, which were hashed, or are hashed themselves."""
        return target.is_dir() and all(
            _is_same(target / path, self._whole / digest) or _digest_of(target / path) == digest
            for path, digest in digests.items()
        )

    def _by_age(self) -> list[Path]:
        """The arrangements, the newest first."""
        found = [path for path in self._snapshots.iterdir() if not path.name.startswith(".")]
        return sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)

    def _prune(self, keep: int) -> None:
        snapshots = self._by_age()
        for snapshot in snapshots[keep:]:
            _remove(snapshot)
        wanted = {digest for one in snapshots[:keep] for digest in (_listing(one) or {"files": {}})["files"].values()}
        for blob in self._whole.iterdir():
            if blob.name not in wanted:
                blob.unlink()
        for known in self._known_files.iterdir():
            if known.read_text() not in wanted:
                known.unlink()
        for partial in self._partial.iterdir():
            partial.unlink()  # all that was wanted is here

    def _digest(self, file: RemoteFile) -> str | None:
        try:
            text = (self._known_files / _key(file)).read_text()
        except OSError:
            return None
        return text if file.tag and len(text) == hashlib.sha256().digest_size * 2 and text.isalnum() else None


def _key(file: RemoteFile) -> str:
    return hashlib.sha256(f"{file.path}\0{file.tag}\0{file.size}".encode()).hexdigest()[:32]


def _digest_of(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _link(blob: Path, path: Path) -> None:
    try:
        path.hardlink_to(blob)
    except OSError:  # a file system without links, or too many of one
        shutil.copyfile(blob, path)


def _listing(snapshot: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads((snapshot / _LISTING).read_text())
    except (OSError, ValueError):
        return None
    return found


def _remove(folder: Path) -> None:
    """Take a folder out of sight at once, then remove its files."""
    gone = folder.with_name(f".gone-{os.getpid()}-{folder.name}")
    with contextlib.suppress(FileNotFoundError):
        folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)
