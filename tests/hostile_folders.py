"""Hostile folders: packages that are not what they say, folders of other tools, links and things that are no files."""

from __future__ import annotations

import hashlib
import os
import pickle
import socket
from pathlib import Path

import skops.io
from hostile_formats import Touch, external_onnx, fitted

GOLDEN = (
    b'{"schema":1,"rtol":1e-6,"atol":1e-9,"rows":[[5.1,3.5,1.4,0.2]],"outputs":{"predict":[%d],'
    b'"predict_proba":[[0.9,0.1,0.0]]}}'
)
WEIGHTS = bytes(16)

MLMODEL = "flavors:\n  sklearn:\n    pickled_model: {model}\n  python_function:\n    loader_module: {loader}\n"


def folders(root: Path, marker: Path) -> dict[str, Path]:
    """Write each below ``root`` and return the paths to serve, by name."""
    contents = packages(marker) | external_folders() | foreign_folders(marker)
    for name, files in contents.items():
        for file, data in files.items():
            path = root / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return {name: root / name for name in contents} | special_files(root)


def package(model: bytes, *, name: str = "m.skops", kind: str = "skops", extra: str = "", **files: bytes) -> dict:
    """A folder as ``fitserve pack`` writes it: a manifest that lists the digest of each file."""
    held = {name: model} | {file.replace("_", "."): data for file, data in files.items()}
    digests = "".join(f'"{file}" = "{hashlib.sha256(data).hexdigest()}"\n' for file, data in held.items())
    golden = 'golden = "golden.json"\n' if "golden.json" in held else ""
    head = f'schema = 1\nname = "m"\nversion = "1"\nformat = "{kind}"\nmodel = "{name}"\n{golden}{extra}'
    return held | {"manifest.toml": f"{head}[files]\n{digests}".encode()}


def packages(marker: Path) -> dict[str, dict[str, bytes]]:
    good, other = skops.io.dumps(fitted()), skops.io.dumps(fitted(C=0.001))
    hostile = pickle.dumps(Touch(marker))
    whole = package(good)
    return {
        "package-digest": whole | {"m.skops": other},
        "package-golden-digest": package(good, golden_json=GOLDEN % 0) | {"golden.json": GOLDEN % 1},
        "package-golden-differs": package(good, golden_json=GOLDEN % 2),
        "package-file-missing": {"manifest.toml": whole["manifest.toml"]},
        "package-file-unlisted": whole | {"more.skops": other},
        "package-of-a-hostile-pickle": package(hostile, name="m.pkl", kind="pickle"),
        "package-states-its-trust": package(hostile, name="m.pkl", kind="pickle", extra='trust = "any"\n'),
        "package-allows-itself": package(hostile, name="m.pkl", kind="pickle", extra='allow = ["posix.system"]\n'),
        "package-of-another-format": package(hostile, name="m.skops", kind="skops"),
        "package-golden-deep": package(good, golden_json=b"[" * 200_000),
    }


def external_folders() -> dict[str, dict[str, bytes]]:
    """ONNX whose weights lie in another file: only a manifest that lists the file lets it be read."""
    inside = external_onnx({"location": "weights.bin", "length": "16"})
    leads_out = external_onnx({"location": "../empty.joblib"})
    long = external_onnx({"location": "weights.bin", "length": str(2**40)})
    onnx = {"name": "m.onnx", "kind": "onnx"}
    listed = package(inside, weights_bin=WEIGHTS, **onnx)
    return {
        "external-no-manifest": {"m.onnx": inside, "weights.bin": WEIGHTS},
        "external-unlisted": package(inside, **onnx) | {"weights.bin": WEIGHTS},
        "external-digest": listed | {"weights.bin": b"\1" * 16},
        "external-leads-out": package(leads_out, weights_bin=WEIGHTS, **onnx),
        "external-too-long": package(long, weights_bin=WEIGHTS, **onnx),
    }


def benign_folders() -> dict[str, dict[str, bytes]]:
    """The controls of the two above: they must load."""
    inside = external_onnx({"location": "weights.bin", "length": "16"})
    return {
        "package": package(skops.io.dumps(fitted())),
        "external-listed": package(inside, name="m.onnx", kind="onnx", weights_bin=WEIGHTS),
    }


def foreign_folders(marker: Path) -> dict[str, dict[str, bytes]]:
    """What MLflow and MLServer write, with a payload, and folders of no model or of two."""
    hostile, code = pickle.dumps(Touch(marker)), f"open({str(marker)!r}, 'w')\n".encode()
    tag = f"flavors: !!python/object/apply:os.system ['touch {marker}']\n"
    laughs = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
    settings = '{"name": "m", "implementation": "mlserver_sklearn.SKLearnModel", "parameters": {"uri": "%s"}}'
    return {
        "mlflow-pickle": {"MLmodel": MLMODEL.format(model="m.pkl", loader="mlflow.sklearn").encode(), "m.pkl": hostile},
        "mlflow-leads-out": {"MLmodel": MLMODEL.format(model="../../empty", loader="mlflow.sklearn").encode()},
        "mlflow-code": {
            "MLmodel": b"flavors:\n  python_function:\n    loader_module: evil\n    code: code\n    data: m.pkl\n",
            "code/evil.py": code,
            "m.pkl": hostile,
        },
        "mlflow-yaml-tag": {"MLmodel": tag.encode()},
        "mlflow-yaml-laughs": {"MLmodel": laughs.encode()},
        "mlserver-leads-out": {"model-settings.json": (settings % "../empty.joblib").encode()},
        "mlserver-pickle": {"model-settings.json": (settings % "./m.joblib").encode(), "m.joblib": hostile},
        "folder-of-two": {"a.skops": skops.io.dumps(fitted()), "b.skops": skops.io.dumps(fitted(C=2))},
        "folder-of-nothing": {"README": b"no model here"},
    }


def special_files(folder: Path) -> dict[str, Path]:
    """Things that are no regular files, and links that lead out of a folder."""
    fifo = folder / "fifo.joblib"
    os.mkfifo(fifo)
    links = {"device": "/dev/zero", "link-to-nothing": "/nowhere/model.joblib", "link-to-itself": "link-to-itself"}
    found = {"fifo": fifo}
    for name, target in links.items():
        found[name] = folder / name
        found[name].symlink_to(target)
    with socket.socket(socket.AF_UNIX) as listener:
        found["socket"] = folder / "socket"
        listener.bind(os.path.relpath(found["socket"]))  # a name may have 107 bytes
    out = folder / "links-out"
    out.mkdir()
    (out / "model.joblib").symlink_to("/etc/hostname")
    around = folder / "manifest-out"
    around.mkdir()
    (around / "manifest.toml").write_text(
        'schema = 1\nname = "m"\nversion = "1"\nformat = "pickle"\n[files]\n"../empty.joblib" = "' + "0" * 64 + '"\n'
    )
    return found | {"folder-links-out": out, "manifest-leads-out": around}
