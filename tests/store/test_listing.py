"""What lies at a path is listed: one model, or a repository of models and versions."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import socket
from pathlib import Path

import pytest
from sklearn.linear_model import LogisticRegression

from fitserve.errors import ArtifactError, ArtifactNotFoundError, SettingsError
from fitserve.store import level
from fitserve.store.listing import Entry, Listing, list_repository, read_entry
from fitserve.store.repository import read_artifact

MODEL = pickle.dumps(LogisticRegression().fit([[0.0], [1.0]], [0, 1]))


def laid_out(root: Path, files: dict[str, bytes | str]) -> Path:
    for path, content in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def package(name: str | None, version: str | None, files: dict[str, str] | None = None) -> str:
    stated = "".join(f'{key} = "{value}"\n' for key, value in (("name", name), ("version", version)) if value)
    digests = files or {"model.pkl": hashlib.sha256(MODEL).hexdigest()}
    lines = "".join(f'"{path}" = "{digest}"\n' for path, digest in digests.items())
    return f'schema = 1\n{stated}model = "model.pkl"\n[files]\n{lines}'


def names_of(listing: Listing) -> dict[str, list[str]]:
    return {name: list(versions) for name, versions in listing.models.items()}


def entries_of(listing: Listing) -> list[Entry]:
    return [entry for versions in listing.models.values() for entry in versions.values()]


# What is one model stays one.


@pytest.mark.parametrize(
    ("given", "files"),
    [
        ("churn_v1.2.pkl", {"churn_v1.2.pkl": MODEL}),
        ("churn.pkl", {"churn.pkl": MODEL}),
        ("churn.pkl", {"churn.pkl": MODEL, "churn.manifest.toml": 'name = "x"\nversion = "7"'}),
        ("m", {"m/churn_v2.pkl": MODEL, "m/notes.txt": "x", "m/code/a.py": "x = 1", "m/train.csv.gz": b"\x1f\x8b"}),
        ("m", {"m/churn.pkl": MODEL, "m/churn.manifest.toml": 'version = "7"', "m/setup.py": "x = 1"}),
        ("m_v3", {"m_v3/model.py": "class Model: ..."}),
        ("m", {"m/manifest.toml": package("churn", "3.1"), "m/model.pkl": MODEL}),
        ("m", {"m/manifest.toml": package("churn", None), "m/model.pkl": MODEL}),
        ("m_v4", {"m_v4/MLmodel": "flavors: {}", "m_v4/model.pkl": MODEL}),
        ("m", {"m/MLmodel": "flavors: {}", "m/model.pkl": MODEL}),
        ("m", {"m/model-settings.json": '{"name": "credit", "parameters": {"uri": "a.pkl"}}', "m/a.pkl": MODEL}),
        ("m", {"m/model-settings.json": '{"name": "c", "parameters": {"version": "v2"}}', "m/a.pkl": MODEL}),
    ],
)
def test_one_model_is_called_as_ever(tmp_path, given, files):
    path = laid_out(tmp_path, files) / given

    listing = list_repository(path)
    (entry,) = entries_of(listing)
    artifact = read_artifact(path)

    assert listing.is_single
    assert listing.skipped == ()
    assert (entry.name, entry.version) == (artifact.name, artifact.version)
    assert read_entry(entry) == artifact
    assert entry.is_labelled is not artifact.version.startswith("sha256-")


def test_folders_of_versions_are_one_model_of_several_versions(tmp_path):
    root = laid_out(tmp_path / "churn", {f"{name}/model.pkl": MODEL + name.encode() for name in ("2", "0010", "9")})

    listing = list_repository(root)

    assert listing.is_single
    assert names_of(listing) == {"churn": ["2", "9", "10"]}
    assert read_entry(listing.models["churn"]["10"]) == read_artifact(root)
    assert read_entry(listing.models["churn"]["2"]).data == MODEL + b"2"


@pytest.mark.parametrize("files", [{"1/m.pkl": MODEL, "2/m.pkl": MODEL}, {"m_v2.pkl": MODEL}])
def test_the_signature_of_one_model_lies_beside_its_folder_or_beside_what_is_signed(tmp_path, files):
    root = laid_out(tmp_path / "m", files)
    laid_out(tmp_path, {"m.sig": "of all"})
    entry = list_repository(root).models["m"]["2"]
    of_all = read_entry(entry).signature
    Path(f"{entry.path}.sig").write_text("its own")

    assert (of_all, read_entry(entry).signature) == (b"of all", b"its own")


def test_no_signature_beside_a_repository_is_taken_for_its_models(tmp_path):
    root = laid_out(tmp_path / "m", {"a_v1.pkl": MODEL, "b_v1.pkl": MODEL})
    laid_out(tmp_path, {"m.sig": "of all"})

    assert [read_entry(entry).signature for entry in entries_of(list_repository(root))] == [None, None]


def test_triton_names_the_model_of_its_versions(tmp_path):
    root = laid_out(tmp_path / "m", {"1/model.pkl": MODEL, "2/model.pkl": MODEL, "config.pbtxt": 'name: "credit"\n'})

    assert names_of(list_repository(root)) == {"credit": ["1", "2"]}


def test_semantic_versions_as_folders(tmp_path):
    root = laid_out(tmp_path / "churn", {f"{v}/m.pkl": MODEL for v in ("1.10.0", "v1.9.0", "2.0.0-rc.1", "2026-11-23")})

    listing = list_repository(root)

    assert names_of(listing) == {"churn": ["1.9.0", "1.10.0", "2.0.0-rc.1", "2026-11-23"]}
    assert read_artifact(root).version == "2026-11-23"


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"m.pkl": ""}, "is empty"),
        ({"m.pkl": MODEL, "m.manifest.toml": "x = "}, "not valid TOML"),
        ({"m.pkl": None}, "does not exist"),
    ],
)
def test_a_file_that_cannot_be_served_is_an_error(tmp_path, files, told):
    laid_out(tmp_path, {name: content for name, content in files.items() if content is not None})

    with pytest.raises(ArtifactError, match=told):
        list_repository(tmp_path / "m.pkl")


def test_a_link_to_a_folder_or_file_elsewhere_is_a_path_as_any(tmp_path):
    laid_out(tmp_path, {"releases/3/churn_v3.pkl": MODEL, "releases/3/iris_v1.pkl": MODEL})
    (tmp_path / "current").symlink_to(tmp_path / "releases/3")
    (tmp_path / "link_v4.pkl").symlink_to("releases/3/churn_v3.pkl")

    assert names_of(list_repository(tmp_path / "current")) == {"churn": ["3"], "iris": ["1"]}
    assert names_of(list_repository(tmp_path / "link_v4.pkl")) == {"link": ["4"]}


# Repositories.


MIXED = {
    "iris_v1.0.0.pkl": MODEL,
    "iris_v1.10.0.pkl": MODEL,
    "iris_v1.9.0.pkl": MODEL,
    "plain.pkl": MODEL,
    "named.pkl": MODEL,
    "named.manifest.toml": 'name = "wine"\nversion = "3"',
    "churn/1.0.0/model.pkl": MODEL,
    "churn/v1.1.0/model_v9.pkl": MODEL,
    "churn/2/manifest.toml": package(None, "2.0"),
    "churn/2/model.pkl": MODEL,
    "churn_v3/MLmodel": "flavors: {}",
    "churn_v3/model.pkl": MODEL,
    "packed-a/manifest.toml": package("wine", "4"),
    "packed-a/model.pkl": MODEL,
    "mlserver/model-settings.json": '{"name": "credit", "parameters": {"version": "1"}}',
    "mlserver/model.pkl": MODEL,
    "several/a_v1.pkl": MODEL,
    "several/a_v2.onnx": MODEL + b"2",
    "fraud/model.pkl": MODEL,
    "fraud/model.manifest.toml": 'version = "5"',
    "README.md": "hello",
    ".hidden/1/m.pkl": MODEL,
    ".hidden.pkl": MODEL,
}


def test_a_repository_of_many_kinds(tmp_path):
    listing = list_repository(laid_out(tmp_path, MIXED))

    assert not listing.is_single
    assert listing.skipped == ()
    digest = read_artifact(tmp_path / "plain.pkl").version
    assert names_of(listing) == {
        "churn": ["1.0.0", "1.1.0", "2.0", "3"],
        "credit": ["1"],
        "fraud": ["5"],
        "iris": ["1.0.0", "1.9.0", "1.10.0"],
        "plain": [digest],
        "several": ["1", "2"],
        "wine": ["3", "4"],
    }
    assert listing.models["several"]["2"].path == tmp_path / "several/a_v2.onnx"


def test_each_entry_is_read_under_its_name_and_version(tmp_path):
    for entry in entries_of(list_repository(laid_out(tmp_path, MIXED))):
        artifact = read_entry(entry)

        assert (artifact.name, artifact.version) == (entry.name, entry.version)
        assert artifact.data


def test_an_entry_made_by_hand_names_what_is_read(tmp_path):
    laid_out(tmp_path, {"m_v1.pkl": MODEL})

    artifact = read_entry(Entry("churn", "1+abcd", tmp_path / "m_v1.pkl"))

    assert (artifact.name, artifact.version, artifact.data) == ("churn", "1+abcd", MODEL)


def test_one_model_in_a_folder_of_a_repository_is_a_repository(tmp_path):
    listing = list_repository(laid_out(tmp_path, {"churn/1.0/m.pkl": MODEL}))

    assert not listing.is_single
    assert names_of(listing) == {"churn": ["1.0"]}


def test_the_default_model_is_the_wanted_one_or_the_first(tmp_path):
    listing = list_repository(laid_out(tmp_path, {"wine_v1.pkl": MODEL, "churn_v1.pkl": MODEL}))

    assert (listing.default(""), listing.default("wine")) == ("churn", "wine")
    with pytest.raises(SettingsError, match="default_model = chrun .*did you mean 'churn'.*there are: churn, wine"):
        listing.default("chrun")


# What cannot be served hides nothing else.


@pytest.mark.parametrize(
    ("files", "place", "why"),
    [
        ({"b_v1.pkl": ""}, "b_v1.pkl", "is empty"),
        ({"b_v1.pkl": MODEL, "b_v1.manifest.toml": 'name = "b'}, "b_v1.pkl", "not valid TOML"),
        ({"b_v1.pkl": MODEL, "b_v1.manifest.toml": 'nmae = "b"'}, "b_v1.pkl", "did you mean 'name'"),
        ({"b_v1.pkl.part": MODEL}, "b_v1.pkl.part", "being written"),
        ({"b.TMP": MODEL}, "b.TMP", "being written"),
        ({"b/1.0/m.pkl": ""}, "b/1.0", "no model was found"),
        ({"b/1.0/x.pkl": MODEL, "b/1.0/y.pkl": MODEL}, "b/1.0", "several model files"),
        ({"b/manifest.toml": "schema = 1\n"}, "b", "'model' is missing"),
        ({"b/manifest.toml": package("b", "1")}, "b", "lacks the file model.pkl"),
        ({"b/manifest.toml": package("b", "1"), "b/model.pkl": ""}, "b", "is empty"),
        ({"b/manifest.toml": package("b", "1"), "b/model.pkl": MODEL, "b/more": "x"}, "b", "was not packed"),
        ({"b/model-settings.json": '{"parameters": {"version": "1 2"}}', "b/m.pkl": MODEL}, "b", "states the version"),
        ({"b/model-settings.json": "{"}, "b", "not valid JSON"),
        ({"b/x.txt": "no model"}, "b", "holds no model"),
        ({"b/c/1.0/m.pkl": MODEL}, "b", "holds no model"),
        ({"b/x_v1.pkl": MODEL, "b/y_v1.pkl": MODEL}, "b", r"several models \(x_v1.pkl, y_v1.pkl\)"),
        ({"b/1.0/m.pkl": MODEL, "b/other_v2.pkl": MODEL}, "b/other_v2.pkl", "beside folders of versions"),
        ({"scripts/train.py": "import this"}, "scripts/train.py", "may be a part of a model"),
    ],
)
def test_what_is_broken_is_skipped(tmp_path, files, place, why):
    root = laid_out(tmp_path, {"a_v1.pkl": MODEL, "c/2.0/m.pkl": MODEL, **files})

    listing = list_repository(root)

    assert {name: versions for name, versions in names_of(listing).items() if name != "b"} == {"a": ["1"], "c": ["2.0"]}
    ((skipped, told),) = listing.skipped
    assert skipped == place
    assert re.search(why, told), told


def test_an_empty_repository_tells_what_was_looked_for(tmp_path):
    laid_out(tmp_path, {"a/b/c.txt": "x", "b_v1.pkl": "", "c.txt": "x"})
    (tmp_path / "a/b/nothing").mkdir()

    with pytest.raises(
        ArtifactNotFoundError, match=r"looked for manifest.toml .*came: b_v1.pkl, c.txt, a/; .*b_v1.pkl is empty"
    ):
        list_repository(tmp_path)
    with pytest.raises(ArtifactNotFoundError, match="came: nothing"):
        list_repository(tmp_path / "a/b/nothing")


def test_the_same_version_twice_is_served_by_none(tmp_path):
    laid_out(tmp_path, {"a_v1.pkl": MODEL, "a_v2.pkl": MODEL, "a_v2.joblib": MODEL, "a/2/m.pkl": MODEL})

    listing = list_repository(tmp_path)

    assert names_of(listing) == {"a": ["1"]}
    assert [place for place, _ in listing.skipped] == ["a/2", "a_v2.joblib", "a_v2.pkl"]
    assert all("is not the only version 2 of a: a/2, a_v2.joblib, a_v2.pkl" in why for _, why in listing.skipped)


def test_the_same_bytes_twice_are_one_version(tmp_path):
    laid_out(tmp_path, {"a.pkl": MODEL, "a.joblib": MODEL, "b_v1.pkl": MODEL})

    listing = list_repository(tmp_path)

    assert listing.models["a"].keys() == {read_artifact(tmp_path / "a.pkl").version}
    assert listing.skipped == (("a.pkl", "has the same bytes as a.joblib"),)


def test_two_names_that_become_one_are_told(tmp_path):
    laid_out(
        tmp_path, {"my model/1/m.pkl": MODEL, "my-model/2/m.pkl": MODEL, "ä b/1/m.pkl": MODEL, "ü b/2/m.pkl": MODEL}
    )

    listing = list_repository(tmp_path)

    assert names_of(listing) == {"my-model": ["2"]}
    assert listing.skipped == (
        ("my model/1", "would be called my-model, as another is: rename it"),
        ("ä b/1", "would be called b, as another is: rename it"),
        ("ü b/2", "would be called b, as another is: rename it"),
    )


def test_links_and_what_is_no_file(tmp_path, monkeypatch):
    laid_out(tmp_path / "outside", {"secret_v1.pkl": MODEL, "2/m.pkl": MODEL})
    root = laid_out(tmp_path / "models", {"a_v1.pkl": MODEL, "b/1/m.pkl": MODEL, "b/2/x.txt": "x"})
    (root / "a_v2.pkl").symlink_to("a_v1.pkl")
    (root / "b/2/m.pkl").symlink_to("../1/m.pkl")
    (root / "out_v1.pkl").symlink_to("../outside/secret_v1.pkl")
    (root / "abs_v1.pkl").symlink_to(root / "a_v1.pkl")
    (root / "gone_v1.pkl").symlink_to("gone")
    (root / "folder").symlink_to("../outside")
    (root / "b/3").mkdir()
    (root / "b/3/m.pkl").symlink_to("../../../outside/secret_v1.pkl")
    os.mkfifo(root / "pipe_v1.pkl")
    monkeypatch.chdir(root)  # the path of a socket may have 107 bytes
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("sock_v1.pkl")

    listing = list_repository(root)

    assert names_of(listing) == {"a": ["1", "2"], "b": ["1", "2"]}
    assert [place for place, _ in listing.skipped] == [
        "abs_v1.pkl",
        "b/3",
        "folder",
        "gone_v1.pkl",
        "out_v1.pkl",
        "pipe_v1.pkl",
        "sock_v1.pkl",
    ]
    assert read_entry(listing.models["b"]["2"]).data == read_entry(listing.models["a"]["2"]).data == MODEL


def test_a_link_that_is_swapped_after_the_listing_does_not_lead_out(tmp_path):
    laid_out(tmp_path / "outside", {"m.pkl": MODEL, "manifest.toml": package("x", "1")})
    root = laid_out(tmp_path / "models", {"a_v1.pkl": MODEL, "b/1/m.pkl": MODEL})
    listing = list_repository(root)
    (root / "a_v1.pkl").unlink()
    (root / "a_v1.pkl").symlink_to("../outside/m.pkl")
    (root / "b").rename(root / "old")
    (root / "b").symlink_to("../outside")

    for entry in entries_of(listing):
        with pytest.raises(ArtifactError, match="leads out"):
            read_entry(entry)


@pytest.mark.parametrize("changed", ["a.pkl", "b/manifest.toml"])
def test_what_has_become_another_version_since_is_not_passed_off_as_the_old(tmp_path, changed):
    laid_out(tmp_path, {"a.pkl": MODEL, "b/manifest.toml": package("b", "1"), "b/model.pkl": MODEL})
    listing = list_repository(tmp_path)
    laid_out(tmp_path, {changed: MODEL + b"x" if changed == "a.pkl" else package("b", "2")})

    with pytest.raises(ArtifactError, match="since it was listed as"):
        read_entry(next(iter(listing.models[changed[0]].values())))


# It reads little.


def test_a_digest_is_computed_once_for_a_file_that_rests(tmp_path, monkeypatch):
    laid_out(tmp_path, {"a.pkl": MODEL, "b/MLmodel": "flavors: {}", "b/m.pkl": MODEL})
    monkeypatch.setattr(level, "RACY_NS", 0)
    hashed = []
    real = hashlib.file_digest
    monkeypatch.setattr(level.hashlib, "file_digest", lambda *args: hashed.append(1) or real(*args))

    first = list_repository(tmp_path)
    again = list_repository(tmp_path)
    n_hashed = len(hashed)
    laid_out(tmp_path, {"a.pkl": MODEL + b"x"})

    assert names_of(first) == names_of(again)
    assert n_hashed == 3
    assert names_of(list_repository(tmp_path))["a"] == [read_artifact(tmp_path / "a.pkl").version]


def test_a_digest_of_a_file_that_has_just_changed_is_not_remembered(tmp_path):
    path = laid_out(tmp_path, {"a.pkl": MODEL}) / "a.pkl"
    before = list_repository(path)
    times = path.stat()
    path.write_bytes(MODEL[:-1] + b"!")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    assert names_of(list_repository(path)) != names_of(before)


def test_large_files_are_not_read_whole(tmp_path):
    laid_out(tmp_path, {"a_v1.pkl": MODEL, "b_v1.pkl": MODEL})
    with (tmp_path / "a_v1.pkl").open("ab") as file:
        file.truncate(2**34 + 1)  # more than may be read; it takes no space

    assert names_of(list_repository(tmp_path)) == {"a": ["1"], "b": ["1"]}


def test_a_thousand_versions_are_listed(tmp_path):
    for n in range(50):
        laid_out(tmp_path, {f"m{n}/{v}/m.pkl": b"\x80\x04." for v in range(10)})
        laid_out(tmp_path, {f"f{n}_v{v}.pkl": b"\x80\x04." for v in range(10)})

    listing = list_repository(tmp_path)

    assert sum(map(len, listing.models.values())) == 1000
    assert list(listing.models["m7"]) == [str(v) for v in range(10)]
    assert listing.skipped == ()


def test_no_descriptor_stays_open(tmp_path):
    root = laid_out(tmp_path, {**MIXED, "bad/manifest.toml": "x", "bad_v1.pkl": ""})
    (root / "out.pkl").symlink_to("/etc/hostname")
    list_repository(root)
    before = sorted(Path("/proc/self/fd").iterdir())

    for entry in entries_of(list_repository(root)):
        read_entry(entry)
    for path in (root / "none", root / "bad", root / "bad_v1.pkl"):
        with pytest.raises(ArtifactError):
            list_repository(path)

    assert sorted(Path("/proc/self/fd").iterdir()) == before
