"""Switch, break, kill and stop a server under load, for long: `python -m bench.soak [--markdown FILE] [--only NAME …]`.

Prints the figures of each trial beside what is wanted. Ends with 1 if one was not met.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from bench.soak import ailing, bad_files, dying, ending, memory, models, page, switching
from bench.soak.load import Shape
from bench.soak.service import serving

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.soak.counting import Figure

MANY = Shape(0.0, bodies=tuple(b'{"features": [%d, 0.5, 1, 2]}' % i for i in range(50)), n_kept=32)
STEADY = Shape(200.0)


def main() -> int:
    chosen = _options()
    warnings.simplefilter("ignore")
    console = Console() if sys.stdout.isatty() else Console(width=150)
    sections = []
    for name in chosen.only or TRIALS:
        title, trial = TRIALS[name]
        began_s = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="fitserve-soak-", ignore_cleanup_errors=True) as folder:
            figures: list[Figure] = []
            failure = ""
            try:
                figures = trial(Path(folder), chosen.scale)
            except Exception as exc:  # noqa: BLE001 - the other trials go on
                failure = f"{type(exc).__name__}: {exc}"
        sections.append(page.Section(title, figures, time.monotonic() - began_s, failure))
        page.show(console, sections[-1])
    if chosen.markdown:
        command = shlex.join(["python", "-m", "bench.soak", *sys.argv[1:]])
        chosen.markdown.write_text(page.markdown(sections, command), encoding="utf-8")
    return 0 if all(section.is_met for section in sections) else 1


def _times(n: int, scale: float) -> int:
    return max(2, round(n * scale))


def _switches(folder: Path, scale: float) -> list[Figure]:
    path = models.repository(folder / "models", models.forest)
    with serving(path, folder) as service:
        shape = switching.half_of_capacity(service, MANY)
        return [*switching.switches(service, _times(1000, scale), shape), *switching.repeated(service, STEADY)]


def _latency(folder: Path, scale: float) -> list[Figure]:
    path = models.repository(folder / "models", models.forest)
    with serving(path, folder) as service:
        shape = switching.half_of_capacity(service, MANY)
        return switching.calm_and_switching(service, shape, _times(5, scale), 20 * scale + 2)


def _elsewhere(kind: str, folder: Path, scale: float) -> list[Figure]:
    path = models.repository(folder / "models")
    with serving(path, folder, kind=kind, workers=2) as service:
        return switching.switches(service, _times(200, scale), STEADY)


def _optimized(folder: Path, scale: float) -> list[Figure]:
    path = models.repository(folder / "models", models.forest)
    with serving(path, folder, optimize="auto") as service:
        shape = switching.half_of_capacity(service, MANY)
        return switching.switches(service, _times(200, scale), shape)


def _bad_files(folder: Path, scale: float) -> list[Figure]:
    n = _times(33, scale)
    kinds = dict.fromkeys(bad_files.LEAVING_NOTHING, n)
    kinds["hangs in warm-up"] = _times(5, scale)
    with bad_files.serving_place(folder) as (service, place):
        warm = bad_files.refusals(service, place, dict.fromkeys(kinds, 1), STEADY)
        time.sleep(5)
        before = bad_files.held(service)
        found = bad_files.refusals(service, place, kinds, STEADY)
        last = bad_files.refusals(service, place, {"hangs in one worker": 2}, STEADY)
        return [*(one for one in warm if one.is_met is False), *found, *bad_files.leaks(service, before), *last]


def _kills(folder: Path, scale: float) -> list[Figure]:
    path = models.repository(folder / "models")
    with serving(path, folder) as service:
        return dying.kills(service, _times(60, scale), Shape(500.0, n_kept=32))


def _kills_in_switches(folder: Path, scale: float) -> list[Figure]:
    path = models.repository(folder / "models")
    with serving(path, folder) as service:
        return dying.killed_in_a_switch(service, _times(20, scale), Shape(500.0, n_kept=32))


def _ailing(folder: Path, trial: Callable[..., list[Figure]], workers: int = 4, **settings: object) -> list[Figure]:
    code = models.code(folder / "code")
    path = models.faulty(folder / "tell_v1.0.0.joblib", 1.5, code)
    with serving(path, folder, workers=workers, code_path=code, allow=models.ALLOW, **settings) as service:
        return trial(service)


def _blocked(folder: Path, _: float) -> list[Figure]:
    return _ailing(folder, lambda service: ailing.blocked(service, STEADY, "1.0.0"), heartbeat_timeout_s=3)


def _leaking(folder: Path, _: float) -> list[Figure]:
    trial = partial(ailing.recycled, shape=STEADY, first="1.0.0", word="memory", leak_mib=2.0)
    return _ailing(folder, trial, recycle_memory_bytes=300 * 2**20)


def _aged(folder: Path, _: float) -> list[Figure]:
    return _ailing(folder, partial(ailing.recycled, shape=STEADY, first="1.0.0", word="recycl"), recycle_age_s=15)


def _worn(folder: Path, _: float) -> list[Figure]:
    trial = partial(ailing.recycled, shape=STEADY, first="1.0.0", word="requests")
    return _ailing(folder, trial, recycle_requests=2000)


def _crashing(folder: Path, _: float) -> list[Figure]:
    import random

    path = ailing.make_crashing(folder / "code")
    bodies = (b'{"features": {"a": 1, "b": 1, "c": 1, "d": 1}}',)
    with serving(path, folder, code_path=folder / "code") as service:
        kill = partial(dying.kill_one, service, random.Random(0))
        return ailing.crashing(service, folder / "code", kill, Shape(200.0, bodies), n_crashes=4)


def _stops(folder: Path, scale: float) -> list[Figure]:
    """With requests of 1 s in flight; the rate is what 4 workers of 8 threads each bear."""
    figures: list[Figure] = []
    for i in range(_times(5, scale)):
        within = folder / str(i)
        within.mkdir()
        figures += _ailing(within, partial(ending.stopped, shape=SLOW, within_s=30, first="1.0.0"), inference_threads=8)
    return figures


SLOW = Shape(20.0, (b'{"features": [1, 1.0, 0, 0]}',), n_kept=24)


def _hangups(folder: Path, scale: float) -> list[Figure]:
    path = models.repository(folder / "models")
    with serving(path, folder) as service:
        return ending.replaced(service, _times(10, scale), Shape(500.0, n_kept=32))


def _spread(folder: Path, _: float) -> list[Figure]:
    path = models.repository(folder / "models")
    with serving(path, folder) as service:
        return [figure for n in (32, 64, 128, 256) for figure in switching.spread(service, n)]


def _memory(folder: Path, scale: float) -> list[Figure]:
    return memory.measure(folder, round(520 * 2**20 * min(1.0, scale * 2)), _times(10, scale))


TRIALS: dict[str, tuple[str, Callable[[Path, float], list[Figure]]]] = {
    "switches": ("1000 switches at half of capacity, 4 workers", _switches),
    "latency": ("p99 with a switch each second, half of capacity", _latency),
    "optimized": ("Switches between optimized versions", _optimized),
    "uvicorn": ("Switches under uvicorn, 2 workers", partial(_elsewhere, "uvicorn")),
    "gunicorn": ("Switches under gunicorn, 2 workers", partial(_elsewhere, "gunicorn")),
    "bad-files": ("Reloads that must fail", _bad_files),
    "kills": ("A random worker killed each second", _kills),
    "kills-in-switches": ("A worker killed in the middle of a switch", _kills_in_switches),
    "blocked": ("A worker whose event loop is blocked", _blocked),
    "leaking": ("Workers that leak", _leaking),
    "aged": ("Workers that grow old", _aged),
    "worn": ("Workers that have answered their number of requests", _worn),
    "crashing": ("Workers that crash at their start", _crashing),
    "stops": ("SIGTERM with requests of 1 s in flight", _stops),
    "hangups": ("SIGHUP under load", _hangups),
    "spread": ("Connections opened at once", _spread),
    "memory": ("Memory of a large forest", _memory),
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m bench.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=TRIALS, metavar="NAME", help=f"of {', '.join(TRIALS)}")
    parser.add_argument("--scale", type=float, default=1.0, help="of how often and how long; 0.05 is a quick look")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the figures to a page")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
