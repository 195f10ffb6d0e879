"""The figures on a terminal."""

from rich import box
from rich.console import Console
from rich.table import Table

from bench.load import cold_start, open_loop, verdicts
from bench.load.cold_start import Starts
from bench.load.figures import COLUMNS, Result
from bench.load.open_loop import Latencies
from bench.load.verdicts import Findings

STYLES = {"reached": "green", "missed": "bold red"}


def show_result(console: Console, result: Result) -> None:
    header = ["", *(column.title for column in COLUMNS)]
    console.print(table(result.scenario.title, header, result.rows()))
    for note in result.notes():
        console.print(f"  {note}", highlight=False, soft_wrap=True)
    console.print()


def show_latencies(console: Console, title: str, latencies: list[Latencies]) -> None:
    console.print(table(title, open_loop.HEADER, [one.row() for one in latencies]))


def show_starts(console: Console, starts: Starts) -> None:
    console.print(table(starts.title, cold_start.HEADER, starts.rows()))


def show_verdicts(console: Console, findings: Findings) -> None:
    """Print every target that was measured, reached or missed, and what could not be measured."""
    found = verdicts.verdicts(findings)
    if found:
        console.print(table("Targets", verdicts.HEADER, [one.row() for one in found]))
    for failure in findings.failures:
        console.print(f"not measured: {failure}", style="bold red", highlight=False, soft_wrap=True)


def table(title: str, header: list[str], rows: list[list[str]]) -> Table:
    """A table whose first column is words and whose others are figures."""
    found = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(header):
        found.add_column(name, justify="right" if number else "left", no_wrap=number > 0)
    for row in rows:
        found.add_row(*row, style=STYLES.get(row[-1]))
    return found
