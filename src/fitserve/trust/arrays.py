"""Arrays, dtypes and numbers of numpy, made of what a pickle says, after it was checked."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from fitserve.errors import ArtifactError

if TYPE_CHECKING:
    import numpy as np

MAX_DIMENSIONS = 32
ARRAY_CLASSES = frozenset({"numpy.ndarray", "numpy.matrix", "numpy.memmap"})

_DTYPE_TEXT = re.compile(r"[<>=|]?(?:[biufcSUVMmO?][0-9]{0,9}|M8\[\w+\]|m8\[\w+\]|\?)")


def damaged(what: str) -> ArtifactError:
    """Return the error for a file whose content is impossible."""
    return ArtifactError(f"is damaged: {what}")


def wanted(condition: object, what: str) -> None:
    """Raise ArtifactError where the condition does not hold."""
    if not condition:
        raise damaged(what)


def checked_shape(shape: Any) -> tuple[int, ...]:
    """Return ``shape`` if it is a tuple of few, non-negative, plain integers.

    Raises:
        ArtifactError: it is not.
    """
    is_shape = type(shape) is tuple and len(shape) <= MAX_DIMENSIONS and all(type(n) is int and n >= 0 for n in shape)
    wanted(is_shape, "an array has an impossible shape")
    result: tuple[int, ...] = shape
    return result


def is_dtype(thing: Any) -> bool:
    """Tell whether this is a dtype of numpy."""
    import numpy as np

    return isinstance(thing, np.dtype)


def checked_dtype(dtype: Any) -> np.dtype[Any]:
    """Return ``dtype`` if it is one of numpy's.

    Raises:
        ArtifactError: it is not.
    """
    wanted(is_dtype(dtype), "an array has no dtype")
    result: np.dtype[Any] = dtype
    return result


def size_of(dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    """Return how many bytes an array takes."""
    return math.prod(shape) * int(dtype.itemsize)


def make_dtype(*args: Any) -> np.dtype[Any]:
    """``numpy.dtype(text, align, copy)``, as numpy pickles a dtype: the text names one simple type.

    Raises:
        ArtifactError: it does not.
    """
    import numpy as np

    is_plain = 1 <= len(args) <= 3 and type(args[0]) is str and all(type(arg) in (bool, int) for arg in args[1:])  # noqa: PLR2004
    wanted(is_plain and _DTYPE_TEXT.fullmatch(args[0]), "a dtype is not of numpy's kinds")
    # Always another object: a state is put into it, and numpy's own constants are shared.
    made: np.dtype[Any] = np.dtype(args[0], False, True)
    return made


def dtype_with_state(dtype: np.dtype[Any], state: Any) -> np.dtype[Any]:
    """Return the dtype that a pickled state describes, made by numpy's constructor.

    The state says which bytes are object references: a file that lies about it turns data into pointers.
    So it is never given to a dtype, which an array may have by then; it only has to agree with what is made.

    Raises:
        ArtifactError: numpy would not make a dtype with this state.
    """
    import numpy as np

    wanted(type(state) is tuple and len(state) in (8, 9), "a dtype has no state")
    _, order, subarray, names, fields, itemsize, alignment, flags = state[:8]
    wanted(order in ("<", ">", "=", "|") and all(type(n) is int for n in (itemsize, alignment, flags)), "a dtype")
    wanted(-1 <= itemsize < 1 << 31, "a dtype has an impossible size")
    if names is not None or fields is not None:
        wanted(subarray is None and dtype.kind == "V", "a dtype has fields and a shape")
        made = _with_fields(names, fields, itemsize, is_aligned=bool(flags & ALIGNED))
    elif subarray is not None:
        wanted(type(subarray) is tuple and len(subarray) == 2 and dtype.kind == "V", "a dtype's shape")  # noqa: PLR2004
        base, shape = checked_dtype(subarray[0]), subarray[1]
        shape = checked_shape((shape,) if type(shape) is int else shape)
        wanted(math.prod(shape) * base.itemsize < 1 << 31, "a dtype has an impossible size")
        made = np.dtype((base, shape))
    elif len(state) == 9:  # noqa: PLR2004 - with the unit of a date
        made = np.dtype(_date_text(dtype, order, state[8]))
    else:
        wanted(dtype.kind not in "SUV" or itemsize in (-1, dtype.itemsize) or dtype.itemsize == 0, "a dtype's size")
        wanted(dtype.itemsize or itemsize > 0, "a dtype of no size")
        text = dtype.str[1:] if dtype.itemsize else f"{dtype.kind}{itemsize // (4 if dtype.kind == 'U' else 1)}"
        made = np.dtype(text).newbyteorder("=" if order == "|" else order)
    is_same = itemsize in (-1, made.itemsize) and (flags & 0xFF) == (made.flags & 0xFF)
    wanted(is_same, "a dtype lies about itself")
    return made


ALIGNED = 0x80  # NPY_ALIGNED_STRUCT in numpy/ndarraytypes.h


def _with_fields(names: Any, fields: Any, itemsize: int, *, is_aligned: bool) -> np.dtype[Any]:
    import numpy as np

    wanted(type(names) is tuple and type(fields) is dict and set(names) == set(fields), "a dtype's fields")
    for name in names:
        field = fields[name]
        is_field = type(name) is str and type(field) is tuple and len(field) == 2  # noqa: PLR2004
        wanted(is_field and type(field[1]) is int and field[1] >= 0, "a dtype's fields")
        wanted(field[1] + checked_dtype(field[0]).itemsize <= itemsize, "a dtype's fields lie outside of it")
    try:
        return np.dtype(
            {
                "names": list(names),
                "formats": [fields[name][0] for name in names],
                "offsets": [fields[name][1] for name in names],
                "itemsize": itemsize,
            },
            align=is_aligned,
        )
    except (ValueError, TypeError) as exc:
        raise damaged("a dtype's fields do not fit") from exc


def _date_text(dtype: np.dtype[Any], order: str, metadata: Any) -> str:
    is_date = type(metadata) is tuple and len(metadata) == 2 and not metadata[0] and type(metadata[1]) is tuple  # noqa: PLR2004
    wanted(dtype.kind in "mM" and is_date and len(metadata[1]) == 4, "a dtype's unit")  # noqa: PLR2004
    unit, count, *rest = metadata[1]
    unit = unit.decode("ascii") if type(unit) is bytes else unit
    wanted(re.fullmatch(r"generic|[a-zA-Zμ]{1,2}", str(unit)) and type(count) is int and rest == [1, 1], "a unit")
    code = f"{'' if order == '|' else order}{dtype.kind}8"
    return code if unit == "generic" else f"{code}[{count if count > 1 else ''}{unit}]"


def make_array(*args: Any) -> Any:
    """``numpy._core.multiarray._reconstruct(ndarray, (0,), b'b')``: an empty array that gets a state.

    Raises:
        ArtifactError: it would be anything else.
    """
    import numpy as np

    wanted(len(args) == 3 and args[0] in (np.ndarray, np.matrix) and args[1] == (0,), "an array is made oddly")  # noqa: PLR2004
    return np.ndarray.__new__(args[0], (0,), "b")


def make_masked_array(*args: Any) -> Any:
    """``numpy.ma.core._mareconstruct(MaskedArray, ndarray, (0,), b'b')``.

    Raises:
        ArtifactError: it would be anything else.
    """
    import numpy as np
    from numpy.ma import core

    wanted(args[:3] == (np.ma.MaskedArray, np.ndarray, (0,)) and len(args) == 4, "a masked array is made oddly")  # noqa: PLR2004
    return core._mareconstruct(np.ma.MaskedArray, np.ndarray, (0,), "b")  # type: ignore[attr-defined]  # noqa: SLF001


# It would free memory that something else in the file may point to.
AGAIN = "an array gets other values"


def set_array_state(array: np.ndarray[Any, Any], state: Any) -> None:
    """Give an array its values: exactly as many as its shape says.

    Raises:
        ArtifactError: there are more, or fewer.
    """
    wanted(type(state) is tuple and len(state) == 5, "an array has no state")  # noqa: PLR2004
    wanted(array.size == 0, AGAIN)
    _check_values(state[1], state[2], state[4])
    array.__setstate__(state)


def set_masked_array_state(array: Any, state: Any) -> None:
    """Give a masked array its values and its mask.

    Raises:
        ArtifactError: they are more, or fewer, than its shape says.
    """
    import numpy as np

    wanted(type(state) is tuple and len(state) == 7, "a masked array has no state")  # noqa: PLR2004
    wanted(array.size == 0, AGAIN)
    _check_values(state[1], state[2], state[4])
    _check_values(state[1], np.ma.make_mask_descr(state[2]), state[5])
    array.__setstate__(state)


def _check_values(shape: Any, dtype: Any, values: Any) -> None:
    count = math.prod(checked_shape(shape))
    if checked_dtype(dtype).hasobject:
        wanted(type(values) is list and len(values) == count, "an array has other values than its shape says")
    else:
        is_full = type(values) in (bytes, bytearray) and len(values) == count * dtype.itemsize
        wanted(is_full and (dtype.itemsize or not count), "an array has more or fewer bytes than its shape says")


def make_scalar(*args: Any) -> Any:
    """``numpy._core.multiarray.scalar(dtype, bytes)``.

    Raises:
        ArtifactError: the bytes are not of that dtype.
    """
    from numpy._core.multiarray import scalar

    wanted(len(args) == 2, "a number is made oddly")  # noqa: PLR2004
    dtype, data = checked_dtype(args[0]), args[1]
    wanted(not dtype.hasobject and type(data) is bytes and len(data) == dtype.itemsize, "a number has other bytes")
    return scalar(dtype, data)


def make_array_of_buffer(*args: Any) -> Any:
    """``numpy._core.numeric._frombuffer(buffer, dtype, shape, order)``: how protocol 5 writes arrays.

    Raises:
        ArtifactError: the buffer has another size.
    """
    import numpy as np

    wanted(len(args) in (4, 5) and type(args[0]) in (bytes, bytearray, memoryview), "an array is made oddly")
    buffer, dtype, shape, order = args[:4]
    shape = checked_shape((shape,) if type(shape) is int else shape)
    _check_values(shape, dtype, bytes(buffer) if type(buffer) is memoryview else buffer)
    wanted(order in ("C", "F", "K", "A") and not dtype.hasobject, "an array is made oddly")
    array = np.frombuffer(buffer, dtype=dtype)
    if order == "K" and len(args) == 5:  # noqa: PLR2004
        axes = checked_shape(args[4])
        wanted(sorted(axes) == list(range(len(shape))), "an array is made oddly")
        return array.reshape(shape, order="C").transpose(axes)
    return array.reshape(shape, order="F" if order == "F" else "C")
