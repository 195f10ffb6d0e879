"""Whether the policy lets these bytes be loaded, before any loader sees them, and what to do where not."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from fitserve.errors import UntrustedArtifactError
from fitserve.trust.allowlist import is_full_name

if TYPE_CHECKING:
    from fitserve.trust.policy import TrustPolicy
    from fitserve.types import Artifact

HOLDS_CODE = "is {}, which can run code when it is loaded; the trust level 'data' takes formats that hold none"

JUDGED_BY_LOADER = frozenset({"pickle", "python"})
"""Formats that hold code, and whose loaders look closer than at the digest."""


def require_vouched(artifact: Artifact, *, holds_code: bool, format_name: str, policy: TrustPolicy) -> bool:
    """Refuse what the policy does not let be loaded; return whether a pin or a signature vouches for it.

    Pickles hold code, and are still let through under ``allowlist``: their loader judges each name
    (:func:`~fitserve.trust.unpickler.load_pickle`, whose ``is_signed`` takes what this returns). So are
    Python classes: their loader wants them to lie in the operator's ``code_path``.

    Args:
        artifact: what was read.
        holds_code: of the format, :attr:`fitserve.formats.base.Format.holds_code`.
        format_name: of the format.
        policy: from the settings, never from the artifact.

    Raises:
        UntrustedArtifactError: the policy does not let it be loaded; the text says why.
    """
    digest = artifact.digest
    require_pinned(digest, policy)
    if policy.verify_key is not None:
        require_signed(artifact, policy)
    if policy.pins or policy.verify_key is not None:
        _require_covered(artifact)
    if policy.level == "data" and holds_code:
        raise UntrustedArtifactError(HOLDS_CODE.format(f"of the format {format_name!r}"), digest=digest)
    is_vouched = policy.verify_key is not None or digest in policy.pins
    may_run = policy.level == "any" or (policy.level == "pinned" and is_vouched)
    if holds_code and format_name not in JUDGED_BY_LOADER and not may_run:
        raise UntrustedArtifactError(
            f"is of the format {format_name!r}, which runs the model's own code; the trust level {policy.level!r} "
            f"takes it only when something outside of it vouches for its bytes (sha256:{digest})",
            digest=digest,
        )
    return is_vouched


def _require_covered(artifact: Artifact) -> None:
    """Refuse what would change the answers of bytes that are vouched for, and is not vouched for itself.

    Raises:
        UntrustedArtifactError: a file beside the model renames its classes or states its inputs.
    """
    declared = artifact.declared
    stated = {"classes": declared.classes, "inputs": declared.fields or declared.mlflow_fields}
    changing = [name for name, value in stated.items() if value]
    if changing and not artifact.files:  # the digest of a folder covers all that is in it
        raise UntrustedArtifactError(
            f"has a manifest beside it that states {' and '.join(changing)}, which neither a pin nor a signature of "
            "the model covers: make a package of both (fitserve pack), and pin or sign that",
            digest=artifact.digest,
        )


def require_pinned(digest: str, policy: TrustPolicy) -> None:
    """Refuse bytes that are not among the pins, if there are any.

    Raises:
        UntrustedArtifactError: they are not.
    """
    if policy.pins and digest not in policy.pins:
        raise UntrustedArtifactError(
            f"is not what was pinned: its digest is sha256:{digest}, wanted "
            + " or ".join(f"sha256:{pin}" for pin in sorted(policy.pins)[:3]),
            digest=digest,
        )


def require_signed(artifact: Artifact, policy: TrustPolicy) -> None:
    """Refuse bytes that the policy's key has not signed.

    Raises:
        UntrustedArtifactError: there is no signature, or it is another one's.
    """
    from fitserve.trust.signing import verify_signature

    assert policy.verify_key is not None
    if artifact.signature is None:
        raise UntrustedArtifactError(
            "has no signature, and a key to verify one is configured (verify_key): sign it with model_signing, "
            "and put the signature beside it, as NAME.sig",
            digest=artifact.digest,
        )
    files = artifact.files or {artifact.file_name: artifact.data}
    verify_signature(files, artifact.signature, policy.verify_key, digest=artifact.digest)


def remedies(error: UntrustedArtifactError, path: str, policy: TrustPolicy) -> tuple[str, ...]:
    """Return the command lines that would let the file at ``path`` be served, each fit for a shell.

    None where only the operator's own policy stands in the way, a pin or a key that does not fit: what was
    configured outside of the file is not undone by the file. None either for what a notebook defined: no policy
    brings that here. Names that no ``--allow`` can take leave the pin and the conversion.
    """
    if policy.pins or policy.verify_key or any(name.startswith("__main__") for name in error.missing):
        return ()
    quoted = shlex.quote(f"./{path}" if path.startswith("-") else path)
    stem, suffix = re.sub(r"\.\w+$", "", path), path.rpartition(".")[2].lower()
    code_path = "".join(f" --code-path {shlex.quote(str(folder))}" for folder in policy.code_path)
    if policy.level == "data" and not error.missing:
        return (f"fitserve run {quoted} --trust allowlist{code_path}",)
    pin = f"--pin sha256:{error.digest}"
    lines = []
    if suffix == "py":
        lines.append(f"fitserve run {quoted} --code-path {shlex.quote(path.rpartition('/')[0] or '.')}")
    if error.missing and all(map(is_full_name, error.missing)):
        allow = "".join(f" --allow {shlex.quote(name)}" for name in [*sorted(policy.allow), *error.missing])
        lines.append(f"fitserve run {quoted}{allow}{code_path}")
    lines.append(f"fitserve run {quoted} {pin}{code_path}")
    if error.missing and suffix != "skops":
        lines.append(f"fitserve convert {quoted} {shlex.quote(f'{stem}.skops')} {pin}{code_path}")
    return tuple(lines)
