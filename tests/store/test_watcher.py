"""A model that is being worked on is noticed when it has changed, be it a file or a folder."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fitserve.store.repository import model_stem
from fitserve.store.watcher import changes

model_stem(Path("m.joblib"))  # what it needs is looked up here, where that may block

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("watched", "changed"), [("m.joblib", "m.joblib"), ("m.joblib", "m.manifest.toml"), ("package", "package/model/x")]
)
async def test_a_change_is_noticed(watched, changed, tmp_path):
    (tmp_path / "package/model").mkdir(parents=True)
    (tmp_path / "m.joblib").write_bytes(b"1")
    notice = asyncio.ensure_future(anext(aiter(changes(tmp_path / watched, is_folder=watched == "package"))))
    n_written = 0

    while not notice.done():  # the watch begins when it begins
        n_written += 1
        await asyncio.to_thread((tmp_path / changed).write_text, str(n_written))
        await asyncio.wait([notice], timeout=1.0)

    assert notice.result() is None
