"""What a library refuses of a caller's input is the caller's mistake; what a model does wrong is not."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PowerTransformer, SplineTransformer

from fitserve.errors import InvalidInputError
from fitserve.estimators.model import EstimatorModel
from fitserve.types import Declared

X = np.linspace(1.0, 2.0, 40).reshape(20, 2)
Y = X.sum(axis=1)


@pytest.mark.parametrize(
    ("step", "middle"),
    [(PowerTransformer(method="box-cox"), 1.5), (SplineTransformer(extrapolation="error"), 0.0)],
    ids=lambda value: type(value).__name__,
)
def test_values_that_a_library_refuses_are_the_callers(step, middle):
    model = EstimatorModel(make_pipeline(step, LinearRegression()).fit(X - 1.5 + middle, Y))

    with pytest.raises(
        InvalidInputError, match=r"wanted values that the model can compute with; came some that sklearn"
    ):
        model.predict(model.signature.check([[-1000.0, middle]]))

    assert len(model.predict(model.signature.check([[middle, middle]])).predictions) == 1


class Strict(TransformerMixin, BaseEstimator):
    """A step of the user's own, which reads columns by name and has a secret in its error."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        if (X["a"] < 0).any():
            raise ValueError("password hunter2")
        return X[["a", "b"]].to_numpy()


def test_what_the_users_own_code_raises_is_no_verdict_on_the_caller():
    fitted = make_pipeline(Strict(), LinearRegression()).fit(frame(X), Y)
    model = EstimatorModel(fitted, declared=Declared(example={"a": 1.5, "b": 1.5}))

    with pytest.raises(ValueError, match="hunter2"):
        model.predict(model.signature.check([{"a": -1.0, "b": 1.0}]))


def test_a_first_step_that_reads_columns_by_name_is_given_declared_names():
    fitted = make_pipeline(Strict(), LinearRegression()).fit(frame(X), Y)
    model = EstimatorModel(fitted, declared=Declared(example={"a": 1.5, "b": 1.5}))

    found = model.predict(model.signature.check([{"b": 1.25, "a": 1.5}])).predictions

    np.testing.assert_allclose(found, fitted.predict(frame([[1.5, 1.25]])), rtol=1e-12)


def frame(rows):
    import pandas as pd

    return pd.DataFrame(np.asarray(rows), columns=["a", "b"])
