"""From a URL to a path: whole or not at all, again where it broke off, and never with a wrong digest."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from web import File, Web

from fitserve.errors import ArtifactError, ArtifactNotFoundError, SettingsError
from fitserve.store import fetch, fetching
from fitserve.store.fetch import Progress, fingerprint, materialize
from fitserve.urls import SourceUrl

BODY = os.urandom(5_000_000)
OTHER = os.urandom(5_000_000)
SHA = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def web():
    server = Web()
    yield server
    server.close()


@pytest.fixture
def bring(web, tmp_path):
    """Fetch a path of the server into one and the same folder."""

    def bring(path: str, **options: object):
        url = path if "://" in path else f"{web.url}{path}"
        return materialize(SourceUrl(url), tmp_path / "sources", pause=lambda _: None, **options)

    return bring


def everything_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def nothing_appeared(folder: Path) -> bool:
    return not any(path.is_file() for path in folder.glob("sources/*/snapshots/**/*"))


def test_a_file_comes_with_its_name_and_what_lies_beside_it(web, bring):
    web.files = {
        "/m/churn_v1.joblib": File(BODY),
        "/m/churn_v1.manifest.toml": File(b'version = "9"'),
        "/m/churn_v1.joblib.sig": File(b"{}"),
    }

    snapshot = bring("/m/churn_v1.joblib")

    assert snapshot.path.name == "churn_v1.joblib"
    assert snapshot.path.read_bytes() == BODY
    assert (snapshot.path.parent / "churn_v1.manifest.toml").read_bytes() == b'version = "9"'
    assert (snapshot.path.parent / "churn_v1.joblib.sig").read_bytes() == b"{}"


def test_what_is_here_is_not_fetched_again(web, bring):
    web.files["/m.joblib"] = File(BODY)
    first = bring("/m.joblib")

    second = bring("/m.joblib")

    assert second.path == first.path
    assert (first.n_fetched_bytes, second.n_fetched_bytes) == (len(BODY), 0)
    assert len(web.bodies("/m.joblib")) == 1


def test_a_file_without_a_tag_is_fetched_each_time(web, bring):
    web.files["/m.joblib"] = File(BODY, tag=None)

    assert [bring("/m.joblib").n_fetched_bytes for _ in range(2)] == [len(BODY)] * 2


def test_new_bytes_are_a_new_snapshot_beside_the_old_one(web, bring):
    web.files["/m.joblib"] = File(BODY)
    first = bring("/m.joblib")
    web.files["/m.joblib"] = File(OTHER)

    second = bring("/m.joblib")

    assert second.path.read_bytes() == OTHER
    assert first.path.read_bytes() == BODY
    assert second.fingerprint != first.fingerprint


def test_only_the_newest_snapshots_and_their_bytes_stay(web, bring, tmp_path):
    for n in range(fetch.KEPT_SNAPSHOTS + 2):
        web.files["/m.joblib"] = File(b"%d" % n)
        bring("/m.joblib")

    (place,) = (tmp_path / "sources").iterdir()

    assert len(list((place / "snapshots").iterdir())) == fetch.KEPT_SNAPSHOTS
    assert len(list((place / "blobs").iterdir())) == fetch.KEPT_SNAPSHOTS
    assert list((place / "partial").iterdir()) == []


def test_a_connection_that_breaks_off_again_and_again_goes_on_where_it_was(web, bring):
    web.files["/m.joblib"] = File(BODY, cuts=dict.fromkeys(range(8), 600_000))

    snapshot = bring("/m.joblib")

    assert snapshot.path.read_bytes() == BODY
    assert snapshot.n_fetched_bytes == len(BODY)
    assert web.bodies("/m.joblib")[0] is None
    assert all(web.bodies("/m.joblib")[1:])


def test_a_later_process_goes_on_where_an_earlier_one_broke_off(web, bring, tmp_path):
    web.files["/m.joblib"] = File(BODY, cuts={0: 3_000_000, **dict.fromkeys(range(1, 100), 0)})
    with pytest.raises(ArtifactError, match="cannot be reached"):
        bring("/m.joblib")
    assert nothing_appeared(tmp_path)
    web.files["/m.joblib"].cuts = {}
    web.asked.clear()

    snapshot = bring("/m.joblib")

    assert snapshot.path.read_bytes() == BODY
    assert snapshot.n_fetched_bytes < 3_000_000
    assert web.bodies("/m.joblib") != [None]


def test_what_broke_off_is_not_continued_with_other_bytes(web, bring):
    web.files["/m.joblib"] = File(BODY, cuts={0: 3_000_000, **dict.fromkeys(range(1, 100), 0)})
    with pytest.raises(ArtifactError, match="cannot be reached"):
        bring("/m.joblib")
    web.files["/m.joblib"] = File(OTHER)

    assert bring("/m.joblib").path.read_bytes() == OTHER


def test_a_file_that_is_replaced_while_it_comes_is_fetched_anew(web, bring):
    web.files["/m.joblib"] = File(BODY, cuts={0: 3_000_000}, becomes={1: OTHER})

    assert bring("/m.joblib").path.read_bytes() == OTHER


def test_a_file_that_is_never_left_alone_is_refused(web, bring, tmp_path):
    versions = {n: b"%d" % n * 1000 for n in range(100)}
    web.files["/m.joblib"] = File(b"", becomes=versions, forbids_head=True)

    with pytest.raises(ArtifactError, match="has changed 3 times while it was fetched"):
        bring("/m.joblib")

    assert nothing_appeared(tmp_path)


def test_a_server_without_ranges_gives_the_whole_file_again(web, bring):
    web.files["/m.joblib"] = File(BODY, cuts={0: 3_000_000, 1: 3_000_000, 2: 3_000_000}, has_ranges=False)

    assert bring("/m.joblib").path.read_bytes() == BODY


def test_a_server_that_gives_less_than_it_tells_is_refused(web, bring, tmp_path):
    web.files["/m.joblib"] = File(BODY, cuts=dict.fromkeys(range(100), 0))

    with pytest.raises(ArtifactError, match="cannot be reached"):
        bring("/m.joblib")

    assert nothing_appeared(tmp_path)


def test_a_server_that_tells_no_length_is_refused_in_words(web, bring):
    web.files["/m.joblib"] = File(BODY, is_chunked=True)

    with pytest.raises(ArtifactError, match="does not tell the length"):
        bring("/m.joblib")


@pytest.mark.parametrize("text", [SHA, SHA.upper()])
def test_a_digest_in_the_url_is_checked(web, bring, text):
    web.files["/m.joblib"] = File(BODY)

    assert bring(f"/m.joblib#sha256={text}").path.read_bytes() == BODY


def test_a_wrong_digest_in_the_url_is_an_error_and_nothing_appears(web, bring, tmp_path):
    web.files["/m.joblib"] = File(BODY)

    with pytest.raises(ArtifactError, match=f"with the digest sha256:{SHA}, not sha256:{'0' * 64}"):
        bring(f"/m.joblib#sha256={'0' * 64}")

    assert nothing_appeared(tmp_path)


def test_a_wrong_digest_is_an_error_too_for_bytes_that_are_here(web, bring):
    web.files["/m.joblib"] = File(BODY)
    bring("/m.joblib")

    with pytest.raises(ArtifactError, match="with the digest"):
        bring(f"/m.joblib#sha256={'0' * 64}")


def test_a_digest_beside_the_file_is_checked(web, bring, tmp_path):
    web.files |= {"/m.joblib": File(BODY), "/m.joblib.sha256": File(f"{'0' * 64}  m.joblib\n".encode())}

    with pytest.raises(ArtifactError, match="with the digest"):
        bring("/m.joblib")
    assert nothing_appeared(tmp_path)
    web.files["/m.joblib.sha256"] = File(f"{SHA}  m.joblib\n".encode())

    snapshot = bring("/m.joblib")

    assert everything_below(snapshot.path.parent) == [".listing.json", "m.joblib"]


def test_a_file_beside_that_tells_no_digest_is_an_error(web, bring):
    web.files |= {"/m.joblib": File(BODY), "/m.joblib.sha256": File(b"<html>")}

    with pytest.raises(ArtifactError, match="tells no digest"):
        bring("/m.joblib")


@pytest.mark.parametrize("fragment", ["sha256=abc", "sha512=00", "sha256", f"sha256={SHA}&x=1"])
def test_a_fragment_that_is_no_digest_is_a_wrong_setting(bring, fragment):
    with pytest.raises(SettingsError, match="after # wanted sha256="):
        bring(f"/m.joblib#{fragment}")


def test_damaged_bytes_are_fetched_again(web, bring):
    web.files["/m.joblib"] = File(BODY)
    first = bring("/m.joblib")
    with first.path.open("r+b") as file:
        file.write(b"damage")

    second = bring("/m.joblib")

    assert second.path.read_bytes() == BODY


def test_a_source_that_is_away_leaves_what_was_fetched_last(web, bring):
    web.files["/m.joblib"] = File(BODY)
    first = bring("/m.joblib")
    web.close()

    kept = bring("/m.joblib", or_kept=True)

    assert kept.path == first.path
    assert kept.failure == "the connection was refused"
    with pytest.raises(ArtifactError, match="cannot be reached: the connection was refused"):
        bring("/m.joblib")


def test_what_was_fetched_last_is_not_taken_if_it_is_not_sound(web, bring):
    web.files["/m.joblib"] = File(BODY)
    bring("/m.joblib").path.write_bytes(b"damage")
    web.close()

    with pytest.raises(ArtifactError, match="cannot be reached"):
        bring("/m.joblib", or_kept=True)


def test_a_missing_file_is_not_taken_for_a_source_that_is_away(web, bring):
    web.files["/m.joblib"] = File(BODY)
    bring("/m.joblib")
    web.files.clear()

    with pytest.raises(ArtifactNotFoundError, match=r"m\.joblib: there is no such object"):
        bring("/m.joblib", or_kept=True)


def test_no_error_tells_the_secrets_of_a_url(web, bring):
    web.files |= {"/a": File(b"", status=403), "/b": File(b"", status=503), "/c": File(b"", is_chunked=True)}
    place = web.url.removeprefix("http://")

    for path in ("/a", "/b", "/c", "/d"):
        with pytest.raises(ArtifactError) as raised:
            bring(f"http://anna:pa55word@{place}{path}?sig=5ecret")

        told = f"{raised.value} {raised.value.__cause__}"
        assert "5ecret" not in told
        assert "pa55word" not in told


def test_user_and_password_of_a_url_are_sent(web, bring):
    web.files["/m.joblib"] = File(BODY, needs={"Authorization": "Basic YW5uYTpwQDU1"})
    place = web.url.removeprefix("http://")

    assert bring(f"http://anna:p%4055@{place}/m.joblib").path.read_bytes() == BODY
    with pytest.raises(ArtifactError, match="may not be read with the credentials"):
        bring("/m.joblib")


def test_a_presigned_url_is_asked_for_itself_alone(web, bring):
    web.files["/m.joblib"] = File(BODY, forbids_head=True)

    snapshot = bring("/m.joblib?X-Amz-Signature=a%2Bb")

    assert snapshot.path.read_bytes() == BODY
    assert {path for _, path, _ in web.asked} == {"/m.joblib?X-Amz-Signature=a%2Bb"}


def test_a_redirect_is_followed_and_the_name_is_that_of_the_url(web, bring):
    web.files |= {"/latest/m_v1.joblib": File(b"", to="/blobs/77"), "/blobs/77": File(BODY)}

    snapshot = bring("/latest/m_v1.joblib")

    assert (snapshot.path.name, snapshot.path.read_bytes()) == ("m_v1.joblib", BODY)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://models.example/m.joblib", "whoever is on the way can change what http:// brings"),
        ("https://models.example/", "wanted the URL of one file"),
        ("https:///m.joblib", "wanted the URL of one file"),
        ("https://h:x/m.joblib", "wanted the URL of one file"),
        ("ftp://h/m.joblib", r"is of no kind that is known here \(https:"),
        ("gss://b/k", "did you mean 'gs'"),
    ],
)
def test_a_url_that_is_no_source_is_a_wrong_setting(bring, url, why):
    with pytest.raises(SettingsError, match=why):
        bring(url)


@pytest.mark.parametrize("name", [".hidden", "%00", "a%0Ab", "x" * 256])
def test_a_name_that_can_be_no_file_here_is_refused(web, bring, name):
    web.files[f"/{name}"] = File(BODY)

    with pytest.raises(ArtifactError, match="cannot be"):
        bring(f"/{name}")


def test_too_many_bytes_are_refused_before_they_come(web, bring, monkeypatch):
    monkeypatch.setattr(fetch, "MAX_FILE_BYTES", 1000)
    web.files["/m.joblib"] = File(BODY)

    with pytest.raises(ArtifactError, match="5000000 bytes: more than 1000 are not fetched"):
        bring("/m.joblib")

    assert web.bodies("/m.joblib") == []


def test_progress_tells_of_every_byte_once(web, bring):
    web.files["/m.joblib"] = File(BODY, cuts={0: 2_000_000})
    seen: list[Progress] = []

    bring("/m.joblib", progress=seen.append)

    done = [one.n_done_bytes for one in seen]
    assert done == sorted(done)
    assert seen[-1] == Progress(len(BODY), len(BODY), 1, 1)


def test_what_progress_raises_ends_it_and_the_bytes_stay_for_the_next(web, bring):
    web.files["/m.joblib"] = File(BODY)

    def stop(progress: Progress) -> None:
        if progress.n_done_bytes > 2_000_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bring("/m.joblib", progress=stop)

    assert bring("/m.joblib").n_fetched_bytes < 4_000_000


def test_a_fingerprint_changes_with_the_file_and_with_what_is_beside_it(web):
    url = SourceUrl(f"{web.url}/m.joblib")
    web.files["/m.joblib"] = File(BODY)
    first = fingerprint(url)
    assert fingerprint(url) == first
    web.files["/m.manifest.toml"] = File(b"")
    second = fingerprint(url)
    web.files["/m.joblib"] = File(OTHER)

    assert len({first, second, fingerprint(url)}) == 3
    assert web.bodies("/m.joblib") == []


def test_a_source_that_gives_nothing_is_given_up_after_its_pauses(web, tmp_path):
    web.files["/m.joblib"] = File(BODY, cuts=dict.fromkeys(range(1000), 0))
    paused: list[float] = []

    with pytest.raises(ArtifactError, match="cannot be reached"):
        materialize(SourceUrl(f"{web.url}/m.joblib"), tmp_path, pause=paused.append)

    assert paused == list(fetching.PAUSES_S)
