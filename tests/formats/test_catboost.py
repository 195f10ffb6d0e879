"""CatBoost files: which labels they have, and what is said of those that are not served."""

import numpy as np
import pytest
from formats.samples import COMMON_CATBOOST, _classes, _matrix, artifact_of, catboost_model, sample

from fitserve.errors import ArtifactError
from fitserve.formats.catboost import FORMAT, explain
from fitserve.trust.policy import TrustPolicy


@pytest.mark.parametrize(
    "labels", [["no", "yes"], [False, True], [3, 7], [0.5, 1.5]], ids=["texts", "booleans", "integers", "floats"]
)
def test_labels_are_those_of_the_fitting(labels):
    import catboost

    model = catboost.CatBoostClassifier(**COMMON_CATBOOST).fit(_matrix(), np.array(labels)[_classes()])
    served = FORMAT.load(artifact_of(model._serialize_model()), TrustPolicy())

    predictions = served.predict(served.signature.check(_matrix()[:20].tolist())).predictions.tolist()

    assert served.signature.classes == (tuple(labels),)
    assert set(predictions) == set(labels)
    assert {type(label) for label in predictions} == {type(labels[0])}


@pytest.mark.parametrize(
    "loss", ["RMSE", "Poisson", "Tweedie:variance_power=1.5", "RMSEWithUncertainty", "MultiQuantile:alpha=0.1,0.9"]
)
def test_a_regression_answers_as_the_model_that_was_fitted(loss):
    import catboost

    counts = np.floor(np.abs(_matrix()[:, 0]) * 3)
    model = catboost.CatBoostRegressor(loss_function=loss, **COMMON_CATBOOST).fit(_matrix(), counts)
    served = FORMAT.load(artifact_of(model._serialize_model()), TrustPolicy())

    outputs = served.predict(served.signature.check(_matrix()[:20].tolist()))

    np.testing.assert_allclose(outputs.predictions, model.predict(_matrix()[:20]))


def test_a_ranking_gives_values():
    import catboost

    groups = np.repeat(np.arange(20), 10)
    model = catboost.CatBoostRanker(**COMMON_CATBOOST).fit(_matrix(), _classes(), group_id=groups)
    served = FORMAT.load(artifact_of(model._serialize_model()), TrustPolicy())

    outputs = served.predict(served.signature.check(_matrix()[:5].tolist()))

    np.testing.assert_allclose(outputs.predictions, model.predict(_matrix()[:5]))
    assert outputs.probabilities is None


def test_an_unknown_category_is_the_model_s_own_business():
    served = FORMAT.load(sample("catboost categories cbm").artifact, TrustPolicy())
    row = {"age": None, "city": "Atlantis", "income": 0.5}

    outputs = served.predict(served.signature.check([row]))

    assert outputs.predictions[0] in {"no", "yes"}


def test_json_is_refused_with_what_to_save_instead(tmp_path):
    path = tmp_path / "model.json"
    catboost_model("binary").estimator.save_model(path, format="json")
    artifact = artifact_of(path.read_bytes())

    assert FORMAT.matches(artifact)
    with pytest.raises(ArtifactError, match=r"reads from a path only: save it as \.cbm"):
        FORMAT.load(artifact, TrustPolicy())


def test_an_error_is_told_without_place_or_path():
    assert explain(RuntimeError("catboost/libs/model/model.cpp:1185: Incorrect model file")) == "Incorrect model file"
    assert explain(RuntimeError("")) == "RuntimeError"
