"""Numbers of a model that made scikit-learn's compiled code leave its memory when it predicted.

Each was loaded and predicted with, in a process of its own, before its check was written: fatal signals by
writing (sparse columns, the first guess) or reading elsewhere, or rows answered from foreign memory.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.cluster import KMeans
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    RandomTreesEmbedding,
)
from sklearn.feature_extraction import DictVectorizer, FeatureHasher
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import KBinsDiscretizer, MultiLabelBinarizer, OneHotEncoder, SplineTransformer
from sklearn.svm import SVC

from fitserve.errors import ArtifactError
from fitserve.trust.structure import check_structure

X = np.random.default_rng(0).normal(size=(60, 3))
Y = np.arange(60) % 3
CODES = (np.arange(60) % 5).reshape(-1, 1)
MIXED = pd.DataFrame({"a": pd.Categorical(["x", "y", "z"] * 20), "b": X[:, 0], "c": X[:, 1]})


def text(kind=CountVectorizer):
    return kind().fit(["aa bb"])


def one_hot(**options):
    return OneHotEncoder(**options).fit(CODES)


def neighbours(**options):
    return KNeighborsClassifier(algorithm="brute", **options).fit(X, Y)


def stages(**options):
    return GradientBoostingClassifier(n_estimators=2, **options).fit(X, Y)


def histogram():
    return HistGradientBoostingClassifier(max_iter=2, categorical_features="from_dtype").fit(MIXED, Y)


def rows_of_the_file():
    return KNeighborsClassifier(metric="mahalanobis", metric_params={"V": np.eye(3)}, algorithm="brute").fit(X, Y)


SOUND = {
    "text": text, "tfidf": lambda: text(TfidfVectorizer), "one hot": one_hot,
    "one hot without the first": lambda: one_hot(drop="first"),
    "one hot without one of two": lambda: one_hot(drop="if_binary"),
    "one hot of rare ones": lambda: OneHotEncoder(min_frequency=5).fit(np.r_[CODES, [[9]]]),
    "one hot of rare ones without the first": lambda: OneHotEncoder(max_categories=3, drop="first").fit(CODES),
    "one hot of texts": lambda: OneHotEncoder().fit(CODES.astype(str)),
    "one hot of gaps": lambda: OneHotEncoder().fit(np.array([[1.0], [np.nan], [0.0]])),
    "one hot of dates": lambda: OneHotEncoder().fit(np.array([["2026-01-02"], ["2026-01-01"]], dtype="M8[D]")),
    "bins": lambda: KBinsDiscretizer(3, encode="onehot", quantile_method="linear").fit(X),
    "embedding": lambda: RandomTreesEmbedding(2).fit(X),
    "dictionaries": lambda: DictVectorizer().fit([{"a": 1, "b": 2}]),
    "labels": lambda: MultiLabelBinarizer().fit([["a", "b"]]),
    "hasher": FeatureHasher,
    "neighbours": neighbours, "mahalanobis": rows_of_the_file,
    "weights": lambda: neighbours(metric="minkowski", p=3, metric_params={"w": np.ones(3)}),
    "stages": stages, "stages from zero": lambda: stages(init="zero"),
    "stages from a model": lambda: stages(init=LogisticRegression()),
    "stages from a line": lambda: GradientBoostingRegressor(n_estimators=2, init=LinearRegression()).fit(X, Y),
    "histogram": histogram, "svc of sparse rows": lambda: SVC().fit(sp.csr_matrix(X), Y),
    "clusters": lambda: KMeans(2, n_init=1).fit(X), "spline": lambda: SplineTransformer().fit(X),
}  # fmt: skip


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_model_passes(name):
    check_structure(SOUND[name]())


def edited(model, **attributes):
    vars(model).update(attributes)
    return model


def bins():
    model = SOUND["bins"]()
    model._encoder._n_features_outs = [1, 1, 1]
    return model


def embedding():
    model = SOUND["embedding"]()
    model.one_hot_encoder_._n_features_outs = [1, 1]
    return model


def guess_of_one_column():
    model = stages()
    model.init_._strategy, model.init_.n_classes_ = "most_frequent", 1
    return model


def guess_of_no_column():
    model = SOUND["stages from a line"]()
    return edited(model, init_=edited(model.init_, coef_=np.zeros((0, 3)), intercept_=np.zeros(0)))


def preprocessor_that_drops():
    model = histogram()
    model._preprocessor.transformers_ = model._preprocessor.transformers_[:1]
    return model


def preprocessor_of_another_kind():
    model = histogram()
    encoder, _, rest = model._preprocessor.transformers_
    changed = ("numerical", SplineTransformer().fit(X[:, :2]), np.array([False, True, True]))
    model._preprocessor.transformers_ = [encoder, changed, rest]
    return model


def svc_without_coefficients():
    model = SOUND["svc of sparse rows"]()
    return edited(model, _dual_coef_=sp.csr_matrix(model._dual_coef_.shape))


def spline_of_one_row():
    model = SplineTransformer().fit(X)
    state = vars(model.bsplines_[0])
    state.update({"axis": 1, "_c" if "_c" in state else "c": np.zeros((1, 60))})
    return model


BROKEN = {
    "a column of a text beyond": lambda: edited(text(), vocabulary_={"aa": 10**8, "bb": 1}),
    "a column of a text before": lambda: edited(text(), vocabulary_={"aa": -1, "bb": 1}),
    "a column of a text is no number": lambda: edited(text(), vocabulary_={"aa": 0.5, "bb": 1}),
    "a column of tfidf": lambda: edited(text(TfidfVectorizer), vocabulary_={"aa": 10**8, "bb": 1}),
    "a column of a dictionary": lambda: edited(SOUND["dictionaries"](), vocabulary_={"a": 10**8, "b": 1}),
    "a column of a label": lambda: edited(SOUND["labels"](), _cached_dict={"a": 10**8, "b": 1}),
    "one hot of one column": lambda: edited(one_hot(), _n_features_outs=[1]),
    "one hot of no order": lambda: edited(one_hot(), categories_=[np.array([4, 3, 2, 1, 0])]),
    "one hot of twice the same": lambda: edited(one_hot(), categories_=[np.array([0, 0, 1, 2, 3])]),
    "one hot drops another": lambda: edited(one_hot(drop="first"), _drop_idx_after_grouping=np.array([9], object)),
    "one hot of rare ones beyond": lambda: edited(
        SOUND["one hot of rare ones"](), _default_to_infrequent_mappings=[np.array([0, 1, 2, 3, 4, 99])]
    ),
    "bins of one column": bins, "embedding of one column": embedding,
    "hash of no features": lambda: edited(FeatureHasher(), n_features=0),
    "neighbours of one feature": lambda: edited(neighbours(), _fit_X=X[:, :1].copy()),
    "mahalanobis of one feature": lambda: edited(rows_of_the_file(), effective_metric_params_={"VI": np.eye(1)}),
    "seuclidean of one feature": lambda: edited(
        neighbours(metric="seuclidean", metric_params={"V": np.ones(3)}), effective_metric_params_={"V": np.ones(1)}
    ),
    "weights of one feature": lambda: edited(SOUND["weights"](), effective_metric_params_={"p": 3, "w": np.ones(1)}),
    "first guess of one column": guess_of_one_column, "first guess of no column": guess_of_no_column,
    "histogram of one feature": lambda: edited(
        HistGradientBoostingClassifier(max_iter=2).fit(X, Y), n_features_in_=1
    ),
    "histogram that drops": preprocessor_that_drops, "histogram of splines": preprocessor_of_another_kind,
    "svc without coefficients": svc_without_coefficients, "spline of one row": spline_of_one_row,
    "clusters of no threads": lambda: edited(SOUND["clusters"](), _n_threads=-5),
    "no clusters": lambda: edited(SOUND["clusters"](), cluster_centers_=np.zeros((0, 3))),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_model_is_refused(name):
    with pytest.raises(ArtifactError, match="is damaged"):
        check_structure(BROKEN[name]())
