"""Nothing unverified enters a serving process: a model is first loaded and tried in a confined child.

There it may crash, hang or eat memory at no cost to anybody. What the child reports, and only
that, comes back; then a serving process loads the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import resource
import tempfile
import threading
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from fitserve.confine.child import shared_template
from fitserve.confine.sandbox import Sandbox, enter
from fitserve.confine.scratch import make_scratch, remove_scratch
from fitserve.errors import ArtifactError, UntrustedArtifactError
from fitserve.formats import identify
from fitserve.store import PRELOAD
from fitserve.store.describe import describe_model, example_request
from fitserve.store.golden import replay
from fitserve.store.loading import extend_path, load_artifact
from fitserve.store.made_rows import self_made_rows
from fitserve.store.message import artifact_message, artifact_of, policy_message, policy_of_message
from fitserve.trust.judge import remedies, require_pinned
from fitserve.trust.policy import TrustPolicy, policy_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fitserve.confine.sandbox import Confinement
    from fitserve.formats.base import Model
    from fitserve.settings import Settings
    from fitserve.types import Artifact
    from fitserve.urls import SourceUrl

BASE_MEMORY_BYTES = 384 * 2**20
"""What a child may take besides its libraries, whatever the size of the file."""

MEMORY_PER_BYTE = 16
"""Bytes that loading may need for each byte of a file: XGBoost's JSON takes the most, about ten."""

MEMORY_PER_COMPRESSED_BYTE = 40
"""Forests of scikit-learn shrink to a tenth when they are compressed, and are held twice while they are read."""

_COMPRESSED = (b"\x1f\x8b", b"\x78", b"BZh", b"\xfd7zXZ", b"\x5d\x00\x00", b"\x04\x22\x4d\x18", b"PK\x03\x04")
"""How gzip, zlib, bzip2, xz, lzma, lz4 and zip files begin."""


@dataclass(frozen=True)
class Verifier:
    """Tries artifacts in confined children. Thread-safe; blocks.

    Attributes:
        policy: what may be loaded at all.
        deadline_s: how long a trial may take.
        memory_bytes: the bound of its memory; 0 takes one from the size of the file.
        destinations: what it may connect to.
        passed: reports by :func:`identity`, of artifacts that another process has tried already.
    """

    policy: TrustPolicy = field(default_factory=TrustPolicy)
    deadline_s: float = 60.0
    memory_bytes: int = 0
    destinations: tuple[tuple[str, int], ...] = ()
    passed: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def verify(self, artifact: Artifact) -> Mapping[str, Any]:
        """Load an artifact in a confined child, replay its golden samples, and report.

        Returns:
            JSON: ``model`` (as :func:`~fitserve.store.describe.describe_model` has it), ``example``, ``golden``,
            ``n_self_made_rows``, ``failure`` of a test row, ``confinement`` and ``peak_memory_bytes``.

        Raises:
            UntrustedArtifactError: the policy does not let it be loaded.
            ArtifactError: it cannot be loaded, crashed, did not end in time, or does not answer its
                golden samples as when it was packed.
        """
        require_pinned(artifact.digest, self.policy)  # before a child is made for it
        if (known := self.passed.get(identity(artifact))) is not None:
            return known
        report = self.run("fitserve.store.verify:try_artifact", artifact)
        try:
            # What runs in the child may have written it; from here on it is shown to callers and passed to workers.
            checked: Mapping[str, Any] = orjson.loads(orjson.dumps(report))
        except (TypeError, ValueError) as exc:
            msg = f"gave a report that is no JSON when it was tried ({type(exc).__name__})"
            raise ArtifactError(msg) from exc
        return checked

    def run(self, task: str, artifact: Artifact, **request: Any) -> dict[str, Any]:
        """Run a task on an artifact in a confined child; it begins with :func:`enter_with`.

        Raises as :meth:`verify` does.
        """
        scratch = make_scratch("fitserve-trial-")
        try:
            return self.run_in(scratch, task, artifact, **request)
        finally:
            if scratch is not None:
                remove_scratch(scratch)

    def run_in(
        self,
        scratch: Path | None,
        task: str,
        artifact: Artifact,
        *,
        spare_bytes: int = 0,
        niceness: int = 0,
        gives_up: Callable[[], bool] | None = None,
        **request: Any,
    ) -> dict[str, Any]:
        """Do what :meth:`run` does, in a folder of the caller's, who may read there what the child has left.

        Args:
            scratch: where it may write; the caller removes it.
            task: as :meth:`run` has it.
            artifact: likewise.
            spare_bytes: memory for it besides what loading takes, unless ``memory_bytes`` sets a bound.
            niceness: by how much its priority is lower than ours.
            gives_up: asked now and then whether the answer is wanted no more: then the child is killed.
            request: as :meth:`run` has it.

        Raises as :meth:`verify` does.
        """
        message, blobs = artifact_message(artifact)
        request |= {
            "artifact": message,
            "policy": policy_message(self.policy),
            "scratch": scratch and str(scratch),
            "memory_bytes": self.memory_bytes or _memory_for(blobs) + spare_bytes,
            "deadline_s": self.deadline_s,
            "destinations": self.destinations,
        }
        return shared_template(PRELOAD).run(
            task, request, blobs, deadline_s=self.deadline_s, niceness=niceness, gives_up=gives_up
        )


def verifier_of(settings: Settings, passed: Mapping[str, Mapping[str, Any]] | None = None) -> Verifier:
    """The verifier that settings ask for."""
    return Verifier(
        policy=policy_of(settings),
        deadline_s=settings.load_timeout_s,
        memory_bytes=settings.load_memory_bytes,
        destinations=settings.destinations,
        passed=passed or {},
    )


def verified(artifact: Artifact, verifier: Verifier) -> Mapping[str, Any]:
    """What :meth:`Verifier.verify` reports; meanwhile this process imports what it will need to load the same bytes."""
    importing = threading.Thread(target=_import_ahead, args=(artifact,), name="fitserve-imports", daemon=True)
    importing.start()
    try:
        return verifier.verify(artifact)
    finally:
        importing.join()  # a process that ends in the middle of an import may crash


def _import_ahead(artifact: Artifact) -> None:
    with contextlib.suppress(Exception):  # whoever loads it meets the same
        identify(artifact).prepare()


def with_path(error: ArtifactError, path: Path | SourceUrl, policy: TrustPolicy) -> ArtifactError:
    """The same error in the operator's words: with the path, and what could be done."""
    text = f"{path} {error}"
    if isinstance(error, UntrustedArtifactError) and (commands := remedies(error, str(path), policy)):
        text = "\n  ".join([f"{text}\nIf you trust this file, any of these lets it be served:", *commands])
    return error.reworded(text)


def identity(artifact: Artifact) -> str:
    """A digest of all that verification depends on: the files, and what is said of them."""
    message, _ = artifact_message(artifact)
    return hashlib.sha256(orjson.dumps(message, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _memory_for(blobs: Sequence[bytes]) -> int:
    factors = (
        MEMORY_PER_COMPRESSED_BYTE if bytes(blob[:6]).startswith(_COMPRESSED) else MEMORY_PER_BYTE for blob in blobs
    )
    return BASE_MEMORY_BYTES + sum(len(blob) * factor for blob, factor in zip(blobs, factors, strict=True))


def enter_with(
    request: Mapping[str, Any], blobs: Sequence[memoryview], prepare: Callable[[], None] | None = None
) -> tuple[Artifact, TrustPolicy, Confinement]:
    """Begin a task: be confined, import what the format needs, and bound the memory before the bytes are parsed.

    Only their heads are looked at before, by our own code, to know the format.

    Args:
        request: what :meth:`Verifier.run_in` has made.
        blobs: the files.
        prepare: imports what the task needs besides.
    """
    scratch = request["scratch"]
    if scratch is not None:
        tempfile.tempdir = scratch
    sandbox = Sandbox(
        writable=() if scratch is None else (Path(scratch),),
        connect=tuple((host, port) for host, port in request["destinations"]),
        may_tighten=True,
    )
    enter(sandbox)  # before any library is imported that starts threads
    artifact, policy = artifact_of(request["artifact"], blobs), policy_of_message(request["policy"])
    extend_path(policy.code_path)
    identify(artifact).prepare()
    if prepare is not None:
        prepare()
    confinement = enter(
        replace(
            sandbox,
            memory_bytes=request["memory_bytes"],
            cpu_s=int(request["deadline_s"]) + 1,
            file_bytes=request["memory_bytes"],
            may_tighten=False,
        )
    )
    return artifact, policy, confinement


def _failure(model: Model, rows: Sequence[Any]) -> str | None:
    """What goes wrong when a model is asked rows that its signature takes; it may still serve others."""
    try:
        model.predict(model.signature.check(rows))
    except (Exception, SystemExit) as exc:  # noqa: BLE001 - a model may raise anything
        return f"it raised {type(exc).__name__} on one of {len(rows)} rows made for it"
    return None


def try_artifact(request: Mapping[str, Any], blobs: Sequence[memoryview]) -> dict[str, Any]:
    """Do what :meth:`Verifier.verify` says, in the child."""
    artifact, policy, confinement = enter_with(request, blobs)
    loaded = load_artifact(artifact, policy)
    if loaded.trial.is_out_of_memory:
        msg = f"needs more than {request['memory_bytes'] // 2**20} MiB to answer a row (load_memory_bytes)"
        raise ArtifactError(msg)
    report: dict[str, Any] = {
        "confinement": confinement.summary, "golden": None, "n_self_made_rows": 0, "failure": loaded.trial.failure,
    }  # fmt: skip
    if artifact.golden is not None:
        golden = replay(loaded.model, artifact.golden)
        if not golden.is_ok:
            msg = f"does not answer its golden samples as when it was packed: {golden.mismatch}"
            raise ArtifactError(msg)
        report["golden"] = {"n_rows": golden.n_rows, "outputs": [asdict(output) for output in golden.outputs]}
        loaded.trial.has_answered = True
    elif loaded.trial.has_answered:
        rows = self_made_rows(loaded.model.signature)
        report |= {"n_self_made_rows": len(rows), "failure": _failure(loaded.model, rows)}
    report["peak_memory_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    # Facts hold times and numpy scalars of a model's own: they travel as the JSON that callers get.
    return {
        **report,
        "model": orjson.loads(
            orjson.dumps(describe_model(replace(loaded, verification=report)), option=orjson.OPT_SERIALIZE_NUMPY)
        ),
        "example": example_request(loaded),
    }
