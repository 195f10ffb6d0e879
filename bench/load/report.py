"""The figures on a terminal."""

from rich import box
from rich.console import Console
from rich.table import Table

from bench.load.figures import COLUMNS, Result


def show_result(console: Console, result: Result) -> None:
    header = ["", *(column.title for column in COLUMNS)]
    console.print(table(result.scenario.title, header, result.rows()))
    for note in result.notes():
        console.print(f"  {note}", highlight=False, soft_wrap=True)
    console.print()


def table(title: str, header: list[str], rows: list[list[str]]) -> Table:
    """A table whose first column is words and whose others are figures."""
    found = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(header):
        found.add_column(name, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        found.add_row(*row)
    return found
