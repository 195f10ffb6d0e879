"""Kinds of model that are compiled, by name: what fits each, and the engine that is expected to serve it."""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
import pandas as pd
from lightgbm import Dataset, LGBMClassifier, LGBMRanker, LGBMRegressor
from lightgbm import train as train_lightgbm
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_diabetes, load_iris
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, SGDClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC, SVR, LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from xgboost import DMatrix, XGBClassifier, XGBRegressor
from xgboost import train as train_xgboost

X, Y = load_iris(return_X_y=True)
D, V = load_diabetes(return_X_y=True)
SPECIES = np.array(["setosa", "versicolor", "virginica"])[Y]
TWO = np.column_stack([V, -V])
QUIET = {"verbose": -1, "n_jobs": 1, "n_estimators": 10, "min_child_samples": 5}
SMALL = {"n_estimators": 10, "n_jobs": 1}
SEED = {"random_state": 0}


def people() -> pd.DataFrame:
    """Numbers and texts, both with nulls, a category, and seconds since 1970."""
    rng = np.random.default_rng(0)
    n = 300
    table = pd.DataFrame({
        "age": rng.normal(40, 12, n).round(1),
        "income": rng.lognormal(10, 1, n).round(2),
        "seen": 1.7e9 + rng.integers(0, 10**7, n).astype(float),
        "city": rng.choice(["Rome", "Oslo", "Bonn"], n).astype(object),
        "plan": pd.Categorical(rng.choice(["free", "paid"], n)),
    })  # fmt: skip
    table.loc[rng.random(n) < 0.1, "age"] = np.nan
    table.loc[rng.random(n) < 0.1, "city"] = None
    return table


PEOPLE = people()
NUMBERS, TEXTS = ["age", "income", "seen"], ["city"]
BOUGHT = ((PEOPLE.city == "Rome") ^ (PEOPLE.seen % 1000 > 500)).to_numpy()
TIMES = PEOPLE[["income", "seen"]].to_numpy()


def columns(**more):
    return make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), NUMBERS),
        (make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")), TEXTS),
        **more,
    )


def _native_lightgbm():
    options = {"objective": "multiclass", "num_class": 3, "verbose": -1, "num_threads": 1, "min_data_in_leaf": 5}
    return train_lightgbm(options, Dataset(X, Y), 10)


def _native_xgboost():
    return train_xgboost({"objective": "binary:logistic", "nthread": 1}, DMatrix(X, Y == 1), 10)


def _early_stopped():
    model = XGBClassifier(n_estimators=40, n_jobs=1, early_stopping_rounds=2)
    return model.fit(X[::2], Y[::2], eval_set=[(X[1::2], Y[1::2])], verbose=False)


FLOAT64, FLOAT32, GTIL = "onnx-float64", "onnx-float32", "treelite"

KINDS = {
    "logistic regression": (FLOAT64, lambda: LogisticRegression(max_iter=500).fit(X, SPECIES)),
    "scaler and logistic regression": (FLOAT64, lambda: make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)),
    "columns and logistic regression": (FLOAT64, lambda: make_pipeline(columns(), LogisticRegression()).fit(PEOPLE, BOUGHT)),
    "columns and a forest": (FLOAT32, lambda: make_pipeline(columns(), RandomForestClassifier(10, **SEED)).fit(PEOPLE, BOUGHT)),
    "columns and gradient boosting": (FLOAT32, lambda: make_pipeline(columns(), GradientBoostingClassifier(n_estimators=10, **SEED)).fit(PEOPLE, BOUGHT)),
    "columns and histogram boosting": (GTIL, lambda: make_pipeline(columns(sparse_threshold=0), HistGradientBoostingClassifier(max_iter=10)).fit(PEOPLE, BOUGHT)),
    "columns and LightGBM": (GTIL, lambda: make_pipeline(columns(), LGBMClassifier(**QUIET)).fit(PEOPLE, BOUGHT)),
    "columns and XGBoost": (GTIL, lambda: make_pipeline(columns(sparse_threshold=1), XGBClassifier(**SMALL)).fit(PEOPLE, BOUGHT)),
    "ridge regression": (FLOAT64, lambda: Ridge().fit(D, V)),
    "ridge regression of two values": (FLOAT64, lambda: Ridge().fit(D, TWO)),
    "linear regression of frames": (FLOAT64, lambda: make_pipeline(StandardScaler(), LinearRegression()).fit(pd.DataFrame(D).add_prefix("f"), V)),
    "gradient descent": (FLOAT64, lambda: SGDClassifier(loss="log_loss", **SEED).fit(X, Y)),
    "perceptrons": (FLOAT64, lambda: make_pipeline(StandardScaler(), MLPClassifier((20,), max_iter=1000, **SEED)).fit(X, Y)),
    "perceptrons of a value": (FLOAT64, lambda: make_pipeline(StandardScaler(), MLPRegressor(hidden_layer_sizes=(20,), max_iter=5000, **SEED)).fit(D, V / 100)),
    "neighbours": (FLOAT64, lambda: KNeighborsClassifier().fit(X, Y)),
    "neighbours of a value": (FLOAT64, lambda: KNeighborsRegressor().fit(D, V)),
    "naive Bayes": (FLOAT64, lambda: GaussianNB().fit(X, Y)),
    "discriminant analysis": (FLOAT64, lambda: LinearDiscriminantAnalysis().fit(X, Y)),
    "support vectors": (FLOAT64, lambda: SVC().fit(X, SPECIES)),
    "support vectors of a value": (FLOAT32, lambda: SVR().fit(D, V)),
    "principal components": (FLOAT64, lambda: PCA(2).fit(X)),
    "clusters": (FLOAT64, lambda: KMeans(3, n_init=1, **SEED).fit(X)),
    "stacking": (FLOAT64, lambda: StackingClassifier([("a", LogisticRegression(max_iter=500)), ("b", GaussianNB())], cv=2).fit(X, Y)),
    "several outputs": (FLOAT64, lambda: MultiOutputClassifier(LogisticRegression(max_iter=500)).fit(X, np.column_stack([Y, Y % 2]))),
    "tree": (FLOAT32, lambda: DecisionTreeClassifier(**SEED).fit(X, SPECIES)),
    "tree of a value": (FLOAT32, lambda: DecisionTreeRegressor(**SEED).fit(D, V)),
    "forest": (FLOAT32, lambda: RandomForestClassifier(20, **SEED).fit(X, SPECIES)),
    "forest of booleans": (FLOAT32, lambda: RandomForestClassifier(20, **SEED).fit(TIMES, BOUGHT)),
    "forest of two values": (FLOAT32, lambda: RandomForestRegressor(10, **SEED).fit(D, TWO)),
    "forest of several outputs": (GTIL, lambda: RandomForestClassifier(10, **SEED).fit(X, np.column_stack([Y, Y % 2]))),
    "extra trees": (FLOAT32, lambda: ExtraTreesClassifier(20, **SEED).fit(X, Y)),
    "extra trees of a value": (FLOAT32, lambda: ExtraTreesRegressor(20, **SEED).fit(D, V)),
    "scaler and forest": (FLOAT32, lambda: make_pipeline(StandardScaler(), RandomForestRegressor(10, **SEED)).fit(D, V)),
    "bagged trees": (FLOAT32, lambda: BaggingClassifier(n_estimators=5, **SEED).fit(X, Y)),
    "adaptive boosting": (FLOAT32, lambda: AdaBoostClassifier(n_estimators=10, **SEED).fit(X, Y)),
    "gradient boosting": (FLOAT32, lambda: GradientBoostingClassifier(n_estimators=20, **SEED).fit(TIMES, BOUGHT)),
    "gradient boosting of a value": (FLOAT32, lambda: GradientBoostingRegressor(n_estimators=50, **SEED).fit(D, V)),
    "histogram boosting": (GTIL, lambda: HistGradientBoostingClassifier(max_iter=10).fit(TIMES, BOUGHT)),
    "histogram boosting of a value": (GTIL, lambda: HistGradientBoostingRegressor(max_iter=20).fit(D, V)),
    "histogram boosting of categories": (GTIL, lambda: HistGradientBoostingClassifier(max_iter=10, categorical_features="from_dtype").fit(PEOPLE.drop(columns="city"), BOUGHT)),
    "LightGBM": (GTIL, lambda: LGBMClassifier(**QUIET).fit(TIMES, BOUGHT)),
    "LightGBM of a value": (GTIL, lambda: LGBMRegressor(**QUIET).fit(D, V)),
    "LightGBM of categories": (GTIL, lambda: LGBMClassifier(**QUIET).fit(PEOPLE.drop(columns="city"), SPECIES[:1].repeat(len(PEOPLE)) + BOUGHT.astype(str))),
    "LightGBM of a rank": (GTIL, lambda: LGBMRanker(**QUIET).fit(X, Y, group=[30] * 5)),
    "LightGBM, native": (GTIL, _native_lightgbm),
    "XGBoost": (GTIL, lambda: XGBClassifier(**SMALL).fit(TIMES, BOUGHT)),
    "XGBoost of three classes, stopped early": (GTIL, _early_stopped),
    "XGBoost of two values": (GTIL, lambda: XGBRegressor(**SMALL).fit(D, TWO)),
    "XGBoost, native": (GTIL, _native_xgboost),
    "a function of the user's own": (None, lambda: make_pipeline(FunctionTransformer(np.abs), LogisticRegression()).fit(X, Y)),
    "labels by a linear score": (None, lambda: LinearSVC(**SEED).fit(X, Y)),
    "outliers": (None, lambda: IsolationForest(n_estimators=5, **SEED).fit(X)),
}  # fmt: skip


@cache
def fitted(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return KINDS[name][1]()
