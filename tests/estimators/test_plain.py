"""The plain form gives what scikit-learn gives, each row the same bits in any company, or is not used."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import (
    BayesianRidge,
    ElasticNet,
    HuberRegressor,
    Lasso,
    LinearRegression,
    LogisticRegression,
    LogisticRegressionCV,
    Ridge,
    SGDRegressor,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, PolynomialFeatures, RobustScaler, StandardScaler

from fitserve.errors import InvalidInputError
from fitserve.estimators.plain import PlainForm, _agrees, _model, plain_form
from fitserve.formats.sklearn import snapshot

IRIS, CANCER, DIABETES = (load(return_X_y=True) for load in (load_iris, load_breast_cancer, load_diabetes))

CASES = {
    "three classes": (LogisticRegression(max_iter=1000), IRIS),
    "two classes": (LogisticRegression(max_iter=10_000), CANCER),
    "two classes, liblinear": (LogisticRegression(solver="liblinear"), CANCER),
    "cross-validated": (
        LogisticRegressionCV(max_iter=2000, l1_ratios=(0,), use_legacy_attributes=False, scoring="accuracy"),
        IRIS,
    ),
    "standard scaler": (make_pipeline(StandardScaler(), LogisticRegression()), IRIS),
    "standard scaler without mean": (make_pipeline(StandardScaler(with_mean=False), LogisticRegression()), CANCER),
    "standard scaler without deviation": (make_pipeline(StandardScaler(with_std=False), Ridge()), DIABETES),
    "min-max scaler": (make_pipeline(MinMaxScaler(), LogisticRegression()), CANCER),
    "three scalers": (make_pipeline(RobustScaler(), MaxAbsScaler(), "passthrough", Ridge()), DIABETES),
    "linear regression": (LinearRegression(), DIABETES),
    "lasso": (Lasso(), DIABETES),
    "elastic net": (ElasticNet(), DIABETES),
    "Bayesian": (BayesianRidge(), DIABETES),
    "Huber": (make_pipeline(StandardScaler(), HuberRegressor()), DIABETES),
    "gradient descent": (make_pipeline(StandardScaler(), SGDRegressor(random_state=0)), DIABETES),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(("estimator", "data"), CASES.values(), ids=CASES.keys())
def test_it_gives_what_the_estimator_gives(estimator, data):
    X, y = data
    model = estimator.fit(X, y)
    served = snapshot(model)
    assert served._calls.plain is not None

    for table in (X, X[:1], X[5:6] * 1e6, X * -3, np.zeros((2, X.shape[1]))):
        outputs = served.predict(table)
        if hasattr(model, "predict_proba"):
            np.testing.assert_array_equal(outputs.predictions, model.predict(table))
            np.testing.assert_allclose(outputs.probabilities[0], model.predict_proba(table), rtol=0, atol=1e-12)
        else:
            np.testing.assert_allclose(outputs.predictions, model.predict(table), rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(("estimator", "data"), CASES.values(), ids=CASES.keys())
def test_a_row_has_the_same_bits_alone_and_in_company(estimator, data):
    X, y = data
    form = snapshot(estimator.fit(X, y))._calls.plain
    together = form(X)

    for size in (1, 2, 7, 64):
        apart = np.concatenate([form(X[i : i + size]) for i in range(0, len(X), size)])
        np.testing.assert_array_equal(apart, together)


def test_a_label_at_the_boundary_is_the_same_alone_and_in_company():
    X, y = CANCER
    X = StandardScaler().fit_transform(X)
    served = snapshot(LogisticRegression().fit(X, y))
    random = np.random.default_rng(0)
    rows = []
    for _ in range(20):  # two rows on the two sides of the boundary, as near to it as numbers are
        low, high = X[random.choice(np.flatnonzero(y == 0))], X[random.choice(np.flatnonzero(y == 1))]
        for _ in range(60):
            middle = (low + high) / 2
            if served.predict(middle[np.newaxis]).predictions[0] == 0:
                low = middle
            else:
                high = middle
        rows += [low, high]
    alone = [served.predict(row[np.newaxis]).predictions[0] for row in rows]

    assert served.predict(np.array(rows)).predictions.tolist() == alone


def test_several_outputs_keep_their_shape():
    X, y = DIABETES
    model = LinearRegression().fit(X, np.column_stack([y, -y]))
    served = snapshot(model)

    np.testing.assert_allclose(served.predict(X).predictions, model.predict(X), rtol=1e-12)
    assert served.signature.n_outputs == 2


class Contrary(LogisticRegression):
    def predict_proba(self, X):
        return super().predict_proba(X)[:, ::-1]


@pytest.mark.parametrize(
    "estimator",
    [
        RandomForestClassifier(3),
        make_pipeline(PolynomialFeatures(2), LogisticRegression(max_iter=2000)),
        make_pipeline(MinMaxScaler(clip=True), LogisticRegression()),
        Contrary(max_iter=1000),
    ],
)
def test_others_have_none(estimator):
    X, y = IRIS

    assert plain_form(estimator.fit(X, y), tuple(X.mean(axis=0))) is None


@pytest.mark.parametrize(
    "wrong",
    [lambda X: X * (1 + 1e-7), lambda X: X[:, ::-1], lambda X: X[:, :1] * np.ones(4), lambda X: X.astype(np.float32)],
)
def test_a_form_that_is_off_by_little_is_not_used(wrong):
    X, y = IRIS
    model = LogisticRegression(max_iter=1000).fit(X, y)

    assert _agrees(PlainForm([], _model(model)), model, X.mean(axis=0))
    assert not _agrees(PlainForm([wrong], _model(model)), model, X.mean(axis=0))


def test_what_overflows_in_a_scaler_is_refused_as_by_the_estimator():
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(*IRIS)
    model[0].scale_ = np.full(4, 1e-280)
    served = snapshot(model)
    assert served._calls.plain is not None

    with np.errstate(all="ignore"), pytest.raises(InvalidInputError, match="becomes NaN or infinite"):
        served.predict(np.array([[1e30, 1, 1, 1]]))
