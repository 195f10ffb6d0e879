"""The whole hostile corpus on disk: pickles, data formats, folders and things that are no files."""

from __future__ import annotations

from pathlib import Path

import hostile_files
import hostile_folders
import hostile_formats


def build(folder: Path, marker: Path) -> dict[str, Path]:
    """Write one of each into ``folder`` and return the paths to serve, by name."""
    files = {f"pickle-{name}.pkl": data for name, data in hostile_files.pickles(marker).items()}
    paths = hostile_folders.folders(folder, marker)
    for name, data in (files | hostile_formats.files(marker)).items():
        paths[name] = folder / name.replace("/", "-")
        paths[name].write_bytes(data)
    return paths


def controls(folder: Path) -> dict[str, Path]:
    """The harmless relatives: files and folders that every level but ``data`` must serve."""
    paths = {}
    for name, data in hostile_files.benign().items():
        paths[name] = folder / f"{name}.pkl"
        paths[name].write_bytes(data)
    for name, files in hostile_folders.benign_folders().items():
        paths[name] = folder / name
        paths[name].mkdir()
        for file, data in files.items():
            (paths[name] / file).write_bytes(data)
    return paths


NAMED = {
    "direct calls": ["os.system", "posix.system", "eval", "exec", "subprocess", "timeit", "cProfile", "numpy runstring", "numpy f2py"],
    "indirections": [
        "resolve_name called", "getattr of import_module", "dotted name that is there", "re-export of os", "re-export of joblib",
        "nested joblib.load", "nested pickle.loads", "partial of all", "methodcaller", "double BUILD", "short FRAME",
    ],
    "streams": [
        "nested object array", "nested object array behind a number array", "zlib", "gzip", "bz2", "xz", "lzma",
        "stacked", "call and a broken tail",
    ],
    "bombs": [
        "1 GiB of zeros in zlib", "4 TiB BINBYTES8", "memo index 2^31", "200k marks", "billion laughs", "numpy.zeros",
        "array of another class",
    ],
    "native state": ["corrupt tree left outside", "corrupt random state position", "corrupt csr indices"],
}  # fmt: skip
"""The pickles that the survey of attacks names, by their names here (a file has ``pickle-`` before, ``.pkl`` behind)."""

NAMED_FILES = [
    "fifo", "device", "folder-links-out", "empty.joblib", "truncated.joblib", "flipped.joblib",
    "npy-objects", "npy-huge", "npy-nested",
    "onnx-external-traversal", "onnx-external-absolute", "onnx-external-nested", "onnx-external-proc",
    "onnx-external-symlink", "onnx-external-huge", "onnx-external-negative", "onnx-tebibyte", "onnx-endless",
    "skops-bomb", "skops-call", "skops-pickle",
]  # fmt: skip
"""Its files of other formats, and those that are no files. The swap between check and load is a test of its own."""
