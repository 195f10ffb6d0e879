"""LightGBM texts: which are taken, what they answer, and which labels they have."""

import numpy as np
import pytest
from formats.samples import _matrix, artifact_of, lightgbm_model, sample

from fitserve.errors import ArtifactError
from fitserve.formats.lightgbm import FORMAT
from fitserve.trust.policy import TrustPolicy
from fitserve.types import Declared


@pytest.mark.parametrize(
    ("data", "is_taken"),
    [(b"tree\nversion=v4\n", True), (b"tree\r\nversion=v4", True), (b"tree", False), (b"tree\n\nversion=v4", False)],
)
def test_a_text_is_known_by_its_first_lines(data, is_taken):
    assert FORMAT.matches(artifact_of(data)) is is_taken


def test_labels_are_numbers_unless_they_are_declared():
    text = sample("lightgbm named classes text").artifact.data
    numbered = FORMAT.load(artifact_of(text), TrustPolicy())
    named = FORMAT.load(artifact_of(text, declared=Declared(classes=("low", "mid", "top"))), TrustPolicy())
    rows = _matrix()[:20].tolist()

    predictions = [model.predict(model.signature.check(rows)).predictions for model in (numbered, named)]

    assert numbered.signature.classes == ((0, 1, 2),)
    assert named.signature.classes == (("low", "mid", "top"),)
    assert np.array(["low", "mid", "top"])[predictions[0].astype(int)].tolist() == list(predictions[1])


def test_a_regression_has_no_classes():
    served = FORMAT.load(sample("lightgbm linear text").artifact, TrustPolicy())

    assert served.signature.classes is None
    assert not served.signature.has_probabilities


def test_categories_of_a_pandas_table_are_known():
    served = FORMAT.load(sample("lightgbm categories text").artifact, TrustPolicy())

    city = next(column for column in served.signature.inputs if column.name == "city")
    assert city.categories == ("Bern", "Oslo", "Rome")


def test_what_only_lightgbm_finds_is_told_in_one_line():
    data = sample("lightgbm binary text").artifact.data.replace(
        b"objective=binary sigmoid:1", b"objective=binary sigmoid:0"
    )

    with pytest.raises(ArtifactError, match="is damaged, or no LightGBM model: .*[Ss]igmoid") as refusal:
        FORMAT.load(artifact_of(data), TrustPolicy())
    assert "\n" not in str(refusal.value)


def test_what_a_booster_answers_is_what_its_wrapper_does():
    trained = lightgbm_model("binary")
    served = FORMAT.load(sample("lightgbm binary text").artifact, TrustPolicy())

    outputs = served.predict(served.signature.check(trained.rows))

    assert outputs.predictions.tolist() == trained.predictions.tolist()
    np.testing.assert_array_equal(outputs.probabilities[0], trained.probabilities)
