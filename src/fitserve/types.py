"""The words of fitserve: the records that pass between its parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ModelRef:
    """What a caller asks for: a version, or the one that serves by default."""

    version: str | None = None


@dataclass(frozen=True, slots=True)
class Artifact:
    """The bytes of a model file, read once, and what its surroundings say of it.

    Attributes:
        name: an identifier; from the manifest, else from the file name.
        version: from the manifest, else from the file name, else made of the digest.
        digest: sha256 of ``data``, in hex.
        data: the whole file. Whoever loads the model loads these bytes, never the path again.
        example: a valid row by feature name, from the manifest.
        metadata: what the author says in the manifest.
    """

    name: str
    version: str
    digest: str
    data: bytes = field(repr=False)
    example: Mapping[str, Any] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outputs:
    """What one call of a model gave for ``n_rows`` rows.

    Attributes:
        predictions: shape (n_rows,) or (n_rows, n_outputs).
        probabilities: shape (n_rows, n_classes), in the order of the signature's classes;
            one such array an output for a model of several; None for a regressor.
    """

    predictions: NDArray[Any]
    probabilities: tuple[NDArray[np.floating[Any]], ...] | None = None


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of a fitted model besides its signature.

    ``libraries`` maps a library to its version at fitting (None where the file does not
    tell) and now.
    """

    model_type: str
    libraries: Mapping[str, tuple[str | None, str]]
    warnings: tuple[str, ...] = ()
