"""Hostile files that are no pickles: data formats, special files and folders. Their payloads would touch a marker."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from pathlib import Path

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


def build(folder: Path, marker: Path) -> dict[str, Path]:
    """Write one of each into ``folder`` and return the paths to serve, by name."""
    files = {f"onnx-{name}.onnx": data for name, data in onnx_files().items()}
    files |= {f"skops-{name}.skops": data for name, data in skops_files(marker).items()}
    files |= {f"npy-{name}.joblib": data for name, data in npy_files(marker).items()}
    good = pickle.dumps(fitted())
    files |= {
        "empty.joblib": b"",
        "truncated.joblib": good[: len(good) // 2],
        "flipped.joblib": good[:2] + bytes([good[2] ^ 0xFF]) + good[3:],
        "text.joblib": b"import os; os.system('touch " + str(marker).encode() + b"')\n",
    }
    paths = {}
    for name, data in files.items():
        paths[name] = folder / name
        paths[name].write_bytes(data)
    return paths | special_files(folder)


def special_files(folder: Path) -> dict[str, Path]:
    """Things that are no regular files, and links that lead out of a folder."""
    fifo = folder / "fifo.joblib"
    os.mkfifo(fifo)
    zero = folder / "zero.joblib"
    zero.symlink_to("/dev/zero")
    out = folder / "links-out"
    out.mkdir()
    (out / "model.joblib").symlink_to("/etc/hostname")
    around = folder / "manifest-out"
    around.mkdir()
    (around / "manifest.toml").write_text(
        'schema = 1\nname = "m"\nversion = "1"\nformat = "pickle"\n[files]\n"../empty.joblib" = "' + "0" * 64 + '"\n'
    )
    return {"fifo": fifo, "device": zero, "folder-links-out": out, "manifest-leads-out": around}


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
    files = {f"external-{name}": _external(place) for name, place in places.items()}
    return files | {"tebibyte": _tebibyte(), "endless": _endless()}


def _model(nodes: list, initializers: list, outputs: list) -> bytes:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])
    graph = helper.make_graph(nodes, "g", [x], outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return model.SerializeToString()


def _output() -> list:
    return [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None])]


def _external(place: dict[str, str]) -> bytes:
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
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", zipfile.ZipFile(io.BytesIO(good)).read("schema.json"))
        archive.writestr("bomb.npy", bytes(2**30))
    generator = skops.io.dumps(fitted(random_state=np.random.RandomState(0)))
    return {
        "bomb": bomb.getvalue(),
        "call": skops.io.dumps(FunctionTransformer(os.system, kw_args={"command": f"touch {marker}"})),
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
