"""XGBoost files: which are taken, which wrapper answers, and what is said of those that are not served."""

import struct

import numpy as np
import pytest
from formats.samples import _classes, _matrix, artifact_of, sample

from fitserve.errors import ArtifactError
from fitserve.formats.xgboost import FORMAT, explain
from fitserve.trust.policy import TrustPolicy

OLD = struct.pack("<fIiiiII", 0.5, 4, 0, 0, 0, 1, 0).ljust(136, b"\0") + struct.pack("<Q", 15) + b"binary:logistic"


@pytest.mark.parametrize("data", [OLD, b"binf" + OLD])
def test_the_old_binary_format_is_refused_with_what_to_do(data):
    assert FORMAT.matches(artifact_of(data))
    with pytest.raises(ArtifactError, match=r"old binary format of XGBoost: .* save it again as \.ubj"):
        FORMAT.load(artifact_of(data), TrustPolicy())


@pytest.mark.parametrize(
    "head", [b' {\n "learner": {}', b'{"version": [3, 2, 0], "learner": {}', b'{"version":[3,2,0],"learner":']
)
def test_json_is_known_by_its_first_members(head):
    assert FORMAT.matches(artifact_of(head))


@pytest.mark.parametrize("head", [b'{"learners": 1', b'{"features_info": {}}', b'{"a": {"learner": 1}}', b"[]", b"{L"])
def test_other_json_is_not_taken_for_it(head):
    assert not FORMAT.matches(artifact_of(head))


def test_a_wrapper_that_stopped_early_answers_with_its_best_round(tmp_path):
    import xgboost

    X, y = _matrix(), _classes()
    model = xgboost.XGBClassifier(n_estimators=40, max_depth=2, early_stopping_rounds=2, n_jobs=1)
    model.fit(X[:150], y[:150], eval_set=[(X[150:], y[150:])], verbose=False)
    model.save_model(tmp_path / "model.ubj")
    served = FORMAT.load(artifact_of((tmp_path / "model.ubj").read_bytes()), TrustPolicy())

    outputs = served.predict(served.signature.check(X[:5].tolist()))

    np.testing.assert_allclose(outputs.probabilities[0], model.predict_proba(X[:5]), rtol=1e-6)


@pytest.mark.parametrize("objective", ["rank:ndcg", "count:poisson", "reg:absoluteerror", "reg:quantileerror"])
def test_the_objective_chooses_the_wrapper(objective):
    import xgboost

    X, y = _matrix(), _classes(3)
    data = xgboost.DMatrix(X, y)
    params = {"objective": objective, "max_depth": 2, "nthread": 1}
    if "quantile" in objective:
        params["quantile_alpha"] = 0.5
    if objective.startswith("rank"):
        data.set_info(qid=np.repeat(np.arange(20), 10))
    booster = xgboost.train(params, data, 3)
    served = FORMAT.load(artifact_of(bytes(booster.save_raw("json"))), TrustPolicy())

    outputs = served.predict(served.signature.check(X[:5].tolist()))

    assert outputs.probabilities is None
    np.testing.assert_allclose(outputs.predictions, booster.predict(xgboost.DMatrix(X[:5])), rtol=1e-6)


def test_what_only_xgboost_finds_is_told_in_one_line():
    data = sample("xgboost binary json").artifact.data.replace(b"binary:logistic", b"binary:nonsense")

    with pytest.raises(ArtifactError, match=r"is damaged, or no XGBoost model: .*binary:nonsense") as refusal:
        FORMAT.load(artifact_of(data), TrustPolicy())
    assert "\n" not in str(refusal.value)
    assert "/" not in str(refusal.value)


def test_an_error_is_told_without_time_trace_or_path():
    text = "[22:14:12] /workspace/src/c_api/c_api.cc:1625: Check failed: a > b\nStack trace:\n  [bt] (0) /usr/lib/x.so"

    assert explain(RuntimeError(text)) == "Check failed: a > b"
    assert explain(RuntimeError("")) == "RuntimeError"
