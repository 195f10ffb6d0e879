"""From a URL to a path: what lies at a source is kept by content, and a folder of it appears whole or not at all.

``folder/<key of the URL>/`` holds ``blobs/<sha256>``, the bytes of files; ``known/<key>``, the digest of a file that
had this path, tag and size; ``partial/<key>``, what has come of one so far; ``snapshots/<digest>/``, hard links
to blobs in the shape of the source. A snapshot is made beside and renamed into place, and never changed. One process
at a time works in the folder of a URL.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from fitserve.errors import ArtifactError, SettingsError, clip
from fitserve.store.blobs import Blobs
from fitserve.store.fetching import Fetching, Progress
from fitserve.store.files import MAX_DEPTH, MAX_FILE_BYTES, MAX_FILES
from fitserve.store.sources import open_source
from fitserve.store.sources.base import SourceChangedError, SourceInterruptedError
from fitserve.store.sources.reading import digest_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fitserve.store.sources.base import Remote, Tree
    from fitserve.urls import SourceUrl

__all__ = ["Progress", "Snapshot", "fingerprint", "materialize"]


MAX_LOOKS = 3
"""How often a source that has changed while it was fetched is looked at again."""

LOOKS_AGAIN_S = 0.2
"""How often a process looks whether another one has done with the same URL."""

KEPT_SNAPSHOTS = 3
"""Of one URL: the one in service, the one before, and one that has just come."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What lay at a source when it was looked at.

    Attributes:
        path: of the model file or the folder of models, on this machine. It is never changed.
        fingerprint: what :func:`fingerprint` gives as long as the source has not changed.
        n_fetched_bytes: how many had to be fetched.
        failure: why the source could not be asked, if this is what was kept of it.
    """

    path: Path
    fingerprint: str
    n_fetched_bytes: int = 0
    failure: str | None = None


def fingerprint(url: SourceUrl) -> str:
    """What changes whenever something at a source does. Asks for tags, fetches nothing.

    Raises:
        ArtifactError: there is nothing, it may not be read, or it cannot be reached.
    """
    try:
        return _fingerprint(open_source(url).look())
    except SourceInterruptedError as exc:
        msg = f"{url} cannot be reached: {exc}"
        raise ArtifactError(msg) from exc


def materialize(
    url: SourceUrl,
    folder: Path,
    *,
    progress: Callable[[Progress], None] = lambda _: None,
    or_kept: bool = False,
    pause: Callable[[float], None] = time.sleep,
) -> Snapshot:
    """Bring what lies at a source to this machine, as far as it is not here.

    Digests are checked where there are any: ``#sha256=`` at the end of the URL of one file, the metadata ``sha256`` of
    an object, and ``NAME.sha256`` beside a file. What had come when an earlier call broke off is not fetched again.

    Args:
        url: of a file, a folder or a version in a registry.
        folder: where everything is kept; private to this user.
        progress: called after each piece, from several threads but from one at a time. What it raises ends the call.
        or_kept: where the source cannot be reached, content oneself with what was fetched last.
        pause: sleeps for so many seconds.

    Raises:
        SettingsError: it is no URL of a source, or its library is missing.
        ArtifactError: there is nothing, it may not be read, is too large, cannot be reached, goes on changing, or has
            not the digest that it should have; or there is no place for it here.
    """
    remote = open_source(url)
    wanted = _wanted_digest(url)
    try:
        place = folder / url.key
        place.mkdir(mode=0o700, parents=True, exist_ok=True)

        def wait() -> None:
            progress(Progress(0, 0, 0, 0))
            pause(LOOKS_AGAIN_S)

        with _locked(place, wait):
            blobs = Blobs(place)
            try:
                return _snapshot(remote, url, blobs, wanted, progress, pause)
            except SourceInterruptedError as exc:
                kept = blobs.newest(wanted) if or_kept else None
                if kept is None:
                    msg = f"{url} cannot be reached: {exc}"
                    raise ArtifactError(msg) from exc
                return Snapshot(*kept, failure=str(exc))
    except OSError as exc:
        msg = f"{url} cannot be kept on this machine, below cache_dir: {exc.strerror}"
        raise ArtifactError(msg) from exc


def _snapshot(
    remote: Remote,
    url: SourceUrl,
    blobs: Blobs,
    wanted: str | None,
    progress: Callable[[Progress], None],
    pause: Callable[[float], None],
) -> Snapshot:
    tree = remote.look()
    for _ in range(MAX_LOOKS):
        _check(tree, url, blobs, wanted)
        fetching = Fetching(remote, url, blobs, tree, progress, pause)
        with contextlib.suppress(SourceChangedError):
            digests = fetching.run(wanted)
            again = remote.look()
            if _fingerprint(again) == _fingerprint(tree):
                path = blobs.arrange(tree.main, digests, _fingerprint(tree), keep=KEPT_SNAPSHOTS)
                return Snapshot(path, _fingerprint(tree), fetching.n_fetched_bytes)
        tree = remote.look()
    msg = f"{url} has changed {MAX_LOOKS} times while it was fetched: try again when it is left alone"
    raise ArtifactError(msg)


def _fingerprint(tree: Tree) -> str:
    lines = sorted(f"{file.path}\0{file.tag}\0{file.size}\n" for file in tree.files)
    lines += sorted(f"{file.path}\0{file.beside.tag}\n" for file in tree.files if file.beside)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _wanted_digest(url: SourceUrl) -> str | None:
    options = dict(parse_qsl(url.url.partition("#")[2], keep_blank_values=True))
    digest = options.pop("sha256", None)
    if options or (digest is not None and digest_in(digest.encode()) != digest.lower()):
        msg = f"model_path: {url}: after # wanted sha256= and 64 hex digits, or nothing"
        raise SettingsError(msg)
    return digest.lower() if digest else None


def _check(tree: Tree, url: SourceUrl, blobs: Blobs, wanted: str | None) -> None:
    """Refuse what cannot be a folder of models here, before anything is fetched."""
    if wanted is not None and tree.is_folder:
        msg = f"{url} is a folder: #sha256= tells the digest of one file"
        raise ArtifactError(msg)
    if len(tree.files) > MAX_FILES:
        msg = f"{url} has more than {MAX_FILES} files"
        raise ArtifactError(msg)
    size = sum(file.size for file in tree.files)
    if size > MAX_FILE_BYTES:
        msg = f"{url} has {size} bytes: more than {MAX_FILE_BYTES} are not fetched"
        raise ArtifactError(msg)
    if (free := blobs.free_bytes()) < (missing := size - blobs.present_bytes(tree.files)):
        msg = f"{url} needs {missing} more bytes below cache_dir, where {free} are free"
        raise ArtifactError(msg)
    folders = {str(above) for file in tree.files for above in PurePosixPath(file.path).parents}
    for file in tree.files:
        if not _is_name(file.path) or file.path in folders:
            msg = f"{url} has a file {clip(file.path, 200)!r} that cannot be one here"
            raise ArtifactError(msg)


def _is_name(path: str) -> bool:
    parts = path.split("/")
    return (
        path.isprintable()
        and len(parts) <= MAX_DEPTH
        and all(0 < len(part.encode()) <= 255 and not part.startswith(".") for part in parts)  # noqa: PLR2004 - NAME_MAX
    )


@contextlib.contextmanager
def _locked(place: Path, wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of a place, and call ``wait`` as long as another has it. It is freed however its holder ends."""
    descriptor = os.open(place / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                wait()
        yield
    finally:
        os.close(descriptor)
