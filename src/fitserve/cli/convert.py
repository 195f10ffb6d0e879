"""``fitserve convert MODEL OUT``: a pickle becomes a file that holds no code."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fitserve.cli import refuse
from fitserve.cli.options import LOADING, with_settings
from fitserve.errors import FitserveError

if TYPE_CHECKING:
    from collections.abc import Mapping

COMMAND = typer.Typer()


@COMMAND.command()
@with_settings(only=LOADING)
def convert(
    path: Annotated[Path, typer.Argument(metavar="MODEL", help="A joblib or pickle file.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write, which ends with .onnx or .skops.")],
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    is_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    flags: dict[str, Any],
) -> None:
    """Convert a pickle to ONNX or skops, and compare both on rows made for it.

    The model is loaded in a confined process. Nothing is written unless both answer alike. Leaves with 1 and the
    reason if they do not, or if the model cannot be loaded or converted.
    """
    from fitserve.settings import read_settings
    from fitserve.store.convert import convert as write_converted
    from fitserve.store.verify import verifier_of

    try:
        settings, _ = read_settings(flags)
        report = write_converted(path, out, verifier=verifier_of(settings), is_forced=force)
    except FitserveError as exc:
        raise refuse(exc) from None
    _print(report, path, out, is_json=is_json)


def _print(report: Mapping[str, Any], path: Path, out: Path, *, is_json: bool) -> None:
    if is_json:
        import orjson

        typer.echo(orjson.dumps(report, option=orjson.OPT_INDENT_2).decode())
        return
    typer.echo(f"{path} → {out}  {report['size_bytes']:,} bytes, computed in {report['floats']}")
    ties = report["n_ties"]
    but = f", but for {ties} at a tie of two probabilities" if ties else ""
    typer.echo(f"{report['n_rows']} rows compared: every one answered alike{but}.")
    if report["n_edges"]:
        otherwise = report["n_edges_unequal"] or "none"
        typer.echo(f"{report['n_edges']} more, beside the thresholds of trees: {otherwise} answered otherwise.")
    for name, difference in report["differences"].items():
        typer.echo(f"  {name}: numbers differ by at most {difference:.2g}")
    if report["outputs_left_out"]:
        typer.echo(f"Not in the converted model: {', '.join(report['outputs_left_out'])}")
    if report["nulls_refused"]:
        typer.echo(f"Null is answered otherwise there, and refused: {', '.join(report['nulls_refused'])}")
    allow = "".join(f" --allow {name}" for name in report["needs_allow"])
    typer.echo(f"\nserve it:  fitserve run {out}{allow}")
