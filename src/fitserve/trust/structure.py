"""What native code trusts in a loaded model, checked before anything computes with it.

Compiled code indexes with the numbers that it finds: a child beyond the nodes of a tree, or a position
beyond the state of a random generator, reads or writes other memory. The walk goes through attributes,
containers and arrays of objects, and calls no property or method of a model's own.

Source of each rule: the ``.pyx`` files of scikit-learn 1.9 and scipy 1.17 that are named beside it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from fitserve.errors import ArtifactError
from fitserve.trust import native_sklearn
from fitserve.trust.behaviour import check_behaviour, check_place, is_in_place
from fitserve.trust.stream import ArrayHeader, Token

if TYPE_CHECKING:
    from collections.abc import Iterator

_PLAIN = frozenset({str, int, float, bool, bytes, bytearray, complex, type(None), slice, range, np.dtype})


def check_structure(model: object) -> None:
    """Refuse a model whose arrays would make native code leave its memory.

    Raises:
        ArtifactError: numbers in it do not fit one another; the text says which.
    """
    seen: set[int] = set()
    pending = [model]
    keep: list[object] = []  # what the walk itself makes must live as long as its identity is noted
    while pending:
        thing = pending.pop()
        if type(thing) in _PLAIN:
            continue
        check_place(thing, is_model=thing is model)  # of each way to it: one may lead to its place, another not
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        keep.append(thing)
        if isinstance(thing, Token | ArrayHeader):
            raise ArtifactError("is damaged: it holds a class where a value belongs")
        _check(thing)
        check_behaviour(thing)
        for owned in _owned(thing):
            _check(owned)
            check_behaviour(owned)
            keep.append(owned)
            pending.extend(part for part in _parts(owned) if type(part) not in _PLAIN)
        pending.extend(part for part in _parts(thing) if type(part) not in _PLAIN)


def _check(thing: object) -> None:
    for cls in type(thing).__mro__:
        check = native_sklearn.CHECKS.get(f"{cls.__module__}.{cls.__qualname__}")
        if check is None:
            continue
        try:
            check(thing)
        except ArtifactError:
            raise
        except (TypeError, ValueError, AttributeError, KeyError, IndexError, OverflowError) as exc:
            text = f"is damaged: a {type(thing).__name__} in it lacks what it needs ({type(exc).__name__}: {exc})"
            raise ArtifactError(text) from exc


def _parts(thing: object) -> Iterator[object]:
    """Yield what an object holds, without running code of its class."""
    if isinstance(thing, type):
        return
    yield from _items(thing)
    attributes = getattr(thing, "__dict__", None)
    if type(attributes) is dict:
        yield from (part for name, part in attributes.items() if not is_in_place(part, thing, name))


def _owned(thing: object) -> Iterator[object]:
    """Yield the objects of compiled code that lie in their place here; what they hold is checked with them."""
    attributes = getattr(thing, "__dict__", None)
    if type(attributes) is dict:
        yield from (part for name, part in attributes.items() if is_in_place(part, thing, name))


def _items(thing: object) -> Iterator[object]:
    match thing:
        case dict():
            yield from dict.keys(thing)
            yield from dict.values(thing)
        case list():
            yield from list.__iter__(thing)
        case tuple():
            yield from tuple.__iter__(thing)
        case set() | frozenset():
            yield from tuple(thing)
        case np.ndarray() if thing.dtype.hasobject and thing.dtype.names is None:
            yield from np.ndarray.ravel(thing).tolist()
        case partial():
            yield from (thing.func, thing.args, thing.keywords)
        case _:
            return
