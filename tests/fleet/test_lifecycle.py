"""What a process begins with, and what it cannot begin with."""

from __future__ import annotations

import time

import pytest
from faulty import FailsItsRow
from fleet.fleets import members, save, settings_of
from sklearn.linear_model import LogisticRegression

from fitserve.errors import ArtifactError, ArtifactNotFoundError, SettingsError
from fitserve.fleet.lifecycle import Lifecycle
from fitserve.store.catalog import Catalog
from fitserve.store.loading import adopt_model
from fitserve.store.verify import verifier_of
from fitserve.types import ModelRef


def lifecycle_of(path, folder, **fields):
    settings = settings_of(folder, **fields)
    return Lifecycle(settings, Catalog(), path, verifier_of(settings))


def other_model():
    return LogisticRegression().fit([[0, 0, 0, 0], [1, 1, 1, 1]], ["no", "yes"])


def test_a_start_tells_the_path(tmp_path):
    with pytest.raises(ArtifactNotFoundError, match=r"nowhere\.joblib does not exist"):
        lifecycle_of(tmp_path / "nowhere.joblib", tmp_path).start()
    with pytest.raises(ArtifactError, match="MODEL_PATH"):
        lifecycle_of(None, tmp_path).start()


def test_of_a_repository_the_broken_model_is_passed_over_and_the_default_one_is_not(tmp_path, caplog):
    save(tmp_path / "models" / "good" / "1.0.0" / "model.joblib", 1)
    broken = tmp_path / "models" / "worse" / "1.0.0" / "model.joblib"
    save(broken, 1)
    broken.write_bytes(broken.read_bytes()[:100])

    loaded = lifecycle_of(tmp_path / "models", tmp_path).start()
    with pytest.raises(ArtifactError, match=r"worse.*truncated"):
        lifecycle_of(tmp_path / "models", tmp_path, default_model="worse").start()

    assert loaded.name == "good"
    assert "the model worse is not served" in caplog.text


def test_a_default_model_that_is_not_there_stops_the_start(tmp_path):
    save(tmp_path / "models" / "good" / "1.0.0" / "model.joblib", 1)

    with pytest.raises(SettingsError, match="did you mean 'good'"):
        lifecycle_of(tmp_path / "models", tmp_path, default_model="god").start()


@pytest.mark.parametrize("policy", ["newest", "latest:", "churn@"])
def test_a_policy_that_says_nothing_stops_the_start(tmp_path, policy):
    with pytest.raises(SettingsError, match="neither serving, nor latest:N, nor all, nor NAME@VERSION"):
        lifecycle_of(tmp_path, tmp_path, keep_loaded=(policy,))


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("policy", "kept"),
    [(("serving",), ["3.0.0"]), (("latest:2",), ["2.0.0", "3.0.0"]), (("all",), ["1.0.0", "2.0.0", "3.0.0"]),
     (("m@1.0.0",), ["1.0.0", "3.0.0"])],
)  # fmt: skip
async def test_a_policy_says_what_is_kept_in_memory(tmp_path, policy, kept):
    for value in (1, 2, 3):
        save(tmp_path / "models" / "m" / f"{value}.0.0" / "model.joblib", value)

    async with members(tmp_path / "models", tmp_path, keep_loaded=policy) as (member,):
        found = sorted(loaded.version for loaded in member.catalog.in_memory())

    assert found == kept


@pytest.mark.anyio
async def test_a_model_that_fails_its_test_row_is_not_switched_to(tmp_path):
    import joblib

    path = save(tmp_path / "m_v1.joblib", 1)
    async with members(path, tmp_path, allow=("faulty.FailsItsRow",)) as (member,):
        joblib.dump(FailsItsRow().fit([[0] * 4, [1] * 4], [0, 1]), path)
        operation = await member.ended("reload")

        assert operation.state == "failed"
        assert "RuntimeError on a test row" in operation.error
        assert "hunter2" not in operation.error
        assert member.catalog.lease(ModelRef()).version == "1"


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
