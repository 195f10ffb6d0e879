"""Places of models that are URLs, and what is told of them."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from fitserve.errors import SettingsError
from fitserve.settings import read_settings
from fitserve.urls import SourceUrl, source_url, without_secrets

SECRET = "https://anna:pa55@models.example/churn_v1.joblib?X-Amz-Signature=5ecret#sha256=ab"


@pytest.mark.parametrize(
    "text", ["s3://bucket/a", "gs://b", "models:/churn@champion", "models:/churn/3", "HTTPS://h/x"]
)
def test_a_url_is_told_from_a_path(text):
    assert source_url(text) == SourceUrl(text)


@pytest.mark.parametrize("text", ["model.joblib", "/models/churn", "C:/models/churn", "a:b/c", "./s3:/x"])
def test_a_path_is_no_url(text):
    assert source_url(text) is None


def test_its_text_tells_no_secret():
    url = SourceUrl(SECRET)

    assert str(url) == "https://models.example/churn_v1.joblib"
    assert "5ecret" not in f"{url!r} {url}"


def test_a_text_around_it_loses_the_secrets_of_every_url():
    text = without_secrets("GET https://u:p@h/x?sig=1 failed; see http://h/y?z=2, or s3://b/k")

    assert text == "GET https://h/x failed; see http://h/y or s3://b/k"


def test_its_key_is_that_of_the_place_whoever_asks():
    keys = {SourceUrl(text).key for text in ("https://u:p@h/x", "https://v:q@h/x", "https://h/x#sha256=ab")}

    assert len(keys) == 1
    assert SourceUrl("https://h/x?id=1").key not in keys


def test_a_setting_keeps_both_slashes_of_a_url():
    settings, _ = read_settings({"model_path": "s3://bucket/churn"}, environ={})

    assert settings.model_path == SourceUrl("s3://bucket/churn")
    assert read_settings({"model_path": "models/churn"}, environ={})[0].model_path == Path("models/churn")


def test_settings_tell_no_secret_of_a_url_and_keep_it_in_a_copy():
    settings, _ = read_settings(environ={"MODEL_PATH": SECRET})

    assert settings.model_dump(mode="json")["model_path"] == "https://models.example/churn_v1.joblib"
    assert "5ecret" not in repr(settings)
    assert pickle.loads(pickle.dumps(settings)).model_path.url == SECRET


def test_a_url_that_nobody_has_fetched_is_no_local_path():
    settings, _ = read_settings({"model_path": SECRET}, environ={})

    with pytest.raises(SettingsError, match="is a URL, and nobody has fetched it"):
        _ = settings.local_path


def test_an_error_about_a_path_does_not_repeat_it():
    with pytest.raises(SettingsError) as raised:
        read_settings({"model_path": ["https://u:5ecret@h"]}, environ={})

    assert "5ecret" not in str(raised.value)
