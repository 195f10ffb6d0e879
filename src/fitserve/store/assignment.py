"""What a fleet serves: of each model the version that answers, its aliases, and what is known of its other versions.

An assignment is one frozen record for all processes of a server. It travels as JSON on the board that they share
(:mod:`fitserve.shared_state.board`), where its generation says which one counts.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class KnownVersion:
    """A version that could serve.

    Attributes:
        version: its label, unique within its model.
        path: where it was found, or None for a live model.
        digest: of its bytes, in hex; empty as long as nobody has read them.
        identity: of all that was verified, by which its bytes are kept; empty if it was not.
        is_kept: it is in the memory of every process, whether it serves or not.
    """

    version: str
    path: str | None = None
    digest: str = ""
    identity: str = ""
    is_kept: bool = False


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model of a fleet.

    Attributes:
        name: of the model.
        serving: the version that answers where no other is asked for.
        versions: all that are known, by label, ascending.
        aliases: versions by alias.
        previous: the version that served before, which a roll back goes to.
        held: versions that stay in memory for a while after they have served; until when, in seconds since the epoch.
        operation: the id of the switch that made it so.
    """

    name: str
    serving: str
    versions: Mapping[str, KnownVersion]
    aliases: Mapping[str, str] = field(default_factory=dict)
    previous: str | None = None
    held: Mapping[str, float] = field(default_factory=dict)
    operation: str = ""

    def wanted(self, now_s: float) -> frozenset[str]:
        """The versions that have to be in memory, at a time in seconds since the epoch."""
        kept = (known.version for known in self.versions.values() if known.is_kept)
        held = (version for version, until_s in self.held.items() if until_s > now_s)
        return frozenset({self.serving, *self.aliases.values(), *kept, *held}) & self.versions.keys()


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a fleet serves.

    Attributes:
        generation: 0 before anything does.
        default: the model that answers where none is named; empty if there is none.
        models: by name, in the order of their names.
    """

    generation: int = 0
    default: str = ""
    models: Mapping[str, ServedModel] = field(default_factory=dict)

    def with_model(self, model: ServedModel) -> Assignment:
        """The same with a model put in, or in the place of what it was; the generation is the caller's to set."""
        models = {**self.models, model.name: model}
        return replace(self, default=self.default or model.name, models=dict(sorted(models.items())))


def to_json(assignment: Assignment) -> bytes:
    """An assignment as JSON; its generation stands beside it."""
    document = asdict(assignment)
    del document["generation"]
    return orjson.dumps(document)


def from_json(generation: int, document: bytes) -> Assignment:
    """An assignment that :func:`to_json` has written."""
    if not document:
        return Assignment(generation)
    parsed: dict[str, Any] = orjson.loads(document)
    models = {name: model_of(model) for name, model in parsed["models"].items()}
    return Assignment(generation, parsed["default"], models)


def model_of(document: Mapping[str, Any]) -> ServedModel:
    """A model that ``dataclasses.asdict`` has made a document of."""
    versions = {label: KnownVersion(**known) for label, known in document["versions"].items()}
    return ServedModel(**{**document, "versions": versions})
