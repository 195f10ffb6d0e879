"""What a model format gives the rest of the house."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from fitserve.signature import Inputs, Signature
    from fitserve.types import Artifact, ModelFacts, Outputs


class Model(Protocol):
    """A fitted model of any format, ready to predict."""

    @property
    def signature(self) -> Signature:
        """What it takes and gives."""

    @property
    def facts(self) -> ModelFacts:
        """What is known of it besides."""

    @property
    def is_library_code(self) -> bool:
        """Whether a call runs known numeric libraries only, so that its cost does not hang on the values."""

    def predict(self, inputs: Inputs) -> Outputs:
        """Map inputs of shape (n_rows, n_features) to outputs of n_rows rows.

        The inputs have been checked against :attr:`signature`. Row i of the outputs depends
        on row i of the inputs only. May be called from several threads at once, as
        scikit-learn's own predict may. May raise anything, ``SystemExit`` included.
        """


@dataclass(frozen=True, slots=True)
class Format:
    """One kind of model file.

    Attributes:
        name: what people call it.
        suffixes: how such files end, with the dot.
        load: bytes to model; raises :class:`~fitserve.errors.ArtifactError`.
    """

    name: str
    suffixes: tuple[str, ...]
    load: Callable[[Artifact], Model]
