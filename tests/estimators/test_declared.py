"""What is declared besides the model: whose word counts, field by field."""

from __future__ import annotations

import numpy as np
import pytest
from estimators.corpus_parts import FORMS, LGBM, T, encoded
from estimators.tables import target
from lightgbm import LGBMClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from xgboost import XGBClassifier

from fitserve.errors import ArtifactError
from fitserve.estimators.model import EstimatorModel
from fitserve.signature import Field
from fitserve.types import Declared

pytestmark = pytest.mark.filterwarnings("ignore")

BARE = T[["fare", "sibsp"]].to_numpy()


def served(model, **declared):
    return EstimatorModel(model, declared=Declared(**declared))


def columns():
    return make_pipeline(encoded(), LogisticRegression()).fit(FORMS, target())


def test_the_manifest_wins_over_mlflow_and_mlflow_over_the_estimator():
    names = list(FORMS)
    mlflow = tuple(Field(name, "string" if name in {"sex", "embarked"} else "number") for name in names)
    manifest = tuple(
        Field(name, "string" if name in {"sex", "embarked"} else "number", is_nullable=name == "age")
        for name in names[::-1]
    )

    by_mlflow = {field.name: field for field in served(columns(), mlflow_fields=mlflow).signature.inputs}
    by_both = served(columns(), mlflow_fields=mlflow, fields=manifest).signature

    assert by_mlflow["age"].learnt_from == "mlflow"
    assert not by_mlflow["age"].is_nullable, "required, says the MLflow signature"
    assert by_mlflow["sex"].categories == ("female", "male"), "which only the encoder tells"
    assert by_both.names == tuple(names), "the order of fitting"
    assert {field.learnt_from for field in by_both.inputs} == {"manifest"}
    assert [field.name for field in by_both.inputs if field.is_nullable] == ["age"]


def test_a_null_that_is_declared_and_that_the_model_refuses_is_refused_and_noted():
    model = LinearRegression().fit(BARE, T["pclass"])

    found = served(model, fields=(Field("fare", is_nullable=True), Field("sibsp")))

    assert not found.signature.inputs[0].is_nullable
    assert "column 'fare' may be null by its declaration" in found.facts.warnings[0]


def test_declared_names_name_the_columns_of_a_model_without_names():
    model = LinearRegression().fit(BARE, T["pclass"])

    found = served(model, fields=(Field("fare"), Field("siblings", largest=10.0)))
    outputs = found.predict(found.signature.check([{"siblings": 1, "fare": 2.5}]))

    assert found.signature.names == ("fare", "siblings")
    assert found.signature.inputs[1].largest == 10.0
    np.testing.assert_array_equal(outputs.predictions, model.predict([[2.5, 1.0]]))
    with pytest.raises(ArtifactError, match="a manifest whose inputs must name 2 features.*came: 1"):
        served(model, fields=(Field("fare"),))


def test_declared_names_must_be_those_of_the_model():
    with pytest.raises(
        ArtifactError, match="an MLflow signature whose inputs must name each feature once: age, .*came: other"
    ):
        served(columns(), mlflow_fields=(Field("other"),))


class Plan:
    def predict(self, X):
        return [len(row[0]) for row in X]


def test_fields_close_the_signature_of_a_model_that_tells_nothing():
    found = served(Plan(), fields=(Field("plan", "string", categories=("pro", "basic")),))

    assert not found.signature.is_open
    assert found.signature.inputs[0].learnt_from == "manifest"
    assert found.predict(found.signature.check([["basic"]])).predictions.tolist() == [5]


@pytest.mark.parametrize("labels", [("no", "yes"), (False, True), (10, 20)])
def test_declared_classes_name_the_numbers_of_a_booster(labels):
    for model in (
        LGBMClassifier(**LGBM).fit(BARE, target()).booster_,
        XGBClassifier(n_estimators=3).fit(BARE, target()),
    ):
        plain, named = served(model), served(model, classes=labels)
        X = named.signature.check(BARE[:30].tolist())

        assert named.signature.classes == (labels,)
        found = named.predict(X).predictions.tolist()
        assert found == [labels[i] for i in plain.predict(X).predictions]
        assert set(map(type, found)) == {type(labels[0])}


def test_declared_classes_must_be_as_many_as_the_model_has():
    model = XGBClassifier(n_estimators=3).fit(BARE, target())

    with pytest.raises(ArtifactError, match="has 3 declared classes, but the model knows 2"):
        served(model, classes=("a", "b", "c"))
    with pytest.raises(ArtifactError, match="not the model's own"):
        served(LogisticRegression().fit(BARE, target("str")), classes=("a", "b"))


def test_versions_are_declared_and_differences_noted():
    model = XGBClassifier(n_estimators=3).fit(BARE, target())

    facts = served(model, libraries={"xgboost": "1.7.0"}).facts

    assert facts.libraries["xgboost"][0] == "1.7.0"
    assert "fitted with xgboost 1.7.0" in facts.warnings[0]
    assert served(model).is_library_code
