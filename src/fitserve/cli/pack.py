"""``fitserve pack MODEL --out DIR``: a folder that proves itself."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fitserve.cli import refuse
from fitserve.cli.options import COMPILING, LOADING, with_settings
from fitserve.errors import FitserveError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping


COMMAND = typer.Typer()


@COMMAND.command()
@with_settings(only=(*LOADING, *COMPILING[:2]))  # a package keeps its engines itself
def pack(  # noqa: PLR0913 - one for each option
    path: Annotated[Path, typer.Argument(metavar="MODEL", help="The model file or folder.")],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The folder to write.")],
    examples: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Rows that the model takes: .csv, .json, .jsonl or .parquet."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The model's name; else by its file.")] = None,
    version: Annotated[str | None, typer.Option(help="Its version; else by its file, else by its digest.")] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="What else to say of it. May be given several times.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(metavar="A,B", help="Labels for a model that only knows 0, 1, …, in this order.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, max=10_000, help="The most golden samples to keep.")] = 100,
    force: Annotated[bool, typer.Option("--force", help="Replace a package that is there.")] = False,
    is_json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
    flags: dict[str, Any],
) -> None:
    """Write a folder with a model, its signature, engines, and golden samples that are replayed before it serves.

    The golden samples are rows of FILE, with the outputs that the model gives here: they are stored as they are, so
    take rows that may lie beside the model. Leaves with 1 and the reason if the model cannot be served.
    """
    from fitserve.settings import read_settings
    from fitserve.store.package import Wanted
    from fitserve.store.package import pack as write_package
    from fitserve.store.verify import verifier_of

    try:
        settings, _ = read_settings(flags)
        wanted = Wanted(
            name=_identifier("--name", name),
            version=_identifier("--version", version),
            metadata=_pairs(metadata or []),
            classes=_labels(classes),
            n_rows=rows,
            is_forced=force,
            optimize=settings.optimize,
            optimize_timeout_s=settings.optimize_timeout_s,
        )
        written = write_package(path, out, examples=examples, wanted=wanted, verifier=verifier_of(settings))
    except FitserveError as exc:
        raise refuse(exc) from None
    _print(written, out, is_json=is_json)


def _print(written: Mapping[str, Any], out: Path, *, is_json: bool) -> None:
    if is_json:
        import orjson

        typer.echo(orjson.dumps(written, option=orjson.OPT_INDENT_2).decode())
        return
    from rich.console import Console
    from rich.table import Table

    from fitserve.cli.card import print_optimization, safe
    from fitserve.signature import count

    console = Console()
    console.print(f"[bold]{safe(written['name'])} {safe(written['version'])}[/bold]  {written['format']}  {out}")
    table = Table("file", "bytes")
    for name, size in written["files"].items():
        table.add_row(safe(name), f"{size:,}")
    console.print(table)
    outputs = ", ".join(output["name"] for output in written["golden"]["outputs"])
    samples = count(written["n_rows"], "golden sample")
    origin = "made for it" if written["rows_are"] == "self-made" else f"of your {written['rows_are']}"
    console.print(f"{samples}, {origin}: {outputs}; replayed, and the same.")
    if written["left_out"]:
        console.print(f"Left out, because the model does not take them: {safe(', '.join(written['left_out']))}")
    print_optimization(console, written["optimization"])
    for warning in written["warnings"]:
        console.print(f"[yellow]warning:[/yellow] {safe(warning)}")
    console.print(f"\npin it:  --pin {written['digest']}", soft_wrap=True)
    console.print(f"serve it:  fitserve run {out}", soft_wrap=True, highlight=False)


def _identifier(flag: str, word: str | None) -> str | None:
    import re

    from fitserve.store.manifest import IDENTIFIER

    if word is not None and not re.fullmatch(IDENTIFIER, word):
        msg = f"{flag}: {word[:64]!r} is none: wanted letters, digits and . _ + - up to 64"
        raise SettingsError(msg)
    return word


def _pairs(words: list[str]) -> dict[str, str]:
    pairs = [word.partition("=") for word in words]
    if wrong := next((word for word, (key, sign, _) in zip(words, pairs, strict=True) if not (key and sign)), None):
        msg = f"--metadata: wanted KEY=VALUE, came {wrong[:60]!r}"
        raise SettingsError(msg)
    return {key: value for key, _, value in pairs}


def _labels(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    labels = tuple(label.strip() for label in text.split(","))
    if len(set(labels)) < len(labels) or len(labels) < 2 or not all(labels):  # noqa: PLR2004
        msg = f"--classes: wanted at least two different labels with commas between, came {text[:60]!r}"
        raise SettingsError(msg)
    return labels
