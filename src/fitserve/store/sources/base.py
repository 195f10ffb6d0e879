"""What a source of models is: a place that tells which files it has, and gives their bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fitserve.urls import SourceUrl


class SourceChangedError(Exception):
    """A file is not the one any more that the source has told of."""


class SourceInterruptedError(Exception):
    """The source has broken off, or cannot be reached; it may give the rest when it is asked again."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a source.

    Attributes:
        path: where it belongs below the folder that is made of the source, with ``/``.
        key: what the source knows it by.
        size: bytes.
        tag: changes whenever its bytes do; "" where the source cannot tell, and then nothing of it is kept.
        beside: the file ``NAME.sha256`` that tells its digest, if there is one.
    """

    path: str
    key: str
    size: int
    tag: str
    beside: RemoteFile | None = None


@dataclass(frozen=True, slots=True)
class Tree:
    """What lies at a place now.

    Attributes:
        main: the path of the model file, or of the folder that holds all others.
        files: every one: the model's, and what lies beside it and speaks of it.
        is_folder: whether ``main`` is one.
    """

    main: str
    files: tuple[RemoteFile, ...]
    is_folder: bool


@dataclass(frozen=True, slots=True)
class Reading:
    """The bytes of a file on their way.

    Attributes:
        chunks: the bytes from the offset on. Raises as :meth:`Remote.read`.
        sha256: what the source says that the whole file has, in hex.
    """

    chunks: Iterator[bytes]
    sha256: str | None = None


class Remote(Protocol):
    """An opened place. Its methods block, and may be called from several threads at the same time.

    What it raises names no user, password or query of a URL.
    """

    def look(self) -> Tree:
        """Tell what is there, without fetching the files.

        Raises:
            ArtifactNotFoundError: nothing.
            ArtifactError: it may not be read, or is not what a model can be.
            SourceInterruptedError: it cannot be reached.
        """

    def read(self, file: RemoteFile, offset: int) -> Reading:
        """Give the bytes of a file from ``offset`` on, where the file is still the one that was told of.

        Raises:
            SourceChangedError: it is another one, or gone.
            SourceInterruptedError: it breaks off.
            ArtifactError: it may not be read.
        """


@dataclass(frozen=True, slots=True)
class Source:
    """One kind of place.

    Attributes:
        schemes: of the URLs that name it.
        open: from such a URL to the place, without asking anything of it; raises
            :class:`~fitserve.errors.SettingsError` if it is no such URL, or its library is missing.
    """

    schemes: tuple[str, ...]
    open: Callable[[SourceUrl], Remote]
