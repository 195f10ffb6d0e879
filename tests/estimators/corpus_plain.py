"""Every estimator of scikit-learn, fitted on a plain table or on what it needs instead."""

from __future__ import annotations

from functools import partial

import numpy as np
from sklearn.base import is_regressor
from sklearn.datasets import load_diabetes, load_iris
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.utils import all_estimators

UNSUPPORTED = {
    **dict.fromkeys(
        [
            "AgglomerativeClustering", "ClassicalMDS", "DBSCAN", "HDBSCAN", "MDS", "OPTICS", "SpectralBiclustering",
            "SpectralClustering", "SpectralCoclustering", "SpectralEmbedding", "TSNE",
        ],
        "is fitted to its rows and says nothing of others: it has no predict, transform or score_samples",
    ),
    **dict.fromkeys(
        [
            "EmpiricalCovariance", "GraphicalLasso", "GraphicalLassoCV", "LedoitWolf", "MinCovDet", "OAS",
            "ShrunkCovariance",
        ],
        "estimates a matrix: it has no predict, transform or score_samples",
    ),
    "DictVectorizer": "is fitted on objects with any members, of which a signature could say nothing",
    "FeatureHasher": "is fitted on objects with any members, of which a signature could say nothing",
    "HashingVectorizer": "gives rows of 1048576 numbers with its defaults: at most 131072 are served; behind it in a pipeline is a model",
    "LabelBinarizer": "transforms targets, not rows",
    "LabelEncoder": "transforms targets, not rows",
    "MultiLabelBinarizer": "transforms targets, not rows",
    "NearestNeighbors": "gives neighbours by kneighbors: it has no predict, transform or score_samples",
    "PatchExtractor": "is fitted on images, not on a table",
}  # fmt: skip
"""Estimators of scikit-learn that are not served by themselves, and why."""

RANDOM = {"BernoulliRBM": {"score_samples"}}
"""Outputs that are drawn at random on each call: nothing to compare."""

_IRIS, _DIABETES = load_iris(return_X_y=True), load_diabetes(return_X_y=True)
_PAIR = [("a", LogisticRegression(max_iter=500)), ("b", DecisionTreeClassifier())]
_VALUES = [("a", Ridge()), ("b", DecisionTreeRegressor())]
_TEXTS = [f"{word} film {i % 7}" for i, word in enumerate(["good", "bad", "long"] * 20)]
_TWO = np.column_stack([_DIABETES[1], -_DIABETES[1] + _DIABETES[0][:, 0] * 500])[:150]
_OBJECTS = [{"a": 1, "b": i} for i in range(9)]

SPECIAL = {
    "CCA": ((1,), {}, _DIABETES[0][:150], _TWO),
    "ClassifierChain": ((LogisticRegression(max_iter=500),), {}, _IRIS[0], np.column_stack([_IRIS[1] > 0, _IRIS[1] > 1]).astype(int)),
    "ColumnTransformer": (([("a", "passthrough", [0, 1]), ("b", "drop", [2])],), {}, _IRIS[0], _IRIS[1]),
    "CountVectorizer": ((), {}, _TEXTS, None),
    "DictVectorizer": ((), {}, _OBJECTS, None),
    "FeatureHasher": ((), {}, _OBJECTS, None),
    "FeatureUnion": (([("a", "passthrough")],), {}, _IRIS[0], None),
    "FixedThresholdClassifier": ((LogisticRegression(max_iter=500),), {}, _IRIS[0], _IRIS[1] > 0),
    "FrozenEstimator": ((LogisticRegression(max_iter=500).fit(*_IRIS),), {}, *_IRIS),
    "GaussianRandomProjection": ((2,), {}, _IRIS[0], None),
    "GridSearchCV": ((Ridge(), {"alpha": [1, 2]}), {}, _DIABETES[0], _DIABETES[1]),
    "HashingVectorizer": ((), {}, _TEXTS, None),
    "IsotonicRegression": ((), {"out_of_bounds": "clip"}, _IRIS[0][:, :1], _IRIS[0][:, 1]),
    "KernelCenterer": ((), {}, _IRIS[0][:40] @ _IRIS[0][:40].T, None),
    "LabelBinarizer": ((), {}, _IRIS[1], None),
    "LabelEncoder": ((), {}, _IRIS[1], None),
    "LocalOutlierFactor": ((), {"novelty": True}, _IRIS[0], None),
    "MultiLabelBinarizer": ((), {}, [[1, 2], [3]], None),
    "MultiOutputClassifier": ((LogisticRegression(max_iter=500),), {}, _IRIS[0], np.column_stack([_IRIS[1], _IRIS[1] > 1])),
    "MultiOutputRegressor": ((Ridge(),), {}, _DIABETES[0][:150], _TWO),
    "PatchExtractor": ((), {"patch_size": (2, 2)}, np.zeros((3, 4, 4)), None),
    "Pipeline": (([("m", LogisticRegression(max_iter=500))],), {}, *_IRIS),
    "PLSCanonical": ((1,), {}, _DIABETES[0][:150], _TWO),
    "PLSSVD": ((1,), {}, _DIABETES[0][:150], _TWO),
    "RandomizedSearchCV": ((Ridge(), {"alpha": [1, 2]}), {"n_iter": 2}, _DIABETES[0], _DIABETES[1]),
    "RegressorChain": ((Ridge(),), {}, _DIABETES[0][:150], _TWO),
    "SparseCoder": ((np.eye(4),), {}, _IRIS[0], None),
    "SparseRandomProjection": ((2,), {}, _IRIS[0], None),
    "TSNE": ((), {"max_iter": 250, "perplexity": 5, "method": "exact"}, _IRIS[0][:30], None),
    "TfidfVectorizer": ((), {}, _TEXTS, None),
    "TunedThresholdClassifierCV": ((LogisticRegression(max_iter=500),), {}, _IRIS[0], _IRIS[1] > 0),
    **{name: ((), {}, _DIABETES[0][:150], _TWO) for name in ("MultiTaskElasticNet", "MultiTaskElasticNetCV", "MultiTaskLasso", "MultiTaskLassoCV")},
}  # fmt: skip
"""What those need that cannot be fitted with their defaults: arguments, options, rows and targets."""


def _special(kind, arguments, options, X, y):
    return kind(*arguments, **options).fit(X, *(() if y is None else (y,))), X


def _by_default(kind):
    """Fitted with its defaults, or around a simple estimator."""
    for arguments in ((), (LogisticRegression(max_iter=500),), (Ridge(),), (_PAIR,), (_VALUES,)):
        try:
            estimator = kind(*arguments)
            X, y = _DIABETES if is_regressor(estimator) else _IRIS
            return estimator.fit(X[:150], y[:150]), X[:150]
        except Exception:  # noqa: BLE001 - it needs something else: an estimator, or several
            continue
    msg = f"{kind.__name__} cannot be fitted so: write down in SPECIAL what it needs"
    raise AssertionError(msg)


PLAIN = {
    name: partial(_special, kind, *SPECIAL[name]) if name in SPECIAL else partial(_by_default, kind)
    for name, kind in all_estimators()
} | {
    "booleans": lambda: (LinearSVC().fit(_IRIS[0], _IRIS[1] > 0), _IRIS[0]),
    "strings": lambda: (SVC(probability=False).fit(_IRIS[0], _IRIS[1].astype(str)), _IRIS[0]),
    "floats": lambda: (DecisionTreeClassifier().fit(_IRIS[0], _IRIS[1] / 1), _IRIS[0]),
    "a constant": lambda: (DummyClassifier(strategy="most_frequent").fit(*_IRIS), _IRIS[0]),
}
"""By name, what fits it: ``(estimator, table)``."""
