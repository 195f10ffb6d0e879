"""Sample artifacts of every format, with the answers that the library itself gives.

To add one: write a function that returns a :class:`Sample`, and put it into ``SAMPLES``. Samples of one
``trained`` model have the same rows and the same reference: so a model answers the same in every format
that can hold it. The contract suite fails for a format that has none.
"""

import functools
import hashlib
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import joblib
import numpy as np
import pandas as pd

from fitserve.signature import Field
from fitserve.trust.policy import TrustPolicy
from fitserve.types import Artifact, Declared

FLOAT32 = 1e-6
"""Boosters add float32 numbers; JSON and text keep each exactly, but the sum of a wrapper may be float64."""


@dataclass(frozen=True)
class Sample:
    """A model file, rows for it, and what the library answers.

    ``predictions`` must be equal, floats within ``atol``; ``probabilities`` within ``atol``.
    """

    format: str
    artifact: Artifact
    rows: list[Any]
    predictions: Any
    probabilities: Any = None
    atol: float = 0.0
    policy: TrustPolicy = field(default_factory=TrustPolicy)


@dataclass(frozen=True)
class Trained:
    """A fitted model, rows for it as JSON has them, and its own answers to these."""

    estimator: Any
    rows: list[Any]
    predictions: Any
    probabilities: Any = None

    def saved(self, format: str, data: bytes, **changes: Any) -> Sample:  # noqa: A002
        """A sample of the model saved as ``data``; ``changes`` are of the sample's or artifact's fields."""
        of_artifact = {name: changes.pop(name) for name in ("declared", "file_name", "files") if name in changes}
        sample = Sample(format, artifact_of(data, **of_artifact), self.rows, self.predictions, self.probabilities)
        return replace(sample, **changes)


def artifact_of(data: bytes, **fields: Any) -> Artifact:
    return Artifact("sample", "1", hashlib.sha256(data).hexdigest(), data, **fields)


def _dumped(estimator: Any) -> bytes:
    buffer = io.BytesIO()
    joblib.dump(estimator, buffer)
    return buffer.getvalue()


def _answers(estimator: Any, table: Any) -> Trained:
    """What the estimator itself says of the first rows of a table."""
    table = table[:20]
    if isinstance(table, pd.DataFrame):
        rows = [
            {name: None if pd.isna(value) else value for name, value in row.items()}
            for row in table.astype(object).to_dict("records")
        ]
    else:
        rows = [[None if np.isnan(value) else value for value in row] for row in table.tolist()]
    probabilities = estimator.predict_proba(table) if hasattr(estimator, "predict_proba") else None
    return Trained(estimator, rows, np.asarray(estimator.predict(table)), probabilities)


def _matrix() -> Any:
    return np.random.default_rng(0).normal(size=(200, 4))


def _classes(n: int = 2) -> Any:
    X = _matrix()
    score = X[:, 0] * X[:, 1] + X[:, 2]
    return np.digitize(score, np.quantile(score, np.arange(1, n) / n))


def _table() -> Any:
    """Numbers with nulls, and categories that are strings."""
    rng = np.random.default_rng(1)
    age = np.round(rng.uniform(18, 80, 200), 1)
    age[::7] = np.nan
    return pd.DataFrame({"age": age, "city": rng.choice(["Bern", "Oslo", "Rome"], 200), "income": rng.normal(size=200)})


def _category_table() -> Any:
    return _table().astype({"city": "category"})


def _table_classes() -> Any:
    table = _table()
    return (table["income"] + (table["city"] == "Oslo") > 0.3).to_numpy().astype(int)


@functools.cache
def xgboost_model(kind: str) -> Trained:
    import xgboost

    common = {"n_estimators": 8, "max_depth": 3, "n_jobs": 1}
    X = _matrix()
    match kind:
        case "binary":
            return _answers(xgboost.XGBClassifier(**common).fit(X, _classes()), X)
        case "multiclass":
            return _answers(xgboost.XGBClassifier(**common).fit(X, _classes(3)), X)
        case "dart":
            return _answers(xgboost.XGBRegressor(booster="dart", rate_drop=0.3, **common).fit(X, X[:, 0]), X)
        case "linear":
            return _answers(xgboost.XGBRegressor(booster="gblinear", n_estimators=4).fit(X, X[:, 0]), X)
        case "vector leaves":
            model = xgboost.XGBRegressor(multi_strategy="multi_output_tree", **common).fit(X, X[:, :2] ** 2)
            return _answers(model, X)
        case _:
            model = xgboost.XGBClassifier(enable_categorical=True, max_cat_to_onehot=1, **common)
            return _answers(model.fit(_category_table(), _table_classes()), _category_table())


@functools.cache
def lightgbm_model(kind: str) -> Trained:
    import lightgbm

    common = {"n_estimators": 8, "num_leaves": 7, "verbose": -1, "n_jobs": 1}
    X = _matrix()
    match kind:
        case "binary":
            return _trained_on_matrix(lightgbm.LGBMClassifier(**common).fit(X, _classes()))
        case "named classes":
            labels = np.array(["low", "mid", "top"])[_classes(3)]
            return _trained_on_matrix(lightgbm.LGBMClassifier(**common).fit(X, labels))
        case "linear":
            return _trained_on_matrix(lightgbm.LGBMRegressor(linear_tree=True, **common).fit(X, X[:, 0] * X[:, 1]))
        case _:
            model = lightgbm.LGBMClassifier(min_data_per_group=1, cat_smooth=0, max_cat_to_onehot=1, **common)
            return _answers(model.fit(_category_table(), _table_classes()), _category_table())


def _trained_on_matrix(model: Any) -> Trained:
    with warnings.catch_warnings():
        # It names the columns of a matrix itself, and misses the names when it is given a matrix.
        warnings.simplefilter("ignore")
        return _answers(model, _matrix())


COMMON_CATBOOST = {"iterations": 8, "depth": 3, "verbose": False, "allow_writing_files": False, "thread_count": 1}


@functools.cache
def catboost_model(kind: str) -> Trained:
    import catboost

    common = COMMON_CATBOOST
    X = _matrix()
    match kind:
        case "binary":
            return _answers(catboost.CatBoostClassifier(**common).fit(X, _classes() == 1), X)
        case "regression":
            return _answers(catboost.CatBoostRegressor(**common).fit(X, X[:, 0]), X)
        case "multiclass":
            trained = _answers(catboost.CatBoostClassifier(**common).fit(X, _classes(3) * 10), X)
            return replace(trained, predictions=trained.predictions.ravel())  # CatBoost gives a column
        case _:
            labels = np.array(["no", "yes"])[_table_classes()]
            return _answers(
                catboost.CatBoostClassifier(cat_features=["city"], **common).fit(_table(), labels), _table()
            )


@functools.cache
def sklearn_model(kind: str) -> Trained:
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    match kind:
        case "logistic":
            labels = np.array(["low", "mid", "top"])[_classes(3)]
            return _answers(make_pipeline(StandardScaler(), LogisticRegression()).fit(_matrix(), labels), _matrix())
        case "forest":
            return _answers(RandomForestClassifier(5, random_state=0).fit(_matrix(), _classes()), _matrix())
        case _:
            columns = ColumnTransformer(
                [
                    ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["age", "income"]),
                    ("city", OneHotEncoder(handle_unknown="ignore"), ["city"]),
                ]
            )
            pipeline = make_pipeline(columns, LogisticRegression())
            return _answers(pipeline.fit(_table(), _table_classes()), _table())


def _xgboost(kind: str, encoding: str) -> Sample:
    trained = xgboost_model(kind)
    return trained.saved("xgboost", bytes(trained.estimator.get_booster().save_raw(encoding)), atol=FLOAT32)


def _lightgbm(kind: str) -> Sample:
    trained = lightgbm_model(kind)
    classes = ("low", "mid", "top") if kind == "named classes" else None
    text = trained.estimator.booster_.model_to_string()
    return trained.saved("lightgbm", text.encode(), declared=Declared(classes=classes), atol=FLOAT32)


def _catboost(kind: str) -> Sample:
    trained = catboost_model(kind)
    return trained.saved("catboost", trained.estimator._serialize_model(), atol=FLOAT32)


def _skops(kind: str) -> Sample:
    import skops.io

    allow = frozenset({"sklearn.tree._tree.Tree"}) if kind == "forest" else frozenset()
    trained = sklearn_model(kind)
    return trained.saved("skops", skops.io.dumps(trained.estimator), policy=TrustPolicy(allow=allow))


def _pickle(trained: Trained) -> Sample:
    return trained.saved("pickle", _dumped(trained.estimator), atol=FLOAT32)


def _onnx(kind: str) -> Sample:
    from skl2onnx import to_onnx

    trained = sklearn_model(kind)
    options = {id(trained.estimator): {"zipmap": False}}
    model = to_onnx(trained.estimator, _matrix()[:1].astype(np.float64), options=options)
    return trained.saved("onnx", model.SerializeToString(), atol=FLOAT32)


MLMODEL = """
flavors:
  {flavour}:
    {key}: {file}
  python_function:
    loader_module: mlflow.{flavour}
"""


def _mlflow(flavour: str, inner: Sample) -> Sample:
    """A folder as MLflow writes it, around a sample of the flavour's own format."""
    key, file = {"sklearn": ("pickled_model", "model.pkl"), "xgboost": ("data", "model.ubj")}[flavour]
    mlmodel = MLMODEL.format(flavour=flavour, key=key, file=file).encode()
    folder = artifact_of(mlmodel, file_name="MLmodel", files={"MLmodel": mlmodel, file: inner.artifact.data})
    return replace(inner, format="mlflow", artifact=folder)


PYTHON_CLASS = b"""
class Model:
    features = {"a": "number", "b": "number"}

    def predict(self, rows):
        return [row["a"] + 2 * row["b"] for row in rows]
"""


def _python() -> Sample:
    rows = [{"a": 1.0, "b": float(i)} for i in range(5)]
    artifact = artifact_of(PYTHON_CLASS, file_name="model.py")
    return Sample("python", artifact, rows, np.array([1 + 2.0 * i for i in range(5)]), policy=TrustPolicy(level="any"))


def _torch() -> Sample:
    import torch

    module = torch.nn.Linear(4, 1).eval()
    data = io.BytesIO()
    torch.jit.save(torch.jit.script(module), data)
    rows = _matrix()[:5].tolist()
    with torch.no_grad():
        wanted = module(torch.tensor(rows, dtype=torch.float32)).numpy().ravel()
    declared = Declared(fields=tuple(Field(f"x{i}") for i in range(4)))
    artifact = artifact_of(data.getvalue(), file_name="model.pt", declared=declared)
    return Sample("torch", artifact, rows, wanted, policy=TrustPolicy(level="any"), atol=FLOAT32)


_P = functools.partial

SAMPLES: dict[str, tuple[str, Callable[[], Sample]]] = {
    **{f"xgboost {k} ubj": ("xgboost", _P(_xgboost, k, "ubj")) for k in ("binary", "multiclass", "dart", "linear", "vector leaves", "categories")},
    **{f"xgboost {k} json": ("xgboost", _P(_xgboost, k, "json")) for k in ("binary", "multiclass", "vector leaves", "categories")},
    **{f"lightgbm {k} text": ("lightgbm", _P(_lightgbm, k)) for k in ("binary", "named classes", "linear", "categories")},
    **{f"catboost {k} cbm": ("catboost", _P(_catboost, k)) for k in ("binary", "regression", "multiclass", "categories")},
    **{f"sklearn {k} skops": ("skops", _P(_skops, k)) for k in ("logistic", "forest", "table")},
    "sklearn logistic onnx": ("onnx", _P(_onnx, "logistic")),
    **{f"sklearn {k} pickle": ("pickle", lambda k=k: _pickle(sklearn_model(k))) for k in ("logistic", "forest", "table")},
    **{f"xgboost {k} pickle": ("pickle", lambda k=k: _pickle(xgboost_model(k))) for k in ("binary", "multiclass", "categories")},
    **{f"lightgbm {k} pickle": ("pickle", lambda k=k: _pickle(lightgbm_model(k))) for k in ("binary", "named classes", "categories")},
    **{f"catboost {k} pickle": ("pickle", lambda k=k: _pickle(catboost_model(k))) for k in ("binary", "categories")},
    "xgboost binary mlflow": ("mlflow", lambda: _mlflow("xgboost", _xgboost("binary", "ubj"))),
    "sklearn logistic mlflow": ("mlflow", lambda: _mlflow("sklearn", _pickle(sklearn_model("logistic")))),
    "python class": ("python", _python),
    "torch script": ("torch", _torch),
}  # fmt: skip
"""By what it is: the name of its format, and how it is made."""

NEEDS = {"torch": "torch"}
"""Libraries that are larger than the rest together, and without which samples of the format are left out."""


@functools.cache
def sample(name: str) -> Sample:
    """Make a sample, once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a library warns of at fitting is nothing to us
        return SAMPLES[name][1]()
