"""A change of what is served is seen by names, sizes and times; what is not served does not count."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fitserve.store.fingerprint import fingerprint


@pytest.fixture
def folder(tmp_path) -> Path:
    root = tmp_path / "models"
    (root / "churn/1.0").mkdir(parents=True)
    (root / "churn/1.0/m.pkl").write_bytes(b"1")
    (root / "iris_v1.pkl").write_bytes(b"1")
    (root / ".hidden").mkdir()
    (root / "link.pkl").symlink_to("iris_v1.pkl")
    return root


def write(path: Path, data: bytes = b"22") -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)


def replace(path: Path) -> None:
    times = path.stat()
    beside = path.with_name("other")
    beside.write_bytes(path.read_bytes())
    os.utime(beside, ns=(times.st_atime_ns, times.st_mtime_ns))
    beside.rename(path)


CHANGES = {
    "a file is written": lambda root: write(root / "churn/1.0/m.pkl"),
    "a file is replaced by one of the same size and time": lambda root: replace(root / "iris_v1.pkl"),
    "a file comes": lambda root: write(root / "churn/2.0/m.pkl"),
    "a file goes": lambda root: (root / "iris_v1.pkl").unlink(),
    "a file is renamed": lambda root: (root / "iris_v1.pkl").rename(root / "iris_v2.pkl"),
    "a folder is renamed": lambda root: (root / "churn").rename(root / "wine"),
    "a download is over": lambda root: [write(root / "a.pkl.part"), (root / "a.pkl.part").rename(root / "a.pkl")],
    "a link is turned": lambda root: [(root / "link.pkl").unlink(), (root / "link.pkl").symlink_to("churn/1.0/m.pkl")],
    "the folder is another one": lambda root: [root.rename(root.with_name("old")), root.mkdir()],
    "it has gone": lambda root: root.rename(root.with_name("old")),
    "its signature comes": lambda root: write(root.with_name("models.sig")),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_it_changes_when(folder, change):
    before = fingerprint(folder)

    change(folder)

    assert fingerprint(folder) != before


QUIET = {
    "nothing happens": lambda root: None,
    "a hidden file is written": lambda root: write(root / ".hidden/m.pkl"),
    "a download goes on": lambda root: write(root / "churn/b.pkl.part"),
    "something happens beside it": lambda root: write(root.with_name("other.pkl")),
}


@pytest.mark.parametrize("change", QUIET.values(), ids=QUIET.keys())
def test_it_stays_when(folder, change):
    before = fingerprint(folder)

    change(folder)

    assert fingerprint(folder) == before


@pytest.mark.parametrize("beside", ["iris_v1.pkl", "iris_v1.manifest.toml", "iris_v1.pkl.sig"])
def test_of_a_file_its_manifest_and_signature_count(folder, beside):
    before = fingerprint(folder / "iris_v1.pkl")

    write(folder / beside)

    assert fingerprint(folder / "iris_v1.pkl") != before


def test_of_a_file_its_neighbours_do_not_count(folder):
    before = fingerprint(folder / "iris_v1.pkl")

    write(folder / "iris_v2.pkl")

    assert fingerprint(folder / "iris_v1.pkl") == before


def test_a_link_that_leads_to_itself_ends(folder):
    (folder / "round").symlink_to("round")
    (folder / "churn/up").symlink_to("..")

    assert fingerprint(folder)
