"""The mission's API: what clients of the hand-rolled servers rely on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC

from fitserve.app import create_app
from fitserve.errors import SettingsError
from fitserve.settings import Settings

pytestmark = pytest.mark.anyio

ROW = [5.1, 3.5, 1.4, 0.2]
NAMED = {f"x{i}": value for i, value in enumerate(ROW)}
PAIRS = [{"name": name, "value": value} for name, value in NAMED.items()]


@pytest.mark.parametrize("features", [ROW, NAMED, PAIRS, PAIRS[::-1], [int(value) for value in ROW]])
async def test_features_may_be_a_list_an_object_or_pairs(make_app, client_of, models, features):
    values = {pair["name"]: pair["value"] for pair in features} if features in (PAIRS, PAIRS[::-1]) else features
    row = list(dict(sorted(values.items())).values()) if isinstance(values, dict) else values

    async with client_of(make_app()) as client:
        reply = await client.post("/predict", json={"features": features})

    expected = joblib.load(models / "iris_v1.2.3.joblib").predict_proba([row])[0]
    assert reply.status_code == 200
    body = reply.json()
    assert body["prediction"] == expected.argmax()
    assert body["probability"] == pytest.approx(expected.max(), abs=1e-12)
    assert body["probabilities"] == pytest.approx(dict(zip("012", expected, strict=True)), abs=1e-12)


async def test_a_batch_may_be_columns(make_app, client_of, models, datasets):
    X = datasets["iris_v1.2.3"]
    columns = {f"x{i}": X[:, i].tolist() for i in (2, 0, 3, 1)}

    async with client_of(make_app()) as client:
        rows = (await client.post("/predict/batch", json={"instances": X.tolist()})).json()
        same = (await client.post("/predict/batch", json={"instances": columns})).json()

    assert same["count"] == len(X)
    assert (same["predictions"], same["probabilities"]) == (rows["predictions"], rows["probabilities"])


async def test_a_reply_has_exactly_the_documented_members(make_app, client_of):
    async with client_of(make_app()) as client:
        one = (await client.post("/predict", json={"features": ROW})).json()
        many = (await client.post("/predict/batch", json={"instances": [ROW, NAMED]})).json()

    assert set(one) == {"prediction", "probability", "probabilities", "model_version", "latency_ms", "timestamp"}
    assert set(many) == {"predictions", "probabilities", "model_version", "latency_ms", "count", "timestamp"}
    assert many["count"] == 2
    assert one["model_version"] == many["model_version"] == "1.2.3"
    assert one["latency_ms"] >= 0
    timestamp = datetime.fromisoformat(one["timestamp"])
    assert timestamp.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - timestamp) < timedelta(minutes=1)


@pytest.mark.parametrize("stem", ["iris_v1.2.3.joblib", "species_v1.0.pkl", "cancer_v2.joblib"])
async def test_a_batch_is_what_scikit_learn_says(make_app, client_of, models, datasets, stem):
    X = datasets[stem.rpartition(".")[0]]
    estimator = joblib.load(models / stem)

    async with client_of(make_app(stem)) as client:
        body = (await client.post("/predict/batch", json={"instances": X.tolist()})).json()

    assert body["predictions"] == estimator.predict(X).tolist()
    np.testing.assert_allclose(body["probabilities"], estimator.predict_proba(X).max(axis=1), rtol=0, atol=1e-12)


async def test_a_regressor_has_no_probabilities(make_app, client_of, models, datasets):
    X = datasets["diabetes"]
    async with client_of(make_app("diabetes.joblib")) as client:
        one = (await client.post("/predict", json={"features": X[0].tolist()})).json()
        many = (await client.post("/predict/batch", json={"instances": X.tolist()})).json()

    import pandas as pd

    estimator = joblib.load(models / "diabetes.joblib")
    expected = estimator.predict(pd.DataFrame(X, columns=estimator.feature_names_in_))
    np.testing.assert_allclose(many["predictions"], expected, rtol=1e-12)
    assert one["prediction"] == many["predictions"][0]
    assert one["probability"] is one["probabilities"] is many["probabilities"] is None


async def test_labels_keep_their_type(make_app, client_of):
    X, y = load_iris(return_X_y=True)
    wanted = {"strings": np.array(["a", "b", "c"])[y], "booleans": y == 1, "floats": y * 2.0, "integers": y - 7}
    for labels in wanted.values():
        model = LogisticRegression(max_iter=1000).fit(X, labels)
        async with client_of(make_app(model)) as client:
            body = (await client.post("/predict", json={"features": ROW})).json()

        label = model.predict([ROW])[0].item() if labels.dtype.kind != "U" else str(model.predict([ROW])[0])
        assert body["prediction"] == label
        assert type(body["prediction"]) is type(label)


async def test_booleans_are_keyed_as_json_spells_them(make_app, client_of):
    X, y = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=1000).fit(X, y == 1)

    async with client_of(make_app(model)) as client:
        body = (await client.post("/predict", json={"features": ROW})).json()

    assert set(body["probabilities"]) == {"false", "true"}


async def test_the_probability_is_that_of_the_predicted_class(make_app, client_of):
    """SVC's labels and probabilities come from two models, which differ on some rows."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 2))
    y = rng.integers(0, 2, 60)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = SVC(probability=True, random_state=0).fit(X, y)
    labels, proba = model.predict(X), model.predict_proba(X)
    assert (labels != proba.argmax(axis=1)).any(), "the data must make the two disagree"

    async with client_of(make_app(model)) as client:
        body = (await client.post("/predict/batch", json={"instances": X.tolist()})).json()

    assert body["predictions"] == labels.tolist()
    np.testing.assert_allclose(body["probabilities"], proba[np.arange(60), labels], atol=1e-12)


async def test_a_model_of_several_outputs_gives_lists(make_app, client_of):
    X, y = load_iris(return_X_y=True)
    two = np.column_stack([y, y == 1]).astype(int)
    forest = RandomForestClassifier(5, random_state=0).fit(X, two)
    linear = LinearRegression().fit(X, two)

    async with client_of(make_app(forest)) as client:
        classes = (await client.post("/predict", json={"features": ROW})).json()
        batch = (await client.post("/predict/batch", json={"instances": X[:3].tolist()})).json()
    async with client_of(make_app(linear)) as client:
        values = (await client.post("/predict", json={"features": ROW})).json()

    assert classes["prediction"] == forest.predict([ROW])[0].tolist()
    assert [set(one) for one in classes["probabilities"]] == [{"0", "1", "2"}, {"0", "1"}]
    assert classes["probability"] == [part[0].max() for part in forest.predict_proba([ROW])]
    assert batch["predictions"] == forest.predict(X[:3]).tolist()
    assert values["prediction"] == pytest.approx(linear.predict([ROW])[0].tolist())


async def test_a_multi_label_model_gives_each_label_its_probability(make_app, client_of):
    X, y = load_iris(return_X_y=True)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = MLPClassifier((4,), max_iter=20, random_state=0).fit(X, np.column_stack([y == 0, y == 1]).astype(int))

    async with client_of(make_app(model)) as client:
        body = (await client.post("/predict", json={"features": ROW})).json()

    proba = model.predict_proba([ROW])[0]
    assert body["prediction"] == model.predict([ROW])[0].tolist()
    assert [one["1"] for one in body["probabilities"]] == pytest.approx(proba.tolist())


async def test_a_version_is_honoured_or_refused(make_app, client_of):
    async with client_of(make_app()) as client:
        right = await client.post("/predict", json={"features": ROW, "model_version": "1.2.3"})
        anyone = await client.post("/predict", json={"features": ROW, "model_version": None})
        wrong = await client.post("/predict", json={"features": ROW, "model_version": "9.9.9"})
        batch = await client.post("/predict/batch", json={"instances": [ROW], "model_version": "9.9.9"})

    assert right.status_code == anyone.status_code == 200
    assert wrong.status_code == batch.status_code == 404
    assert "9.9.9" in wrong.json()["error"]
    assert "1.2.3" in wrong.json()["error"]


async def test_the_model_is_called_once(make_app, client_of):
    class Counting(LogisticRegression):
        calls = 0

        def predict_proba(self, X):
            type(self).calls += 1
            return super().predict_proba(X)

    X, y = load_iris(return_X_y=True)
    app = make_app(Counting(max_iter=1000).fit(X, y))
    Counting.calls = 0

    async with client_of(app) as client:
        await client.post("/predict/batch", json={"instances": X.tolist()})

    assert Counting.calls == 1


async def test_max_batch_size_is_the_limit(make_app, client_of):
    async with client_of(make_app(max_batch_size=3)) as client:
        three = await client.post("/predict/batch", json={"instances": [ROW] * 3})
        four = await client.post("/predict/batch", json={"instances": [ROW] * 4})

    assert three.status_code == 200
    assert four.status_code == 422
    assert "1 to 3 rows" in four.json()["detail"]
    assert "4 rows" in four.json()["detail"]


async def test_model_info_tells_what_serves(make_app, client_of, models):
    async with client_of(make_app("species_v1.0.pkl")) as client:
        body = (await client.get("/model/info")).json()

    assert body["version"] == "1.0"
    assert body["name"] == "species"
    assert body["model_type"] == "LogisticRegression"
    assert body["uptime_seconds"] >= 0
    assert datetime.fromisoformat(body["loaded_at"]).utcoffset() == timedelta(0)
    assert body["classes"] == ["setosa", "versicolor", "virginica"]
    assert [feature["name"] for feature in body["features"]] == ["x0", "x1", "x2", "x3"]
    assert body["features"][0] == {
        "name": "x0",
        "kind": "number",
        "is_nullable": False,
        "categories": None,
        "is_closed": False,
        "largest": pytest.approx(3.4e38, rel=0.01),
        "learnt_from": "LogisticRegression",
    }
    assert body["outputs"] == ["predict", "predict_proba", "decision_function"]
    assert body["size_bytes"] == (models / "species_v1.0.pkl").stat().st_size
    import hashlib

    import sklearn

    digest = hashlib.sha256((models / "species_v1.0.pkl").read_bytes()).hexdigest()
    assert body["digest"] == f"sha256:{digest}"
    assert body["libraries"]["scikit-learn"] == {"at_fit": sklearn.__version__, "now": sklearn.__version__}


async def test_every_response_carries_the_three_headers(make_app, client_of):
    async with client_of(make_app()) as client:
        replies = [
            await client.get("/health"),
            await client.get("/docs"),
            await client.get("/openapi.json"),
            await client.get("/nothing-here"),
            await client.put("/predict"),
            await client.post("/predict", json={"features": ROW}),
            await client.post("/predict", content=b"{"),
        ]

    for reply in replies:
        assert float(reply.headers["X-Process-Time"]) >= 0
        assert reply.headers["X-Model-Version"] == "1.2.3"
        assert reply.headers["X-Request-ID"]
    ids = [reply.headers["X-Request-ID"] for reply in replies]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    ("given", "is_taken"), [("abc-123/x:y", True), ("a" * 128, True), ("a" * 129, False), ("a b", False), ("ü", False)]
)
async def test_a_valid_request_id_is_taken_over(make_app, client_of, given, is_taken):
    async with client_of(make_app()) as client:
        reply = await client.get("/nope", headers={"X-Request-ID": given.encode()})

    assert (reply.headers["X-Request-ID"] == given) is is_taken
    assert reply.json()["request_id"] == reply.headers["X-Request-ID"]


async def test_the_reply_says_whether_the_cache_had_every_row(make_app, client_of):
    app = make_app(cache="memory://")
    rows = [[5.1, 3.5, 1.4, 0.2], [6.2, 3.4, 5.4, 2.3]]
    async with client_of(app) as client:
        replies = [
            await client.post("/predict", json={"features": rows[0]}),
            await client.post("/predict", json={"features": rows[0]}),
            await client.post("/predict/batch", json={"instances": rows}),
            await client.post("/predict/batch", json={"instances": rows}),
            await client.post("/predict", json={"features": [1, 2, 3]}),
        ]
    assert [reply.headers.get("x-cache") for reply in replies] == ["miss", "hit", "miss", "hit", None]
    assert replies[0].json()["probabilities"] == replies[1].json()["probabilities"]


async def test_without_a_cache_no_header_speaks_of_it(make_app, client_of):
    async with client_of(make_app()) as client:
        reply = await client.post("/predict", json={"features": [5.1, 3.5, 1.4, 0.2]})
    assert "x-cache" not in reply.headers


def test_a_cache_of_no_known_kind_stops_the_start(models):
    with pytest.raises(SettingsError, match="memory://"):
        create_app(models / "iris_v1.2.3.joblib", settings=Settings(cache="memroy://"))
