"""Print docs/reference/settings.md: every setting, as ``fitserve.settings`` has it.

Renew the page with ``.venv/bin/python scripts/settings_page.py > docs/reference/settings.md``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from fitserve.settings import BARE_NAMES, DOTENV_FILE, ENVIRONMENT_ONLY, PREFIX, TOML_FILE, Settings

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

INTRO = f"""\
# Settings

<!-- Made by scripts/settings_page.py: change fitserve/settings.py, then make the page again. -->

A value is taken from the first of these that gives one:

1. the command-line flag,
2. the environment variable with the prefix `{PREFIX}`,
3. the environment variable without the prefix, for the settings that have one,
4. the same two names in the file `{DOTENV_FILE}` of the working directory,
5. `{TOML_FILE}` of the working directory, with the names of the headings below,
6. the default.

`fitserve config show --origin` prints each value and where it came from.

A value out of its bounds, an unknown name in `{TOML_FILE}` and an unknown variable that starts with `{PREFIX}` stop
the start with one line and exit code 2. A variable that is set but empty counts as not given, and one in small letters
is not read: `port` is not `PORT`. The variables that Kubernetes sets in a pod for a Service named `fitserve`, such as
`FITSERVE_SERVICE_HOST`, are passed over.

From Python, settings are keyword arguments of `fitserve.serve(model, ...)`, or a `fitserve.Settings(...)` given to
`fitserve.create_app(model, settings=...)`. `Settings(...)` itself reads no environment.

What starts the server decides which settings count:

| started by | does not use |
|---|---|
| `fitserve run` | |
| `fitserve demo` | `model_path`: it trains its own |
| `fitserve dev` | `workers`: it is always one process |
| `uvicorn`, `gunicorn` with `fitserve.asgi:app` | `host`, `port`, `workers`, `shutdown_timeout_s`, `confine` |
| `fitserve.create_app` | the same, and `log_level`, `log_format`: logging is the host program's |
| `fitserve.serve` | `confine`; `model_path`, `workers`, `log_level`, `log_format`, which it refuses as arguments |
| `fitserve check`, `inspect`, `pack`, `convert` | those of a server: only `trust` to `load_memory_bytes` count |

`fitserve dev` turns `debug` on unless `--no-debug` is given. `fitserve.serve` does so while `host` is `127.0.0.1`,
`localhost` or `::1`, unless `debug=False` is given.
"""

KINDS: dict[Any, str] = {int: "integer", float: "number", bool: "true or false", str: "text"}


def render() -> str:
    """Return the whole page."""
    sections = (_section(name, field) for name, field in Settings.model_fields.items())
    return "\n".join([INTRO, *sections])


def _section(name: str, field: FieldInfo) -> str:
    variables = [PREFIX + name.upper(), *([name.upper()] if name in BARE_NAMES else [])]
    return (
        f"## `{name}`\n\n{field.description}\n\n"
        f"- Default: {_default(field.default)}\n"
        f"- Type: {_kind(field)}\n"
        f"- Flag: {_flag(name, field)}\n"
        f"- Environment: {', '.join(f'`{variable}`' for variable in variables)}\n"
    )


def _default(value: Any) -> str:
    if value in (None, "", ()):
        return "none"
    if isinstance(value, tuple):
        return f"`{','.join(value)}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _kind(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return f"one of {', '.join(f'`{choice}`' for choice in get_args(field.annotation))}"
    limits = ("ge", "gt", "le")
    bounds = {name: getattr(part, name) for part in field.metadata for name in limits if hasattr(part, name)}
    kind = KINDS.get(field.annotation)
    if kind is None:
        return "list of text, comma-separated" if get_origin(field.annotation) is tuple else "path"
    if "gt" in bounds:
        return f"{kind}, above {bounds['gt']}, up to {bounds['le']}"
    return f"{kind}, {bounds['ge']} to {bounds['le']}" if "ge" in bounds else kind


def _flag(name: str, field: FieldInfo) -> str:
    if name == "model_path":
        return "none; the `PATH` argument of `fitserve run` and `fitserve dev`"
    if name in ENVIRONMENT_ONLY:
        return f"none, and not in `{TOML_FILE}` or `{DOTENV_FILE}`: the environment only"
    flag = name.replace("_", "-")
    return f"`--{flag}`, `--no-{flag}`" if field.annotation is bool else f"`--{flag}`"


if __name__ == "__main__":
    print(render(), end="")
