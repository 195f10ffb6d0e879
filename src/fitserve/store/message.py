"""An artifact as a message to another process: a JSON object and the bytes of its files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fitserve.signature import Field
from fitserve.trust.policy import TrustPolicy
from fitserve.types import Artifact, Declared, Golden

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def artifact_message(artifact: Artifact) -> tuple[dict[str, Any], list[bytes]]:
    """Return what is said of an artifact, and its files; the order of the two belongs together."""
    names = list(artifact.files)
    message = {
        "name": artifact.name,
        "version": artifact.version,
        "digest": artifact.digest,
        "file_name": artifact.file_name,
        "files": names,
        "declared": asdict(artifact.declared),
        "golden": artifact.golden and asdict(artifact.golden),
        "metadata": dict(artifact.metadata),
        "is_signed": artifact.signature is not None,
    }
    signature = [] if artifact.signature is None else [artifact.signature]
    if not names:
        return message, [artifact.data, *signature]
    main = next(name for name in names if artifact.files[name] is artifact.data)
    return {**message, "main": main}, [*artifact.files.values(), *signature]


def artifact_of(message: Mapping[str, Any], blobs: Sequence[bytes | memoryview]) -> Artifact:
    """Build the artifact again, with a copy of its bytes where they are a view."""
    contents = [bytes(blob) for blob in blobs]
    signature = contents.pop() if message["is_signed"] else None
    files = dict(zip(message["files"], contents, strict=True)) if message["files"] else {}
    golden = message["golden"]
    return Artifact(
        name=message["name"],
        version=message["version"],
        digest=message["digest"],
        data=files[message["main"]] if files else contents[0],
        file_name=message["file_name"],
        files=files,
        declared=_declared(message["declared"]),
        golden=Golden(**golden) if golden else None,
        metadata=message["metadata"],
        signature=signature,
    )


def _declared(message: Mapping[str, Any]) -> Declared:
    classes = message["classes"]
    return Declared(
        format=message["format"],
        fields=_fields(message["fields"]),
        example=message["example"],
        mlflow_fields=_fields(message["mlflow_fields"]),
        classes=None if classes is None else tuple(classes),
        libraries=message["libraries"],
    )


def _fields(messages: Sequence[Mapping[str, Any]] | None) -> tuple[Field, ...] | None:
    if messages is None:
        return None
    return tuple(
        Field(**{**message, "categories": None if (known := message["categories"]) is None else tuple(known)})
        for message in messages
    )


def policy_message(policy: TrustPolicy) -> dict[str, Any]:
    """Return a trust policy as a JSON object."""
    return {
        "level": policy.level,
        "allow": sorted(policy.allow),
        "pins": sorted(policy.pins),
        "verify_key": policy.verify_key and str(policy.verify_key),
        "code_path": [str(folder) for folder in policy.code_path],
    }


def policy_of_message(message: Mapping[str, Any]) -> TrustPolicy:
    """Build the policy again."""
    return TrustPolicy(
        level=message["level"],
        allow=frozenset(message["allow"]),
        pins=frozenset(message["pins"]),
        verify_key=Path(message["verify_key"]) if message["verify_key"] else None,
        code_path=tuple(map(Path, message["code_path"])),
    )
