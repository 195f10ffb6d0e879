"""Load mutated model files, each in a process of its own, and count what becomes of them.

    python scripts/fuzz_formats.py --mutations 300 --seed 0 "xgboost binary ubj" "lightgbm binary text"

Without names it takes each sample of tests/formats/samples.py but pickles. A file may be refused, may
answer as before, or may answer otherwise, where a mutation happened upon another model; it must not end
its process by a signal, take more than the memory that it is given, or never end.
"""

from __future__ import annotations

import argparse
import collections
import os
import resource
import select
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads do not survive a fork

OUTCOMES = ("refused", "same", "other", "raised", "memory", "signal", "hang")
MEMORY_BYTES = 3 << 30
DEADLINE_S = 10.0


def main() -> int:
    """Fuzz the chosen samples and print a table."""
    from formats.samples import SAMPLES  # type: ignore[import-not-found]

    parser = argparse.ArgumentParser(description="Load mutated model files and count what becomes of them.")
    parser.add_argument("samples", nargs="*", default=[n for n, (kind, _) in SAMPLES.items() if kind != "pickle"])
    parser.add_argument("--mutations", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder for the files that ended a process")
    chosen = parser.parse_args()
    print(f"{'sample':32}" + "".join(f"{name:>9}" for name in OUTCOMES))
    bad = 0
    for name in chosen.samples:
        counts = fuzz(name, chosen.mutations, chosen.seed, chosen.keep)
        print(f"{name:32}" + "".join(f"{counts[outcome]:9}" for outcome in OUTCOMES), flush=True)
        bad += counts["signal"] + counts["hang"]
    return 1 if bad else 0


def fuzz(name: str, n: int, seed: int, keep: Path | None = None) -> collections.Counter[str]:
    """Count the outcomes of ``n`` mutations of a sample."""
    import pickle

    from formats.samples import sample
    from mutations import mutations  # type: ignore[import-not-found]

    kind = format_of(name)
    kind.prepare()
    # Made in a child as well: a library that has computed here would hang in forks.
    made = pickle.loads(confined(lambda: pickle.dumps(sample(name)))[1])
    expected = confined(lambda: answers(kind, made, made.artifact.data))
    assert expected[0] == "done", expected
    counts: collections.Counter[str] = collections.Counter()
    for i, data in enumerate(mutations(made.artifact.data, n, seed)):
        outcome, told = confined(partial(answers, kind, made, data))
        if outcome == "done":
            outcome = "same" if told == expected[1] else told.decode() if told in _WORDS else "other"
        counts[outcome] += 1
        if keep and outcome in {"signal", "hang", "memory", "raised"}:
            keep.mkdir(parents=True, exist_ok=True)
            (keep / f"{name.replace(' ', '-')}-{seed}-{i}-{outcome}").write_bytes(data)
    return counts


_WORDS = {b"refused", b"raised", b"memory"}


def format_of(name: str) -> Any:
    """The format of a sample."""
    from formats.samples import SAMPLES

    import fitserve.formats
    from fitserve.formats.base import Format
    from fitserve.plugins import discover

    return next(f for f in discover(fitserve.formats, Format, "FORMAT") if f.name == SAMPLES[name][0])


def answers(kind: Any, made: Any, data: bytes) -> bytes:
    """What a file answers to the rows of its sample, or in a word why not."""
    from dataclasses import replace

    from fitserve.errors import ArtifactError, FitserveError

    artifact = replace(made.artifact, data=data)
    if not kind.matches(artifact):
        return b"refused"
    try:
        model = kind.load(artifact, made.policy)
        outputs = model.predict(model.signature.check(made.rows))
    except ArtifactError:
        return b"refused"
    except FitserveError:
        return b"other"  # it takes other rows
    except MemoryError:
        return b"memory"
    except Exception:  # noqa: BLE001 - a model that fails its trial does not come to serve
        return b"raised"
    return repr([outputs.predictions.tolist(), [p.tolist() for p in outputs.probabilities or ()]]).encode()


def confined(work: Callable[[], bytes]) -> tuple[str, bytes]:
    """Run ``work`` in a fork with bounds: how it ended, and what it returned."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        _work(work, write)
    os.close(write)
    parts, deadline = [], time.monotonic() + DEADLINE_S
    with os.fdopen(read, "rb", buffering=0) as pipe:
        while select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
            if not (part := pipe.read(1 << 20)):
                break
            parts.append(part)
        else:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "hang", b""
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return "signal", b""
    return ("done" if status == 0 else "memory"), b"".join(parts)


def _work(work: Callable[[], bytes], write: int) -> None:
    """What the fork does; it never returns."""
    code = 1
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY_BYTES,) * 2)
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        told = memoryview(work())
        while told:
            told = told[os.write(write, told) :]
        code = 0
    finally:
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
