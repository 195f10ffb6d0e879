"""``fitserve models``: what a running server serves, and changes of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fitserve.cli import refuse
from fitserve.errors import FitserveError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rich.console import RenderableType
    from rich.table import Table

    from fitserve.cli.call import Server

COMMAND = typer.Typer(name="models", help="Show and change what a running server serves.", no_args_is_help=True)

Url = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="The server: http://HOST:PORT or unix:PATH. By default of the settings."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the server's reply as JSON.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The model.")]
NameOrAlias = Annotated[
    str, typer.Argument(metavar="NAME", help="The model; with @ALIAS behind it, the version that the alias stands for.")
]
NameOrDefault = Annotated[str | None, typer.Argument(metavar="[NAME]", help="The model; by default the default one.")]
Reason = Annotated[str, typer.Option("--reason", "-m", metavar="TEXT", help="Why, for the history.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until all processes have switched, or none has.")]

POLL_S = 0.1
PATIENCE_S = 15.0
"""How long a server that has taken an order may be out of reach before it is given up: it goes on with it."""


@COMMAND.callback()
def models() -> None:
    """Show and change what a running server serves. Changes are for callers on its own machine."""


@COMMAND.command("list")
def list_models(*, url: Url = None, is_json: AsJson = False) -> None:
    """List the models, their versions and aliases."""
    _show(url, "/models", _models_table, is_json=is_json)


@COMMAND.command()
def show(name: NameOrAlias, *, url: Url = None, is_json: AsJson = False) -> None:
    """Show one model: what serves, what it takes and gives, which versions there are."""
    _show(url, f"/models/{_part(name)}", _model, is_json=is_json)


@COMMAND.command()
def promote(
    name: Name,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="The version, or @ and its alias.")],
    *,
    reason: Reason = "",
    wait: Wait = True,
    url: Url = None,
    is_json: AsJson = False,
) -> None:
    """Let another version of a model serve."""
    body = {"version": version, "reason": reason}
    _order(url, "POST", f"/models/{_part(name)}/promote", body, is_waiting=wait, is_json=is_json)


@COMMAND.command()
def rollback(
    name: NameOrDefault = None, *, reason: Reason = "", wait: Wait = True, url: Url = None, is_json: AsJson = False
) -> None:
    """Let the version serve that did before."""
    _order(url, "POST", f"{_place(name)}/rollback", {"reason": reason}, is_waiting=wait, is_json=is_json)


@COMMAND.command()
def reload(
    name: NameOrDefault = None, *, reason: Reason = "", wait: Wait = True, url: Url = None, is_json: AsJson = False
) -> None:
    """Look at the configured path again."""
    _order(url, "POST", f"{_place(name)}/reload", {"reason": reason}, is_waiting=wait, is_json=is_json)


@COMMAND.command()
def alias(
    name: Name,
    alias_: Annotated[str, typer.Argument(metavar="ALIAS", help="A name for a version, such as champion.")],
    version: Annotated[str | None, typer.Argument(metavar="[VERSION]", help="The version, or @ and an alias.")] = None,
    *,
    is_delete: Annotated[bool, typer.Option("--delete", help="Remove the alias.")] = False,
    reason: Reason = "",
    wait: Wait = True,
    url: Url = None,
    is_json: AsJson = False,
) -> None:
    """Let an alias stand for a version, or remove it."""
    if is_delete == (version is not None):
        msg = "give a VERSION, or --delete"
        raise typer.BadParameter(msg)
    path, body = f"/models/{_part(name)}/aliases/{_part(alias_.removeprefix('@'))}", {"reason": reason}
    if version is None:
        _order(url, "DELETE", path, body, is_waiting=wait, is_json=is_json)
    else:
        _order(url, "PUT", path, {"version": version, **body}, is_waiting=wait, is_json=is_json)


@COMMAND.command()
def history(
    name: Name,
    *,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="The most changes.")] = 20,
    url: Url = None,
    is_json: AsJson = False,
) -> None:
    """Show what was changed of a model: when, by whom, from what to what, and why."""
    _show(url, f"/models/{_part(name)}/history?limit={limit}", _history_table, is_json=is_json)


@COMMAND.command()
def operations(
    id_: Annotated[str | None, typer.Argument(metavar="[ID]", help="Of one operation, to see its workers.")] = None,
    *,
    url: Url = None,
    is_json: AsJson = False,
) -> None:
    """Show the changes that are under way, and the last that have ended."""
    if id_ is None:
        _show(url, "/operations", _operations_table, is_json=is_json)
    else:
        _show(url, f"/operations/{_part(id_)}", _operation, is_json=is_json)


# ── asking ──────────────────────────────────────────────────────────────────────────


def _server(url: str | None) -> Server:
    from fitserve.cli.call import Server, url_of
    from fitserve.settings import read_settings

    return Server(url_of(read_settings()[0]) if url is None else url)


def _part(name: str) -> str:
    from fitserve.cli.call import segment

    return segment(name)


def _place(name: str | None) -> str:
    return "/model" if name is None else f"/models/{_part(name)}"


def _show(url: str | None, path: str, render: Callable[[Mapping[str, Any]], RenderableType], *, is_json: bool) -> None:
    try:
        found = _server(url).ask("GET", path)
    except FitserveError as exc:
        raise refuse(exc) from None
    _print(found, render, is_json=is_json)


def _order(
    url: str | None, method: str, path: str, body: Mapping[str, str], *, is_waiting: bool, is_json: bool
) -> None:
    """Give an order, follow it to its end if the caller waits, and leave with 1 if it failed."""
    try:
        server = _server(url)
        operation = server.ask(method, path, body)
        if is_waiting:
            operation = _followed(server, operation, is_quiet=is_json)
    except FitserveError as exc:
        raise refuse(exc) from None
    _print(operation, _outcome, is_json=is_json)
    if operation["state"] == "failed":
        raise refuse(FitserveError(f"the {operation['kind']} failed: {operation['error']}"))


def _followed(server: Server, operation: dict[str, Any], *, is_quiet: bool) -> dict[str, Any]:
    """Ask again and again until an operation is over; on a terminal, show each worker meanwhile."""
    from rich.console import Console
    from rich.live import Live

    from fitserve.cli.call import UnreachableError

    console = Console(stderr=True, quiet=is_quiet)
    seen_s = time.monotonic()
    with Live(console=console, transient=True, auto_refresh=False) as live:
        while operation["state"] not in {"done", "failed"}:
            if console.is_terminal:
                live.update(_operation(operation), refresh=True)
            time.sleep(POLL_S)
            try:
                operation = server.ask("GET", f"/operations/{_part(operation['id'])}")
                seen_s = time.monotonic()
            except UnreachableError:  # the process that was asked may just have been replaced
                if time.monotonic() - seen_s > PATIENCE_S:
                    raise
    return operation


# ── printing ────────────────────────────────────────────────────────────────────────


def _print(found: Mapping[str, Any], render: Callable[[Mapping[str, Any]], RenderableType], *, is_json: bool) -> None:
    if is_json:
        import orjson

        typer.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
    else:
        from rich.console import Console

        Console().print(render(found), highlight=False)


def _table(*columns: str) -> Table:
    from rich.table import Column, Table

    return Table(*(Column(column, overflow="fold") for column in columns))


def _row(table: Table, *cells: object) -> None:
    from fitserve.cli.card import safe

    table.add_row(*(safe("" if cell is None else str(cell)) for cell in cells))


def _models_table(found: Mapping[str, Any]) -> Table:
    table = _table("model", "serves", "before", "aliases", "other versions")
    for model in found["models"]:
        aliases = ", ".join(f"@{alias} {version}" for alias, version in model["aliases"].items())
        others = [_version(version) for version in model["versions"] if not version["is_serving"]]
        name = f"{model['name']} (default)" if model["is_default"] else model["name"]
        _row(table, name, model["serving"], model["previous"], aliases, ", ".join(others))
    return table


def _version(version: Mapping[str, Any]) -> str:
    return version["version"] if version["is_loaded"] else f"{version['version']} (not in memory)"


def _model(found: Mapping[str, Any]) -> RenderableType:
    from rich.console import Group

    from fitserve.cli.card import MOST_FEATURES, features_table, safe

    title = f"[bold]{safe(found['name'])} {safe(found['version'])}[/bold]  {safe(found['model_type'])}"
    table = _table("version", "", "aliases", "digest")
    for version in found["versions"]:
        is_what = ("serves" if version["is_serving"] else "in memory") if version["is_loaded"] else ""
        digest = f"{version['digest'][:19]}…" if version["digest"] else ""
        _row(table, version["version"], is_what, ", ".join(f"@{alias}" for alias in version["aliases"]), digest)
    features = [features_table(found["features"][:MOST_FEATURES])] if found["features"] else []
    return Group(title, *(f"[yellow]warning:[/yellow] {safe(text)}" for text in found["warnings"]), *features, table)


def _history_table(found: Mapping[str, Any]) -> Table:
    table = _table("when", "who", "what", "from", "to", "why")
    for change in found["changes"]:
        what = f"{change['action']} @{change['alias']}" if change.get("alias") else change["action"]
        _row(table, change["at"], change["who"], what, change["from"], change["to"], change["reason"])
    return table


def _operations_table(found: Mapping[str, Any]) -> Table:
    table = _table("id", "what", "model", "from", "to", "state", "who", "why", "error")
    for operation in found["operations"]:
        members = ("id", "kind", "model", "from", "to", "state", "who", "reason", "error")
        _row(table, *(operation[member] for member in members))
    return table


def _operation(operation: Mapping[str, Any]) -> RenderableType:
    """One operation, with a line for each worker."""
    from rich.console import Group

    table = _table("worker", "state", "")
    for worker in operation["workers"]:
        _row(table, worker["pid"], worker["state"], worker["error"] or worker["progress"])
    return Group(_outcome(operation), *([table] if operation["workers"] else []))


def _outcome(operation: Mapping[str, Any]) -> str:
    """One operation in a line."""
    from fitserve.cli.card import safe

    alias = f" @{operation['alias']}" if operation.get("alias") else ""
    versions = f": {operation['from'] or 'none'} → {operation['to'] or 'none'}"
    if operation["status"] == "unchanged":
        versions = f": {operation['to'] or 'none'}, as before"
    elif operation["from"] == operation["to"]:  # it is not known yet what it comes to
        versions = ""
    what = safe(f"{operation['kind']} of {operation['model']}{alias}{versions}")
    return f"{what}  [bold]{safe(operation['state'])}[/bold]  {safe(operation['id'])}"
