"""Hostile files that are no pickles: data formats and code by other names. Their payloads would touch a marker."""

from __future__ import annotations

import functools
import io
import json
import os
import pickle
import re
import struct
import zipfile
from pathlib import Path

import joblib
import numpy as np
import skops.io
from onnx import TensorProto, helper
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import FunctionTransformer


class Touch:
    """A pickle that touches the marker when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def fitted(**options) -> LogisticRegression:
    """A harmless model."""
    return LogisticRegression(max_iter=1000, **options).fit(*load_iris(return_X_y=True))


def files(marker: Path) -> dict[str, bytes]:
    """Each file by its name."""
    good = pickle.dumps(fitted())
    call = f"open({str(marker)!r}, 'w').close()"
    groups = {"onnx": onnx_files(), "skops": skops_files(marker), "npy": npy_files(marker), "native": native_files()}
    found = {f"{kind}-{name}": data for kind, group in groups.items() for name, data in group.items()}
    return found | {
        "empty.joblib": b"",
        "truncated.joblib": good[: len(good) // 2],
        "flipped.joblib": good[:2] + bytes([good[2] ^ 0xFF]) + good[3:],
        "text.joblib": f"{call}\n".encode(),
        "class.py": f"{call}\nclass Model:\n    features = {{'a': 'number'}}\n    def predict(self, rows):\n        {call}\n        return [0] * len(rows)\n".encode(),
        "torch.pt": _zipped({"archive/data.pkl": pickle.dumps(Touch(marker)), "archive/version": b"3\n"}),
        "keras.keras": _zipped({"config.json": b'{"class_name": "Lambda"}', "metadata.json": b"{}"}),
        "hdf5.h5": b"\x89HDF\r\n\x1a\n" + bytes(512),
    }


def _zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


@functools.cache
def native_files() -> dict[str, bytes]:
    """Boosters whose trees point outside of their arrays, or go round in a circle."""
    import catboost
    import lightgbm
    import xgboost

    X, y = load_iris(return_X_y=True)
    booster = xgboost.XGBClassifier(n_estimators=2, max_depth=3, n_jobs=1).fit(X, y).get_booster()
    text = lightgbm.LGBMClassifier(n_estimators=2, num_leaves=5, verbose=-1, n_jobs=1).fit(X, y)
    lines = text.booster_.model_to_string().encode()
    cbm = catboost.CatBoostClassifier(iterations=2, depth=3, verbose=False, allow_writing_files=False, thread_count=1)
    core = cbm.fit(X, y)._serialize_model()
    changes = {"left_children": 999, "right_children": 2**31 - 1, "split_indices": 10**6, "parents": 0}
    found = {f"xgboost-{key}.json": _xgboost(booster, key, value) for key, value in changes.items()}
    found |= {f"lightgbm-{key}.txt": _lightgbm(lines, key) for key in ("left_child", "right_child", "split_feature")}
    return found | {
        "xgboost-circle.json": _xgboost(booster, "left_children", 0),
        "xgboost-deep.json": b'{"learner":' + b"[" * 200_000,
        "xgboost-huge.ubj": b"{L\x00\x00\x00\x00\x00\x00\x00\x07learner[$d#L" + struct.pack(">q", 2**40),
        "lightgbm-many-leaves.txt": re.sub(rb"num_leaves=\d+", b"num_leaves=2000000000", lines),
        "lightgbm-many-classes.txt": re.sub(rb"num_class=\d+", b"num_class=2000000000", lines),
        "catboost-size.cbm": core[:4] + b"\xff\xff\xff\x7f" + core[8:],
        "catboost-offset.cbm": core[:8] + b"\xf0\xff\xff\xff" + core[12:],
        "catboost-zeros.cbm": core[:12] + bytes(len(core) - 12),
    }


def _xgboost(booster, key: str, value: int) -> bytes:
    document = json.loads(bytes(booster.save_raw("json")))
    document["learner"]["gradient_booster"]["model"]["trees"][0][key][0] = value
    return json.dumps(document).encode()


def _lightgbm(text: bytes, key: str) -> bytes:
    return re.sub(rb"^%s=\d+" % key.encode(), b"%s=99999" % key.encode(), text, count=1, flags=re.MULTILINE)


def onnx_files() -> dict[str, bytes]:
    """External data that leads elsewhere, a tensor of a tebibyte, a loop without end."""
    places = {
        "traversal": {"location": "../../../../etc/passwd"},
        "absolute": {"location": "/etc/passwd"},
        "nested": {"location": "a/../../etc/passwd"},
        "proc": {"location": "/proc/self/environ"},
        "symlink": {"location": "link-to-passwd"},
        "huge": {"location": "weights.bin", "length": str(2**62)},
        "negative": {"location": "weights.bin", "offset": "-1"},
    }
    files = {f"external-{name}": external_onnx(place) for name, place in places.items()}
    return files | {"tebibyte": _tebibyte(), "endless": _endless()}


def _model(nodes: list, initializers: list, outputs: list) -> bytes:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])
    graph = helper.make_graph(nodes, "g", [x], outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return model.SerializeToString()


def _output() -> list:
    return [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None])]


def external_onnx(place: dict[str, str]) -> bytes:
    """A model of four numbers whose weights lie at ``place``."""
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 1], data_location=TensorProto.EXTERNAL)
    for key, value in place.items():
        weights.external_data.add(key=key, value=value)
    return _model([helper.make_node("MatMul", ["x", "w"], ["y"])], [weights], _output())


def _tebibyte() -> bytes:
    shape = helper.make_tensor("s", TensorProto.INT64, [2], [2**20, 2**18])
    nodes = [
        helper.make_node("ConstantOfShape", ["s"], ["big"]),
        helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=1),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    return _model(nodes, [shape], _output())


def _endless() -> bytes:
    body = helper.make_graph(
        [helper.make_node("Identity", ["c_in"], ["c_out"]), helper.make_node("Identity", ["v_in"], ["v_out"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_in", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("c_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_out", TensorProto.FLOAT, None),
        ],
    )
    true = helper.make_tensor("t", TensorProto.BOOL, [], [True])
    return _model([helper.make_node("Loop", ["", "t", "x"], ["y"], body=body)], [true], _output())


def skops_files(marker: Path) -> dict[str, bytes]:
    """A bomb, a call in disguise, a pickle by another name, a state that points beyond its end."""
    good = skops.io.dumps(fitted())
    schema = zipfile.ZipFile(io.BytesIO(good)).read("schema.json")
    writes = FunctionTransformer(joblib.dump, kw_args={"filename": str(marker)})
    generator = skops.io.dumps(fitted(random_state=np.random.RandomState(0)))
    return {
        "bomb": _zipped({"schema.json": schema, "bomb.npy": bytes(2**30)}, zipfile.ZIP_DEFLATED),
        "call": skops.io.dumps(FunctionTransformer(os.system, kw_args={"command": f"touch {marker}"})),
        "call-that-writes": skops.io.dumps(writes),
        "pickle": pickle.dumps(Touch(marker)),
        "generator": _rewritten(generator, lambda schema: schema.replace('"content": "624"', '"content": "1000000"')),
        "not-a-zip": b"PK\x03\x04" + bytes(100),
    }


def _rewritten(archive: bytes, change) -> bytes:
    source, target = zipfile.ZipFile(io.BytesIO(archive)), io.BytesIO()
    with zipfile.ZipFile(target, "w") as out:
        for name in source.namelist():
            data = source.read(name)
            out.writestr(name, change(data.decode()).encode() if name == "schema.json" else data)
    return target.getvalue()


def npy_files(marker: Path) -> dict[str, bytes]:
    """Arrays of objects, of eight tebibytes, and with a header that never ends its brackets."""
    objects = io.BytesIO()
    np.save(objects, np.array([Touch(marker)], dtype=object), allow_pickle=True)
    return {
        "objects": objects.getvalue(),
        "huge": _npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776,), }"),
        "nested": _npy("(" * 60_000),
    }


def _npy(header: str) -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(text)) + text
