"""Where a setting comes from, and what is said of a wrong one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fitserve.errors import SettingsError
from fitserve.settings import BARE_NAMES, Settings, read_settings
from fitserve.trust.policy import policy_of


def test_the_first_source_wins(tmp_path):
    (tmp_path / "fitserve.toml").write_text(
        "port = 1\nworkers = 2\nmax_batch_size = 3\nlog_level = 'error'\nnonfinite = 'error'"
    )
    (tmp_path / ".env").write_text("PORT=11\nFITSERVE_WORKERS=12\nMAX_BATCH_SIZE=13\nexport LOG_LEVEL=WARNING\n")
    environ = {"PORT": "21", "FITSERVE_PORT": "22", "WORKERS": "23"}

    settings, origins = read_settings({"port": "31", "workers": None}, environ=environ, directory=tmp_path)

    chosen = {name: (getattr(settings, name), origins[name]) for name in origins}
    assert chosen["port"] == (31, "flag --port")
    assert chosen["workers"] == (23, "environment WORKERS")
    assert chosen["max_batch_size"] == (13, ".env MAX_BATCH_SIZE")
    assert chosen["log_level"] == ("warning", ".env LOG_LEVEL")
    assert chosen["nonfinite"] == ("error", "fitserve.toml")
    assert chosen["host"] == ("127.0.0.1", "default")


def test_a_name_with_prefix_wins_over_the_bare_one(tmp_path):
    settings, origins = read_settings(environ={"PORT": "1", "FITSERVE_PORT": "2"}, directory=tmp_path)

    assert (settings.port, origins["port"]) == (2, "environment FITSERVE_PORT")


@pytest.mark.parametrize("name", BARE_NAMES)
def test_the_missions_variables_are_read_by_their_bare_names(tmp_path, name):
    values = {"model_path": "m.joblib", "host": "::1", "log_level": "DEBUG", "debug": "true"}

    _, origins = read_settings(environ={name.upper(): values.get(name, "7")}, directory=tmp_path)

    assert origins[name] == f"environment {name.upper()}"


def test_other_settings_are_not_read_without_the_prefix(tmp_path):
    settings, _ = read_settings(environ={"NONFINITE": "error", "ROOT_PATH": "/x"}, directory=tmp_path)

    assert (settings.nonfinite, settings.root_path) == ("null", "")


@pytest.mark.parametrize(("text", "value"), [("false", False), ("0", False), ("true", True), ("1", True)])
def test_debug_is_read_as_a_boolean(tmp_path, text, value):
    settings, _ = read_settings(environ={"DEBUG": text}, directory=tmp_path)

    assert settings.debug is value


def test_a_lower_case_variable_is_another_programs(tmp_path):
    settings, _ = read_settings(environ={"port": "1", "fitserve_port": "2"}, directory=tmp_path)

    assert settings.port == 8000


def test_an_empty_variable_is_not_given(tmp_path):
    settings, origins = read_settings(environ={"PORT": ""}, directory=tmp_path)

    assert (settings.port, origins["port"]) == (8000, "default")


def test_kubernetes_own_variables_are_passed_over(tmp_path):
    environ = {
        "FITSERVE_PORT": "tcp://10.0.0.1:80",
        "FITSERVE_SERVICE_HOST": "10.0.0.1",
        "FITSERVE_SERVICE_PORT": "80",
        "FITSERVE_SERVICE_PORT_HTTP": "80",
        "FITSERVE_PORT_80_TCP": "tcp://10.0.0.1:80",
        "FITSERVE_PORT_80_TCP_ADDR": "10.0.0.1",
    }

    settings, _ = read_settings(environ=environ, directory=tmp_path)

    assert settings.port == 8000


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"FITSERVE_PROT": "1"}, "unknown setting 'FITSERVE_PROT' in the environment; did you mean 'FITSERVE_PORT'?"),
        ({"PORT": "many"}, "port: input should be a valid integer, .* \\(from environment PORT\\)"),
        ({"WORKERS": "0"}, "workers: input should be greater than or equal to 1"),
        ({"DEBUG": "release"}, "debug: input should be a valid boolean"),
        ({"LOG_LEVEL": "loud"}, "log_level: input should be 'debug', 'info', 'warning' or 'error'"),
        ({"FITSERVE_CORS_ORIGINS": "app.example"}, "no origin"),
        ({"FITSERVE_CORS_ORIGINS": "*", "FITSERVE_CORS_CREDENTIALS": "true"}, "any site act for your users"),
        ({"FITSERVE_ROOT_PATH": "ml/"}, "root_path"),
    ],
)
def test_a_wrong_value_is_told_with_its_origin(tmp_path, environ, told):
    with pytest.raises(SettingsError, match=told):
        read_settings(environ=environ, directory=tmp_path)


def test_unknown_names_in_files_are_errors(tmp_path):
    (tmp_path / "fitserve.toml").write_text("max_batchsize = 3")
    with pytest.raises(SettingsError, match=r"'max_batchsize' in fitserve.toml; did you mean 'max_batch_size'"):
        read_settings(environ={}, directory=tmp_path)

    (tmp_path / "fitserve.toml").write_text("FITSERVE_HOST = '::1'")
    with pytest.raises(SettingsError, match="did you mean 'host'"):
        read_settings(environ={}, directory=tmp_path)

    (tmp_path / "fitserve.toml").unlink()
    (tmp_path / ".env").write_text("FITSERVE_HOTS=1\nPOSTGRES_PASSWORD=of-another-program\n")
    with pytest.raises(SettingsError, match=r"'FITSERVE_HOTS' in \.env; did you mean 'FITSERVE_HOST'"):
        read_settings(environ={}, directory=tmp_path)


def test_a_broken_toml_file_is_told(tmp_path):
    (tmp_path / "fitserve.toml").write_text("port = ")
    with pytest.raises(SettingsError, match=r"fitserve\.toml is not valid TOML"):
        read_settings(environ={}, directory=tmp_path)


def test_origins_are_comma_separated(tmp_path):
    environ = {"FITSERVE_CORS_ORIGINS": "https://a.example, http://localhost:3000"}

    settings, _ = read_settings(environ=environ, directory=tmp_path)

    assert settings.cors_origins == ("https://a.example", "http://localhost:3000")


def test_every_setting_is_described():
    assert all(field.description for field in Settings.model_fields.values())


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"allow": "LogBins"}, "is no full name: wanted the module and the class"),
        ({"pin": "sha256:abc"}, "is no digest: wanted sha256: and 64 hex digits"),
        ({"allow_connect": "redis"}, "is no destination: wanted host:port"),
        ({"allow_connect": "redis:70000"}, "is no destination"),
        ({"trust": "any", "host": "0.0.0.0"}, "FITSERVE_TRUST_ANY_CONFIRMED=true"),
    ],
)
def test_a_wrong_policy_is_told(tmp_path, flags, told):
    with pytest.raises(SettingsError, match=re.escape(told)):
        read_settings(flags, environ={}, directory=tmp_path)


def test_any_model_beyond_this_machine_is_confirmed_in_the_environment_alone(tmp_path):
    confirmed = {"FITSERVE_TRUST_ANY_CONFIRMED": "true"}

    settings, _ = read_settings({"trust": "any", "host": "0.0.0.0"}, environ=confirmed, directory=tmp_path)
    assert settings.trust == "any"

    (tmp_path / "fitserve.toml").write_text("trust_any_confirmed = true")
    with pytest.raises(SettingsError, match="unknown setting 'trust_any_confirmed'"):
        read_settings({"trust": "any", "host": "0.0.0.0"}, environ={}, directory=tmp_path)
    (tmp_path / "fitserve.toml").unlink()
    (tmp_path / ".env").write_text("FITSERVE_TRUST_ANY_CONFIRMED=true")
    with pytest.raises(SettingsError, match="unknown setting 'FITSERVE_TRUST_ANY_CONFIRMED'"):
        read_settings({"trust": "any", "host": "0.0.0.0"}, environ={}, directory=tmp_path)


def test_lists_are_given_several_times_or_with_commas(tmp_path):
    digests = [f"sha256:{digit * 64}" for digit in "ab"]

    settings, _ = read_settings(
        {"allow": ["a.B", "c.D,e.F"], "pin": ",".join(digests)},
        environ={"FITSERVE_ALLOW_CONNECT": "db.internal:5432, [::1]:6379", "FITSERVE_CODE_PATH": "/a,/b"},
        directory=tmp_path,
    )

    assert settings.allow == ("a.B", "c.D", "e.F")
    assert settings.pin == tuple(digests)
    assert settings.destinations == (("db.internal", 5432), ("::1", 6379))
    assert settings.code_path == (Path("/a"), Path("/b"))


def test_a_pin_or_a_key_is_meant_to_be_used(tmp_path):
    pin = f"sha256:{'a' * 64}"

    def level(**flags) -> str:
        return policy_of(read_settings(flags, environ={}, directory=tmp_path)[0]).level

    assert level() == "allowlist"
    assert level(pin=pin) == level(verify_key="key.pem") == "pinned"
    assert level(pin=pin, trust="data") == "data"
    assert level(pin=pin, trust="any") == "any"
