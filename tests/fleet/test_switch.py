"""Switches over the members of a fleet: all of them change, or none."""

from __future__ import annotations

import asyncio
import shutil

import pytest
from fleet.fleets import Member, members, save, settings_of, until

from fitserve.errors import ArtifactError, ConflictError, ModelNotFoundError, ModelNotReadyError
from fitserve.fleet.lifecycle import Lifecycle
from fitserve.types import ModelRef

pytestmark = pytest.mark.anyio


@pytest.fixture
def repository(tmp_path):
    """Versions 1.0.0 and 2.0.0 of one model, which answer 1 and 2."""
    folder = tmp_path / "models"
    for value in (1, 2):
        save(folder / "m" / f"{value}.0.0" / "model.joblib", value)
    return folder


@pytest.fixture
def file(tmp_path):
    return save(tmp_path / "m_v1.2.3.joblib", 1)


def what_serves(fleet) -> list[tuple[str, float]]:
    return [(member.serving, member.answer) for member in fleet]


@pytest.mark.parametrize("n", [1, 3])
async def test_a_promotion_counts_in_all_members_once_it_is_done(repository, tmp_path, n):
    async with members(repository, tmp_path, n) as fleet:
        before = what_serves(fleet)
        operation = await fleet[0].ended("promote", version="1.0.0", reason="2 is slow", who="ann")
        after = what_serves(fleet)
        history = await fleet[-1].switch.history("m")

    assert before == [("2.0.0", 2.0)] * n, "at first the highest serves"
    assert after == [("1.0.0", 1.0)] * n
    assert (operation.state, operation.status) == ("done", "switched")
    assert (operation.from_version, operation.to_version) == ("2.0.0", "1.0.0")
    assert [worker.state for worker in operation.workers] == ["committed"] * n
    change = history[0]
    assert (change.who, change.action, change.from_version, change.to_version) == ("ann", "promote", "2.0.0", "1.0.0")
    assert change.reason == "2 is slow"


@pytest.mark.parametrize("n", [1, 3])
async def test_a_roll_back_is_to_what_served_before_and_needs_no_file(repository, tmp_path, n):
    async with members(repository, tmp_path, n) as fleet:
        await fleet[0].ended("promote", version="1.0.0")
        shutil.rmtree(repository)

        operation = await fleet[-1].ended("rollback")

        assert (operation.state, operation.error) == ("done", None)
        assert what_serves(fleet) == [("2.0.0", 2.0)] * n


async def test_without_another_version_there_is_nothing_to_roll_back_to(file, tmp_path):
    async with members(file, tmp_path) as (member,):
        operation = await member.ended("rollback")

    assert operation.state == "failed"
    assert isinstance(operation.failure, ConflictError)
    assert "nothing to roll back to" in operation.error


async def test_promoting_what_serves_changes_nothing(repository, tmp_path):
    async with members(repository, tmp_path) as (member,):
        generation = member.catalog.generation
        operation = await member.switch.begin("promote", version="2.0.0")
        after = member.catalog.generation

    assert (operation.state, operation.status) == ("done", "unchanged")
    assert after == generation


@pytest.mark.parametrize("n", [1, 3])
async def test_changed_bytes_under_an_unchanged_version_have_a_label_of_their_own(file, tmp_path, n):
    async with members(file, tmp_path, n) as fleet:
        save(file, 5)
        changed = await fleet[0].ended("reload")
        after = what_serves(fleet)
        again = await fleet[0].ended("reload")
        save(file, 1)
        back = await fleet[0].ended("reload")

    digest = changed.to_version.partition("+")[2]
    assert changed.to_version == f"1.2.3+{digest}"
    assert len(digest) == 8
    assert after == [(changed.to_version, 5.0)] * n
    assert again.status == "unchanged"
    assert (back.to_version, back.status) == ("1.2.3", "switched")


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
@pytest.mark.parametrize("n", [1, 2])
async def test_a_file_that_cannot_be_served_changes_nothing_and_the_operation_says_why(file, tmp_path, n, content):
    async with members(file, tmp_path, n) as fleet:
        file.unlink()
        if content is not None:
            file.write_bytes(content)
        operation = await fleet[0].ended("reload")
        after = what_serves(fleet)

    assert operation.state == "failed"
    assert isinstance(operation.failure, ArtifactError)
    assert "nothing has changed" in operation.error
    assert str(tmp_path) not in operation.error
    assert after == [("1.2.3", 1.0)] * n


async def test_if_one_member_cannot_nothing_changes_in_any(repository, tmp_path, monkeypatch):
    async with members(repository, tmp_path, 3) as fleet:
        await fleet[0].ended("promote", version="1.0.0")
        save(repository / "m" / "3.0.0" / "model.joblib", 3)

        def fail(*_, **__):
            raise ArtifactError("needs a disk that is not full")

        monkeypatch.setattr(fleet[1].fleet._loader, "load", fail)
        operation = await fleet[0].ended("promote", version="3.0.0")
        await until(lambda: not any(member.catalog._prepared for member in fleet))
        after = what_serves(fleet)

    assert operation.state == "failed"
    assert "version 3.0.0 of the model m needs a disk that is not full" in operation.error
    assert "failed" in [worker.state for worker in operation.workers]
    assert after == [("1.0.0", 1.0)] * 3


async def test_one_operation_a_model_at_a_time(repository, tmp_path):
    async with members(repository, tmp_path, 2) as fleet:
        first = await fleet[0].switch.begin("promote", version="1.0.0")
        with pytest.raises(ConflictError, match="under way"):
            await fleet[1].switch.begin("promote", version="1.0.0")
        await fleet[1].switch.wait(first.id, 60)

        second = await fleet[1].ended("rollback")

    assert second.state == "done"


async def test_an_operation_whose_process_ends_is_finished_by_another(repository, tmp_path):
    async with members(repository, tmp_path, 2) as fleet:
        gate = asyncio.Event()
        proposals = fleet[0].lifecycle._proposals
        original = proposals.of
        loop = asyncio.get_running_loop()

        def slowly(*args):
            loop.call_soon_threadsafe(gate.set)
            return original(*args)

        proposals.of = slowly
        operation = await fleet[0].switch.begin("promote", version="1.0.0")
        await gate.wait()
        fleet[0].switch.stop()  # as if it were killed: its lock goes, its note stays

        ended = await fleet[1].switch.wait(operation.id, 60)

        assert (ended.state, ended.to_version) == ("done", "1.0.0")
        assert fleet[1].serving == "1.0.0"


async def test_a_member_that_comes_meanwhile_has_the_version_that_counts(repository, tmp_path):
    async with members(repository, tmp_path, 2) as fleet:
        late = await asyncio.to_thread(Member, repository, settings_of(tmp_path), tmp_path / "run")
        await asyncio.to_thread(late.lifecycle.start)
        await fleet[0].ended("promote", version="1.0.0")

        await asyncio.to_thread(late.fleet.join)

        assert (late.serving, late.answer) == ("1.0.0", 1.0)
        late.fleet.leave()


async def test_a_member_that_starts_again_serves_what_was_committed_though_the_file_has_changed(file, tmp_path):
    async with members(file, tmp_path, 2):
        save(file, 9)
        another = await asyncio.to_thread(Member, file, settings_of(tmp_path), tmp_path / "run")

        await asyncio.to_thread(another.lifecycle.start)

        assert (another.serving, another.answer) == ("1.2.3", 1.0)


async def test_an_alias_is_moved_in_all_members_and_removed(repository, tmp_path):
    async with members(repository, tmp_path, 2) as fleet:
        await fleet[0].ended("alias", alias="challenger", version="1.0.0")
        found = [member.catalog.lease(ModelRef(alias="challenger")).version for member in fleet]
        await fleet[1].ended("alias", alias="challenger", version="2.0.0")
        moved = [member.catalog.lease(ModelRef(alias="challenger")).version for member in fleet]
        removed = await fleet[0].ended("alias", alias="challenger")

        with pytest.raises(ModelNotFoundError, match="no alias"):
            fleet[1].catalog.lease(ModelRef(alias="challenger"))

    assert found == ["1.0.0"] * 2
    assert moved == ["2.0.0"] * 2
    assert (removed.from_version, removed.to_version, removed.state) == ("2.0.0", None, "done")


async def test_choices_and_aliases_are_there_after_a_restart(repository, tmp_path):
    async with members(repository, tmp_path) as (member,):
        await member.ended("promote", version="1.0.0")
        await member.ended("alias", alias="next", version="2.0.0")

    async with members(repository, tmp_path) as (member,):
        assert member.serving == "1.0.0"
        assert member.catalog.lease(ModelRef(alias="next")).version == "2.0.0"


async def test_a_choice_by_hand_stays_until_a_higher_version_comes_and_is_asked_for(repository, tmp_path):
    async with members(repository, tmp_path) as (member,):
        await member.ended("promote", version="1.0.0")
        kept = await member.ended("reload")
        save(repository / "m" / "3.0.0" / "model.joblib", 3)
        taken = await member.ended("reload")

    assert (kept.status, kept.to_version) == ("unchanged", "1.0.0")
    assert (taken.status, taken.to_version) == ("switched", "3.0.0")


async def test_the_version_before_is_held_and_then_let_go_of(repository, tmp_path):
    async with members(repository, tmp_path, rollback_hold_s=0.3) as (member,):
        await member.ended("promote", version="1.0.0")
        held = member.catalog.loaded("m", "2.0.0")
        await until(lambda: member.catalog.loaded("m", "2.0.0") is None)
        again = await member.ended("rollback")

        assert held is not None
        assert (again.state, member.answer) == ("done", 2.0)


async def test_a_version_is_loaded_when_it_is_asked_for(repository, tmp_path):
    async with members(repository, tmp_path) as (member,):
        ref = ModelRef(version="1.0.0")
        await asyncio.gather(*(member.switch.load(ref) for _ in range(3)))

        assert member.catalog.lease(ref).version == "1.0.0"
        assert member.serving == "2.0.0"


async def test_without_a_budget_no_version_is_loaded_on_demand(repository, tmp_path):
    async with members(repository, tmp_path, models_memory_bytes=0) as (member,):
        with pytest.raises(ModelNotReadyError, match="models_memory_bytes"):
            await member.switch.load(ModelRef(version="1.0.0"))


async def test_a_new_model_of_the_repository_comes_by_a_reload(repository, tmp_path):
    async with members(repository, tmp_path, 2) as fleet:
        save(repository / "n" / "1.0.0" / "model.joblib", 7)
        operation = await fleet[0].ended("reload", "n")
        with pytest.raises(ModelNotFoundError, match="no model 'o'"):
            await fleet[0].switch.begin("reload", "o")

        assert operation.state == "done"
        assert [member.catalog.lease(ModelRef(name="n")).version for member in fleet] == ["1.0.0"] * 2


async def test_operations_are_told_by_every_member(repository, tmp_path):
    async with members(repository, tmp_path, 2) as fleet:
        done = await fleet[0].ended("promote", version="1.0.0")
        failed = await fleet[0].ended("promote", version="7.0.0")

        told = await fleet[1].switch.operations()

        assert [operation.id for operation in told] == [failed.id, done.id]
        assert isinstance(failed.failure, ModelNotFoundError | Exception)
        assert await fleet[1].switch.operation("op-none") is None


async def test_a_model_in_memory_cannot_be_switched(tmp_path):
    from sklearn.linear_model import LogisticRegression

    from fitserve.store.catalog import Catalog
    from fitserve.store.verify import verifier_of

    settings, catalog = settings_of(tmp_path), Catalog()
    lifecycle = await asyncio.to_thread(Lifecycle, settings, catalog, None, verifier_of(settings))
    await asyncio.to_thread(lifecycle.adopt, LogisticRegression().fit([[0], [1]], [0, 1]), name="m", version="1")

    with pytest.raises(ConflictError, match="in memory"):
        await lifecycle.switch.begin("reload")


@pytest.mark.parametrize("content", [b"", b"nonsense"])
async def test_a_higher_version_that_cannot_be_served_is_not_passed_over(repository, tmp_path, content):
    async with members(repository, tmp_path) as (member,):
        path = repository / "m" / "10.0.0" / "model.joblib"
        await asyncio.to_thread(path.parent.mkdir)
        await asyncio.to_thread(path.write_bytes, content)
        broken = await member.ended("reload")
        path.parent.rename(repository / "m" / "0.5.0")
        lower = await member.ended("reload")

    assert broken.state == "failed"
    assert "m/10.0.0" in broken.error
    assert (lower.state, lower.status) == ("done", "unchanged"), "an old one that is broken stands in nobody's way"


async def test_a_path_that_is_one_model_keeps_its_name(file, tmp_path):
    async with members(file, tmp_path) as (member,):
        manifest = tmp_path / "m_v1.2.3.manifest.toml"
        await asyncio.to_thread(manifest.write_text, 'name = "other"\nversion = "2.0.0"\n')
        operation = await member.ended("reload")
        names = list(member.catalog.assignment.models)

    assert (operation.state, operation.to_version) == ("done", "2.0.0"), operation.error
    assert names == ["m"]
