"""The files of a source on their way: several at a time, again where it breaks off, whole or refused."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fitserve.errors import ArtifactError, clip
from fitserve.store.sources.base import SourceChangedError, SourceInterruptedError
from fitserve.store.sources.reading import MAX_DIGEST_BYTES, digest_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from fitserve.store.blobs import Blobs, Receiving
    from fitserve.store.sources.base import Remote, RemoteFile, Tree
    from fitserve.urls import SourceUrl

PAUSES_S = (0.0, 0.5, 2.0, 5.0)
"""How long a source that breaks off without giving a byte is left alone before it is asked again."""

N_STREAMS = 4
"""Files that are fetched at the same time: a folder of small ones waits for answers, not for bytes."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far fetching has come.

    Attributes:
        n_bytes: of all files together.
        n_done_bytes: of these, how many are here, whether fetched now or before.
        n_files: how many there are.
        n_done_files: of these, how many are here and whole.
    """

    n_bytes: int
    n_done_bytes: int
    n_files: int
    n_done_files: int


class Fetching:
    """One pass over the files of a source, which keeps count."""

    def __init__(
        self,
        remote: Remote,
        url: SourceUrl,
        blobs: Blobs,
        tree: Tree,
        progress: Callable[[Progress], None],
        pause: Callable[[float], None],
    ) -> None:
        self.n_fetched_bytes = 0
        self._remote = remote
        self._url = url
        self._blobs = blobs
        self._tree = tree
        self._progress = progress
        self._pause = pause
        self._counting = threading.Lock()
        self._n_done_bytes = 0
        self._n_done_files = 0
        self._failure: BaseException | None = None

    def run(self, wanted: str | None) -> dict[str, str]:
        """Have every file here. Returns their digests, by path.

        Raises:
            SourceChangedError: one has become another.
            SourceInterruptedError: the source gives no more.
            ArtifactError: one has not the digest that it should have, or may not be read.
        """
        self._count(0)
        files = self._tree.files
        with ThreadPoolExecutor(N_STREAMS) as streams:
            jobs = [streams.submit(self._try, file, wanted if file.path == self._tree.main else None) for file in files]
        if self._failure is not None:
            raise self._failure
        return {file.path: job.result() for file, job in zip(files, jobs, strict=True)}

    def _try(self, file: RemoteFile, wanted: str | None) -> str:
        """Have one file here. The first failure ends the others, at their next piece."""
        try:
            return self._have(file, wanted)
        except BaseException as exc:
            with self._counting:
                self._failure = self._failure or exc
            raise

    def _have(self, file: RemoteFile, wanted: str | None) -> str:
        told = wanted or self._told_beside(file)
        digest = self._blobs.known(file)
        if digest is None or (told and digest != told):
            digest = self._fetch(file, told)
        else:
            self._count(file.size)
        self._count(0, n_files=1)
        return digest

    def _told_beside(self, file: RemoteFile) -> str | None:
        if file.beside is None or file.beside.size > MAX_DIGEST_BYTES:
            return None
        told = digest_in(b"".join(self._remote.read(file.beside, 0).chunks))
        if told is None:
            msg = f"{self._url} has a file {clip(file.beside.path, 200)} that tells no digest: wanted 64 hex digits"
            raise ArtifactError(msg)
        return told

    def _fetch(self, file: RemoteFile, told: str | None) -> str:
        """Fetch a file, going on where it broke off, until it is whole or nothing more comes."""
        with self._blobs.receive(file) as receiving:
            self._count(receiving.n_bytes)
            n_idle = 0
            while True:
                before = receiving.n_bytes
                try:
                    told_by_source = self._stream(file, receiving)
                    break
                except SourceInterruptedError:
                    n_idle = 0 if receiving.n_bytes > before else n_idle + 1
                    if n_idle > len(PAUSES_S) or self._failure:
                        raise
                    self._pause(PAUSES_S[max(0, n_idle - 1)])
                except SourceChangedError:
                    if before == 0 or self._failure:
                        raise
                    self._count(-receiving.n_bytes)  # it may only not be readable from the middle on
                    receiving.begin_anew()
            found = receiving.digest
            for digest in filter(None, (told, told_by_source)):
                if digest != found:
                    receiving.begin_anew()
                    name = clip(file.path, 200)
                    msg = f"{self._url} has a file {name} with the digest sha256:{found}, not sha256:{digest}"
                    raise ArtifactError(msg)
            return receiving.keep()

    def _stream(self, file: RemoteFile, receiving: Receiving) -> str | None:
        """Take what comes; returns what the source tells of the digest of the whole."""
        reading = self._remote.read(file, receiving.n_bytes)
        for chunk in reading.chunks:
            if receiving.n_bytes + len(chunk) > file.size:
                raise SourceChangedError(file.path)
            receiving.write(chunk)
            self.n_fetched_bytes += len(chunk)
            self._count(len(chunk))
        if receiving.n_bytes < file.size:
            msg = "it gives fewer bytes than it has told of"
            raise SourceInterruptedError(msg)
        return reading.sha256

    def _count(self, n_bytes: int, n_files: int = 0) -> None:
        with self._counting:
            if self._failure is not None:
                msg = "another file failed"
                raise SourceInterruptedError(msg)
            self._n_done_bytes += n_bytes
            self._n_done_files += n_files
            files = self._tree.files
            total = sum(file.size for file in files)
            self._progress(Progress(total, self._n_done_bytes, len(files), self._n_done_files))
