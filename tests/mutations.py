"""Mutations of a file, always the same ones for the same seed; and good models of each format to mutate."""

import hashlib
import io
import itertools
import pickle
import random
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import joblib
from formats.samples import sample, sklearn_model

from fitserve.store.repository import digest_of

SPECIAL_NUMBERS = (b"-1", b"0", b"1", b"255", b"65536", b"2147483647", b"-2147483648", b"99999999999", b"1e400", b"nan")
SPECIAL_BYTES = (0x00, 0x7F, 0x80, 0xFF)
NUMBER = re.compile(rb"-?\d+(\.\d+)?([eE][+-]?\d+)?")


def mutations(data: bytes, n: int, seed: int) -> Iterator[bytes]:
    """Yield ``n`` versions of ``data``, each changed in one to three places."""
    rng = random.Random(seed)
    kinds = [_flip, _set, _insert, _delete, _truncate, _duplicate, _swap, _length]
    if data[:2] == b"PK":
        kinds += [_member] * 16  # a zip archive finds most other changes by its checksums
    if _is_text(data):
        kinds += [_number] * 5
    for _ in range(n):
        mutated = data
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            mutated = rng.choice(kinds)(rng, mutated) or b"\0"
        yield mutated


def _is_text(data: bytes) -> bool:
    return b"\0" not in data[:4096]


def _flip(rng: random.Random, data: bytes) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]


def _set(rng: random.Random, data: bytes) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + bytes([rng.choice(SPECIAL_BYTES)]) + data[place + 1 :]


def _insert(rng: random.Random, data: bytes) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + rng.randbytes(rng.choice((1, 2, 4, 8))) + data[place:]


def _delete(rng: random.Random, data: bytes) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + data[place + rng.choice((1, 2, 4, 8, 64)) :]


def _truncate(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def _duplicate(rng: random.Random, data: bytes) -> bytes:
    place, size = rng.randrange(len(data)), rng.choice((8, 64, 512))
    return data[: place + size] + data[place:]


def _swap(rng: random.Random, data: bytes) -> bytes:
    """Overwrite one place with what stands at another."""
    source, place, size = rng.randrange(len(data)), rng.randrange(len(data)), rng.choice((1, 4, 8, 64))
    block = data[source : source + size]
    return data[:place] + block + data[place + len(block) :]


def _length(rng: random.Random, data: bytes) -> bytes:
    """Overwrite four aligned bytes with a number that is small, or next to a bound."""
    place = rng.randrange(max(1, len(data) // 4)) * 4
    number = rng.choice((0, 1, 2, 255, 2**15, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 1))
    return data[:place] + number.to_bytes(4, rng.choice(("little", "big"))) + data[place + 4 :]


def _member(rng: random.Random, data: bytes) -> bytes:
    """Change one file of a zip archive, checksum and all."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError):
        return data[:-1]
    chosen = rng.choice(list(members)) if members else ""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            is_changed = name == chosen and content
            archive.writestr(name, next(mutations(content, 1, rng.randrange(2**32))) if is_changed else content)
    return out.getvalue()


def _number(rng: random.Random, data: bytes) -> bytes:
    """Put another number in the place of one in a text."""
    numbers = list(NUMBER.finditer(data))
    if not numbers:
        return _flip(rng, data)
    chosen = rng.choice(numbers)
    new = rng.choice((*SPECIAL_NUMBERS, *(b"%d" % rng.randrange(-20, 40) for _ in range(10))))
    return data[: chosen.start()] + new + data[chosen.end() :]


@dataclass(frozen=True)
class Good:
    """A good model: its files, which of them is to be damaged, and rows that it takes."""

    files: dict[str, bytes]
    damaged: str
    rows: list

    @property
    def digest(self) -> str:
        """As the store computes it: of the file, or of the folder."""
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in self.files.items()}
        return digests[self.damaged] if len(self.files) == 1 else digest_of(digests)

    def write(self, place: Path) -> Path:
        """Write the file, or the folder if there are several."""
        if len(self.files) == 1:
            place.write_bytes(self.files[self.damaged])
        else:
            for name, data in self.files.items():
                place.mkdir(exist_ok=True)
                (place / name).write_bytes(data)
        return place


def mutants(good: Good, n: int, seed: int) -> Iterator[Good]:
    """Yield ``n`` damaged versions, none of which is the good one by chance."""
    data = good.files[good.damaged]
    different = (changed for changed in mutations(data, 2 * n, seed) if changed != data)
    for changed in itertools.islice(different, n):
        yield replace(good, files=good.files | {good.damaged: changed})


def _of_sample(name: str) -> Good:
    made = sample(name)
    files = made.artifact.files or {"model": made.artifact.data}
    return Good(dict(files), "model.pkl" if "model.pkl" in files else next(iter(files)), made.rows)


def _of_estimator(dump) -> Good:
    trained = sklearn_model("forest")
    return Good({"model": dump(trained.estimator)}, "model", trained.rows)


def _compressed(estimator) -> bytes:
    out = io.BytesIO()
    joblib.dump(estimator, out, compress=("zlib", 3))
    return out.getvalue()


FILES = {
    "joblib": partial(_of_sample, "sklearn forest pickle"),
    "joblib compressed": partial(_of_estimator, _compressed),
    "pickle": partial(_of_estimator, pickle.dumps),
    "skops": partial(_of_sample, "sklearn logistic skops"),
    "onnx": partial(_of_sample, "sklearn logistic onnx"),
    "xgboost json": partial(_of_sample, "xgboost binary json"),
    "xgboost ubj": partial(_of_sample, "xgboost binary ubj"),
    "lightgbm": partial(_of_sample, "lightgbm binary text"),
    "catboost": partial(_of_sample, "catboost binary cbm"),
    "mlflow": partial(_of_sample, "sklearn logistic mlflow"),
}
"""A good model of each format, made when it is called."""
