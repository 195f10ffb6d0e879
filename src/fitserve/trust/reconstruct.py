"""The functions that a pickle may call while it is loaded, each with its arguments checked first.

A listed function is called with arguments that the file chooses. Those here would otherwise read
memory that is not theirs, take memory without bound, or call what they are given.
"""

from __future__ import annotations

import sys
from collections import OrderedDict, defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any

from fitserve.trust import arrays, native_states
from fitserve.trust.arrays import damaged, wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


_BIT_GENERATORS = ("MT19937", "PCG64", "PCG64DXSM", "SFC64")  # Philox trusts the position in its state
MT19937_WORDS = 624


MAX_KEY_ITEMS = 1_000
MAX_KEY_DEPTH = 4
MAX_KEY = sys.hash_info.modulus
"""Integers from here on share the hashes of smaller ones: thousands with one hash take minutes to store."""
PLAIN_KEYS = frozenset({str, int, float, bool, bytes, type(None)})


def check_keys(keys: Sequence[Any]) -> None:
    """Refuse keys whose hash recurses deeply, or takes exponential time.

    Raises:
        ArtifactError: a tuple in a tuple in a tuple …, or one of thousands of items.
    """
    numbers = [key for key in keys if type(key) is int]
    if numbers:
        wanted(min(numbers) > -MAX_KEY and max(numbers) < MAX_KEY, "it uses huge numbers as keys")
    if PLAIN_KEYS.issuperset(map(type, keys)):
        return
    for key in keys:
        layer: list[Any] = [key]
        for _ in range(MAX_KEY_DEPTH):
            layer = [item for part in layer if type(part) in (tuple, frozenset) for item in part]
            if not layer or len(layer) > MAX_KEY_ITEMS:
                break
        wanted(not layer, "it uses deeply nested tuples as keys")


def make_bit_generator(*args: Any) -> Any:
    """``numpy.random._pickle.__bit_generator_ctor(name or class)``; the class is one of numpy's.

    Raises:
        ArtifactError: it is not.
    """
    import numpy as np

    asked = args[0] if args else "MT19937"
    for name in _BIT_GENERATORS:
        cls = getattr(np.random, name)
        if asked is cls or (type(asked) is str and asked == name):
            return cls()
    raise damaged("it holds an unknown random generator")


def make_random_state(*args: Any) -> Any:
    """``numpy.random._pickle.__randomstate_ctor(bit generator or its name, …)``; what follows is not called.

    Raises:
        ArtifactError: it is no bit generator.
    """
    import numpy as np

    return np.random.RandomState(_bit_generator(args))


def make_generator(*args: Any) -> Any:
    """``numpy.random._pickle.__generator_ctor(bit generator or its name, …)``; what follows is not called.

    Raises:
        ArtifactError: it is no bit generator.
    """
    import numpy as np

    return np.random.Generator(_bit_generator(args))


def _bit_generator(args: tuple[Any, ...]) -> Any:
    import numpy as np

    if args and isinstance(args[0], np.random.BitGenerator):
        return args[0]
    return make_bit_generator(*args[:1])


def set_random_state(generator: Any, state: Any) -> None:
    """Give a generator its state; its position lies within its key.

    Raises:
        ArtifactError: it does not: drawing numbers would read other memory.
    """
    check_random_state(state[0] if type(state) is tuple and len(state) == 2 else state)  # noqa: PLR2004
    generator.__setstate__(state)


def check_random_state(state: Any) -> None:
    """Refuse a state of MT19937 whose position lies outside its key.

    Raises:
        ArtifactError: it does.
    """
    import numpy as np

    wanted(isinstance(state, dict), "a random generator has no state")
    if state.get("bit_generator") != "MT19937":
        return
    inner = state.get("state")
    wanted(isinstance(inner, dict), "a random generator has no state")
    key, position = inner.get("key"), inner.get("pos")
    is_key = isinstance(key, np.ndarray) and key.shape == (MT19937_WORDS,) and key.dtype.kind in "ui"
    is_position = isinstance(position, int | np.integer) and 0 <= position <= MT19937_WORDS
    wanted(is_key and is_position, "a random generator's position lies outside its state")


def make_tree(*args: Any) -> Any:
    """``sklearn.tree._tree.Tree(n_features, n_classes, n_outputs)``; n_classes has n_outputs values.

    Raises:
        ArtifactError: it has not: the constructor would read other memory.
    """
    import numpy as np
    from sklearn.tree._tree import Tree

    wanted(len(args) == 3, "a tree is made oddly")  # noqa: PLR2004
    n_features, n_classes, n_outputs = args
    is_sound = isinstance(n_classes, np.ndarray) and n_classes.ndim == 1 and n_classes.dtype == np.intp
    wanted(is_sound and len(n_classes) == n_outputs and n_outputs >= 1, "a tree has other classes than outputs")
    wanted(n_classes.min() >= 1 and n_classes.max() < 1 << 31 and 0 <= n_features < 1 << 31, "a tree has no classes")
    return Tree(n_features, np.ascontiguousarray(n_classes), n_outputs)


def make_set(*args: Any) -> set[Any]:
    """``set(list)``, as protocols 2 and 3 write a set.

    Raises:
        ArtifactError: it is made of something else.
    """
    wanted(len(args) == 1 and type(args[0]) is list, "a set is made oddly")
    check_keys(args[0])
    return set(args[0])


def make_frozenset(*args: Any) -> frozenset[Any]:
    """``frozenset(list)``, as protocols 2 and 3 write one.

    Raises:
        ArtifactError: it is made of something else.
    """
    return frozenset(make_set(*args))


def make_bytes(*args: Any) -> bytes:
    """``bytes()``, as protocol 2 writes no bytes.

    Raises:
        ArtifactError: a length is asked for.
    """
    wanted(not args, "bytes are made oddly")
    return b""


def make_bytearray(*args: Any) -> bytearray:
    """``bytearray(bytes)``, or of a text in latin-1, as protocols before 5 write one.

    Raises:
        ArtifactError: a length is asked for.
    """
    if len(args) == 2 and type(args[0]) is str and args[1] == "latin-1":  # noqa: PLR2004
        return bytearray(args[0].encode("latin-1"))
    wanted(not args or (len(args) == 1 and type(args[0]) is bytes), "bytes are made oddly")
    return bytearray(*args)


def make_default_dict(*args: Any) -> defaultdict[Any, Any]:
    """``collections.defaultdict(kind)``; the kind is a container or a number, as LightGBM has it.

    Raises:
        ArtifactError: it is something else, which a missing key would call.
    """
    wanted(len(args) == 1 and args[0] in (OrderedDict, dict, list, set, int, float), "a dictionary is made oddly")
    return defaultdict(args[0])


def make_partial(*args: Any) -> Any:
    """``functools.partial(check_array)``, as HistGradientBoosting holds it for categories.

    Raises:
        ArtifactError: it is of another function.
    """
    from sklearn.utils.validation import check_array

    wanted(len(args) == 1 and args[0] is check_array, "it holds a functools.partial of another function")
    return partial(check_array)


def set_partial_state(made: Any, state: Any) -> None:
    """Give a partial its arguments; the function stays.

    Raises:
        ArtifactError: it would become another one.
    """
    wanted(type(state) is tuple and len(state) == 4 and state[0] is made.func, "a partial has no state")  # noqa: PLR2004
    made.__setstate__((*state[:3], None))


def encode(*args: Any) -> bytes:
    """``_codecs.encode(text, 'latin1')``, as protocol 2 writes bytes.

    Raises:
        ArtifactError: it is another encoding.
    """
    wanted(len(args) == 2 and type(args[0]) is str and args[1] == "latin1", "bytes are made oddly")  # noqa: PLR2004
    text: str = args[0]
    return text.encode("latin1")


def make_index(*args: Any) -> Any:
    """``pandas.core.indexes.base._new_Index(cls, arguments)``; the class is an index of pandas.

    Raises:
        ArtifactError: it is not.
    """
    import numpy as np
    import pandas as pd
    from pandas.core.indexes.base import _new_Index  # type: ignore[attr-defined]

    is_index = len(args) == 2 and args[0] in (pd.Index, pd.RangeIndex) and type(args[1]) is dict  # noqa: PLR2004
    wanted(is_index, "an index is made oddly")
    data = args[1].get("data", np.empty(0))
    wanted(isinstance(data, np.ndarray | pd.api.extensions.ExtensionArray), "an index has no values")
    return _new_Index(args[0], dict(args[1]))


GUARDED: dict[str, Callable[..., Any]] = {
    "numpy.dtype": arrays.make_dtype,
    "numpy._core.multiarray._reconstruct": arrays.make_array,
    "numpy._core.multiarray.scalar": arrays.make_scalar,
    "numpy._core.numeric._frombuffer": arrays.make_array_of_buffer,
    "numpy.ma.core._mareconstruct": arrays.make_masked_array,
    "numpy.random._pickle.__bit_generator_ctor": make_bit_generator,
    "numpy.random._pickle.__generator_ctor": make_generator,
    "numpy.random._pickle.__randomstate_ctor": make_random_state,
    "sklearn.tree._tree.Tree": make_tree,
    "sklearn.neighbors._ball_tree.newObj": native_states.make_neighbours_tree,
    "sklearn.neighbors._kd_tree.newObj": native_states.make_neighbours_tree,
    "sklearn.metrics._dist_metrics.newObj": native_states.make_metric,
    "builtins.set": make_set,
    "_codecs.encode": encode,
    "builtins.frozenset": make_frozenset,
    "builtins.bytes": make_bytes,
    "builtins.bytearray": make_bytearray,
    "collections.defaultdict": make_default_dict,
    "functools.partial": make_partial,
    "pandas.core.indexes.base._new_Index": make_index,
}
"""What is called instead of a listed function, by the function's name."""

STATES: dict[str, Callable[[Any, Any], None]] = {
    "numpy.ndarray": arrays.set_array_state,
    "numpy.matrix": arrays.set_array_state,
    "numpy.ma.MaskedArray": arrays.set_masked_array_state,
    "functools.partial": set_partial_state,
    "catboost.core.CatBoost": native_states.set_catboost_state,
    "catboost.core.CatBoostClassifier": native_states.set_catboost_state,
    "catboost.core.CatBoostRanker": native_states.set_catboost_state,
    "catboost.core.CatBoostRegressor": native_states.set_catboost_state,
    "lightgbm.basic.Booster": native_states.set_lightgbm_state,
    "xgboost.core.Booster": native_states.set_xgboost_state,
    "numpy.random.mtrand.RandomState": set_random_state,
    "numpy.random._mt19937.MT19937": set_random_state,
}
"""What gives an object its state instead of its own ``__setstate__``, by the name of its class."""
