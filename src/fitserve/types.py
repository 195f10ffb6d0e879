"""The words of fitserve: the records that pass between its parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from fitserve.signature import Field, Label


@dataclass(frozen=True, slots=True)
class ModelRef:
    """What a caller asks for: a model and a version of it.

    Attributes:
        name: of the model; None for the default one.
        version: its label; None for the one that serves.
        alias: a name that stands for a version, such as ``champion``.
    """

    name: str | None = None
    version: str | None = None
    alias: str | None = None


@dataclass(frozen=True, slots=True)
class Declared:
    """What is said of a model's inputs and outputs besides what stands in the model itself.

    Each is None where nobody says it. What comes first wins over what comes later, and both
    over the estimator: ``fields``, ``example``, ``mlflow_fields``.

    Attributes:
        format: the name of the format that the manifest states; it must be what the bytes are.
        fields: every input, from a manifest.
        example: a valid row by feature name, from a manifest; it also tells kinds.
        mlflow_fields: inputs by the signature in an ``MLmodel`` file.
        classes: the labels, in the order of the probabilities, for a model that only knows 0, 1, ….
        libraries: versions at fitting or packing, by distribution name.
    """

    format: str | None = None
    fields: tuple[Field, ...] | None = None
    example: Mapping[str, Any] | None = None
    mlflow_fields: tuple[Field, ...] | None = None
    classes: tuple[Label, ...] | None = None
    libraries: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Golden:
    """Golden samples: what a model answered when it was packed.

    Attributes:
        rows: each an object by feature name, or a list where the model has no names.
        outputs: what each asked output gave, by its name; row i of each belongs to row i of ``rows``.
        rtol: numbers may differ by this part of the larger one,
        atol: or by this much.
    """

    rows: Sequence[Any]
    outputs: Mapping[str, Sequence[Any]]
    rtol: float = 1e-6
    atol: float = 1e-9


@dataclass(frozen=True, slots=True)
class Artifact:
    """The bytes of a model, read once, and what its surroundings say of it.

    Whoever checks, hashes or loads the model uses these bytes, never a path again: what was
    checked is what is loaded.

    Attributes:
        name: an identifier; from the manifest, else from the file name.
        version: from the manifest, else from the file name, else made of the digest.
        digest: sha256 of ``data``, in hex; of a folder, of the list of its files and their digests.
        data: the whole model file; of a folder, the file that the model is loaded from.
        file_name: of ``data``, without folders.
        files: of a model that is a folder, each file by its path below it, ``data`` among them.
        declared: what the author, or the program that saved the model, says of it.
        golden: rows with the outputs that they gave when the model was packed.
        metadata: what the author says in the manifest.
        signature: the file of a model-signing signature that lies beside the model.
    """

    name: str
    version: str
    digest: str
    data: bytes = field(repr=False)
    file_name: str = "model"
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    declared: Declared = field(default_factory=Declared)
    golden: Golden | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    signature: bytes | None = field(default=None, repr=False)


class Outputs(NamedTuple):
    """What one call of a model gave for ``n_rows`` rows.

    Attributes:
        predictions: shape (n_rows,) or (n_rows, n_outputs).
        probabilities: shape (n_rows, n_classes), in the order of the signature's classes;
            one such array an output for a model of several; None for a regressor.
        extras: the other outputs that were asked for, by name (``decision_function``,
            ``score_samples``, ``transform``); n_rows values or rows each.
    """

    predictions: NDArray[Any]
    probabilities: tuple[NDArray[np.floating[Any]], ...] | None = None
    extras: Mapping[str, NDArray[Any]] = MappingProxyType({})


MAY_DIFFER = "its answers may differ"
"""How a warning ends that only golden samples can answer."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of a fitted model besides its signature.

    ``libraries`` maps a library to its version at fitting (None where the file does not
    tell) and now.
    """

    model_type: str
    libraries: Mapping[str, tuple[str | None, str]]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a model of the operator's own does when it begins and ends to serve, for pools of connections.

    Attributes:
        start: opens what predictions need. May be called again; only the first call does anything. May
            raise anything. A prediction that comes before it calls it.
        stop: closes it, after the last prediction. May be called without ``start``, and again.
    """

    start: Callable[[], None]
    stop: Callable[[], None]
