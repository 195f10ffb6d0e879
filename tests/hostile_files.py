"""Hostile and benign pickles, made anew by each test: no payload does more than touch a marker file.

``pickles(marker)`` gives files that must all be refused under the default policy without touching the
marker; ``benign()`` gives files that must load.
"""

from __future__ import annotations

import bz2
import copy
import functools
import gzip
import io
import lzma
import pickle
import struct
import zlib

import joblib
import numpy as np

PROTO = b"\x80\x04"
STOP = b"."


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def name(module: str, attribute: str) -> bytes:
    """STACK_GLOBAL."""
    return text(module) + text(attribute) + b"\x93"


def old_name(module: str, attribute: str) -> bytes:
    """GLOBAL."""
    return f"c{module}\n{attribute}\n".encode()


def number(value: int) -> bytes:
    data = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def tuple_of(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def dict_of(**items: bytes) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def call(func: bytes, *args: bytes) -> bytes:
    """REDUCE."""
    return func + tuple_of(*args) + b"R"


def new(cls: bytes, *args: bytes) -> bytes:
    """NEWOBJ."""
    return cls + tuple_of(*args) + b"\x81"


def build(inst: bytes, state: bytes) -> bytes:
    """BUILD."""
    return inst + state + b"b"


def file(*body: bytes) -> bytes:
    return PROTO + b"".join(body) + STOP


class Calls:
    """Pickles as a call."""

    def __init__(self, func, *args):
        self.func, self.args = func, args

    def __reduce__(self):
        return self.func, self.args


def direct_calls(marker: str) -> dict[str, bytes]:
    code = f"open({marker!r}, 'w').close()"
    touch = f"touch '{marker}'"
    shell = tuple_of(text("touch"), text(marker))
    return {
        "os.system": file(call(name("os", "system"), text(touch))),
        "posix.system": file(call(name("posix", "system"), text(touch))),
        "old posix.system": b"\x80\x02" + old_name("posix", "system") + text(touch) + b"\x85R.",
        "python 2 builtins": b"\x80\x02" + old_name("__builtin__", "eval") + text(code) + b"\x85R.",
        "eval": file(call(name("builtins", "eval"), text(code))),
        "exec": file(call(name("builtins", "exec"), text(code))),
        "open": file(call(name("builtins", "open"), text(marker), text("w"))),
        "io.open": file(call(name("io", "open"), text(marker), text("w"))),
        "_io.FileIO": file(call(name("_io", "FileIO"), text(marker), text("w"))),
        "pathlib": file(call(name("pathlib", "Path.touch"), call(name("pathlib", "PosixPath"), text(marker)))),
        "subprocess": file(call(name("subprocess", "check_call"), shell)),
        "subprocess.Popen": file(call(name("subprocess", "Popen"), shell)),
        "Popen by NEWOBJ": file(new(name("subprocess", "Popen"), shell)),
        "timeit": file(call(name("timeit", "timeit"), text(code), text("pass"), name("time", "time"), number(1))),
        "cProfile": file(call(name("cProfile", "run"), text(code))),
        "numpy runstring": file(call(name("numpy.testing._private.utils", "runstring"), text(code), b"}")),
        "numpy f2py": file(call(name("numpy.f2py.crackfortran", "_eval_length"), text(code), b"}")),
        "INST": b"\x80\x02(" + text(touch) + b"iposix\nsystem\n.",
        "OBJ": b"\x80\x02(" + old_name("posix", "system") + text(touch) + b"o.",
        "logging config": file(call(name("logging", "FileHandler"), text(marker))),
        "numpy.memmap": file(call(name("numpy", "memmap"), text(marker), text("u1"), text("w+"), number(0), number(1))),
        "memmap by NEWOBJ": file(
            new(name("numpy", "memmap"), text(marker), text("u1"), text("w+"), number(0), number(1))
        ),
        "numpy.savetxt": file(call(name("numpy", "savetxt"), text(marker), b"]" + number(1) + b"a")),
        "catboost constructor": file(
            call(name("catboost.core", "CatBoost"), dict_of(train_dir=text(marker), allow_writing_files=b"\x88"))
        ),
        "xgboost Booster of a path": file(call(name("xgboost.core", "Booster"), b"N", b")", text(marker))),
        "webbrowser": file(call(name("webbrowser", "get"), text(f"{touch} %s"))),
        "pty": file(call(name("pty", "spawn"), shell)),
    }


def indirections(marker: str) -> dict[str, bytes]:
    code = f"open({marker!r}, 'w').close()"
    touch = f"touch '{marker}'"
    inner = file(call(name("os", "system"), text(touch)))
    got = call(name("builtins", "getattr"), call(name("importlib", "import_module"), text("os")), text("system"))
    joblib_load = call(
        name("joblib.numpy_pickle", "load"), call(name("_io", "BytesIO"), b"B" + struct.pack("<I", len(inner)) + inner)
    )
    partial = call(name("functools", "partial"), name("os", "system"))
    state = tuple_of(name("os", "system"), tuple_of(text(touch)), b"}", b"N")
    caller = call(name("operator", "methodcaller"), text("system"), text(touch))
    estimator = name("sklearn.linear_model._logistic", "LogisticRegression")
    plant = build(new(estimator), dict_of(__setstate__=name("os", "system")))
    plant_listed = build(new(estimator), dict_of(__setstate__=name("numpy", "log1p")))
    tree_pool = call(name("numpy.random._pickle", "__randomstate_ctor"), text(touch), name("os", "system"))
    generator = call(name("numpy.random._pickle", "__generator_ctor"), text(touch), name("posix", "system"))
    by_class = call(name("numpy.random._pickle", "__bit_generator_ctor"), name("numpy.random._pickle", "Philox"))
    scorer = build(
        new(name("sklearn.metrics._scorer", "_Scorer")),
        dict_of(_score_func=name("os", "system"), _sign=number(1), _kwargs=b"}"),
    )
    cycle = PROTO + b"(" + text("a") + b"\x94" + text("system") + b"1"
    body = call(name("os", "system"), text(touch)) + STOP
    return {
        "resolve_name": file(call(name("pkgutil", "resolve_name"), text("os:system"))),
        "resolve_name called": file(
            call(call(name("pkgutil", "resolve_name"), text("os:system")), text(touch)),
        ),
        "getattr of import_module": file(call(got, text(touch))),
        "dotted name": file(call(name("sklearn", "utils.os.system"), text(touch))),
        "dotted listed module": file(call(name("sklearn.utils.validation", "np.os.system"), text(touch))),
        "dotted method": file(
            call(name("sklearn.linear_model._logistic", "LogisticRegression.__init__.__globals__"), text(touch))
        ),
        "dotted name that is there": file(call(name("sklearn.datasets._base", "os.system"), text(touch))),
        "re-export of os": file(call(name("sklearn.utils.os", "system"), text(touch))),
        "re-export of joblib": file(call(name("sklearn.utils._joblib", "load"), text(marker))),
        "re-export of numbers": file(call(name("sklearn.utils.validation", "warnings"), text(touch))),
        "module as a name": file(call(name("sklearn", "os"), text(touch))),
        "nested joblib.load": file(joblib_load),
        "nested pickle.loads": file(call(name("pickle", "loads"), b"B" + struct.pack("<I", len(inner)) + inner)),
        "nested _pickle.loads": file(call(name("_pickle", "loads"), b"B" + struct.pack("<I", len(inner)) + inner)),
        "numpy.load": file(call(name("numpy", "load"), text(marker))),
        "partial": file(call(build(partial, state), text(touch))),
        "partial of all": file(call(build(partial, state))),
        "partial kept": file(build(partial, state)),
        "methodcaller": file(call(caller, call(name("importlib", "import_module"), text("os")))),
        "attrgetter": file(call(name("operator", "attrgetter"), text("system"))),
        "map": file(
            call(name("builtins", "list"), call(name("builtins", "map"), name("os", "system"), tuple_of(text(touch))))
        ),
        "double BUILD": file(build(plant, text(touch))),
        "double BUILD of a listed function": file(build(plant_listed, tuple_of(number(1)))),
        "BUILD on a class": file(build(estimator, tuple_of(b"N", dict_of(fit=name("os", "system"))))),
        "BUILD on a class of listed names": file(
            build(estimator, tuple_of(b"N", dict_of(predict=name("numpy", "log"))))
        ),
        "BUILD on a function": file(build(name("numpy", "mean"), dict_of(__code__=b"N"))),
        "slots through BUILD": file(build(new(estimator), tuple_of(b"N", dict_of(__class__=name("os", "DirEntry"))))),
        "class switched by slots": file(
            build(
                new(estimator),
                tuple_of(b"}", dict_of(__class__=name("sklearn.linear_model._ridge", "Ridge"))),
            )
        ),
        "constructor given to a listed function": file(tree_pool),
        "another constructor": file(generator),
        "bit generator of a class": file(by_class),
        "scorer of a function": file(scorer),
        "a result is called": file(call(build(new(estimator), b"}"), text(touch))),
        "a listed function is called": file(call(name("numpy", "log1p"), number(1))),
        "a constructor is called": file(call(estimator, text("l2"))),
        "default factory": file(call(name("collections", "defaultdict"), name("os", "getcwd"))),
        "extension code": PROTO + b"\x82\x01" + STOP,
        "persistent id": PROTO + text("x") + b"Q" + STOP,
        "short FRAME": PROTO + b"\x95" + struct.pack("<Q", 2) + body,
        "long FRAME": PROTO + b"\x95" + struct.pack("<Q", 1 << 40) + body,
        "memo trick": cycle + body,
        "apply of a listed ufunc": file(call(name("numpy", "frompyfunc"), name("os", "system"), number(1), number(1))),
        "code in __main__": file(call(name("__main__", "__builtins__"), text(code))),
        "sys.modules": file(call(name("sys", "modules.get"), text("os"))),
        "copyreg": file(call(name("copyreg", "add_extension"), text("os"), text("system"), number(240))),
        "scipy exec": file(
            build(
                new(name("scipy.stats._continuous_distns", "norm_gen")),
                dict_of(_parse_arg_template=text(code), _ctor_param=b"}"),
            )
        ),
    }


def streams(marker: str) -> dict[str, bytes]:
    touch = f"touch '{marker}'"
    hostile = pickle.dumps(Calls(__import__("os").system, touch))
    objects = np.array([Calls(__import__("os").system, touch), 1], dtype=object)
    nested, deeper = io.BytesIO(), io.BytesIO()
    joblib.dump(objects, nested)
    joblib.dump({"a": [np.arange(3.0), objects]}, deeper)
    fine = pickle.dumps({"a": 1})
    return {
        "nested object array": nested.getvalue(),
        "nested object array behind a number array": deeper.getvalue(),
        "zlib": zlib.compress(hostile),
        "gzip": gzip.compress(hostile),
        "bz2": bz2.compress(hostile),
        "xz": lzma.compress(hostile),
        "lzma": lzma.compress(hostile, format=lzma.FORMAT_ALONE),
        "two gzip streams": gzip.compress(hostile[:20]) + gzip.compress(hostile[20:]),
        "stacked": fine + hostile,
        "stacked hostile first": hostile + fine,
        "call and a broken tail": hostile[:-1] + b"\xff\xff",
        "call and no end": hostile[:-1],
        "protocol 0": f"cposix\nsystem\n(S{touch!r}\ntR.".encode(),
        "junk before": b"\n" + hostile,
        "zlib of zlib": zlib.compress(zlib.compress(hostile)),
    }


def bombs() -> dict[str, bytes]:
    laugh = b"]\x94" + b"".join(b"](" + b"h" + bytes([i]) + b"h" + bytes([i]) + b"e\x94" for i in range(60))
    shared = b")" + b"".join(b"\x94h" + bytes([i]) + b"\x86" for i in range(60))
    header = {"subclass": np.ndarray, "order": "C", "dtype": np.dtype("f8"), "allow_mmap": False}
    return {
        "1 GiB of zeros in zlib": _zlib_of_zeros(1 << 30),
        "4 TiB BINBYTES8": PROTO + b"\x8e" + struct.pack("<Q", 4 << 40) + b"x" + STOP,
        "4 TiB BYTEARRAY8": b"\x80\x05\x96" + struct.pack("<Q", 4 << 40) + b"x" + STOP,
        "4 TiB BINUNICODE8": PROTO + b"\x8d" + struct.pack("<Q", 4 << 40) + b"x" + STOP,
        "2 GiB LONG4": PROTO + b"\x8b" + struct.pack("<i", (1 << 31) - 1) + b"x" + STOP,
        "memo index 2^31 of nothing": PROTO + b"j" + struct.pack("<I", 1 << 31) + STOP,
        "memo index 2^31": PROTO + b"K\x01r" + struct.pack("<I", 1 << 31) + b"q\xff0" + STOP,
        "200k marks": PROTO + b"(" * 200_000 + STOP,
        "nested lists": PROTO + b"](" * 200_000 + b"e" * 200_000 + STOP,
        "nested tuples as key": PROTO + b"})" + b"\x85" * 200_000 + b"K\x01s" + STOP,
        "shared tuples as key": PROTO + b"}" + shared + b"K\x01s" + STOP,
        "shared tuples in a set": PROTO + b"\x8f(" + shared + b"\x90" + STOP,
        "billion laughs": PROTO + laugh + b"(lo" + STOP,
        "numpy.zeros": file(call(name("numpy", "zeros"), tuple_of(number(1 << 40)))),
        "reconstruct of 2^40": file(
            call(
                name("numpy._core.multiarray", "_reconstruct"),
                name("numpy", "ndarray"),
                tuple_of(number(1 << 40)),
                b"C\x01b",
            )
        ),
        "bytearray of 2^40": file(call(name("builtins", "bytearray"), number(1 << 40))),
        "bytes of 2^40": file(call(name("builtins", "bytes"), number(1 << 40))),
        "set of a range": file(call(name("builtins", "set"), call(name("builtins", "range"), number(1 << 40)))),
        "frozenset of a range": file(
            call(name("builtins", "frozenset"), call(name("builtins", "range"), number(1 << 40)))
        ),
        "array of 2^40": _header(header | {"shape": (1 << 40,)}),
        "array of 2^40 by 2^40": _header(header | {"shape": (1 << 40, 1 << 40)}),
        "array of -1": _header(header | {"shape": (-1,)}),
        "array of True": _header(header | {"shape": (True,)}),
        "array of no dtype": _header(header | {"shape": (1,), "dtype": "f8"}),
        "array of no size": _header(header | {"shape": (1 << 40,), "dtype": np.dtype("V0")}),
        "array of another class": _header(header | {"shape": (1,), "subclass": dict}),
        "array in an array": _header(header | {"shape": (1,), "dtype": np.dtype(object)}) + _header(header)[:-1],
        "digits": PROTO + b"I" + b"9" * 1_000_000 + b"\n" + STOP,
        "huge dtype": file(call(name("numpy", "dtype"), text("(1000000,1000000)f8"))),
        "dtype of a dictionary": file(call(name("numpy", "dtype"), dict_of(names=b"]", formats=b"]"))),
    }


@functools.cache
def _zlib_of_zeros(size: int) -> bytes:
    packer = zlib.compressobj(9)
    block = bytes(1 << 20)
    return b"".join([packer.compress(block) for _ in range(size >> 20)]) + packer.flush()


def _header(state: dict) -> bytes:
    """The description of an array in a joblib file, without its bytes."""
    wrapper = joblib.numpy_pickle.NumpyArrayWrapper.__new__(joblib.numpy_pickle.NumpyArrayWrapper)
    vars(wrapper).update(state)
    return pickle.dumps(wrapper, protocol=4)[:-1] + b"\x00" * 16 + STOP


@functools.cache
def corruptions() -> dict[str, bytes]:
    """Models of listed classes only, whose numbers would make native code leave its memory."""
    return {f"corrupt {key}": pickle.dumps(model) for key, model in corrupt_models().items()} | lying_dtypes()


def lying_dtypes() -> dict[str, bytes]:
    dtype = call(name("numpy", "dtype"), text("V8"), b"\x89", b"\x88")
    reference = build(
        call(name("numpy", "dtype"), text("O8"), b"\x89", b"\x88"),
        tuple_of(number(3), text("|"), b"N", b"N", b"N", number(-1), number(-1), number(63)),
    )
    fields = dict_of(a=tuple_of(reference, number(0)))

    def state(flags: int, size: int = 8, offset: bytes | None = None) -> bytes:
        shown = fields if offset is None else dict_of(a=tuple_of(reference, offset))
        return tuple_of(number(3), text("|"), b"N", tuple_of(text("a")), shown, number(size), number(8), number(flags))

    plain = tuple_of(number(3), text("|"), b"N", b"N", b"N", number(-1), number(-1), number(0))
    return {
        "dtype hides references": file(build(dtype, state(0))),
        "dtype of fields outside": file(build(dtype, state(27, 8, number(4096)))),
        "dtype of negative fields": file(build(dtype, state(27, 8, number(-8)))),
        "object dtype without references": file(
            build(call(name("numpy", "dtype"), text("O8"), b"\x89", b"\x88"), plain)
        ),
        "dtype of another size": file(build(dtype, state(27, 4))),
    }


def corrupt_models() -> dict[str, object]:
    from sklearn.cluster import KMeans
    from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.preprocessing import SplineTransformer
    from sklearn.svm import SVC
    from sklearn.tree import DecisionTreeClassifier

    X, y = table()
    tree = DecisionTreeClassifier(random_state=0).fit(X, y)

    def hist():
        return HistGradientBoostingClassifier(max_iter=2, max_leaf_nodes=4).fit(X, y)

    def neighbours():
        return KNeighborsClassifier(algorithm="kd_tree", leaf_size=5).fit(X, y)

    models = {f"tree {key}": edited_tree(tree, **edits) for key, edits in TREE_EDITS.items()}
    for field, value in {"left": 4_000_000_000, "right": 1 << 31, "feature_idx": 1 << 40, "is_categorical": 1}.items():
        model = hist()
        model._predictors[0][0].nodes[field][0] = value
        models[f"hist {field}"] = model
    model = hist()
    model._predictors[0][0].nodes["left"][0] = 0
    models["hist cycle"] = model
    model = hist()
    model._bin_mapper.bin_thresholds_ = model._bin_mapper.bin_thresholds_[:1]
    models["hist bins"] = model
    for position in (1, 2, 3, 6):
        models[f"kd tree {position}"] = edited_neighbours(neighbours(), position)
    model = KNeighborsClassifier(algorithm="brute").fit(X, y)
    model._y = model._y + 1000
    models["neighbours labels"] = model
    model = SVC().fit(X, y)
    model._n_support = model._n_support * 1000
    models["svc counts"] = model
    model = SVC().fit(X, y)
    model.support_vectors_ = model.support_vectors_[:, :1]
    models["svc vectors"] = model
    model = SVC().fit(X, y)
    model._dual_coef_ = model._dual_coef_[:, :1]
    models["svc coefficients"] = model
    model = KMeans(2, n_init=1).fit(X)
    model.cluster_centers_ = model.cluster_centers_[:, :1].copy()
    models["kmeans"] = model
    model = GradientBoostingClassifier(n_estimators=2).fit(X, y)
    model.n_features_in_ = 1
    models["gradient boosting features"] = model
    model = GradientBoostingClassifier(n_estimators=2).fit(X, y)
    model.init_.class_prior_ = model.init_.class_prior_[:1]
    models["gradient boosting first guess"] = model
    model = SplineTransformer().fit(X)
    spline = model.bsplines_[0]
    vars(spline)["_c" if "_c" in vars(spline) else "c"] = np.zeros((1, 1))
    models["spline"] = model
    return models | corrupt_sparse() | corrupt_generators()


TREE_EDITS = {
    "left outside": {"left_child": 1_000_000},
    "right outside": {"right_child": 1 << 40},
    "left negative": {"left_child": -5},
    "cycle": {"left_child": 0},
    "shared child": {"left_child": "right_child"},
    "feature outside": {"feature": 1 << 40},
    "feature negative": {"feature": -7},
    "depth": {"max_depth": 0},
}


class Rebuilt:
    """Pickles as a class called with arguments and given a state."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


def edited_tree(estimator, **edits) -> object:
    """A tree estimator whose inner tree has other numbers in its root, or in its state."""
    cls, arguments, state = estimator.tree_.__reduce__()
    nodes = state["nodes"].copy()
    state = dict(state, nodes=nodes)
    for key, value in edits.items():
        if key in state:
            state[key] = value
        else:
            nodes[key][0] = nodes[value][0] if isinstance(value, str) else value
    return with_attributes(estimator, tree_=Rebuilt(cls, arguments, state))


def with_attributes(estimator, **attributes) -> object:
    changed = copy.copy(estimator)
    vars(changed).update(attributes)
    return changed


def edited_neighbours(estimator, position: int) -> object:
    """A neighbours model whose tree has another index (1), nodes (2), bounds (3) or number of nodes (6)."""
    function, arguments, state = estimator._tree.__reduce__()
    state = list(state)
    match position:
        case 1:
            state[1] = state[1] + 1_000_000
        case 2:
            state[2] = state[2].copy()
            state[2]["idx_end"] = 1 << 40
        case 3:
            state[3] = state[3][:, :1].copy()
        case _:
            state[6] = 1 << 20
    return with_attributes(estimator, _tree=Rebuilt(function, arguments, tuple(state)))


def corrupt_sparse() -> dict[str, object]:
    import scipy.sparse as sp

    outside = sp.csr_array(np.eye(3))
    outside.indices = outside.indices + 1_000_000
    pointers = sp.csr_array(np.eye(3))
    pointers.indptr = np.array([0, 1_000_000, 2, 3], dtype=np.int32)
    columns = sp.csc_matrix(np.eye(3))
    columns.indices = columns.indices - 5
    pairs = sp.coo_array(np.eye(3))
    pairs.coords = (pairs.coords[0] + 1000, pairs.coords[1])
    return {"csr indices": outside, "csr pointers": pointers, "csc indices": columns, "coo indices": pairs}


def corrupt_generators() -> dict[str, object]:
    from numpy.random._pickle import __randomstate_ctor as make

    state = np.random.RandomState(0).get_state(legacy=False)
    outside = {**state, "state": {**state["state"], "pos": 1 << 30}}
    short = {**state, "state": {**state["state"], "key": state["state"]["key"][:3]}}
    return {
        "random state position": Rebuilt(make, ("MT19937",), outside),
        "random state negative": Rebuilt(make, ("MT19937",), {**state, "state": {**state["state"], "pos": -9}}),
        "random state key": Rebuilt(make, ("MT19937",), short),
    }


def pickles(marker) -> dict[str, bytes]:
    """Every hostile pickle by its name. ``marker`` is the path that the payloads would create."""
    where = str(marker)
    groups = (direct_calls(where), indirections(where), streams(where), bombs(), corruptions(), curiosities())
    return {key: data for group in groups for key, data in group.items()}


def curiosities() -> dict[str, bytes]:
    """What is no model at all."""
    fine = pickle.dumps({"a": 1}, protocol=4)
    return {
        "empty": b"",
        "truncated": benign()["forest"][:-500],
        "truncated zlib": zlib.compress(benign()["forest"])[:-50],
        "two objects": fine + fine,
        "trailing bytes": fine + b"\0" * 10,
        "bad opcode": PROTO + b"\xff" + STOP,
        "empty stack": PROTO + STOP,
    }


def table():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 3))
    return X, (X[:, 0] > 0).astype(int) + (X[:, 1] > 0.5)


@functools.cache
def benign_models() -> dict[str, object]:
    from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler
    from sklearn.svm import SVC

    X, y = table()
    return {
        "logistic": LogisticRegression().fit(X, y),
        "labels": LogisticRegression().fit(X, np.array(["a", "b", "c"], dtype=object)[y]),
        "forest": RandomForestClassifier(10, random_state=0).fit(X, y),
        "boosting": GradientBoostingClassifier(n_estimators=3, random_state=0).fit(X, y),
        "hist boosting": HistGradientBoostingClassifier(max_iter=3).fit(X, y),
        "neighbours": KNeighborsClassifier().fit(X, y),
        "svc": SVC().fit(X, y),
        "pipeline": make_pipeline(FunctionTransformer(np.abs), StandardScaler(), LogisticRegression()).fit(X, y),
        "random state": RandomForestClassifier(3, random_state=np.random.RandomState(0)).fit(X, y),
    }


def benign() -> dict[str, bytes]:
    """Files that must load under the default policy: joblib in six compressions, pickle in four protocols."""
    files = {key: _joblib(model) for key, model in benign_models().items()}
    forest = benign_models()["forest"]
    files |= {f"forest {kind}": _joblib(forest, (kind, 3)) for kind in ("zlib", "gzip", "bz2", "lzma", "xz")}
    files |= {f"labels protocol {n}": pickle.dumps(benign_models()["labels"], protocol=n) for n in (2, 3, 4, 5)}
    return files


def _joblib(model: object, compress: object = 0) -> bytes:
    out = io.BytesIO()
    joblib.dump(model, out, compress=compress)
    return out.getvalue()
