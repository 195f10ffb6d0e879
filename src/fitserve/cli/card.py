"""What a model looks like on a terminal: its fields, its URLs, a line to try."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from fitserve.observe.logs import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console
    from rich.table import Table

MOST_FEATURES = 40


def print_model(console: Console, facts: Mapping[str, Any]) -> None:
    """Print the facts of a model, as :func:`~fitserve.store.describe.describe_model` has them."""
    is_ready = "" if facts["is_ready"] else "  [yellow]not ready: it has not answered a test row[/yellow]"
    console.print(f"[bold]{safe(facts['name'])} {safe(facts['version'])}[/bold]  {facts['model_type']}{is_ready}")
    libraries = ", ".join(f"{name} {versions['now']}" for name, versions in facts["libraries"].items())
    console.print(f"{facts['digest'][:19]}…  {facts['size_bytes']:,} bytes  {libraries}")
    for warning in facts["warnings"]:
        console.print(f"[yellow]warning:[/yellow] {safe(warning)}")
    if facts["classes"] is not None:
        console.print(f"classes: {safe(shorten(json.dumps(facts['classes'])))}")
    if not facts["features"]:
        console.print("features: the model does not tell; rows of numbers are passed on as they come")
        return
    console.print(features_table(facts["features"][:MOST_FEATURES]))
    if len(facts["features"]) > MOST_FEATURES:
        console.print(f"… and {len(facts['features']) - MOST_FEATURES} more: see /model/info")


def features_table(features: Sequence[Mapping[str, Any]]) -> Table:
    """A line for each feature, as :func:`~fitserve.store.describe.describe_field` has them."""
    from rich.table import Column, Table

    table = Table("feature", "kind", "null", "categories", Column("learnt from", overflow="fold"))
    for feature in features:
        null = "yes" if feature["is_nullable"] else "no"
        cells = (feature["name"], feature["kind"], null, _categories(feature), feature["learnt_from"])
        table.add_row(*map(safe, cells))
    return table


def _categories(feature: Mapping[str, Any]) -> str:
    known = feature["categories"]
    if known is None:
        return ""
    labels = shorten(", ".join(label if isinstance(label, str) else json.dumps(label) for label in known))
    return f"only {labels}" if feature["is_closed"] else f"{labels}, or others"


def print_verification(console: Console, report: Mapping[str, Any]) -> None:
    """Print what trying a model has shown, as :meth:`~fitserve.store.verify.Verifier.verify` reports it."""
    from fitserve.signature import count

    if (golden := report["golden"]) is not None:
        outputs = ", ".join(f"{output['name']} within {output['largest_abs']:.2g}" for output in golden["outputs"])
        samples = count(golden["n_rows"], "golden sample")
        console.print(f"{samples} answered as when it was packed ({safe(outputs)})")
    elif report["model"]["is_ready"]:
        console.print(
            f"no golden samples (`fitserve pack` makes them); it answered {count(report['n_self_made_rows'], 'row')}"
        )
    console.print(f"tried confined: {safe(report['confinement'])}, {report['peak_memory_bytes'] // 2**20} MiB")


def print_optimization(console: Console, told: Mapping[str, Any]) -> None:
    """Print which engines answer as the library does, as :func:`~fitserve.store.engines_tried.try_engines` has them."""
    if not told["report"]:
        console.print(f"not compiled: {safe(told['reason'] or 'no engine is at hand')}")
        return
    from rich.table import Column, Table

    table = Table(
        "engine", "verdict", "largest difference", "1 row", "each further row", Column("why", overflow="fold")
    )
    natives = [entry["native_cost"] for entry in told["report"] if entry.get("native_cost")]
    if natives:
        table.add_row("native", "", "", *_costs(natives[0]), "")
    for entry in told["report"]:
        known = [value for value in (entry.get("differences") or {}).values() if value is not None]
        largest = f"{max(known):.2g}" if known else ""
        words = (entry["engine"], entry["verdict"], largest, *_costs(entry.get("cost")), entry.get("reason") or "")
        table.add_row(*map(safe, words))
    console.print(table)
    n_rows = max(entry.get("n_rows") or 0 for entry in told["report"])
    source = {"cache": "; kept since an earlier start", "package": "; packed with the model"}.get(told["source"], "")
    if n_rows:
        console.print(f"engines were compared with the library on {n_rows} rows{source}")


def _costs(cost: Mapping[str, float] | None) -> tuple[str, str]:
    """What the first row of a call takes, and each further one."""
    if not cost:
        return "", ""
    return _microseconds(cost["fixed_s"] + cost["per_row_s"]), _microseconds(cost["per_row_s"])


def _microseconds(seconds: float) -> str:
    return f"{1e6 * seconds:,.0f} µs" if seconds >= 1e-4 else f"{1e6 * seconds:.3g} µs"  # noqa: PLR2004 - three digits


def print_urls(console: Console, url: str, example: Mapping[str, Any] | None) -> None:
    """Print where the server answers, and a line that asks it for a prediction."""
    console.print(f"\n[bold]{url}[/bold]          the service")
    console.print(f"{url}/docs     try it in the browser")
    console.print(f"{url}/ready    for probes")
    if example is not None:
        console.print("\nTry it:\n")
        console.print(curl(url, example), soft_wrap=True, markup=False, highlight=False)
    console.print("\nCtrl-C stops it.", style="dim")


def safe(text: str) -> str:
    """A text that comes out of a model, for a terminal: without markup, and without characters that steer it."""
    from rich.markup import escape

    return escape(printable(text))


def curl(url: str, example: Mapping[str, Any]) -> str:
    """A shell line that predicts the example row."""
    if url.startswith("http+unix://"):
        url = f"--unix-socket {shlex.quote(unquote(url.removeprefix('http+unix://')))} http://localhost"
    return f"curl -s {url}/predict -H 'Content-Type: application/json' -d {shlex.quote(json.dumps(example))}"


def shorten(text: str, length: int = 60) -> str:
    """Cut a text for a table cell."""
    return text if len(text) <= length else f"{text[: length - 1]}…"
