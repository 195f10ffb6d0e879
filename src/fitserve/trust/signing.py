"""Signatures of models: the OpenSSF model-signing format, with a public key configured outside the model.

Source: https://github.com/ossf/model-signing-spec; the library model-signing 1.1.
"""

from __future__ import annotations

import base64
import json
import tempfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from fitserve.errors import ArtifactError, UntrustedArtifactError, clip

if TYPE_CHECKING:
    from collections.abc import Mapping

ITSELF = "."
"""How the library names the file when the model is one file."""


def verify_signature(files: Mapping[str, bytes], signature: bytes, key: Path, *, digest: str = "") -> None:
    """Refuse ``files`` that the owner of ``key`` has not signed exactly as they are.

    The bytes that were read are written to a private temporary folder, and the library reads them there:
    the paths that they came from may have changed since. Each of the files must be signed; those that the
    library passes over (``.git…``), or that the signature says to ignore, are not. A signature by shards is
    refused: model-signing 1.1.1 fails on the shard size that it wrote itself.

    Args:
        files: each file of the model by its path below the model's folder; one file is a model too.
        signature: the signature file.
        key: path of the public key (PEM, elliptic curve).
        digest: of the artifact, for the error.

    Raises:
        UntrustedArtifactError: the signature is another one's, or of other bytes.
        ArtifactError: the package model-signing is not installed, or the key cannot be read.
    """
    try:
        from model_signing import verifying
    except ModuleNotFoundError:
        raise ArtifactError(
            "needs the package 'model-signing' to be verified, which is not installed here: "
            "pip install 'fitserve[signing]'"
        ) from None
    try:
        config: Any = verifying.Config  # it has no annotations
        verifier = config().use_elliptic_key_verifier(public_key=key)
    except (OSError, ValueError) as exc:
        raise ArtifactError(f"cannot be verified: verify_key is no public key ({type(exc).__name__})") from exc
    with tempfile.TemporaryDirectory(prefix="fitserve-verify-") as folder:  # of mode 0700
        model, beside = Path(folder, "model"), Path(folder, "model.sig")
        for name, data in files.items():
            _write(model, name, data)
        beside.write_bytes(signature)
        try:
            names = _signed_names(signature)
            is_one_file = names == {ITSELF} and len(files) == 1
            verifier.verify(model / next(iter(files)) if is_one_file else model, beside)
        except Exception as exc:  # the library raises many kinds for a malformed signature
            raise UntrustedArtifactError(
                f"is not what the owner of the key has signed: {clip(str(exc), 300)}", digest=digest
            ) from exc
    unsigned = set() if is_one_file else set(files) - names
    if unsigned:
        raise UntrustedArtifactError(
            f"holds files that are not signed: {', '.join(clip(name) for name in sorted(unsigned)[:5])}", digest=digest
        )


def _write(folder: Path, name: str, data: bytes) -> None:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts:
        raise ArtifactError("holds a file whose name leads elsewhere")
    path = folder.joinpath(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _signed_names(signature: bytes) -> set[str]:
    """Return the names in the signed statement. They count only once the library has verified it."""
    statement: Any = json.loads(base64.b64decode(json.loads(signature)["dsseEnvelope"]["payload"]))
    return {resource["name"] for resource in statement["predicate"]["resources"]}
