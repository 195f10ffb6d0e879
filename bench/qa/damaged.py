"""Damaged files of each format, served by a real server in the place of good ones."""

from __future__ import annotations

import collections
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from e2e import damage, servers
from mutations import FILES, mutants
from rich.progress import track

if TYPE_CHECKING:
    from rich.console import Console


def served(n: int, seed: int, console: Console) -> dict[str, collections.Counter[str]]:
    """What became of ``n`` damaged files of each format."""
    counts = {}
    for kind, make in FILES.items():
        good = make()
        with tempfile.TemporaryDirectory() as name:
            current = Path(name) / "current"
            damage.point(current, good.write(Path(name) / "good"))
            with servers.running("fitserve", current, Path(name), **damage.ENVIRON) as (client, process, _):
                other = FILES["onnx" if kind == "joblib" else "joblib"]()
                damage.point(current, other.write(Path(name) / "other"))
                client.post("/model/reload?wait=true")
                each = track(damage.outcomes(client, current, good, n, seed), kind, n, console=console)
                counts[kind] = collections.Counter(each)
                counts[kind]["died"] = max(counts[kind]["died"], int(process.poll() is not None))
    return counts


def passed_a_pin(n: int, seed: int, console: Console) -> int:
    """How many damaged files were served although the good one's digest is pinned."""
    n_passed = 0
    goods = {kind: make() for kind, make in FILES.items()}
    with tempfile.TemporaryDirectory() as name:
        current = Path(name) / "current"
        damage.point(current, goods["joblib"].write(Path(name) / "good"))
        pins = ",".join(f"sha256:{good.digest}" for good in goods.values())
        with servers.running("fitserve", current, Path(name), FITSERVE_PIN=pins) as (client, _, _):
            for kind, good in track(goods.items(), "pinned", console=console):
                for i, changed in enumerate(mutants(good, n, seed)):
                    place = Path(name) / f"{kind.replace(' ', '-')}-{i}"
                    damage.point(current, changed.write(place))
                    n_passed += client.post("/model/reload?wait=true").status_code != 422
    return n_passed
