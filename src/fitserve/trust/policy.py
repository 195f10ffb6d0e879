"""The trust policy: what may be loaded. It comes from settings, never from an artifact."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - part of a record
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from fitserve.settings import Settings

TrustLevel: TypeAlias = Literal["data", "allowlist", "pinned", "any"]


@dataclass(frozen=True, slots=True)
class TrustPolicy:
    """What may be loaded. Immutable, and out of reach of what it judges.

    Attributes:
        level: ``data``: formats that hold no code; ``allowlist``: also pickles whose every global
            is on the list; ``pinned``: also bytes that are vouched for; ``any``: everything.
        allow: full names (``package.module.Name``) that the operator adds to the list.
        pins: sha256 digests in hex. If there are any, only bytes that match one are loaded.
        verify_key: a public key; if given, only artifacts that it has signed are loaded.
        code_path: folders of the operator's own modules.
    """

    level: TrustLevel = "allowlist"
    allow: frozenset[str] = frozenset()
    pins: frozenset[str] = frozenset()
    verify_key: Path | None = None
    code_path: tuple[Path, ...] = ()


def policy_of(settings: Settings) -> TrustPolicy:
    """The policy that settings state. A pin or a key is meant to be used: it raises the default level."""
    level: TrustLevel = settings.trust
    if level == "allowlist" and (settings.pin or settings.verify_key):
        level = "pinned"
    return TrustPolicy(
        level=level,
        allow=frozenset(settings.allow),
        pins=frozenset(pin.removeprefix("sha256:") for pin in settings.pin),
        verify_key=settings.verify_key,
        code_path=tuple(folder.resolve() for folder in settings.code_path),
    )
