"""Models in buckets, read from a server that speaks S3; and what is told of buckets that cannot be read."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from urllib.parse import unquote

import pytest
from buckets import s3
from web import Web

from fitserve.errors import ArtifactError, ArtifactNotFoundError, SettingsError
from fitserve.store import files
from fitserve.store.fetch import fingerprint, materialize
from fitserve.store.sources import object_store, open_source
from fitserve.urls import SourceUrl


@pytest.fixture(scope="module")
def server():
    with s3() as found:
        yield found


@pytest.fixture
def bucket(server, monkeypatch):
    """The empty bucket; ``put(key, body)`` fills it."""
    client, environ = server
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    for found in client.list_objects_v2(Bucket="models").get("Contents", []):
        client.delete_object(Bucket="models", Key=found["Key"])

    def put(key: str, body: bytes = b"", **options: object) -> None:
        client.put_object(Bucket="models", Key=key, Body=body, **options)

    return put


@pytest.fixture
def web():
    server = Web()
    yield server
    server.close()


@pytest.fixture
def bring(tmp_path):
    return lambda url: materialize(SourceUrl(url), tmp_path, pause=lambda _: None)


def tree(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_a_prefix_becomes_a_folder_of_the_same_shape(bucket, bring):
    bucket("prod/models/churn/1.0.0/model.joblib", b"one")
    bucket("prod/models/churn/2.0.0/model.joblib", b"two")
    bucket("prod/models/iris_v3.joblib", b"iris")
    bucket("prod/models-of-others/x.joblib", b"x")

    snapshot = bring("s3://models/prod/models")

    assert snapshot.path.name == "models"
    assert tree(snapshot.path) == {
        "churn/1.0.0/model.joblib": b"one",
        "churn/2.0.0/model.joblib": b"two",
        "iris_v3.joblib": b"iris",
    }


def test_a_whole_bucket_becomes_a_folder_of_its_name(bucket, bring):
    bucket("churn_v1.joblib", b"one")

    for url in ("s3://models", "s3://models/"):
        assert bring(url).path.name == "models"
        assert tree(bring(url).path) == {"churn_v1.joblib": b"one"}


def test_an_object_becomes_a_file_with_what_lies_beside_it(bucket, bring):
    bucket("a/churn_v1.pkl.gz", b"one")
    bucket("a/churn_v1.manifest.toml", b'version = "9"')
    bucket("a/churn_v1.pkl.gz.sig", b"{}")
    bucket("a/other.pkl", b"other")

    snapshot = bring("s3://models/a/churn_v1.pkl.gz")

    assert snapshot.path.read_bytes() == b"one"
    assert set(tree(snapshot.path.parent)) == {
        ".listing.json", "churn_v1.pkl.gz", "churn_v1.manifest.toml", "churn_v1.pkl.gz.sig"
    }  # fmt: skip


def test_the_signature_of_a_folder_lies_beside_the_folder(bucket, bring):
    bucket("a/package/manifest.toml", b"")
    bucket("a/package.sig", b"{}")

    path = bring("s3://models/a/package").path

    assert path.with_name("package.sig").read_bytes() == b"{}"


def test_what_stands_for_a_folder_or_is_hidden_is_no_file_and_what_is_empty_is(bucket, bring):
    for key in ("m/", "m/code/", "m/.git/config", "m/code/__init__.py"):
        bucket(key)
    bucket("m/code/x.py", b"x")

    assert tree(bring("s3://models/m/").path) == {"code/__init__.py": b"", "code/x.py": b"x"}


def test_only_what_has_changed_is_fetched_again(bucket, bring):
    bucket("m/a.joblib", b"a" * 1000)
    bucket("m/b.joblib", b"b" * 1000)
    first = bring("s3://models/m")
    bucket("m/b.joblib", b"B" * 500)

    second = bring("s3://models/m")

    assert second.n_fetched_bytes == 500
    assert tree(second.path) == {"a.joblib": b"a" * 1000, "b.joblib": b"B" * 500}
    assert tree(first.path) == {"a.joblib": b"a" * 1000, "b.joblib": b"b" * 1000}


def test_a_fingerprint_is_that_of_the_snapshot_until_an_object_comes_goes_or_changes(bucket, bring):
    bucket("m/a.joblib", b"a")
    url = SourceUrl("s3://models/m")
    seen = [bring(url.url).fingerprint]

    assert fingerprint(url) == seen[0]
    bucket("m/b.joblib", b"b")
    seen.append(fingerprint(url))
    bucket("m/b.joblib", b"c")
    assert fingerprint(url) not in seen


@pytest.mark.parametrize("is_right", [True, False])
def test_the_digest_in_the_metadata_of_an_object_is_checked(bucket, bring, is_right):
    digest = hashlib.sha256(b"one" if is_right else b"two").hexdigest()
    bucket("churn.joblib", b"one", Metadata={"sha256": digest})

    if is_right:
        assert bring("s3://models/churn.joblib").path.read_bytes() == b"one"
    else:
        with pytest.raises(ArtifactError, match=f"not sha256:{digest}"):
            bring("s3://models/churn.joblib")


def test_the_digest_beside_an_object_of_a_folder_is_checked_and_stays_away(bucket, bring):
    bucket("m/a.joblib", b"a")
    bucket("m/a.joblib.sha256", hashlib.sha256(b"a").hexdigest().encode())

    assert tree(bring("s3://models/m").path) == {"a.joblib": b"a"}
    bucket("m/a.joblib.sha256", b"0" * 64)
    with pytest.raises(ArtifactError, match=r"has a file m/a\.joblib with the digest"):
        bring("s3://models/m")


def test_the_digest_of_one_file_is_not_that_of_a_folder(bucket, bring):
    bucket("m/a.joblib", b"a")

    with pytest.raises(ArtifactError, match="is a folder: #sha256= tells the digest of one file"):
        bring(f"s3://models/m#sha256={'0' * 64}")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("s3://models/none.joblib", "no such object, and none below it"),
        ("s3://models/none/", "no such object, and none below it"),
        ("s3://no-such-bucket/a", "answered 404"),
    ],
)
def test_what_is_not_there_is_not_found(bucket, bring, url, why):
    with pytest.raises(ArtifactNotFoundError, match=why):
        bring(url)


def test_an_object_that_has_another_as_its_folder_is_refused(bucket, bring):
    bucket("m/a", b"a")
    bucket("m/a/b", b"b")

    with pytest.raises(ArtifactError, match="'m/a' that cannot be one here"):
        bring("s3://models/m/")


def test_too_many_objects_are_refused(bucket, bring, monkeypatch):
    monkeypatch.setattr(object_store, "MAX_FILES", 2)
    for n in range(3):
        bucket(f"m/{n}", b"x")

    with pytest.raises(ArtifactError, match="has more than 2 objects below it"):
        bring("s3://models/m")
    assert files.MAX_FILES > 2


@pytest.mark.parametrize(
    ("url", "why"),
    [("s3://", "wanted s3://BUCKET/KEY"), ("s3://models/a?versionId=1", "wanted s3://BUCKET/KEY and nothing else")],
)
def test_a_url_of_no_bucket_is_a_wrong_setting(url, why):
    with pytest.raises(SettingsError, match=why):
        open_source(SourceUrl(url))


def test_profiles_are_read_by_boto3(server, bucket, bring, monkeypatch, tmp_path):
    bucket("a.joblib", b"a")
    credentials = tmp_path / "credentials"
    credentials.write_text("[prod]\naws_access_key_id = anna\naws_secret_access_key = 5ecret\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    monkeypatch.setenv("AWS_PROFILE", "prod")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    assert bring("s3://models/a.joblib").path.read_bytes() == b"a"


@pytest.mark.parametrize(
    ("url", "environ"),
    [
        ("gs://bucket/models", {"GOOGLE_SERVICE_ACCOUNT_KEY": "no JSON"}),
        ("az://container/models", {}),
    ],
)
def test_an_environment_that_opens_no_bucket_is_told_without_its_values(monkeypatch, url, environ):
    for name in [name for name in os.environ if name.startswith(("AWS_", "GOOGLE_", "AZURE_"))]:
        monkeypatch.delenv(name)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(SettingsError, match="is not opened by what the environment says: wanted") as raised:
        open_source(SourceUrl(url))

    assert not any(value in str(raised.value) for value in environ.values())


@pytest.mark.parametrize("url", ["az://container/m.joblib", "gs://bucket/m.joblib"])
def test_a_bucket_without_tls_is_asked_if_the_environment_says_so(url, web, monkeypatch, bring):
    key = {"private_key": "", "private_key_id": "", "client_email": "", "gcs_base_url": web.url, "disable_oauth": True}
    environ = {
        "AZURE_STORAGE_ACCOUNT_NAME": "anna",
        "AZURE_STORAGE_ACCOUNT_KEY": "c2VjcmV0",
        "AZURE_ENDPOINT": web.url,
        "GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(key),
        "GOOGLE_ALLOW_HTTP": "true",
    }
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(ArtifactNotFoundError):
        bring(url)

    assert any(unquote(path).partition("?")[0].endswith("/m.joblib") for _, path, _ in web.asked)
