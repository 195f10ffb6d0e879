"""Every setting of fitserve: its default, its bound, its unit and what it does.

A value comes from the first of: command-line flag, environment variable, ``.env``,
``fitserve.toml``, default. Settings are read once, checked, frozen and passed down.
Nothing reads the environment at import.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping  # noqa: TC003 - pydantic reads the annotations
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from fitserve.errors import SettingsError, did_you_mean

PREFIX = "FITSERVE_"
TOML_FILE = "fitserve.toml"
DOTENV_FILE = ".env"

BARE_NAMES = ("model_path", "host", "port", "workers", "log_level", "debug", "max_batch_size")
"""Settings that are also read from an environment variable without the prefix (``PORT``)."""

KUBERNETES_LINK = re.compile(r"FITSERVE_(SERVICE_HOST|SERVICE_PORT\w*|PORT_\d+_(TCP|UDP|SCTP)\w*)")
"""Variables that Kubernetes sets in every pod when a Service is named ``fitserve``.

Source: https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
"""


def _split(value: object) -> object:
    """Read ``a,b`` as two strings: JSON is hard to quote in a shell."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


class Settings(BaseSettings):
    """The settings of one server. Frozen; build another one to change a value."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    model_path: Path | None = Field(default=None, description="The model file to serve.")
    host: str = Field(default="127.0.0.1", description="The address to listen on. 0.0.0.0 means every one.")
    port: int = Field(default=8000, ge=0, le=65535, description="The port to listen on. 0 takes a free one.")
    workers: int = Field(
        default=1, ge=1, le=256, description="How many processes serve. Each holds its own copy of the model."
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = Field(
        default="info", description="The least severe log lines to write. Access lines are info."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="JSON lines, or text for people; auto writes text to a terminal only."
    )
    debug: bool = Field(
        default=False,
        description="Put the text of a server fault into the reply and the log. May show paths and values.",
    )
    max_batch_size: int = Field(
        default=1000, ge=1, le=1_000_000, description="The most rows that one batch request may have."
    )
    max_body_bytes: int = Field(
        default=16 * 2**20, ge=1024, le=2**31, description="The largest request body, counted while it is read."
    )
    nonfinite: Literal["null", "error"] = Field(
        default="null",
        description="What NaN or infinity from the model becomes: null in the reply, or an error reply.",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = Field(
        default=(), description="The web origins whose pages may call, comma-separated; * means any."
    )
    cors_credentials: bool = Field(
        default=False, description="Let pages of cors_origins send cookies. Refused together with *."
    )
    root_path: str = Field(default="", description="The path prefix that a proxy in front takes away, such as /ml.")
    inference_threads: int = Field(
        default=0,
        ge=0,
        le=256,
        description="Threads for models too slow for the event loop; predict must bear that many callers at once. "
        "0 takes the number of usable CPUs.",
    )
    shutdown_timeout_s: float = Field(
        default=30.0, ge=0, le=3600, description="How long a stopping server waits for the requests in flight."
    )

    @field_validator("cors_origins")
    @classmethod
    def _origins_are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if origin != "*" and not re.fullmatch(r"https?://[^/\s?#]+", origin):
                msg = f"{origin!r} is no origin: wanted a scheme and a host, such as https://app.example.org"
                raise ValueError(msg)
        return origins

    @field_validator("root_path")
    @classmethod
    def _root_path_is_a_path(cls, path: str) -> str:
        if path and not re.fullmatch(r"(/[^/\s?#]+)+", path):
            msg = "wanted a path that begins with / and does not end with it, such as /ml"
            raise ValueError(msg)
        return path

    @model_validator(mode="after")
    def _no_wildcard_with_credentials(self) -> Settings:
        if self.cors_credentials and "*" in self.cors_origins:
            msg = "cors_origins = * with cors_credentials lets any site act for your users: name the origins"
            raise ValueError(msg)
        return self

    @classmethod
    def settings_customise_sources(  # type: ignore[override]
        cls, _: type[BaseSettings], init_settings: PydanticBaseSettingsSource, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read nothing on construction: :func:`read_settings` reads the sources, in the open."""
        return (init_settings,)


def read_settings(
    flags: Mapping[str, Any] | None = None,
    *,
    flags_are: str = "flag {flag}",
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> tuple[Settings, dict[str, str]]:
    """Read the settings and tell where each value came from.

    Args:
        flags: values given on the command line; None means not given.
        flags_are: what their origin is called, where they come from elsewhere.
        environ: the environment; the process's own by default.
        directory: where ``.env`` and ``fitserve.toml`` are looked for; the working directory by default.

    Returns:
        The settings, and for each field one of ``flag --port``, ``environment PORT``,
        ``.env FITSERVE_PORT``, ``fitserve.toml`` and ``default``.

    Raises:
        SettingsError: a name is unknown (with a did-you-mean) or a value out of bounds.
    """
    directory = directory or Path.cwd()
    values: dict[str, Any] = {}
    origins: dict[str, str] = dict.fromkeys(Settings.model_fields, "default")
    for layer, names in _layers(flags or {}, flags_are, os.environ if environ is None else environ, directory):
        for field, value in layer.items():
            if field not in values:
                values[field], origins[field] = (
                    value,
                    names.format(
                        flag=f"--{field.replace('_', '-')}", prefixed=f"{PREFIX}{field.upper()}", bare=field.upper()
                    ),
                )
    try:
        return Settings(**values), origins
    except ValidationError as exc:
        raise SettingsError(_explain(exc, origins)) from exc


def _layers(
    flags: Mapping[str, Any], flags_are: str, environ: Mapping[str, str], directory: Path
) -> list[tuple[dict[str, Any], str]]:
    """Each source's values by field name, the strongest first, with a template for the name of the origin."""
    env = {
        name: value
        for name, value in environ.items()
        if not KUBERNETES_LINK.fullmatch(name) and not (name == f"{PREFIX}PORT" and value.startswith("tcp://"))
    }
    dotenv = {
        name: value or ""
        for name, value in DotEnvSettingsSource(
            Settings, env_file=directory / DOTENV_FILE, env_file_encoding="utf-8", case_sensitive=True
        ).env_vars.items()
    }
    try:
        toml = TomlConfigSettingsSource(Settings, toml_file=directory / TOML_FILE).toml_data
    except ValueError as exc:
        msg = f"{TOML_FILE} is not valid TOML: {exc}"
        raise SettingsError(msg) from exc
    _refuse_unknown(toml, Settings.model_fields, f"in {TOML_FILE}")
    for variables, place in ((env, "in the environment"), (dotenv, f"in {DOTENV_FILE}")):
        prefixed = [name for name in variables if name.startswith(PREFIX)]
        _refuse_unknown(prefixed, [f"{PREFIX}{field.upper()}" for field in Settings.model_fields], place)
    return [
        ({field: value for field, value in flags.items() if value is not None}, flags_are),
        (_variables(env, PREFIX), "environment {prefixed}"),
        (_bare(_variables(env, "")), "environment {bare}"),
        (_variables(dotenv, PREFIX), f"{DOTENV_FILE} {{prefixed}}"),
        (_bare(_variables(dotenv, "")), f"{DOTENV_FILE} {{bare}}"),
        (InitSettingsSource(Settings, toml)(), TOML_FILE),
    ]


def _variables(variables: Mapping[str, str], prefix: str) -> dict[str, Any]:
    source = EnvSettingsSource(Settings, env_prefix=prefix)
    # NAME= is not given, and port is not PORT.
    source.env_vars = {name.lower(): value for name, value in variables.items() if value and name.isupper()}
    return source()


def _bare(values: dict[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in values.items() if field in BARE_NAMES}


def _refuse_unknown(names: Any, known: Any, place: str) -> None:
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known) or did_you_mean(name.removeprefix(PREFIX).lower(), known)
            msg = f"unknown setting {name!r} {place}" + (f"; {hint}" if hint else "")
            raise SettingsError(msg)


def _explain(exc: ValidationError, origins: Mapping[str, str]) -> str:
    """One line a problem, naming the setting, what is wrong and where it came from."""
    lines = []
    for error in exc.errors():
        name = str(error["loc"][0]) if error["loc"] else ""
        text = error["msg"].removeprefix("Value error, ")
        if error["type"] == "extra_forbidden":
            hint = did_you_mean(name, Settings.model_fields)
            lines.append(f"unknown setting {name!r}" + (f"; {hint}" if hint else ""))
        elif name:
            came = f", came {error['input']!r}"[:60]
            lines.append(f"{name}: {text[0].lower()}{text[1:]}{came} (from {origins.get(name, 'the call')})")
        else:
            lines.append(text)
    return "; ".join(lines)
