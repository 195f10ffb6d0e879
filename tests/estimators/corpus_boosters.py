"""Gradient boosting: histograms, LightGBM, XGBoost and CatBoost, wrapped and native, by name what fits each."""

from __future__ import annotations

from functools import partial

from catboost import CatBoostClassifier, CatBoostRegressor
from estimators.corpus_parts import BOOLS, CAT, DULL, FORMS, LEVELS, LGBM, SMALL, T, encoded, fitted_on, passing
from estimators.tables import target
from lightgbm import Dataset, LGBMClassifier, LGBMRanker, LGBMRegressor
from lightgbm import train as train_lightgbm
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.experimental import enable_iterative_imputer  # noqa: F401 - makes the import below work
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    OneHotEncoder,
)
from xgboost import DMatrix, XGBClassifier, XGBRanker, XGBRegressor, XGBRFClassifier
from xgboost import train as train_xgboost

HISTOGRAMS = {
    "histogram, from types": (HistGradientBoostingClassifier(max_iter=4, categorical_features="from_dtype"), LEVELS, "str"),
    "histogram, by name": (HistGradientBoostingClassifier(max_iter=4, categorical_features=["deck", "zone"]), LEVELS, "three"),
    "histogram, by mask": (HistGradientBoostingRegressor(max_iter=4, categorical_features=[False, False, True]), T[["age", "fare", "pclass"]], "value"),
    "histogram of a matrix": (HistGradientBoostingRegressor(max_iter=4, categorical_features=[2]), T[["age", "fare", "pclass"]].to_numpy(), "value"),
}  # fmt: skip

BOOSTERS = {
    "LightGBM": (LGBMClassifier(**LGBM), DULL, "three str"),
    "LightGBM of a matrix": (LGBMRegressor(**LGBM), DULL.to_numpy(), "value"),
    "LightGBM of categories": (LGBMClassifier(**LGBM), LEVELS, "str"),
    "LightGBM of categories, calibrated": (CalibratedClassifierCV(LGBMClassifier(**LGBM), cv=2), LEVELS, "str"),
    "LightGBM in a pipeline": (make_pipeline(encoded(), LGBMClassifier(**LGBM)), FORMS, "bool"),
    "LightGBM behind frames": (
        make_pipeline(
            passing(),
            LGBMClassifier(**LGBM),
        ),
        LEVELS,
        "int",
    ),
    "XGBoost behind frames": (
        make_pipeline(passing(), XGBClassifier(enable_categorical=True, **SMALL)),
        LEVELS,
        "int",
    ),
    "histogram behind frames": (make_pipeline(passing(), HistGradientBoostingClassifier(max_iter=3)), LEVELS, "int"),
    "CatBoost behind frames": (make_pipeline(passing(), CatBoostClassifier(cat_features=["remainder__pclass"], **CAT)), T[["age", "pclass"]], "int"),
    "LightGBM of several labels": (MultiOutputClassifier(LGBMClassifier(**LGBM)), LEVELS, "several"),
    "XGBoost, one against the rest": (OneVsRestClassifier(XGBClassifier(enable_categorical=True, **SMALL)), LEVELS, "three"),
    "stacked boosters": (
        StackingClassifier([("x", XGBClassifier(enable_categorical=True, **SMALL)), ("l", LGBMClassifier(**LGBM)), ("h", HistGradientBoostingClassifier(max_iter=3))], cv=2),
        LEVELS,
        "int",
    ),
    "types that pandas alone has": (
        make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()),
        T[["pclass", "alone", "sex"]].astype({"pclass": "Int64", "alone": "boolean", "sex": "string"}),
        "int",
    ),
    "an array of strings": (make_pipeline(OneHotEncoder(), LogisticRegression()), T[["sex"]].to_numpy().astype("U6"), "int"),
    "LightGBM in a vote": (VotingClassifier([("a", LGBMClassifier(**LGBM)), ("b", LGBMClassifier(**LGBM))], voting="soft"), LEVELS, "int"),
    "XGBoost": (XGBClassifier(**SMALL), DULL, "three"),
    "XGBoost of a matrix": (XGBRegressor(**SMALL), DULL.to_numpy(), "value"),
    "XGBoost of categories": (XGBClassifier(enable_categorical=True, **SMALL), LEVELS, "int"),
    "XGBoost forest": (XGBRFClassifier(**SMALL), BOOLS, "int"),
    "XGBoost of several labels": (XGBClassifier(**SMALL), DULL, "several"),
    "XGBoost of several values": (XGBRegressor(**SMALL), DULL, "two values"),
    "XGBoost in a pipeline": (make_pipeline(encoded(), XGBClassifier(**SMALL)), FORMS, "int"),
    "CatBoost": (CatBoostClassifier(**CAT), DULL, "three str"),
    "CatBoost of a matrix": (CatBoostRegressor(**CAT), DULL.to_numpy(), "value"),
    "CatBoost of categories": (CatBoostClassifier(cat_features=["sex", "pclass", "alone"], **CAT), T[["sex", "age", "pclass", "alone", "fare"]], "str"),
    "CatBoost of texts": (CatBoostClassifier(text_features=["note"], cat_features=["sex"], **CAT), T[["note", "sex", "fare"]], "int"),
    "CatBoost, booleans": (CatBoostClassifier(**CAT), DULL, "bool"),
    "CatBoost of several labels": (CatBoostClassifier(loss_function="MultiLogloss", **CAT), DULL, "several"),
    "CatBoost of several values": (CatBoostRegressor(loss_function="MultiRMSE", **CAT), DULL, "two values"),
    "CatBoost in a pipeline": (make_pipeline(encoded(sparse_threshold=0), CatBoostClassifier(**CAT)), FORMS, "three str"),
    "CatBoost in a search": (GridSearchCV(CatBoostClassifier(**CAT), {"depth": [2, 3]}, cv=2), DULL, "int"),
}  # fmt: skip


def _ranking(model):
    return model.fit(DULL, target("three"), group=[len(DULL) // 4] * 4), DULL


BOOSTED = {name: partial(fitted_on, *case) for name, case in {**HISTOGRAMS, **BOOSTERS}.items()} | {
    "LightGBM ranking": lambda: _ranking(LGBMRanker(**LGBM)),
    "XGBoost ranking": lambda: _ranking(XGBRanker(**SMALL)),
}
"""By name, what fits it: ``(model, table)``."""


def _lightgbm(objective, kind, **options):
    options = {"objective": objective, "verbose": -1, "num_threads": 1, **options}
    model = train_lightgbm(options, Dataset(LEVELS, target(kind)), 4)
    return model, LEVELS, model.predict(LEVELS)


def _xgboost(objective, kind, **options):
    table = DMatrix(LEVELS, target(kind), enable_categorical=True)
    model = train_xgboost({"objective": objective, "nthread": 1, **options}, table, 4)
    return model, LEVELS, model.predict(table)


NATIVE = {
    "LightGBM binary": lambda: _lightgbm("binary", "int"),
    "LightGBM multiclass": lambda: _lightgbm("multiclass", "three", num_class=3),
    "LightGBM multiclassova": lambda: _lightgbm("multiclassova", "three", num_class=3),
    "LightGBM regression": lambda: _lightgbm("regression", "value"),
    "LightGBM cross_entropy": lambda: _lightgbm("cross_entropy", "bool"),
    "XGBoost binary:logistic": lambda: _xgboost("binary:logistic", "int"),
    "XGBoost binary:logitraw": lambda: _xgboost("binary:logitraw", "int"),
    "XGBoost multi:softprob": lambda: _xgboost("multi:softprob", "three", num_class=3),
    "XGBoost reg:squarederror": lambda: _xgboost("reg:squarederror", "value"),
    "XGBoost count:poisson": lambda: _xgboost("count:poisson", "three"),
}
"""Native boosters, as they are pickled, by name what trains it: ``(booster, table, values or probabilities)``."""
