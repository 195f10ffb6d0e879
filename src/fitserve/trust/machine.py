"""The pickle machine, strict: it reads opcodes, and leaves to others what objects they make.

Python's own ``pickle._Unpickler`` executes the stream; this class takes away what a model file never
needs and what a hostile one lives on: reading past the end, extension codes, calling what is no
global, methods of the object on the stack, keys whose hash recurses. It reads the arrays that joblib
puts between the opcodes, too, so that joblib files and plain pickles have one reader.

Source: Python's Lib/pickletools.py (the opcodes); joblib 1.6, ``numpy_pickle.py`` (the arrays).
"""

from __future__ import annotations

import _compat_pickle
import itertools
import math
import pickle
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from fitserve.errors import ArtifactError
from fitserve.trust import arrays, reconstruct
from fitserve.trust.stream import ArrayHeader, Refused, Stream

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

MAX_DEPTH = 5_000
"""How deep containers under construction may lie in one another; pickling itself ends at about 1 000."""


MAX_STATE_ITEMS = 4_096
"""How many objects the state of a dtype may note: a search of all would take quadratic time."""


class Machine(pickle._Unpickler):  # noqa: SLF001 - the C one cannot be given opcodes
    """Executes a stream; subclasses say what :meth:`call`, :meth:`new` and :meth:`build` do."""

    dispatch: ClassVar[dict[int, Callable[..., None]]] = dict(pickle._Unpickler.dispatch)  # noqa: SLF001
    stack: list[Any]
    metastack: list[list[Any]]
    append: Callable[[Any], None]
    proto: int
    pop_mark: Callable[[], list[Any]]
    memo: dict[int, Any]

    def __init__(self, stream: Stream, *, is_nested: bool = False) -> None:
        super().__init__(stream)
        self.stream = stream
        self.is_nested = is_nested

    # What subclasses decide.

    def resolve(self, module: str, name: str) -> Any:
        """Return what stands on the stack for this global."""
        raise NotImplementedError

    def call(self, func: Any, args: Any) -> Any:
        """Return what ``func(*args)`` makes."""
        raise NotImplementedError

    def new(self, cls: Any, args: Any, kwargs: Any) -> Any:
        """Return what ``cls.__new__(cls, *args, **kwargs)`` makes."""
        raise NotImplementedError

    def build(self, inst: Any, state: Any) -> None:
        """Give ``inst`` its state."""
        raise NotImplementedError

    def nested(self) -> Any:
        """Read the pickle that starts here: an object array in a joblib file."""
        raise NotImplementedError

    def make_array(self, dtype: np.dtype[Any], shape: tuple[int, ...], order: str) -> Any:
        """Consume the bytes of an array, which are known to be there."""
        raise NotImplementedError

    def refuse(self, fault: str) -> NoReturn:
        """Stop, because of what the stream does."""
        raise Refused(fault)

    # Globals.

    def find_class(self, module: str, name: str, /) -> Any:
        """Map names of Python 2 in streams of protocol 2, as pickle does, and resolve."""
        if self.proto < 3:  # noqa: PLR2004 - the protocol that came with Python 3
            if (module, name) in _compat_pickle.NAME_MAPPING:
                module, name = _compat_pickle.NAME_MAPPING[(module, name)]
            module = _compat_pickle.IMPORT_MAPPING.get(module, module)
        return self.resolve(module, name)

    def get_extension(self, code: int) -> NoReturn:
        """Refuse extension codes: they are names that do not stand in the file."""
        self.refuse(f"is refused: it uses the extension code {code}")

    def persistent_load(self, pid: Any) -> NoReturn:  # noqa: ARG002 - the signature is pickle's
        """Refuse references to something outside the file."""
        self.refuse("is refused: it refers to something outside of it (a persistent id, as PyTorch files have)")

    # Opcodes that make objects.

    def load_reduce(self) -> None:
        """REDUCE: callable, args -> object."""
        args = self.stack.pop()
        self.stack[-1] = self.call(self.stack[-1], args)

    dispatch[pickle.REDUCE[0]] = load_reduce

    def load_inst(self) -> None:
        """INST: as a global and REDUCE."""
        module, name = (self.readline()[:-1].decode("ascii") for _ in range(2))  # type: ignore[attr-defined]
        func = self.find_class(module, name)
        self.append(self.call(func, tuple(self.pop_mark())))

    dispatch[pickle.INST[0]] = load_inst

    def load_obj(self) -> None:
        """OBJ: as REDUCE, with the callable after the mark."""
        func, *args = self.pop_mark()
        self.append(self.call(func, tuple(args)))

    dispatch[pickle.OBJ[0]] = load_obj

    def load_newobj(self) -> None:
        """NEWOBJ: class, args -> object."""
        args = self.stack.pop()
        self.stack[-1] = self.new(self.stack[-1], args, {})

    dispatch[pickle.NEWOBJ[0]] = load_newobj

    def load_newobj_ex(self) -> None:
        """NEWOBJ_EX: class, args, keyword args -> object."""
        kwargs = self.stack.pop()
        args = self.stack.pop()
        self.stack[-1] = self.new(self.stack[-1], args, kwargs)

    dispatch[pickle.NEWOBJ_EX[0]] = load_newobj_ex

    def load_build(self) -> None:
        """BUILD: object, state -> object."""
        state = self.stack.pop()
        inst = self.stack[-1]
        if isinstance(inst, ArrayHeader):
            self.stack[-1] = self._array(state)
        elif arrays.is_dtype(inst):
            self._replace(inst, arrays.dtype_with_state(inst, state))
        else:
            self.build(inst, state)

    dispatch[pickle.BUILD[0]] = load_build

    def _replace(self, old: Any, new: Any) -> None:
        """Put another object in the place of the one on the stack, and in its place in the memo."""
        self.stack[-1] = new
        for key in itertools.islice(reversed(self.memo), MAX_STATE_ITEMS):  # it was noted just before its state
            if self.memo[key] is old:
                self.memo[key] = new
                break

    # Opcodes that fill containers: pickle would call a method of whatever lies there.

    def load_append(self) -> None:
        """APPEND: list, value -> list."""
        value = self.stack.pop()
        self._extend(self.stack[-1], [value])

    dispatch[pickle.APPEND[0]] = load_append

    def load_appends(self) -> None:
        """APPENDS: list, values -> list."""
        items = self.pop_mark()
        self._extend(self.stack[-1], items)

    dispatch[pickle.APPENDS[0]] = load_appends

    def load_setitem(self) -> None:
        """SETITEM: dict, key, value -> dict."""
        value = self.stack.pop()
        key = self.stack.pop()
        self._update(self.stack[-1], [key], [value])

    dispatch[pickle.SETITEM[0]] = load_setitem

    def load_setitems(self) -> None:
        """SETITEMS: dict, keys and values -> dict."""
        items = self.pop_mark()
        self._update(self.stack[-1], items[::2], items[1::2])

    dispatch[pickle.SETITEMS[0]] = load_setitems

    def load_dict(self) -> None:
        """DICT: keys and values -> dict."""
        items = self.pop_mark()
        made: dict[Any, Any] = {}
        self._update(made, items[::2], items[1::2])
        self.append(made)

    dispatch[pickle.DICT[0]] = load_dict

    def load_additems(self) -> None:
        """ADDITEMS: set, values -> set."""
        items = self.pop_mark()
        target = self.stack[-1]
        if type(target) is set:
            reconstruct.check_keys(items)
            target.update(items)
        else:
            self.fill(target, items)

    dispatch[pickle.ADDITEMS[0]] = load_additems

    def load_frozenset(self) -> None:
        """FROZENSET: values -> frozenset."""
        items = self.pop_mark()
        reconstruct.check_keys(items)
        self.append(frozenset(items))

    dispatch[pickle.FROZENSET[0]] = load_frozenset

    def fill(self, target: Any, items: list[Any]) -> None:
        """Put items into what is no list, dict or set."""
        self.refuse(f"is refused: it appends {len(items)} items to an object of type {type(target).__name__}")

    def _extend(self, target: Any, items: list[Any]) -> None:
        if type(target) is list:
            target.extend(items)
        else:
            self.fill(target, items)

    def _update(self, target: Any, keys: list[Any], values: list[Any]) -> None:
        if isinstance(target, dict):
            reconstruct.check_keys(keys)
            dict.update(target, zip(keys, values, strict=True))
        else:
            self.fill(target, [*keys, *values])

    # Opcodes that allocate.

    def load_mark(self) -> None:
        """MARK: starts a container."""
        if len(self.metastack) >= MAX_DEPTH:
            self.refuse(f"is damaged: its objects are nested deeper than {MAX_DEPTH}")
        super().load_mark()  # type: ignore[misc]

    dispatch[pickle.MARK[0]] = load_mark

    def load_bytearray8(self) -> None:
        """BYTEARRAY8: pickle would allocate before it reads."""
        self.append(bytearray(self.read(int.from_bytes(self.read(8), "little"))))  # type: ignore[attr-defined]

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8

    # Arrays of joblib.

    def _array(self, state: Any) -> Any:
        """Read the array that a header describes and whose bytes follow it."""
        if self.is_nested:
            self.refuse("is damaged: an array lies where none can be")
        if not isinstance(state, dict):
            self.refuse("is damaged: an array has no description")
        dtype, shape, order = state.get("dtype"), state.get("shape"), state.get("order")
        dtype = arrays.checked_dtype(dtype)
        shape = arrays.checked_shape(shape)
        if order not in ("C", "F") or self.type_name(state.get("subclass")) not in arrays.ARRAY_CLASSES:
            self.refuse("is damaged: an array is of an unknown kind")
        if dtype.hasobject:
            return self.nested()
        # joblib before 1.2 did not align
        if state.get("numpy_array_alignment_bytes") is not None:
            self.stream.read(self.stream.read(1)[0])
        count = math.prod(shape)
        if count * dtype.itemsize > self.stream.remaining or (count and not dtype.itemsize):
            raise ArtifactError(
                f"is truncated or damaged: an array of {count} values of {dtype.itemsize} bytes is announced, "
                f"{self.stream.remaining} bytes are left"
            )
        return self.make_array(dtype, shape, order)

    def type_name(self, thing: Any) -> str:
        """Return the full name of the global that lies on the stack as ``thing``."""
        raise NotImplementedError
