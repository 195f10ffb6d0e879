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
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BeforeValidator,
    Field,
    InstanceOf,
    PlainSerializer,
    ValidationError,
    field_validator,
    model_validator,
)
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
from fitserve.urls import SourceUrl, source_url

PREFIX = "FITSERVE_"
TOML_FILE = "fitserve.toml"
DOTENV_FILE = ".env"

BARE_NAMES = ("model_path", "host", "port", "workers", "log_level", "debug", "max_batch_size")
"""Settings that are also read from an environment variable without the prefix (``PORT``)."""

ENVIRONMENT_ONLY = ("trust_any_confirmed",)
"""Settings that no flag and no file sets: who can set the environment of a server owns it."""

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

_NAME = r"[A-Za-z_]\w*"

KUBERNETES_LINK = re.compile(r"FITSERVE_(SERVICE_HOST|SERVICE_PORT\w*|PORT_\d+_(TCP|UDP|SCTP)\w*)")
"""Variables that Kubernetes sets in every pod when a Service is named ``fitserve``.

Source: https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
"""


def _split(value: object) -> object:
    """Read ``a,b`` as two strings, alone or in a list: JSON is hard to quote in a shell."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, list | tuple):
        return [part for item in value for part in (_split(item) if isinstance(item, str) else [item])]  # type: ignore[attr-defined]
    return value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _place(value: object) -> object:
    """Leave a URL as it is: as a path it would lose one of its slashes."""
    return (source_url(value) or value) if isinstance(value, str) else value


Place: TypeAlias = Annotated[
    Path | InstanceOf[SourceUrl] | None,
    BeforeValidator(_place),
    PlainSerializer(lambda place: None if place is None else str(place), when_used="json"),  # without its secrets
]

Listed: TypeAlias = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]


class Settings(BaseSettings):
    """The settings of one server. Frozen; build another one to change a value."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    model_path: Place = Field(
        default=None,
        description="The model file to serve, or a folder of models. Or a URL of one, which is fetched first: s3://, "
        "gs://, az://, https:// or models:/name@alias.",
    )
    default_model: str = Field(
        default="",
        description="Which model of a repository answers /predict. By default the only one, else the first by name.",
    )
    keep_loaded: Listed = Field(
        default=("serving",),
        description="Which versions are kept in memory besides those that serve or have an alias: serving for none, "
        "latest:N of each model, all, or a list such as churn@1.2.0. The others are loaded when they are asked for.",
    )
    models_memory_bytes: int = Field(
        default=2**30,
        ge=0,
        le=2**50,
        description="Memory, by the size of their files, for versions loaded because they were asked for; those asked "
        "for longest ago leave first. 0 loads none.",
    )
    rollback_hold_s: float = Field(
        default=60.0,
        ge=0,
        le=86_400,
        description="How long the version that served before stays in memory after a switch, so that a roll back "
        "takes no loading.",
    )
    state_dir: Path | None = Field(
        default=None,
        description="Where aliases, choices of versions and their history are kept: a folder of your user alone. By "
        "default $XDG_STATE_HOME/fitserve, else ~/.local/state/fitserve.",
    )
    watch: Literal["off", "poll", "notify"] = Field(
        default="off",
        description="Reload when what lies at the path has changed and been left alone: by looking again every "
        "watch_interval_s, or told by the kernel.",
    )
    watch_interval_s: float = Field(
        default=5.0,
        ge=0.1,
        le=86_400,
        description="How often watch = poll looks, and how often it asks a remote source.",
    )
    host: str = Field(default="127.0.0.1", description="The address to listen on. 0.0.0.0 means every one.")
    port: int = Field(default=8000, ge=0, le=65535, description="The port to listen on. 0 takes a free one.")
    uds: Path | None = Field(
        default=None,
        description="A Unix-domain socket to listen on instead of host and port. It is made, and removed at the end.",
    )
    fd: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="The number of an open listening socket to serve instead, as a process manager hands it over. "
        "systemd's own (LISTEN_FDS) is taken without it.",
    )
    workers: int = Field(
        default=1,
        ge=1,
        le=256,
        description="How many processes serve. They share the memory of the models they started with.",
    )
    heartbeat_timeout_s: float = Field(
        default=30.0,
        ge=1.0,
        le=3600,
        description="A worker whose event loop has not moved for so long is killed and replaced.",
    )
    recycle_age_s: float = Field(
        default=0.0,
        ge=0,
        le=31_536_000,
        description="Replace a worker that has served so long, without loss. 0: never.",
    )
    recycle_requests: int = Field(
        default=0, ge=0, le=10**12, description="Replace a worker that has answered so many requests. 0: never."
    )
    recycle_memory_bytes: int = Field(
        default=0,
        ge=0,
        le=2**50,
        description="Replace a worker whose own memory, without what it shares, has grown to so much. 0: never.",
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
    trust: Literal["data", "allowlist", "pinned", "any"] = Field(
        default="allowlist",
        description="Which model files are loaded. data: formats that hold no code. allowlist: also pickles that need "
        "only names on the list. pinned: also bytes that pin or verify_key vouches for. any: everything.",
    )
    allow: Listed = Field(
        default=(),
        description="Full names, such as features.LogBins, that a pickle may need besides those on the list.",
    )
    pin: Listed = Field(
        default=(), description="Digests, sha256:…, of the only model files that are loaded; of whatever format."
    )
    verify_key: Path | None = Field(
        default=None, description="A public key (PEM): only what its owner has signed with model-signing is loaded."
    )
    code_path: Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_split)] = Field(
        default=(), description="Folders of your own Python modules, which models may need."
    )
    trust_any_confirmed: bool = Field(
        default=False, description="Confirms trust = any for a server that other machines can reach."
    )
    confine: Literal["auto", "require", "off"] = Field(
        default="auto",
        description="Take from the serving processes of `fitserve run` what serving does not need: programs, writing, "
        "connections. require refuses to start where the kernel cannot; a file is always tried confined first.",
    )
    allow_connect: Listed = Field(
        default=(), description="host:port that a confined process may connect to, for models with a database or cache."
    )
    load_timeout_s: float = Field(
        default=60.0, gt=0, le=3600, description="How long a model file may take to load and answer its test rows."
    )
    load_memory_bytes: int = Field(
        default=0,
        ge=0,
        le=2**50,
        description="Memory for trying a model file. 0: 384 MiB and 16 times its size, 40 times if it is compressed.",
    )
    cache: str = Field(
        default="",
        description="Where answers are kept to be given again to the same row, as a URL: "
        "memory://?max_bytes=67108864&ttl_s=300 is in each process. Empty keeps none.",
    )
    optimize: Literal["auto", "off", "require"] = Field(
        default="auto",
        description="Compile models of scikit-learn, XGBoost and LightGBM to faster engines that are proven to answer "
        "alike. auto does it beside the serving; require does not start without a proven engine.",
    )
    optimize_timeout_s: float = Field(
        default=120.0, gt=0, le=86_400, description="How long compiling a model and proving its engines may take."
    )
    optimize_memory_bytes: int = Field(
        default=512 * 2**20,
        ge=0,
        le=2**50,
        description="Memory that compiled engines may take in all processes of a server together. Beyond it the "
        "library's own call serves.",
    )
    cache_dir: Path | None = Field(
        default=None,
        description="Where compiled engines are kept: a folder of your user alone. By default "
        "$XDG_CACHE_HOME/fitserve, else ~/.cache/fitserve. Where it cannot be written, nothing is kept.",
    )
    nonfinite: Literal["null", "error"] = Field(
        default="null",
        description="What NaN or infinity from the model becomes: null in the reply, or an error reply.",
    )
    cors_origins: Listed = Field(
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
    batch_wait_s: float = Field(
        default=0.0,
        ge=0.0,
        le=1.0,
        description="How long the first request of a batch waits for company before a model that runs in a thread is "
        "called. Adds at most this much latency; without it only what comes while the model is busy is merged.",
    )
    shutdown_delay_s: float = Field(
        default=0.0,
        ge=0,
        le=600,
        description="How long a server that was told to stop goes on taking connections, not ready any more, so that "
        "load balancers notice.",
    )
    lame_duck_s: float = Field(
        default=5.0,
        ge=0,
        le=600,
        description="How long a worker that is being replaced keeps its idle connections: each is told to close by "
        "its next reply. Those left then are closed.",
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

    @field_validator("allow")
    @classmethod
    def _allowed_are_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not re.fullmatch(rf"{_NAME}(\.{_NAME})+", name):
                msg = f"{name!r} is no full name: wanted the module and the class, such as features.LogBins"
                raise ValueError(msg)
        return names

    @field_validator("pin")
    @classmethod
    def _pins_are_digests(cls, pins: tuple[str, ...]) -> tuple[str, ...]:
        for pin in pins:
            if not re.fullmatch(r"sha256:[0-9a-f]{64}", pin):
                msg = f"{pin!r} is no digest: wanted sha256: and 64 hex digits, as `fitserve inspect` prints them"
                raise ValueError(msg)
        return pins

    @field_validator("allow_connect")
    @classmethod
    def _destinations_have_ports(cls, destinations: tuple[str, ...]) -> tuple[str, ...]:
        for destination in destinations:
            port = destination.rpartition(":")[2]
            if not re.fullmatch(r"[^\s:]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}", destination) or int(port) > 65535:  # noqa: PLR2004
                msg = f"{destination!r} is no destination: wanted host:port, such as redis.internal:6379"
                raise ValueError(msg)
        return destinations

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

    @model_validator(mode="after")
    def _any_is_for_this_machine(self) -> Settings:
        if self.trust == "any" and self.host not in LOOPBACK and not self.trust_any_confirmed:
            msg = (
                "trust = any lets a model file run code, on a server that other machines can reach: "
                f"listen on 127.0.0.1, pin the file, or set {PREFIX}TRUST_ANY_CONFIRMED=true in the environment"
            )
            raise ValueError(msg)
        return self

    @property
    def local_path(self) -> Path | None:
        """``model_path``, where it is a path of this machine.

        Raises:
            SettingsError: it is a URL, and whoever starts this process has not fetched it.
        """
        if isinstance(self.model_path, SourceUrl):
            msg = f"model_path: {self.model_path} is a URL, and nobody has fetched it: `fitserve run` does"
            raise SettingsError(msg)
        return self.model_path

    @property
    def destinations(self) -> tuple[tuple[str, int], ...]:
        """``allow_connect`` as pairs of host and port."""
        parts = (destination.rpartition(":") for destination in self.allow_connect)
        return tuple((host.strip("[]"), int(port)) for host, _, port in parts)

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
    in_files = [field for field in Settings.model_fields if field not in ENVIRONMENT_ONLY]
    _refuse_unknown(toml, in_files, f"in {TOML_FILE}")
    for variables, place in ((env, "in the environment"), (dotenv, f"in {DOTENV_FILE}")):
        prefixed = [name for name in variables if name.startswith(PREFIX)]
        known = Settings.model_fields if place == "in the environment" else in_files
        _refuse_unknown(prefixed, [f"{PREFIX}{field.upper()}" for field in known], place)
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
            # A URL may hold a password.
            came = f", came {error['input']!r}"[:60] if name != "model_path" else ""
            lines.append(f"{name}: {text[0].lower()}{text[1:]}{came} (from {origins.get(name, 'the call')})")
        else:
            lines.append(text)
    return "; ".join(lines)
