"""The errors of fitserve.

::

    FitserveError
    ├── SettingsError                 a setting is unknown or out of bounds
    ├── ArtifactError                 a model file cannot be served
    │   ├── ArtifactNotFoundError     there is no such file
    │   └── UntrustedArtifactError    the trust policy does not let it be loaded
    ├── RequestError                  the caller's mistake
    │   ├── MalformedBodyError        the body is not what its media type says
    │   ├── UnsupportedMediaTypeError the body is of a type that is not read here
    │   ├── BodyTooLargeError         the body exceeds ``max_body_bytes``
    │   ├── InvalidInputError         the input does not fit the model's signature
    │   ├── ModelNotFoundError        no such model, version or alias
    │   └── ForbiddenError            the caller may not do this
    ├── ConflictError                 the operation collides with one under way
    ├── ModelNotReadyError            no model can answer yet
    │   └── VersionNotLoadedError     the version is known, and not in memory
    ├── DeadlineExceededError         there was no time left to compute it
    └── ModelFailedError              the model raised, or returned what it must not

An error says what was wanted, what came, and what to do. It carries no status
code: each protocol owns its table. The text of a :class:`RequestError` is shown
to the caller, so it never holds a path of this machine or a feature value.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class FitserveError(Exception):
    """Base of every error that fitserve raises on purpose."""


class SettingsError(FitserveError):
    """A setting is unknown, malformed or out of its bounds."""


class ArtifactError(FitserveError):
    """A model file cannot be read, or holds nothing that can be served."""

    def reworded(self, text: str) -> Self:
        """The same error with another text: where the path may be told, or may not."""
        return type(self)(text)


class ArtifactNotFoundError(ArtifactError):
    """There is no model file at the given place."""


class UntrustedArtifactError(ArtifactError):
    """The trust policy does not let these bytes be loaded. Nothing of them has run.

    Attributes:
        digest: sha256 of the file, in hex: what ``--pin`` would take.
        missing: the full names that it needs and that are not allowed: what ``--allow`` would take.
    """

    def __init__(self, reason: str, *, digest: str, missing: Sequence[str] = ()) -> None:
        self.digest = digest
        self.missing = tuple(missing)
        super().__init__(reason)

    def reworded(self, text: str) -> Self:
        """The same error with another text."""
        return type(self)(text, digest=self.digest, missing=self.missing)


class RequestError(FitserveError):
    """The caller's mistake: the request must change before it can succeed."""


class MalformedBodyError(RequestError):
    """The body is not a JSON document, or names a key twice."""


class UnsupportedMediaTypeError(RequestError):
    """The body's media type, character set or content coding is not read here."""


class BodyTooLargeError(RequestError):
    """The body has more bytes than ``max_body_bytes``."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"the body is larger than the limit of {limit_bytes} bytes (max_body_bytes)")


class ForbiddenError(RequestError):
    """The caller may not do this, whoever the caller is."""


class ModelNotFoundError(RequestError):
    """The store knows no such model, version or alias."""

    def __init__(
        self, wanted: str, known: Sequence[str], *, kind: Literal["model", "version", "alias"] = "version"
    ) -> None:
        what = {"model": "model", "version": "model version", "alias": "alias"}[kind]
        hint = did_you_mean(wanted, known)
        there = clip(", ".join(known), 300) or "none"
        super().__init__(f"no {what} {clip(wanted)!r}; there is: {there}" + (f"; {hint}" if hint else ""))


@dataclass(frozen=True, slots=True)
class InputIssue:
    """One thing wrong with an input: where, what was wanted and what came.

    ``came`` names a type or a length, never the value: inputs may be personal data.
    """

    wanted: str
    came: str
    row: int | None = None
    column: str | None = None
    hint: str | None = None

    def __str__(self) -> str:
        place = [f"row {self.row}"] if self.row is not None else []
        place += [f"column {clip(self.column)!r}"] if self.column is not None else []
        text = f"wanted {self.wanted}; came {self.came}"
        text = f"{', '.join(place)}: {text}" if place else text
        return f"{text} ({self.hint})" if self.hint else text


class InvalidInputError(RequestError):
    """The input does not fit the model's signature.

    ``issues`` holds at most :data:`MAX_ISSUES` of them; checking stops there.
    """

    def __init__(self, issues: Sequence[InputIssue]) -> None:
        self.issues = tuple(issues[:MAX_ISSUES])
        super().__init__(str(self.issues[0]))


class ConflictError(FitserveError):
    """The operation collides with another one on the same model."""


class ModelNotReadyError(FitserveError):
    """No model is loaded, or it has not answered a row yet."""


class VersionNotLoadedError(ModelNotReadyError):
    """A version is known and not in memory: it has to be loaded before it answers."""

    def __init__(self, name: str, version: str) -> None:
        super().__init__(f"version {clip(version)!r} of the model {clip(name)!r} is not in memory: ask again")
        self.name = name
        self.version = version


class DeadlineExceededError(FitserveError):
    """The time that a request had was over before the model was called for it. It was not computed."""


class ModelFailedError(FitserveError):
    """The model raised, or returned what cannot be a prediction.

    The text is for the operator's log; callers are told no more than that it failed.
    """


MAX_ISSUES = 10
"""How many issues one error lists: enough to mend a client, too few to amplify a request."""


LONGEST_MISSPELLING = 200


def clip(text: str, length: int = 64) -> str:
    """Shorten text that came from a caller to at most ``length`` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """Return ``did you mean 'x'?`` for the known name nearest to ``name``, or None."""
    # The search is quadratic in the length: a long name is no misspelling of a short one.
    near = get_close_matches(name, list(known), n=1) if len(name) <= LONGEST_MISSPELLING else []
    return f"did you mean {clip(near[0])!r}?" if near else None
