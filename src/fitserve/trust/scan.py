"""What a pickle needs, found without making any of it.

The stream is executed with stand-ins: no global is imported, nothing is called. So all that is
missing can be named at once, and a refusal has run nothing of the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fitserve.trust import arrays, reconstruct
from fitserve.trust.machine import Machine
from fitserve.trust.stream import ARRAY_HEADER, ArrayHeader, Stream

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np

    from fitserve.trust.allowlist import Use


INERT = {name: reconstruct.GUARDED[name] for name in ("numpy.dtype", "_codecs.encode")}
"""What is made at once: dtypes, because the size of an array hangs on them, and the bytes that they may need."""


class Name:
    """Stands for a global."""

    __slots__ = ("full",)

    def __init__(self, full: str) -> None:
        self.full = full


class Thing:
    """Stands for an object; ``parts`` is what it was made of."""

    __slots__ = ("parts",)

    def __init__(self, *parts: Any) -> None:
        self.parts = list(parts)


class Scan(Machine):
    """Executes a stream with stand-ins, and notes how each global is used.

    Attributes:
        uses: the uses of each global, by its full name. A name with dots is written ``module:a.b``.
        faults: what the stream does besides that no model file needs.
    """

    def __init__(self, stream: Stream, *, is_nested: bool = False) -> None:
        super().__init__(stream, is_nested=is_nested)
        self.uses: dict[str, set[Use]] = {}
        self.faults: list[str] = []

    def resolve(self, module: str, name: str) -> Any:
        """Note the name."""
        full = f"{module}:{name}" if "." in name else f"{module}.{name}"
        self.uses.setdefault(full, set())
        return Name(full)

    def call(self, func: Any, args: Any) -> Any:
        """Note the call."""
        self._note(func, "call")
        if isinstance(func, Name) and func.full in INERT and type(args) is tuple:
            return INERT[func.full](*args)
        return Thing(*self._arguments(args))

    def new(self, cls: Any, args: Any, kwargs: Any) -> Any:
        """Note the making."""
        self._note(cls, "new")
        if isinstance(cls, Name) and cls.full == ARRAY_HEADER:
            return ArrayHeader()
        return Thing(*self._arguments(args), kwargs)

    def build(self, inst: Any, state: Any) -> None:
        """Keep the state with the stand-in."""
        if isinstance(inst, Thing):
            inst.parts.append(state)
        else:
            self.faults.append(f"gives a state to what has none ({_said(inst)})")

    def fill(self, target: Any, items: list[Any]) -> None:
        """Keep the items with the stand-in."""
        if isinstance(target, Thing):
            target.parts.extend(items)
        else:
            self.faults.append(f"puts items into what holds none ({_said(target)})")

    def nested(self) -> Any:
        """Scan the pickle that starts here, with the same notes."""
        inner = Scan(self.stream, is_nested=True)
        inner.uses, inner.faults = self.uses, self.faults
        return inner.load()

    def make_array(self, dtype: np.dtype[Any], shape: tuple[int, ...], order: str) -> Any:  # noqa: ARG002
        """Pass over the bytes."""
        self.stream.skip(arrays.size_of(dtype, shape))
        return Thing()

    def type_name(self, thing: Any) -> str:
        """Return the name that a stand-in has."""
        return thing.full if isinstance(thing, Name) else ""

    def run(self) -> Any:
        """Execute the stream to its end, and note what is left lying about as a value."""
        result = self.load()
        self._note_values(result)
        return result

    def _arguments(self, args: Any) -> list[Any]:
        """Note classes that are arguments of a listed function; return the others."""
        if type(args) is not tuple:
            return [args]
        for arg in args:
            if isinstance(arg, Name):
                self.uses[arg.full].add("type")
        return [arg for arg in args if not isinstance(arg, Name)]

    def _note(self, thing: Any, use: Use) -> None:
        if isinstance(thing, Name):
            self.uses[thing.full].add(use)
        else:
            self.faults.append(f"calls what is no global ({_said(thing)})")

    def _note_values(self, result: Any) -> None:
        seen: set[int] = set()
        pending = [result]
        while pending:
            thing = pending.pop()
            if isinstance(thing, Name):
                self.uses[thing.full].add("value")
            elif type(thing) in _HOLDERS and id(thing) not in seen:
                seen.add(id(thing))
                for held in _held_by(thing):
                    pending.extend(part for part in held if type(part) in _HOLDERS)


def _held_by(thing: Any) -> tuple[Iterable[Any], ...]:
    if isinstance(thing, Thing):
        return (thing.parts,)
    return (thing, thing.values()) if isinstance(thing, dict) else (thing,)


_HOLDERS = frozenset({Name, Thing, dict, list, tuple, set, frozenset})


def _said(thing: Any) -> str:
    return "the result of another call" if isinstance(thing, Thing) else type(thing).__name__
