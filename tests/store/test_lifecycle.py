"""A version's way into service, and what happens when it fails on the way."""

from __future__ import annotations

import asyncio
import shutil
import time

import joblib
import numpy as np
import pytest
from faulty import FailsItsRow
from sklearn.linear_model import LogisticRegression

from fitserve.errors import ArtifactError, ArtifactNotFoundError, ConflictError, ModelNotFoundError, ModelNotReadyError
from fitserve.store.catalog import Catalog
from fitserve.store.lifecycle import Lifecycle, load_model
from fitserve.store.loading import adopt_model
from fitserve.store.verify import Verifier
from fitserve.trust.policy import TrustPolicy
from fitserve.types import ModelRef

pytestmark = pytest.mark.anyio


async def off_loop(call):
    return await asyncio.to_thread(call)


@pytest.fixture
def served(tmp_path, models):
    """A lifecycle that serves its own copy of a model file."""
    path = tmp_path / "iris_v1.0.joblib"
    shutil.copy(models / "iris_v1.2.3.joblib", path)
    policy = TrustPolicy(allow=frozenset({"faulty.FailsItsRow"}))
    lifecycle = Lifecycle(Catalog(), path, Verifier(policy))
    lifecycle.start()
    return lifecycle


def other_model():
    return LogisticRegression().fit([[0, 0, 0, 0], [1, 1, 1, 1]], ["no", "yes"])


async def test_nothing_is_leased_before_the_start():
    with pytest.raises(ModelNotReadyError):
        Catalog().lease(ModelRef())


def test_a_start_tells_the_path(tmp_path):
    with pytest.raises(ArtifactNotFoundError, match=r"nowhere\.joblib does not exist"):
        Lifecycle(Catalog(), tmp_path / "nowhere.joblib").start()
    with pytest.raises(ArtifactError, match="MODEL_PATH"):
        Lifecycle(Catalog(), None).start()


async def test_a_changed_file_is_switched_to_and_the_old_lease_lives_on(served):
    catalog = served._catalog
    lease = catalog.lease(ModelRef())
    joblib.dump(other_model(), served.path)

    loaded, previous = await served.reload(off_loop)

    assert previous is lease
    assert catalog.lease(ModelRef()) is loaded
    assert loaded.digest != lease.digest
    assert loaded.model.signature.classes == (("no", "yes"),)
    assert lease.model.predict(np.zeros((1, 4))).predictions.tolist() == [0]


async def test_an_unchanged_file_changes_nothing(served):
    before = served._catalog.current

    assert await served.reload(off_loop) == (before, before)


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
async def test_a_file_that_cannot_be_served_leaves_the_old_one(served, content):
    before = served._catalog.current
    served.path.unlink()
    if content is not None:
        served.path.write_bytes(content)

    with pytest.raises(ArtifactError) as caught:
        await served.reload(off_loop)

    assert served._catalog.current is before
    assert str(served.path.parent) not in str(caught.value)


async def test_a_model_that_fails_its_test_row_is_not_switched_to(served, monkeypatch):
    before = served._catalog.current
    joblib.dump(FailsItsRow().fit([[0] * 4, [1] * 4], [0, 1]), served.path)

    with pytest.raises(ArtifactError, match="RuntimeError on a test row") as caught:
        await served.reload(off_loop)

    assert served._catalog.current is before
    assert "hunter2" not in str(caught.value)


async def test_only_one_reload_at_a_time(served):
    gate = asyncio.Event()

    async def slowly(call):
        await gate.wait()
        return await asyncio.to_thread(call)

    first = asyncio.create_task(served.reload(slowly))
    await asyncio.sleep(0)
    with pytest.raises(ConflictError, match="under way"):
        await served.reload(off_loop)
    gate.set()
    await first

    await served.reload(off_loop)


async def test_one_worker_of_several_does_not_switch_alone(served):
    served._is_one_of_several = True
    before = served._catalog.current
    assert (await served.reload(off_loop))[0] is before, "unchanged is unchanged in all"
    joblib.dump(other_model(), served.path)

    with pytest.raises(ConflictError, match="SIGHUP"):
        await served.reload(off_loop)

    assert served._catalog.current is before


async def test_a_model_in_memory_has_no_file_to_read_again():
    catalog = Catalog()
    catalog.switch(await asyncio.to_thread(adopt_model, other_model(), name="m", version="1"))

    with pytest.raises(ConflictError, match="in memory"):
        await Lifecycle(catalog, None).reload(off_loop)


def test_only_loaded_versions_are_leased(models):
    catalog = Catalog()
    catalog.switch(load_model(models / "iris_v1.2.3.joblib"))

    assert catalog.lease(ModelRef("1.2.3")) is catalog.lease(ModelRef())
    with pytest.raises(ModelNotFoundError, match=r"no model version '2'; loaded: 1\.2\.3"):
        catalog.lease(ModelRef("2"))


@pytest.mark.parametrize("word", ["", "1 2", "a\r\nX-Injected: 1", "é", "x" * 65])
def test_a_name_or_version_that_no_header_could_hold_is_refused(word):
    with pytest.raises(ArtifactError, match="no name or version"):
        adopt_model(other_model(), name=word or " ", version="1")
    if word:
        with pytest.raises(ArtifactError, match="no name or version"):
            adopt_model(other_model(), name="m", version=word)


class Slow(LogisticRegression):
    calls = 0

    def predict_proba(self, X):
        type(self).calls += 1
        time.sleep(1.1)
        return super().predict_proba(X)


def test_a_slow_model_is_tried_few_times():
    model = Slow().fit([[0], [1]], [0, 1])

    loaded = adopt_model(model, name="slow", version=None)

    assert loaded.trial.has_answered
    assert Slow.calls <= 3
    assert loaded.forms.native.cost.expected_s(1) > 1.0
