"""What a request may ask for besides predictions: each output of the model, by scikit-learn's own name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.datasets import load_iris
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

pytestmark = pytest.mark.anyio

X, Y = load_iris(return_X_y=True)
SPECIES = load_iris().target_names[Y]
ROWS = X[::30].tolist()


async def ask(make_app, client_of, model, outputs):
    """The replies of both paths to the same rows, and the same by columns."""
    async with client_of(make_app(model)) as client:
        one = await client.post("/predict", json={"features": ROWS[0], "outputs": outputs})
        columns = {f"x{i}": [row[i] for row in ROWS] for i in range(4)}
        many = await client.post("/predict/batch", json={"instances": ROWS, "outputs": outputs})
        same = await client.post("/predict/batch", json={"instances": columns, "outputs": outputs})

    assert (one.status_code, many.status_code) == (200, 200), one.text + many.text
    for name in ("predictions", "probabilities", "outputs"):
        assert same.json()[name] == many.json()[name]
    return one.json(), many.json()


async def test_a_classifier_of_several_classes_gives_maps_by_label(make_app, client_of):
    model = LogisticRegression(max_iter=1000).fit(X, SPECIES)

    one, many = await ask(make_app, client_of, model, ["predict", "predict_proba", "decision_function"])

    assert set(one["outputs"]) == set(many["outputs"]) == {"predict", "predict_proba", "decision_function"}
    assert one["outputs"]["predict"] == one["prediction"]
    assert one["outputs"]["predict_proba"] == one["probabilities"]
    assert many["outputs"]["predict"] == many["predictions"] == model.predict(ROWS).tolist()
    for method in ("predict_proba", "decision_function"):
        for row, values in zip(many["outputs"][method], getattr(model, method)(ROWS), strict=True):
            assert row == pytest.approx(dict(zip(model.classes_, values, strict=True)), abs=1e-12)
        assert one["outputs"][method] == pytest.approx(many["outputs"][method][0], abs=1e-12)


async def test_two_classes_have_one_number(make_app, client_of):
    model = LinearSVC().fit(X, Y == 1)

    one, many = await ask(make_app, client_of, model, ["decision_function"])

    expected = model.decision_function(ROWS)
    np.testing.assert_allclose(many["outputs"]["decision_function"], expected, rtol=1e-12)
    assert one["outputs"] == {"decision_function": pytest.approx(expected[0])}


async def test_scores_of_pairs_of_classes_are_not_given_to_classes(make_app, client_of):
    model = SVC(decision_function_shape="ovo").fit(X, SPECIES)
    app = make_app(model)
    served = app.services.catalog.current.model
    served.signature = replace(served.signature, has_score_per_class=False)

    async with client_of(app) as client:
        reply = await client.post("/predict", json={"features": ROWS[0], "outputs": ["decision_function"]})

    assert reply.json()["outputs"]["decision_function"] == pytest.approx(model.decision_function(ROWS[:1])[0].tolist())


async def test_an_outlier_detector_scores(make_app, client_of):
    model = IsolationForest(n_estimators=20, random_state=0).fit(X)

    one, many = await ask(make_app, client_of, model, ["score_samples", "decision_function"])

    for method in ("score_samples", "decision_function"):
        np.testing.assert_allclose(many["outputs"][method], getattr(model, method)(ROWS), rtol=1e-12)
        assert one["outputs"][method] == pytest.approx(many["outputs"][method][0])


async def test_a_clusterer_gives_its_distances(make_app, client_of):
    model = KMeans(3, n_init=1, random_state=0).fit(X)

    _, many = await ask(make_app, client_of, model, ["transform"])

    assert many["predictions"] == model.predict(ROWS).tolist()
    np.testing.assert_allclose(many["outputs"]["transform"], model.transform(ROWS), rtol=1e-12)


async def test_the_prediction_of_a_transformer_is_the_transformed_row(make_app, client_of):
    model = StandardScaler().fit(X)

    one, many = await ask(make_app, client_of, model, ["transform"])

    np.testing.assert_allclose(many["predictions"], model.transform(ROWS), rtol=1e-12)
    assert one["outputs"]["transform"] == one["prediction"] == many["predictions"][0]
    assert many["outputs"]["transform"] == many["predictions"]
    assert one["probability"] is None


async def test_several_outputs_have_a_list_of_maps_each(make_app, client_of):
    model = RandomForestClassifier(5, random_state=0).fit(X, np.column_stack([Y, Y == 1]).astype(int))

    one, many = await ask(make_app, client_of, model, ["predict_proba"])

    assert one["outputs"]["predict_proba"] == one["probabilities"]
    expected = model.predict_proba(ROWS)
    for row, maps in enumerate(many["outputs"]["predict_proba"]):
        assert maps == [{str(i): p for i, p in enumerate(part[row])} for part in expected]


async def test_without_outputs_the_member_is_absent(make_app, client_of):
    async with client_of(make_app()) as client:
        replies = [
            await client.post("/predict", json={"features": ROWS[0]}),
            await client.post("/predict", json={"features": ROWS[0], "outputs": None}),
            await client.post("/predict/batch", json={"instances": ROWS}),
        ]
        empty = await client.post("/predict", json={"features": ROWS[0], "outputs": []})

    assert all("outputs" not in reply.json() for reply in replies)
    assert empty.json()["outputs"] == {}


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
@pytest.mark.parametrize(
    ("outputs", "told"),
    [
        (["transform"], "one of what this model offers in 'outputs': predict, predict_proba, decision_function"),
        (["predict", "predict_prob"], "did you mean 'predict_proba'?"),
        ([7], "came a number"),
        ([["predict"]], "came a list of 1 value"),
        ([None], "came null"),
        ("predict", "wanted a list of names or null in 'outputs'; came a string"),
        ({"predict": True}, "came an object of 1 member"),
    ],
)
async def test_what_the_model_does_not_offer_is_refused(make_app, client_of, path, outputs, told):
    rows = {"features": ROWS[0]} if path == "/predict" else {"instances": ROWS}
    async with client_of(make_app()) as client:
        reply = await client.post(path, json={**rows, "outputs": outputs})

    assert reply.status_code == 422
    assert told in reply.json()["detail"]


class Unsound:
    """Offers a score that is not finite for a negative number, and too few of them for a large one."""

    n_features_in_ = 1

    def predict(self, X):
        return np.zeros(len(X))

    def score_samples(self, X):
        if X[0][0] > 9:
            return np.zeros(len(X) + 1)
        return np.where(np.asarray(X)[:, 0] < 0, -np.inf, 1.0)


async def test_numbers_that_are_not_finite_follow_the_setting_here_too(make_app, client_of):
    body = {"instances": [[1], [-1]], "outputs": ["score_samples"]}
    async with client_of(make_app(Unsound())) as client:
        null = await client.post("/predict/batch", json=body)
    async with client_of(make_app(Unsound(), nonfinite="error")) as client:
        error = await client.post("/predict/batch", json=body)
        unasked = await client.post("/predict/batch", json={"instances": [[1], [-1]]})

    assert null.json()["outputs"] == {"score_samples": [1.0, None]}
    assert (error.status_code, unasked.status_code) == (500, 200)


async def test_an_output_of_another_number_of_rows_is_a_fault_of_the_model(make_app, client_of):
    async with client_of(make_app(Unsound())) as client:
        reply = await client.post("/predict/batch", json={"instances": [[10], [10]], "outputs": ["score_samples"]})
        unasked = await client.post("/predict/batch", json={"instances": [[10], [10]]})

    assert reply.status_code == 500
    assert unasked.status_code == 200
