"""What a model format gives the rest of the house."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from fitserve.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fitserve.signature import Inputs, Signature
    from fitserve.trust.policy import TrustPolicy
    from fitserve.types import Artifact, Hooks, ModelFacts, Outputs


def _nothing() -> None:
    """Import nothing."""


def hooks_of(model: object) -> Hooks | None:
    """The hooks of a model that has them. Both block: call them off the event loop."""
    return getattr(model, "hooks", None)


class Model(Protocol):
    """A fitted model of any format, ready to predict.

    One that holds connections also has an attribute ``hooks``, a :class:`~fitserve.types.Hooks`; see :func:`hooks_of`.
    """

    @property
    def signature(self) -> Signature:
        """What it takes and gives."""

    @property
    def facts(self) -> ModelFacts:
        """What is known of it besides."""

    @property
    def is_library_code(self) -> bool:
        """Whether a call runs known numeric libraries only, so that its cost does not hang on the values."""

    def predict(self, inputs: Inputs, asked: Sequence[str] = ()) -> Outputs:
        """Map inputs of shape (n_rows, n_features) to outputs of n_rows rows.

        Predictions, and probabilities where the model has them, are always given; ``asked`` names
        others of :attr:`Signature.outputs` that are wanted in ``extras``.

        The inputs have been checked against :attr:`signature`. Row i of the outputs depends
        on row i of the inputs only. May be called from several threads at once, as
        scikit-learn's own predict may. May raise anything, ``SystemExit`` included.
        """


@dataclass(frozen=True, slots=True)
class Format:
    """One kind of model file.

    The content decides which format an artifact has, by ``matches``; exactly one may match, and no
    other loader is tried when that one fails.

    Attributes:
        name: what people call it; stands in manifests.
        suffixes: how such files usually end, with the dot: for names and messages only.
        matches: whether these bytes are of this format. Cheap, never raises, parses no more than a head.
        load: bytes to model; raises :class:`~fitserve.errors.ArtifactError`. Imports the
            library that it needs with :func:`require`.
        prepare: imports what ``load`` will need, so that a confined child does it before its
            memory is bounded and before it looks at the bytes.
        holds_code: loading runs, or may run, what the file says: the trust policy must agree.
    """

    name: str
    suffixes: tuple[str, ...]
    matches: Callable[[Artifact], bool]
    load: Callable[[Artifact, TrustPolicy], Model]
    prepare: Callable[[], None] = _nothing
    holds_code: bool = False


def is_vouched_for(artifact: Artifact, policy: TrustPolicy) -> bool:
    """Whether the policy lets the artifact's own code run: everything may, or these bytes are vouched for.

    That a pin or signature fits has been checked before any format is asked to load: here it only
    matters that there is one.
    """
    if policy.level == "pinned":
        return artifact.digest in policy.pins or policy.verify_key is not None
    return policy.level == "any"


def require(module: str, extra: str) -> Any:
    """Import a format's library.

    Raises:
        ArtifactError: it is not installed; the text says what to install.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        needed = module.partition(".")[0]
        msg = f"needs the package {needed!r}, which is not installed here: pip install 'fitserve[{extra}]'"
        raise ArtifactError(msg) from None
