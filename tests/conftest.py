"""What all tests share: fitted models on disk, and clients that call an application in-process."""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import joblib
import numpy as np
import pytest
from blockbuster import blockbuster_ctx
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fitserve.app import FitserveApp, create_app
from fitserve.settings import Settings

os.environ["FITSERVE_OPTIMIZE"] = "off"  # tests build hundreds of applications: those that want engines say so
os.environ["FITSERVE_STATE_DIR"] = tempfile.mkdtemp(prefix="fitserve-tests-")  # not the user's own


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def no_blocking_calls():
    """Fail a test in which fitserve blocks the event loop that it runs on."""
    with blockbuster_ctx("fitserve"):
        yield


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """A folder of model files, one of each kind that users bring."""
    folder = tmp_path_factory.mktemp("models")
    X, y = load_iris(return_X_y=True)
    species = load_iris().target_names[y]
    joblib.dump(LogisticRegression(max_iter=1000).fit(X, y), folder / "iris_v1.2.3.joblib")
    joblib.dump(LogisticRegression(max_iter=1000).fit(X, species), folder / "species_v1.0.pkl")
    X, y = load_breast_cancer(return_X_y=True)
    joblib.dump(RandomForestClassifier(100, random_state=0).fit(X, y), folder / "cancer_v2.joblib")
    diabetes = load_diabetes(as_frame=True)
    joblib.dump(
        make_pipeline(StandardScaler(), Ridge()).fit(diabetes.data, diabetes.target), folder / "diabetes.joblib"
    )
    return folder


@pytest.fixture(scope="session")
def datasets() -> dict[str, np.ndarray]:
    """200 rows for each model of ``models``, by file stem: real ones, repeated or cut."""
    found = {
        "iris_v1.2.3": load_iris().data,
        "species_v1.0": load_iris().data,
        "cancer_v2": load_breast_cancer().data,
        "diabetes": load_diabetes().data,
    }
    return {name: np.resize(X, (200, X.shape[1])) for name, X in found.items()}


@pytest.fixture
def make_app(models):
    """Build an application for a model file or a live estimator, with any settings."""

    def make(model: object = "iris_v1.2.3.joblib", **settings: object) -> FitserveApp:
        if isinstance(model, str):
            model = models / model
        # Loading blocks, as it may at the start of a server: in a thread, so that a test that is async may call this.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(create_app, model, settings=Settings(**{"optimize": "off", **settings})).result()

    return make


@pytest.fixture
def app_without_model() -> FitserveApp:
    """An application whose model has not been loaded."""
    return FitserveApp(Settings(optimize="off"), None)


@pytest.fixture
def client_of():
    """A client that calls an application without a socket."""

    def make(app: object, **options: object) -> httpx2.AsyncClient:
        transport = httpx2.ASGITransport(app=app, **options)
        return httpx2.AsyncClient(transport=transport, base_url="http://localhost")

    return make
