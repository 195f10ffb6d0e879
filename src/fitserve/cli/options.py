"""One command-line option for each setting, made of the settings themselves."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer

from fitserve.settings import ENVIRONMENT_ONLY, Settings

if TYPE_CHECKING:
    from collections.abc import Callable


LOADING = (
    "trust", "allow", "pin", "verify_key", "code_path", "allow_connect", "load_timeout_s", "load_memory_bytes",
)  # fmt: skip
"""The settings that matter to a command that loads a model and serves nothing."""

COMPILING = ("optimize", "optimize_timeout_s", "cache_dir")
"""Those that matter besides to one that also compiles it."""


def with_settings(
    *, only: tuple[str, ...] = (), without: tuple[str, ...] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for every setting, or ``only`` for some, but ``model_path`` and ``without``.

    The command's last parameter, ``flags``, receives those that were given, unchecked:
    :func:`~fitserve.settings.read_settings` checks them with the other sources.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [
            parameter
            for name, parameter in inspect.signature(command, eval_str=True).parameters.items()
            if name != "flags"
        ]
        left_out = {"model_path", *ENVIRONMENT_ONLY, *without}
        names = [name for name in only or Settings.model_fields if name not in left_out]

        lists = {name for name in names if get_origin(Settings.model_fields[name].annotation) is tuple}

        @functools.wraps(command)
        def with_flags(**arguments: Any) -> None:
            flags = {name: arguments.pop(name) or None if name in lists else arguments.pop(name) for name in names}
            command(**arguments, flags=flags)

        parameters = [*own, *(_option(name) for name in names)]
        with_flags.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        with_flags.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        del with_flags.__wrapped__
        return with_flags

    return decorate


def _option(name: str) -> inspect.Parameter:
    field = Settings.model_fields[name]
    flag = f"--{name.replace('_', '-')}"
    value = ",".join(field.default) if isinstance(field.default, tuple) else str(field.default).lower()
    default = "" if field.default is None or not value else f" (default: {value})"
    text = f"{field.description}{default}"
    if field.annotation is bool:
        annotation: Any = Annotated[bool | None, typer.Option(f"{flag}/--no-{flag[2:]}", help=text)]
    elif get_origin(field.annotation) is tuple:  # may be given several times, or once with commas
        annotation = Annotated[list[str] | None, typer.Option(flag, metavar="LIST", help=text)]
    else:
        annotation = Annotated[str | None, typer.Option(flag, metavar=_metavar(field.annotation), help=text)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _metavar(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return "|".join(get_args(annotation))
    return {int: "N", float: "SECONDS", str: "TEXT"}.get(annotation, "PATH")
