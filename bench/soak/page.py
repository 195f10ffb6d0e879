"""The figures as tables on a terminal and as a page of the documentation."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from rich.console import Console

    from bench.soak.counting import Figure


@dataclass(frozen=True)
class Section:
    """The figures of one trial, or why there are none."""

    title: str
    figures: list[Figure]
    took_s: float
    failure: str = ""

    @property
    def is_met(self) -> bool:
        return not self.failure and all(figure.is_met is not False for figure in self.figures)


def show(console: Console, section: Section) -> None:
    """Print one section."""
    table = Table("figure", "value", "wanted", title=f"{section.title} ({section.took_s:.0f} s)", title_justify="left")
    for figure in section.figures:
        style = {True: "green", False: "bold red", None: ""}[figure.is_met]
        table.add_row(escape(figure.name), escape(figure.value), figure.wanted, style=style)
    console.print(table)
    if section.failure:
        console.print(escape(section.failure), style="bold red")


def markdown(sections: list[Section], command: str) -> str:
    """The page; ``command`` is the line that made it."""
    return PAGE.format(
        verdict=_verdict(sections),
        sections="\n".join(map(_section, sections)),
        machine=_machine(),
        command=command,
    )


def _verdict(sections: list[Section]) -> str:
    missed = [section.title for section in sections if not section.is_met]
    return f"**Not met: {', '.join(missed)}.**" if missed else "**All that was wanted was met.**"


def _section(section: Section) -> str:
    rows = [f"| {_cell(one.name)} | {_cell(one.value)} | {_cell(_wanted(one))} |" for one in section.figures]
    failure = f"\nIt could not go on: {_cell(section.failure.splitlines()[0])}\n" if section.failure else ""
    return f"## {section.title}\n\n| | | wanted |\n|---|---|---|\n" + "\n".join(rows) + "\n" + failure


def _wanted(figure: Figure) -> str:
    return figure.wanted + (", missed" if figure.is_met is False else "")


def _cell(text: str) -> str:
    """A cell without what names a place of its making."""
    return re.sub(r"/(?:home|root|tmp|work)/\S+", "…", text).replace("|", "\\|").replace("\n", " ")


def _machine() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    cpu = found[1] if found else platform.machine()
    today = datetime.now(UTC).date().isoformat()
    return (
        f"{today}, {len(os.sched_getaffinity(0))} cores of {cpu}, Linux {platform.release()}, "
        f"Python {platform.python_version()}"
    )


PAGE = """\
<!-- Written by python -m bench.soak --markdown; run it again rather than edit this. -->

# Switches and failures under load

What callers notice while versions are switched, bad files are refused, workers die and servers stop. `make soak`
repeats it and renews this page; `make test` does the same in a short form.

{verdict}

Requests leave at a constant rate, whether or not the ones before have been answered, and each latency counts from
the moment at which the request was due. A part of them goes over connections of their own. Nothing is sent again: a
connection that ends before its reply, without having been told so, is a lost request. Where the rate is half of
capacity, the capacity was measured first, with the same load on the same machine.

The value of each reply tells which version computed it. *Sent for after a switch was done* means after the reply
to `?wait=true` had been received. The clients of a killed process are known exactly: it is stopped, its connections
are listed, then it is killed.

{sections}
{machine}. The load ran on the same cores as the server.

```console
$ {command}
```
"""
