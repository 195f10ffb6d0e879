"""Artifacts kept by content: whole or not at all, and checked before they are used."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import resource
import stat
import time

import pytest
from shared_state.processes import ended, forked

from fitserve.confine.sandbox import Sandbox, enter
from fitserve.errors import ArtifactError, UntrustedArtifactError
from fitserve.signature import Field
from fitserve.store.loading import load_artifact
from fitserve.store.repository import read_artifact
from fitserve.store.spool import Spool
from fitserve.store.verify import Verifier, identity
from fitserve.trust.policy import TrustPolicy
from fitserve.types import Artifact, Declared, Golden

REPORT = {"golden": None, "model": {"name": "m"}}


def artifact_of(data: bytes = b"model", **others: object) -> Artifact:
    return Artifact("m", "1", hashlib.sha256(data).hexdigest(), data, "m.joblib", **others)


@pytest.fixture
def spool(tmp_path) -> Spool:
    return Spool(tmp_path / "artifacts")


def kept(spool: Spool) -> list[str]:
    return [path.name for path in spool.folder.iterdir() if not path.name.startswith(".used-")]


def rich() -> Artifact:
    files = {"MLmodel": b"main", "data/weights.bin": bytes(range(256)) * 100, "empty": b""}
    declared = Declared(
        format="mlflow",
        fields=(Field("age", largest=150.0), Field("city", categories=("Aachen", "Bonn"))),
        example={"age": 3, "city": "Bonn"},
        classes=("no", "yes"),
        libraries={"scikit-learn": "1.9"},
    )
    golden = Golden(rows=[{"age": 3}], outputs={"prediction": ["no"]})
    return dataclasses.replace(
        artifact_of(b"main"), data=files["MLmodel"], file_name="MLmodel", digest="d" * 64, files=files,
        declared=declared, golden=golden, metadata={"team": "risk"}, signature=b"signed",
    )  # fmt: skip


@pytest.mark.parametrize(
    "artifact", [artifact_of(), artifact_of(b"x" * 5_000_000), rich()], ids=["small", "large", "folder"]
)
def test_what_was_put_is_got(spool, artifact):
    key = spool.put(artifact, REPORT)
    found, report = Spool(spool.folder).get(key)

    assert key == identity(artifact) == identity(found)
    assert found == artifact
    assert found.files == artifact.files
    assert report == REPORT
    assert spool.has(key)


def test_a_kept_model_loads(spool, models):
    artifact = read_artifact(models / "iris_v1.2.3.joblib")
    found, _ = spool.get(spool.put(artifact, {}))
    loaded = load_artifact(found, TrustPolicy())

    assert loaded.version == "1.2.3"
    assert loaded.trial.has_answered


@pytest.fixture
def mapped(spool, models, monkeypatch) -> Artifact:
    """A pickle that counts as large, as the spool gives it."""
    monkeypatch.setattr("fitserve.store.spool.LARGE_BYTES", 1)
    return spool.get(spool.put(read_artifact(models / "cancer_v2.joblib"), {}))[0]


def test_a_large_pickle_is_loaded_from_where_it_lies(mapped, models, datasets):
    artifact = read_artifact(models / "cancer_v2.joblib")
    loaded, usual = (load_artifact(each, TrustPolicy()).model for each in (mapped, artifact))
    X = loaded.signature.check(datasets["cancer_v2"].tolist())

    assert isinstance(mapped.data, memoryview)
    assert mapped == artifact
    assert (loaded.predict(X).predictions == usual.predict(X).predictions).all()


@pytest.mark.parametrize("level", ["allowlist", "any", "pinned"])
def test_a_large_pickle_is_loaded_at_every_level_that_takes_one(mapped, level):
    policy = TrustPolicy(level, pins=frozenset({mapped.digest}))

    assert load_artifact(mapped, policy).trial.has_answered


def test_a_large_pickle_is_refused_as_any_other(mapped):
    with pytest.raises(UntrustedArtifactError, match="the trust level 'data'"):
        load_artifact(mapped, TrustPolicy("data"))


def test_a_large_pickle_goes_to_a_child_as_any_other(mapped):
    assert Verifier().verify(mapped)["model"]["version"] == "2"


def test_a_large_pickle_that_is_replaced_or_removed_stays_what_it_was(spool, mapped, models):
    data = (models / "cancer_v2.joblib").read_bytes()
    (spool.folder / "new").write_bytes(b"x")
    (spool.folder / "new").replace(spool.folder / identity(mapped))
    assert mapped.data == data

    spool.prune(set(), limit_bytes=0)
    assert mapped.data == data


@pytest.mark.parametrize("data", [b"\x80" + b"x" * 50, b"x" * 50])
def test_only_pickles_are_mapped(spool, monkeypatch, data):
    monkeypatch.setattr("fitserve.store.spool.LARGE_BYTES", 50)
    found, _ = spool.get(spool.put(artifact_of(data), {}))
    signed, _ = spool.get(spool.put(artifact_of(data, signature=b"signed"), {}))

    assert isinstance(found.data, memoryview if data[:1] == b"\x80" else bytes)
    assert isinstance(signed.data, bytes)
    assert found.data == signed.data == data


def test_what_is_not_there_is_told(spool):
    assert not spool.has("0" * 64)
    with pytest.raises(ArtifactError, match="is not kept in .*: reload"):
        spool.get("0" * 64)


def test_what_was_put_twice_is_kept_once(spool):
    keys = {spool.put(artifact_of(), REPORT), spool.put(artifact_of(), {"another": 1})}

    assert kept(spool) == list(keys)
    assert spool.get(*keys)[1] == REPORT


def test_the_same_bytes_of_which_something_else_is_said_are_another_artifact(spool):
    keys = {spool.put(artifact_of(), {}), spool.put(artifact_of(metadata={"team": "risk"}), {})}

    assert len(keys) == 2


def test_files_are_of_their_user_alone_who_may_not_write_them(spool):
    key = spool.put(artifact_of(), REPORT)

    assert stat.S_IMODE((spool.folder / key).stat().st_mode) == 0o400
    assert stat.S_IMODE(spool.folder.stat().st_mode) == 0o700


def flip(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


DAMAGES = {
    "nothing": lambda content: b"",
    "first byte": lambda content: flip(content, 0),
    "no line": lambda content: b"x" * 1000,
    "length": lambda content: content.replace(b"fitserve-spool 1 ", b"fitserve-spool 1 9", 1),
    "not ASCII": lambda content: b"\xff" * 100 + b"\n",
    "head": lambda content: flip(content, 200),
    "last byte": lambda content: flip(content, len(content) - 1),
    "truncated": lambda content: content[:-1],
    "only a head": lambda content: content[:300],
    "longer": lambda content: content + b"x",
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    "artifact", [artifact_of(), artifact_of(b"\x80" * 5000), rich()], ids=["file", "pickle", "folder"]
)
def test_what_is_damaged_is_told_and_removed(spool, monkeypatch, artifact, damage):
    monkeypatch.setattr("fitserve.store.spool.LARGE_BYTES", 1)
    key = spool.put(artifact, REPORT)
    path = spool.folder / key
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(DAMAGES[damage](content))
    with pytest.raises(ArtifactError, match="was damaged where it was kept"):
        spool.get(key)

    assert not spool.has(key)
    assert spool.get(spool.put(artifact, REPORT))[0] == artifact


def test_an_artifact_under_the_name_of_another_is_refused(spool):
    one, other = spool.put(artifact_of(b"one"), REPORT), spool.put(artifact_of(b"other"), REPORT)
    (spool.folder / one).replace(spool.folder / other)
    with pytest.raises(ArtifactError, match="it is another artifact"):
        spool.get(other)


def test_bytes_that_are_not_those_of_the_digest_are_refused(spool):
    wrong = dataclasses.replace(artifact_of(), digest="0" * 64)
    with pytest.raises(ArtifactError, match="it has the bytes of another one"):
        spool.get(spool.put(wrong, REPORT))


def test_where_nothing_can_be_written_it_is_told_and_nothing_is_kept(tmp_path, caplog):
    (tmp_path / "file").touch()
    spool = Spool(tmp_path / "file" / "artifacts")

    assert not spool.has(spool.put(artifact_of(), REPORT))
    assert "are not kept for the other processes" in caplog.text
    spool.prune(set())


def test_a_full_disk_is_told_and_leaves_nothing(spool):
    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        key = spool.put(artifact_of(b"x" * 5_000_000), REPORT)
        assert not spool.has(key)
        assert spool.has(spool.put(artifact_of(), REPORT))

    with forked(work) as pid:
        assert ended(pid) == 0
    assert kept(spool) == [identity(artifact_of())]


def test_a_folder_that_others_can_write_in_is_not_used(spool, caplog):
    key = spool.put(artifact_of(), REPORT)
    spool.folder.chmod(0o770)

    assert not spool.has(key)
    with pytest.raises(ArtifactError, match="others can write there"):
        spool.get(key)
    spool.put(artifact_of(b"other"), REPORT)
    assert "others can write there" in caplog.text
    assert len(kept(spool)) == 1


def test_a_confined_process_puts_gets_and_prunes(spool):
    spool.folder.mkdir(mode=0o700)
    old = spool.put(artifact_of(b"old"), REPORT)
    aged(spool, old, 1000)

    def work() -> None:
        enter(Sandbox(writable=(spool.folder,)))
        key = spool.put(artifact_of(), REPORT)
        assert spool.get(key)[0] == artifact_of()
        spool.prune({key}, limit_bytes=0)
        assert not spool.has(old)

    with forked(work) as pid:
        assert ended(pid) == 0
    assert spool.has(identity(artifact_of()))


def aged(spool: Spool, name: str, age_s: float) -> None:
    then_s = time.time() - age_s
    for path in spool.folder.glob(f"*{name}"):
        os.utime(path, (then_s, then_s))


def put(spool: Spool, *names: str) -> list[str]:
    """Artifacts of 1000 bytes and some, each an hour older than the one before."""
    keys = [spool.put(artifact_of(name.encode() * 1000), {}) for name in names]
    for n, key in enumerate(keys):
        aged(spool, key, 3600 * (n + 1))
    return keys


def test_what_is_too_much_goes_the_oldest_first(spool):
    keys = put(spool, *"abcd")
    size = (spool.folder / keys[0]).stat().st_size
    spool.prune({keys[3]}, limit_bytes=2 * size)

    assert [spool.has(key) for key in keys] == [True, True, False, True]


def test_what_is_old_goes_however_little_it_is(spool):
    keys = put(spool, *"abc")
    for key in keys[1:]:
        aged(spool, key, 31 * 86_400)
    spool.prune({keys[2]})

    assert [spool.has(key) for key in keys] == [True, False, True]


def test_what_was_used_just_now_stays(spool):
    keys = put(spool, *"abc")
    spool.get(keys[1])
    spool.put(artifact_of(b"c" * 1000), {})
    spool.prune(set(), limit_bytes=0)

    assert [spool.has(key) for key in keys] == [False, True, True]


def test_what_is_kept_counts_as_used(spool):
    (key,) = put(spool, "a")
    spool.prune({key})

    spool.prune(set(), limit_bytes=0)

    assert spool.has(key)


def test_what_was_left_half_written_goes_when_its_writer_must_be_gone(spool):
    put(spool, "a")
    for name, age_s in ((".partial-old", 7200), (".partial-new", 10)):
        (spool.folder / name).write_bytes(b"half")
        aged(spool, name, age_s)
    spool.prune(set())

    assert not (spool.folder / ".partial-old").exists()
    assert (spool.folder / ".partial-new").exists()


def test_processes_that_put_the_same_at_once_agree(spool):
    artifact = artifact_of(b"x" * 3_000_000)

    def work() -> None:
        key = spool.put(artifact, REPORT)
        assert spool.get(key)[0] == artifact

    with forked(work) as one, forked(work) as other:
        assert [ended(one), ended(other)] == [0, 0]
    assert len(kept(spool)) == 1
