"""From what lies in a repository to a version in the memory of this process. Everything here blocks."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fitserve.errors import ArtifactError
from fitserve.store.assignment import KnownVersion
from fitserve.store.golden import replay
from fitserve.store.listing import Entry, read_entry
from fitserve.store.loading import LARGE_BYTES, give_back_memory, load_artifact
from fitserve.store.repository import read_artifact
from fitserve.store.verify import Verifier, identity, verified

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fitserve.store.catalog import LoadedModel
    from fitserve.store.spool import Spool
    from fitserve.store.takeover import Optimizer
    from fitserve.types import Artifact

PREPARE_ENGINES_S = 10.0
"""How long a switch waits for compiled engines, so that the new version need not begin with the library's own call."""


def load_model(path: Path, verifier: Verifier | None = None) -> LoadedModel:
    """Read a model, try it in a confined child, and load the same bytes here. Blocks.

    Raises:
        UntrustedArtifactError: the trust policy does not let it be loaded.
        ArtifactError: it cannot be served; the text names no path.
    """
    verifier = verifier or Verifier()
    artifact = read_artifact(path)
    loaded = load_artifact(artifact, verifier.policy, report=verified(artifact, verifier))
    del artifact
    if loaded.size_bytes >= LARGE_BYTES:
        give_back_memory()
    return loaded


class Loader:
    """Reads, verifies and loads versions. Thread-safe.

    Args:
        verifier: tries artifacts in a confined child.
        optimizer: gets engines for what is loaded; None where nothing is compiled.
        spool: keeps the bytes that were verified for the other processes; None where there are none.

    Attributes:
        is_before_fork: processes that serve will be forked from this one, and share what it loads.
    """

    def __init__(self, verifier: Verifier, optimizer: Optimizer | None = None, spool: Spool | None = None) -> None:
        self._verifier = verifier
        self._optimizer = optimizer
        self._spool = spool
        self._at_hand: dict[str, tuple[Artifact, Mapping[str, Any]]] = {}
        self._lock = threading.Lock()
        self.is_before_fork = False

    def read(self, name: str, entry: Entry, known: Mapping[str, KnownVersion]) -> tuple[Artifact, KnownVersion]:
        """Read a version, and label it by its bytes.

        Args:
            name: of its model here.
            entry: of the listing.
            known: the versions of its model, by label.

        Raises:
            ArtifactError: it cannot be read; the text follows its name.
        """
        artifact = replace(read_entry(entry), name=name)
        found = identity(artifact)
        before = known.get(artifact.version)
        if before is not None and before.identity not in {"", found}:
            # Of the same bytes, something else may be said now.
            changed = found if before.digest == artifact.digest else artifact.digest
            artifact = replace(artifact, version=labelled(artifact.version, changed))
            found = identity(artifact)
        return artifact, KnownVersion(artifact.version, str(entry.path), artifact.digest, found)

    def verify(self, artifact: Artifact, known: KnownVersion) -> None:
        """Try what was read in a confined child, and keep its bytes for :meth:`load`, here and elsewhere.

        Raises:
            UntrustedArtifactError: the trust policy does not let it be loaded.
            ArtifactError: it cannot be served; the text follows its name.
        """
        with self._lock:
            if known.identity in self._at_hand:
                return
        if self._spool is not None and self._spool.has(known.identity):
            return
        report = verified(artifact, self._verifier)
        if self._spool is not None:
            self._spool.put(artifact, report)
        with self._lock:
            self._at_hand[known.identity] = (artifact, report)

    def ensure(self, name: str, known: KnownVersion) -> None:
        """See to it that the bytes of a version that has been verified are kept for every process.

        Raises:
            ArtifactError: they are not, and can be read no more.
        """
        if self._spool is None or self._spool.has(known.identity):
            return
        artifact, report = self._bytes_of(name, known)
        self._spool.put(artifact, report)

    def let_go(self, known: KnownVersion) -> None:
        """Forget the bytes of a version that was verified, which are as large as the model."""
        with self._lock:
            dropped = self._at_hand.pop(known.identity, None)
        if dropped is not None and len(dropped[0].data) >= LARGE_BYTES:
            del dropped
            give_back_memory()

    def load(self, name: str, known: KnownVersion, *, engines_within_s: float | None = None) -> LoadedModel:
        """Load a version into this process, and have it answer its golden samples.

        Args:
            name: of the model.
            known: the version; with an identity, exactly those bytes are loaded.
            engines_within_s: how long to wait for compiled engines; None plans them for later.

        Raises:
            ArtifactError: it cannot be served; the text follows its name.
        """
        artifact, report = self._bytes_of(name, known)
        loaded = load_artifact(artifact, self._verifier.policy, report=report)
        loaded = replace(loaded, identity=known.identity or identity(artifact))
        if artifact.golden is not None:
            golden = replay(loaded.model, artifact.golden)
            if not golden.is_ok:
                msg = f"does not answer its golden samples as when it was packed: {golden.mismatch}"
                raise ArtifactError(msg)
            loaded.trial.has_answered = True
        self._get_engines(loaded, name, known, within_s=engines_within_s)
        is_large = loaded.size_bytes >= LARGE_BYTES
        del artifact
        self.let_go(known)
        if is_large:
            give_back_memory()
        return loaded

    def _get_engines(self, loaded: LoadedModel, name: str, known: KnownVersion, *, within_s: float | None) -> None:
        if self._optimizer is None:
            return
        read = partial(self._read_again, name, replace(known, identity=loaded.identity))
        if within_s is not None:
            self._optimizer.prepare(loaded, read, within_s)
        elif self.is_before_fork:
            self._optimizer.preload(loaded, read)
        else:
            self._optimizer.plan(loaded, read)

    def _read_again(self, name: str, known: KnownVersion) -> Artifact:
        """The bytes of a version that has been loaded, for whoever compiles it: nothing is tried, only compared.

        Raises:
            ArtifactError: they are no longer there.
        """
        if self._spool is not None and self._spool.has(known.identity):
            return self._spool.get(known.identity)[0]
        if known.path is None:
            msg = "is no longer in memory, and there is no file to read it from"
            raise ArtifactError(msg)
        artifact = read_entry(Entry(name, known.version, Path(known.path)))
        if identity(artifact) != known.identity:
            msg = "is not what it was when it was verified: its file has changed since; reload it"
            raise ArtifactError(msg)
        return artifact

    def _bytes_of(self, name: str, known: KnownVersion) -> tuple[Artifact, Mapping[str, Any]]:
        with self._lock:
            found = self._at_hand.get(known.identity) if known.identity else None
        if found is not None:
            return found
        if known.identity and self._spool is not None and self._spool.has(known.identity):
            return self._spool.get(known.identity)
        if known.identity:
            artifact = self._read_again(name, known)
        else:
            assert known.path is not None  # it was listed, and has never been read
            artifact = read_entry(Entry(name, known.version, Path(known.path)))
        return artifact, verified(artifact, self._verifier)


def labelled(version: str, digest: str) -> str:
    """The label of bytes that came under a version which other bytes have: ``1.2.3+22be5e2e``.

    The beginning of the digest is build metadata, as https://semver.org/#spec-item-10 has it.
    """
    mark = f"{'.' if '+' in version else '+'}{digest[:8]}"
    return version[: 64 - len(mark)] + mark
