"""Pipelines over mixed tables, as tutorials and users write them, by name what fits each: ``(model, table)``."""

from __future__ import annotations

from functools import partial

import numpy as np
from estimators.corpus_parts import (
    BOOLS,
    DULL,
    FORMS,
    LEVELS,
    LGBM,
    MIXED,
    NUMBERS,
    STRINGS,
    T,
    as_objects,
    encoded,
    fitted_on,
)
from lightgbm import LGBMClassifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor, make_column_selector, make_column_transformer
from sklearn.decomposition import NMF, PCA, TruncatedSVD
from sklearn.ensemble import (
    BaggingClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.experimental import enable_iterative_imputer  # noqa: F401 - makes the import below work
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.feature_selection import SelectKBest
from sklearn.impute import IterativeImputer, KNNImputer, MissingIndicator, SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, SGDClassifier
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV, TunedThresholdClassifierCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier, MultiOutputRegressor
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PowerTransformer,
    QuantileTransformer,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
)
from sklearn.svm import SVC, LinearSVC

PIPELINES = {
    "titanic": (make_pipeline(encoded(), LogisticRegression()), FORMS, "str"),
    "titanic, unknown is an error": (make_pipeline(encoded("error"), LogisticRegression()), FORMS, "bool"),
    "titanic, infrequent": (make_pipeline(encoded("infrequent_if_exist"), LogisticRegression()), FORMS, "three str"),
    "titanic, objects": (make_pipeline(encoded(), RandomForestClassifier(5)), as_objects(FORMS), "int"),
    "remainder passed": (make_pipeline(encoded(remainder="passthrough"), RandomForestClassifier(5)), MIXED, "three"),
    "remainder dropped": (make_pipeline(encoded(remainder="drop"), GradientBoostingClassifier(n_estimators=4)), T, "str"),
    "remainder scaled": (make_pipeline(encoded(remainder=MinMaxScaler()), LogisticRegression()), MIXED, "int"),
    "frames inside": (
        make_pipeline(
            ColumnTransformer(
                [("num", KNNImputer(), NUMBERS), ("cat", OneHotEncoder(sparse_output=False, handle_unknown="ignore"), STRINGS)]
            ).set_output(transform="pandas"),
            RandomForestClassifier(5),
        ),
        FORMS,
        "str",
    ),
    "selectors": (
        make_pipeline(
            make_column_transformer(
                (make_pipeline(SimpleImputer(), StandardScaler()), make_column_selector(dtype_include="number")),
                (OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_exclude="number")),
            ),
            LogisticRegression(),
        ),
        MIXED,
        "int",
    ),
    "selector of categories": (
        make_pipeline(
            make_column_transformer(
                (OrdinalEncoder(), make_column_selector(dtype_include="category")),
                (SimpleImputer(), make_column_selector(dtype_include="number")),
                remainder="passthrough",
            ),
            HistGradientBoostingClassifier(max_iter=4),
        ),
        LEVELS,
        "int",
    ),
    "union in columns": (
        make_pipeline(
            ColumnTransformer(
                [("both", FeatureUnion([("s", StandardScaler()), ("k", KBinsDiscretizer(3, quantile_method="averaged_inverted_cdf"))]), ["fare", "sibsp"])],
                remainder="drop",
            ),
            LogisticRegression(),
        ),
        FORMS,
        "str",
    ),
    "columns in columns": (
        make_pipeline(ColumnTransformer([("all", encoded(), [*NUMBERS, *STRINGS])], remainder="drop"), LogisticRegression()),
        T,
        "int",
    ),
    "search": (
        GridSearchCV(Pipeline([("c", encoded()), ("m", LogisticRegression())]), {"m__C": [0.1, 1.0]}, cv=2),
        FORMS,
        "str",
    ),
    "random search of a booster": (
        RandomizedSearchCV(make_pipeline(encoded(), LGBMClassifier(**LGBM)), {"lgbmclassifier__num_leaves": [3, 5]}, n_iter=2, cv=2),
        FORMS,
        "three str",
    ),
    "target encoder": (make_pipeline(TargetEncoder(cv=2), LogisticRegression()), T[["sex", "embarked", "deck"]], "int"),
    "ordinal, missing encoded": (
        make_pipeline(OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2), RandomForestClassifier(5)),
        T[["sex", "embarked", "deck", "alone"]],
        "str",
    ),
    "one-hot of integers and booleans": (make_pipeline(OneHotEncoder(), LogisticRegression()), T[["pclass", "alone", "sibsp"]], "int"),
    "one-hot of dates": (make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()), T[["booked", "sex"]], "int"),
    "one-hot, drop": (make_pipeline(OneHotEncoder(drop="if_binary"), LogisticRegression()), T[["sex", "alone", "pclass"]], "bool"),
    "one-hot, few": (make_pipeline(OneHotEncoder(min_frequency=60, handle_unknown="infrequent_if_exist"), LogisticRegression()), T[["embarked", "pclass"]], "int"),
    "a null of its own": (make_pipeline(OneHotEncoder(), LogisticRegression()), T[["embarked"]], "int"),
    "a None of its own": (make_pipeline(OneHotEncoder(), LogisticRegression()), as_objects(T[["embarked"]]), "int"),
    "filled with a word": (
        make_pipeline(SimpleImputer(strategy="constant", fill_value="none"), OneHotEncoder()), T[STRINGS], None,
    ),
    "text column": (
        make_pipeline(ColumnTransformer([("text", TfidfVectorizer(), "note"), ("num", StandardScaler(), ["fare"])]), LogisticRegression()),
        T[["note", "fare"]],
        "str",
    ),
    "texts, naive Bayes": (make_pipeline(CountVectorizer(), MultinomialNB()), T["note"].tolist(), "str"),
    "texts, support vectors": (make_pipeline(TfidfVectorizer(), LinearSVC()), T["note"].tolist(), "three"),
    "texts, reduced": (make_pipeline(TfidfVectorizer(), TruncatedSVD(2)), T["note"].tolist(), None),
    "texts, counted": (TfidfVectorizer(), T["note"].tolist(), None),
    "dates by a function": (
        make_pipeline(ColumnTransformer([("oh", OneHotEncoder(handle_unknown="ignore"), ["booked"])], remainder="drop"), LogisticRegression()),
        T,
        "int",
    ),
    "named numbers and booleans": (make_pipeline(StandardScaler(), LogisticRegression()), BOOLS, "str"),
    "named booleans in a tree": (RandomForestClassifier(5), BOOLS, "bool"),
    "logarithm": (make_pipeline(FunctionTransformer(np.log1p), LinearRegression()), T[["fare", "sibsp"]], "value"),
    "splines": (make_pipeline(SplineTransformer(n_knots=3), Ridge()), T[["fare", "pclass"]], "value"),
    "power": (make_pipeline(PowerTransformer(), Ridge()), T[["fare", "pclass"]], "value"),
    "quantiles": (make_pipeline(QuantileTransformer(n_quantiles=20), Ridge()), T[["fare", "sibsp"]], "value"),
    "neighbours fill": (make_pipeline(KNNImputer(), SVC(probability=False)), T[NUMBERS], "str"),
    "chained fill": (make_pipeline(IterativeImputer(max_iter=2), Ridge()), T[NUMBERS], "value"),
    "what was missing": (
        make_pipeline(SimpleImputer(add_indicator=True), LogisticRegression(max_iter=1000)), T[NUMBERS], "int",
    ),
    "what was missing, apart": (
        make_pipeline(FeatureUnion([("f", SimpleImputer()), ("m", MissingIndicator())]), RandomForestClassifier(5)), T[NUMBERS], "int",
    ),
    "frame of an imputer": (
        make_pipeline(
            SimpleImputer(strategy="most_frequent").set_output(transform="pandas"),
            ColumnTransformer([("oh", OneHotEncoder(handle_unknown="ignore"), STRINGS)], remainder="drop"),
            LogisticRegression(),
        ),
        T[STRINGS],
        "int",
    ),
    "selected": (make_pipeline(SimpleImputer(), SelectKBest(k=2), LogisticRegression()), T[NUMBERS], "three"),
    "calibrated columns": (CalibratedClassifierCV(make_pipeline(encoded(), LinearSVC()), cv=2), FORMS, "str"),
    "voting over columns": (
        VotingClassifier([("a", make_pipeline(encoded(), LogisticRegression())), ("b", make_pipeline(encoded("error"), RandomForestClassifier(4)))]),
        FORMS,
        "str",
    ),
    "soft voting": (
        VotingClassifier([("a", make_pipeline(encoded(), LogisticRegression())), ("b", make_pipeline(encoded(), RandomForestClassifier(4)))], voting="soft"),
        FORMS,
        "three",
    ),
    "stacking over columns": (
        StackingClassifier([("a", make_pipeline(encoded(), LogisticRegression())), ("b", make_pipeline(encoded(), RandomForestClassifier(4)))], cv=2),
        FORMS,
        "str",
    ),
    "stacking regressors": (
        StackingRegressor([("a", make_pipeline(encoded(), Ridge())), ("b", make_pipeline(encoded(), RandomForestRegressor(4)))], cv=2),
        FORMS,
        "value",
    ),
    "voting regressors": (VotingRegressor([("a", Ridge()), ("b", RandomForestRegressor(4))]), DULL, "value"),
    "logarithm of the target": (
        TransformedTargetRegressor(make_pipeline(encoded(), Ridge()), func=np.log1p, inverse_func=np.expm1), FORMS, "value",
    ),
    "one against the rest": (OneVsRestClassifier(make_pipeline(encoded(), LogisticRegression())), FORMS, "three str"),
    "several labels": (make_pipeline(encoded(), MultiOutputClassifier(LogisticRegression())), FORMS, "several"),
    "several labels, each a pipeline": (MultiOutputClassifier(make_pipeline(encoded(), LogisticRegression())), FORMS, "two str"),
    "several labels, rest": (make_pipeline(encoded(), OneVsRestClassifier(LogisticRegression())), FORMS, "several"),
    "chain": (make_pipeline(encoded(), ClassifierChain(LogisticRegression())), FORMS, "several"),
    "forest of several": (make_pipeline(encoded(), RandomForestClassifier(5)), FORMS, "two str"),
    "several values": (make_pipeline(encoded(), MultiOutputRegressor(Ridge())), FORMS, "two values"),
    "threshold": (TunedThresholdClassifierCV(make_pipeline(encoded(), LogisticRegression()), cv=2), FORMS, "str"),
    "bagged columns": (make_pipeline(encoded(), BaggingClassifier(n_estimators=3)), FORMS, "str"),
    "outliers of columns": (make_pipeline(encoded(), IsolationForest(n_estimators=5)), FORMS, None),
    "clusters of columns": (make_pipeline(encoded(), KMeans(3, n_init=1)), FORMS, None),
    "columns only": (encoded(), FORMS, None),
    "columns only, passed": (ColumnTransformer([("cat", OrdinalEncoder(), ["sex"])], remainder="passthrough"), T[["sex", "fare", "alone"]], None),
    "columns reduced": (make_pipeline(encoded(sparse_threshold=0), PCA(2)), FORMS, None),
    "columns factored": (make_pipeline(MinMaxScaler(), NMF(2, max_iter=2000)), DULL, None),
    "one-hot only": (OneHotEncoder(handle_unknown="ignore"), T[STRINGS], None),
    "bins only": (KBinsDiscretizer(3, quantile_method="averaged_inverted_cdf"), T[["fare", "sibsp"]], None),
    "gradient descent, hinge": (make_pipeline(encoded(), SGDClassifier()), FORMS, "str"),
    "an array of objects": (
        make_pipeline(ColumnTransformer([("num", StandardScaler(), [0, 1]), ("cat", OneHotEncoder(), [2])]), LogisticRegression()),
        T[["fare", "sibsp", "sex"]].to_numpy(),
        "str",
    ),
}  # fmt: skip


TABLES = {name: partial(fitted_on, *case) for name, case in PIPELINES.items()}
