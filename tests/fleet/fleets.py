"""Fleets for tests: several members in one process, each with a catalog of its own, that share a runtime folder."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path

import joblib
from sklearn.dummy import DummyRegressor

from fitserve.fleet.lifecycle import Lifecycle
from fitserve.settings import Settings
from fitserve.store.catalog import Catalog
from fitserve.store.verify import verifier_of

WITHIN_S = 60.0


def save(path: Path, value: float) -> Path:
    """A model file whose answer is ``value``, whatever is asked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    joblib.dump(DummyRegressor(strategy="constant", constant=value).fit([[0.0], [1.0]], [0.0, 1.0]), path)
    return path


class Member:
    """One member: its catalog, and what it answers."""

    def __init__(self, path: Path, settings: Settings, folder: Path | None) -> None:
        self.catalog = Catalog()
        self.lifecycle = Lifecycle(settings, self.catalog, path, verifier_of(settings), runtime_folder=folder)
        self.switch = self.lifecycle.switch
        self.fleet = self.lifecycle.fleet

    @property
    def serving(self) -> str:
        return self.catalog.current.version

    @property
    def answer(self) -> float:
        lease = self.catalog.current
        return float(lease.model.predict(lease.model.signature.check([[0.0]])).predictions[0])

    async def ended(self, kind: str, model: str | None = None, **fields: str):
        operation = await self.switch.begin(kind, model, **fields)
        return await self.switch.wait(operation.id, WITHIN_S)


def settings_of(folder: Path, **fields: object) -> Settings:
    return Settings(
        **{
            "optimize": "off",
            "state_dir": folder / "state",
            "cache_dir": folder / "cache",
            "model_path": None,
            **fields,
        }
    )


@asynccontextmanager
async def members(path: Path, folder: Path, n: int = 1, **fields: object):
    """``n`` members of one fleet that serves a path; one alone has no runtime folder."""
    shared = None
    if n > 1:
        shared = folder / "run"
        shared.mkdir(exist_ok=True)
    made = [await asyncio.to_thread(Member, path, settings_of(folder, **fields), shared) for _ in range(n)]
    for member in made:
        await asyncio.to_thread(member.lifecycle.start)
        await asyncio.to_thread(member.fleet.join)
        member.fleet.begin()
    try:
        yield made
    finally:
        for member in made:
            member.switch.stop()
            member.fleet.leave()


async def until(condition, within_s: float = WITHIN_S) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)
