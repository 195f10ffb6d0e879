"""The forms in which a version can be computed: the library's own call, and engines proven to answer alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fitserve.signature import Inputs
    from fitserve.store.cost import Cost
    from fitserve.types import Outputs

NATIVE = "native"
"""The name of the library's own call."""


@dataclass(frozen=True, slots=True)
class Form:
    """One way to compute a version's outputs.

    Attributes:
        name: :data:`NATIVE`, or an engine's.
        predict: checked inputs to outputs; any thread. Its second argument names the extras that are asked
            for, which only the native form gives: other forms are never asked for any.
        cost: what a call takes, measured at load and learnt from calls since.
        memory_bytes: that it takes besides the library's form.
    """

    name: str
    predict: Callable[[Inputs, Sequence[str]], Outputs]
    cost: Cost
    memory_bytes: int = 0


class Forms:
    """The forms of one version. Read on the event loop; :meth:`add` may be called from any thread.

    Attributes:
        native: always there, and the only one that gives extras.
    """

    def __init__(self, native: Form) -> None:
        self.native = native
        self._all: tuple[Form, ...] = (native,)

    @property
    def all(self) -> tuple[Form, ...]:
        """The native form first, then those that were added."""
        return self._all

    def add(self, form: Form) -> None:
        """Let a form serve from now on, where it is the cheapest. One assignment, so any thread may."""
        self._all = (*self._all, form)

    def cheapest(self, n_rows: int) -> Form:
        """Return the form that is expected to compute so many rows first."""
        best = self.native
        if len(self._all) == 1:
            return best
        least_s = best.cost.expected_s(n_rows)
        for form in self._all[1:]:
            expected_s = form.cost.expected_s(n_rows)
            if expected_s < least_s:
                best, least_s = form, expected_s
        return best

    def cheapest_engine(self, n_rows: int) -> Form:
        """The same, of those that were added: each was proven to give a row the same bits in any company."""
        return min(self._all[1:], key=lambda form: form.cost.expected_s(n_rows))
