"""Models of every library answer in forked workers as they do where they were fitted."""

from __future__ import annotations

import joblib
import numpy as np
import pytest
from e2e import servers
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.neural_network import MLPClassifier

KIND = "fitserve, 2 workers"
RNG = np.random.default_rng(0)
X = RNG.normal(size=(800, 6))
Y = (X[:, 0] * X[:, 1] > 0).astype(int)
FRESH = {"Connection": "close"}


def xgboost():
    return pytest.importorskip("xgboost").XGBClassifier(n_estimators=50, n_jobs=2)


def lightgbm():
    return pytest.importorskip("lightgbm").LGBMClassifier(n_estimators=50, verbose=-1)


MODELS = {
    "histograms": lambda: HistGradientBoostingClassifier(max_iter=50),
    "forest": lambda: RandomForestClassifier(200, n_jobs=-1),
    "network": lambda: MLPClassifier((50, 50), max_iter=10),
    "xgboost": xgboost,
    "lightgbm": lightgbm,
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", MODELS)
def test_libraries_with_threads_predict_in_forked_workers(name, tmp_path):
    model = MODELS[name]().fit(X, Y)
    joblib.dump(model, tmp_path / f"{name}_v1.joblib")
    environ = {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2", "FITSERVE_LAME_DUCK_S": "0.5"}
    with servers.running(KIND, tmp_path / f"{name}_v1.joblib", tmp_path, **environ) as (client, _, log):
        servers.wait_until(lambda: "is served at" in log.read_text(), 60)
        batches = [
            client.post("/predict/batch", json={"instances": X.tolist()}, headers=FRESH).json()["predictions"]
            for _ in range(6)
        ]
        rows = [
            client.post("/predict", json={"features": row}, headers=FRESH).json()["prediction"]
            for row in X[:20].tolist()
        ]

    assert batches == [model.predict(X).tolist()] * 6
    assert rows == model.predict(X[:20]).tolist()
    assert "for itself" not in log.read_text(), "they were not forked"
