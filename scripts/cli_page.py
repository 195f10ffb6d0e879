"""Print docs/reference/cli.md: the help text of every command, as a terminal 80 columns wide shows it.

Renew the page with ``.venv/bin/python scripts/cli_page.py > docs/reference/cli.md``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer.main
from typer.testing import CliRunner

from fitserve.cli import build_cli

if TYPE_CHECKING:
    from collections.abc import Iterator

COLUMNS = 80

INTRO = """\
# Command line

<!-- Made by scripts/cli_page.py: change fitserve/cli, then make the page again. -->

Log lines and errors go to standard error. The model's summary goes to standard output: `check`, `inspect`, `dev` and
`demo` always print it, `run` on a terminal only. `check`, `inspect`, `pack` and `convert` load the model in a confined
process and serve nothing; with `--json` they print their report as JSON. `python -m fitserve` is the same as
`fitserve`. Each setting is also a flag: [Settings](settings.md) tells their bounds and their other names.

| exit code | meaning |
|---|---|
| 0 | done; for a server: stopped by SIGINT or SIGTERM |
| 1 | the model cannot be served, packed or converted, or is not trusted, or `check` found that it answers no test \
row; `models` found no server, or was refused |
| 2 | the command line or a setting is wrong, or the port is in use |

SIGINT (Ctrl-C) and SIGTERM stop a server: it takes no more connections, finishes the requests in flight for up to
`shutdown_timeout_s`, answers 503 to the rest, and ends.

SIGHUP makes a server of one process read the model file again, as `POST /model/reload` does; the log has the answer.
With `--workers N` send it to the parent, which replaces the workers one by one. If the file cannot be loaded, the
version before goes on. A terminal that is closed stops the server that was started in it.
"""


def render() -> str:
    """Return the whole page."""
    return "\n".join([INTRO, *(_section(words) for words in _commands())])


def _commands() -> Iterator[tuple[str, ...]]:
    """Every command as the words that a user types after ``fitserve``, groups before their members."""

    def walk(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield words
        for name, inner in sorted(getattr(command, "commands", {}).items()):
            yield from walk(inner, (*words, name))

    return walk(typer.main.get_command(build_cli()), ())


def _section(words: tuple[str, ...]) -> str:
    command = " ".join(["fitserve", *words])
    return f"## `{command}`\n\n```console\n$ {command} --help\n{_help(words)}```\n"


def _help(words: tuple[str, ...]) -> str:
    environment = {"COLUMNS": str(COLUMNS), "NO_COLOR": "1", "TERM": "dumb"}
    result = CliRunner(env=environment).invoke(
        build_cli(), [*words, "--help"], prog_name="fitserve", terminal_width=COLUMNS
    )
    assert result.exit_code == 0, result.output
    return result.output


if __name__ == "__main__":
    print(render(), end="")
