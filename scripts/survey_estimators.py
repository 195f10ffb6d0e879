"""Fit every estimator of scikit-learn and the boosters, and compare their pickles with the allow-list.

``.venv/bin/python scripts/survey_estimators.py`` prints the names that are not on the list and those
on it that nothing here needs; ``--write`` renews docs/reference/supported-estimators.md.
"""

from __future__ import annotations

import inspect
import io
import pickle
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np

from fitserve.errors import ArtifactError
from fitserve.trust.allowlist import allowed_names, current_name
from fitserve.trust.policy import TrustPolicy
from fitserve.trust.scan import Scan
from fitserve.trust.stream import Stream
from fitserve.trust.unpickler import load_pickle

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).resolve().parents[1] / "docs/reference/supported-estimators.md"
DEFAULT = TrustPolicy()
RNG = np.random.default_rng(0)
X = np.abs(RNG.normal(size=(60, 4))) + 0.1
Y = np.repeat([0, 1, 2], 20)
MANY_Y = np.column_stack([X[:, 0] + X[:, 1], X[:, 1] - X[:, 2]])
TEXT = ["a cat sat", "the dog ran", "a bird sang"] * 20


def _special(name: str, kind: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return an estimator and what its fit takes, for those that need more than (X, y)."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.preprocessing import StandardScaler

    pair = [("a", LogisticRegression()), ("b", LogisticRegression(C=2.0))]
    ridges = [("a", Ridge()), ("b", Ridge(alpha=2.0))]
    table: dict[str, Any] = {
        "CCA": lambda: (kind(n_components=1), (X, MANY_Y)),
        "PLSCanonical": lambda: (kind(n_components=1), (X, MANY_Y)),
        "PLSSVD": lambda: (kind(n_components=1), (X, MANY_Y)),
        "ClassifierChain": lambda: (kind(LogisticRegression()), (X, np.column_stack([Y > 0, Y > 1]).astype(int))),
        "ColumnTransformer": lambda: (kind([("s", StandardScaler(), [0, 1])], remainder="passthrough"), (X,)),
        "CountVectorizer": lambda: (kind(), (TEXT,)),
        "TfidfVectorizer": lambda: (kind(), (TEXT,)),
        "HashingVectorizer": lambda: (kind(n_features=16), (TEXT,)),
        "DictVectorizer": lambda: (kind(), ([{"a": 1, "b": "x"}, {"a": 2, "b": "y"}],)),
        "FeatureHasher": lambda: (kind(n_features=8), ([{"a": 1}],)),
        "FeatureUnion": lambda: (kind([("s", StandardScaler())]), (X,)),
        "FixedThresholdClassifier": lambda: (kind(LogisticRegression(), threshold=0.4), (X, Y > 0)),
        "TunedThresholdClassifierCV": lambda: (kind(LogisticRegression()), (X, Y > 0)),
        "FrozenEstimator": lambda: (kind(LogisticRegression().fit(X, Y)), (X, Y)),
        "GammaRegressor": lambda: (kind(), (X, X[:, 0])),
        "GaussianRandomProjection": lambda: (kind(n_components=2), (X,)),
        "SparseRandomProjection": lambda: (kind(n_components=2), (X,)),
        "GridSearchCV": lambda: (kind(LogisticRegression(), {"C": [0.1, 1.0]}, scoring="roc_auc_ovr"), (X, Y)),
        "RandomizedSearchCV": lambda: (kind(LogisticRegression(), {"C": [0.1, 1.0]}, n_iter=2), (X, Y)),
        "HalvingGridSearchCV": lambda: (kind(LogisticRegression(), {"C": [0.1, 1.0]}), (X, Y)),
        "HalvingRandomSearchCV": lambda: (kind(LogisticRegression(), {"C": [0.1, 1.0]}), (X, Y)),
        "IsotonicRegression": lambda: (kind(), (X[:, 0], X[:, 1])),
        "KernelCenterer": lambda: (kind(), (X @ X.T,)),
        "LabelBinarizer": lambda: (kind(), (Y,)),
        "LabelEncoder": lambda: (kind(), (np.array(["a", "b"]),)),
        "MultiLabelBinarizer": lambda: (kind(), ([["a"], ["a", "b"]],)),
        "Pipeline": lambda: (kind([("s", StandardScaler()), ("m", LogisticRegression())]), (X, Y)),
        "SparseCoder": lambda: (kind(X), (X,)),
        "StackingClassifier": lambda: (kind(pair), (X, Y)),
        "StackingRegressor": lambda: (kind(ridges), (X, X[:, 0])),
        "VotingClassifier": lambda: (kind(pair), (X, Y)),
        "VotingRegressor": lambda: (kind(ridges), (X, X[:, 0])),
        "MultiOutputClassifier": lambda: (kind(LogisticRegression()), (X, np.column_stack([Y, Y[::-1]]))),
        "MultiOutputRegressor": lambda: (kind(Ridge()), (X, MANY_Y)),
        "RegressorChain": lambda: (kind(Ridge()), (X, MANY_Y)),
        "SelfTrainingClassifier": lambda: (kind(LogisticRegression()), (X, np.where(np.arange(60) % 3, Y, -1))),
        "FunctionTransformer": lambda: (kind(np.log1p, np.expm1), (X,)),
    }
    if name.startswith("MultiTask"):
        return kind(), (X, MANY_Y)
    if name in table:
        made: tuple[Any, tuple[Any, ...]] = table[name]()
        return made
    wants = inspect.signature(kind).parameters
    first = next(iter(wants.values()), None)
    if first is not None and first.name == "estimator" and first.default is inspect.Parameter.empty:
        return kind(LogisticRegression()), (X, Y)
    return kind(), (X, Y)


def fitted_estimators() -> Iterator[tuple[str, Any, str | None]]:
    """Fit each of ``all_estimators()``: (name, estimator, why it could not be fitted)."""
    from sklearn.experimental import enable_halving_search_cv, enable_iterative_imputer  # noqa: F401
    from sklearn.utils import all_estimators

    for name, kind in all_estimators():
        try:
            estimator, given = _special(name, kind)
            yield name, estimator.fit(*given), None
        except Exception as exc:  # noqa: BLE001 - the page names what could not be fitted
            yield name, None, f"{type(exc).__name__}: {exc}"


def variants() -> Iterator[tuple[str, Any]]:
    """Give what users hold in estimators besides the defaults: losses, kernels, scorers, splitters, tables."""
    yield from _two_class_variants()
    yield from _loss_variants()
    yield from _kernel_variants()
    yield from _function_variants()
    yield from _neighbour_variants()
    yield from _value_variants()
    yield from _sparse_variants()
    yield from _pandas_variants()
    yield from _booster_variants()


def _two_class_variants() -> Iterator[tuple[str, Any]]:
    """Every classifier again: with two classes many hold another loss or another part."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.neural_network import MLPClassifier
    from sklearn.utils import all_estimators

    for name, kind in all_estimators(type_filter="classifier"):
        estimator, given = _special(name, kind)
        if given[-1] is Y:
            yield f"two classes, {name}", estimator.fit(X, np.where(Y > 0, "yes", "no"))
    yield "calibrated by temperature", CalibratedClassifierCV(method="temperature", cv=2).fit(X, Y)
    yield "mlp sgd", MLPClassifier((4,), solver="sgd", max_iter=2).fit(X, Y)


def _loss_variants() -> Iterator[tuple[str, Any]]:
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor, HistGradientBoostingRegressor
    from sklearn.linear_model import SGDClassifier, SGDRegressor, TweedieRegressor

    yield "tweedie", TweedieRegressor(power=1.5).fit(X, X[:, 0])
    yield "gb exponential", GradientBoostingClassifier(loss="exponential", n_estimators=2).fit(X, Y > 0)
    for loss in ("squared_error", "absolute_error", "huber", "quantile"):
        yield f"gb {loss}", GradientBoostingRegressor(loss=loss, n_estimators=2).fit(X, X[:, 0])
    for loss in ("squared_error", "absolute_error", "gamma", "poisson", "quantile"):
        model = HistGradientBoostingRegressor(loss=loss, quantile=0.5, max_iter=2)
        yield f"hgb {loss}", model.fit(X, X[:, 0])
    for loss in ("hinge", "log_loss", "modified_huber", "squared_hinge", "perceptron", "huber"):
        yield f"sgd {loss}", SGDClassifier(loss=loss).fit(X, Y)
    for loss in ("squared_error", "huber", "epsilon_insensitive", "squared_epsilon_insensitive"):
        yield f"sgd {loss}", SGDRegressor(loss=loss).fit(X, X[:, 0])


def _kernel_variants() -> Iterator[tuple[str, Any]]:
    from sklearn.gaussian_process import GaussianProcessRegressor, kernels

    mixed = kernels.RBF() + kernels.WhiteKernel() * kernels.ConstantKernel() + kernels.DotProduct() ** 2
    for kernel in (mixed, kernels.Matern(), kernels.RationalQuadratic(), kernels.ExpSineSquared()):
        yield f"gp {kernel}", GaussianProcessRegressor(kernel, alpha=10.0).fit(X, X[:, 0])
    yield "gp pairwise", (kernels.PairwiseKernel(), kernels.CompoundKernel([kernels.RBF()]))


def _function_variants() -> Iterator[tuple[str, Any]]:
    from sklearn import feature_selection, model_selection
    from sklearn.metrics import get_scorer, get_scorer_names
    from sklearn.preprocessing import FunctionTransformer

    for name in get_scorer_names():
        yield f"scorer {name}", get_scorer(name)
    for name in dir(model_selection):
        if name.endswith(("Fold", "Split", "Out")) and "Base" not in name:
            given = {"LeavePOut": (2,), "LeavePGroupsOut": (2,), "PredefinedSplit": ([0, 1],)}.get(name, ())
            yield f"splitter {name}", getattr(model_selection, name)(*given)
    for name in ("f_classif", "f_regression", "chi2", "mutual_info_classif", "mutual_info_regression", "r_regression"):
        yield f"score {name}", feature_selection.SelectKBest(getattr(feature_selection, name), k=2).fit(X, Y)
    for name in FUNCTIONS.split():
        yield f"function {name}", FunctionTransformer(getattr(np, name))


FUNCTIONS = """abs arccos arccosh arcsin arcsinh arctan arctanh asarray cbrt ceil clip cos cosh deg2rad degrees exp exp2
expm1 fabs floor isfinite isinf isnan log log10 log1p log2 logical_not max mean median min nan_to_num negative positive
rad2deg radians ravel reciprocal rint sign sin sinh sqrt square std sum tan tanh trunc var"""


def _neighbour_variants() -> Iterator[tuple[str, Any]]:
    from sklearn.neighbors import KNeighborsClassifier

    for metric in ("euclidean", "manhattan", "chebyshev", "minkowski", "hamming", "canberra", "braycurtis"):
        yield f"knn {metric}", KNeighborsClassifier(metric=metric, algorithm="ball_tree", p=3).fit(X, Y)
    yield "knn kd_tree", KNeighborsClassifier(algorithm="kd_tree").fit(X.astype("f4"), Y)
    yield "knn brute", KNeighborsClassifier(algorithm="brute").fit(X, Y)
    yield "knn haversine", KNeighborsClassifier(metric="haversine", algorithm="ball_tree").fit(X[:, :2], Y)
    for metric, given in (("mahalanobis", {"VI": np.eye(4)}), ("seuclidean", {"V": np.ones(4)})):
        model = KNeighborsClassifier(algorithm="ball_tree", metric=metric, metric_params=given)
        yield f"knn {metric}", model.fit(X, Y)


def _value_variants() -> Iterator[tuple[str, Any]]:
    from sklearn.naive_bayes import GaussianNB
    from sklearn.preprocessing import PolynomialFeatures, SplineTransformer
    from sklearn.random_projection import GaussianRandomProjection

    for state in (np.random.RandomState(0), np.random.mtrand._rand):  # noqa: SLF001 - what users have
        yield "random state", GaussianRandomProjection(2, random_state=state).fit(X)
    kinds = (np.float16, np.float32, np.float64, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32)
    yield "numbers", [kind(1) for kind in (*kinds, np.uint64, np.bool_, np.str_)]
    yield "types", [int, float, bool, str, object, np.uint64, np.bool_, np.str_, np.number, *kinds]
    yield "dates", [np.datetime64("2026-01-01"), np.array(["2026-01-01"], "M8[ns]"), np.timedelta64(3, "D")]
    yield "arrays", [np.array(["a", "bb"]), np.array([b"a"]), np.array([1], ">i4"), np.ma.array([1], mask=[True])]
    yield "plain", [{1, 2}, frozenset({1}), slice(1, 2), range(3), 1 + 2j, b"", b"x", bytearray(b"y"), bytearray()]
    yield "generator", [np.random.default_rng(0), np.random.PCG64(1), np.random.MT19937(2)]
    yield "spline", SplineTransformer().fit(X)
    yield "poly", [PolynomialFeatures().set_output(transform="pandas").fit(X), GaussianNB().fit(X, Y)]


def _sparse_variants() -> Iterator[tuple[str, Any]]:
    import scipy.sparse as sp
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import SVC

    for kind in ("csr", "csc", "coo"):
        yield f"sparse {kind}", (sp.random(5, 4, 0.5, format=kind), sp.random_array((5, 4), density=0.5, format=kind))
    yield "sparse knn", KNeighborsClassifier().fit(sp.csr_array(X), Y)
    yield "sparse svc", SVC().fit(sp.csr_matrix(X), Y)


def _pandas_variants() -> Iterator[tuple[str, Any]]:
    import pandas as pd
    from sklearn.compose import ColumnTransformer, make_column_selector
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler, TargetEncoder

    table = pd.DataFrame({"n": X[:, 0], "i": Y, "s": np.array(["x", "y", "z"])[Y], "t": TEXT})
    table["c"] = table["s"].astype("category")
    table["b"] = table["i"] > 0
    encoders = (OneHotEncoder(handle_unknown="ignore"), OrdinalEncoder(), TargetEncoder())
    for encoder in encoders:
        columns = ColumnTransformer(
            [
                ("n", make_pipeline(SimpleImputer(), StandardScaler()), make_column_selector(dtype_include="number")),
                ("s", encoder, pd.Index(["s", "c"])),
                ("t", TfidfVectorizer(), "t"),
                ("b", "passthrough", slice(5, 6)),
            ]
        )
        yield f"table {encoder}", make_pipeline(columns, LogisticRegression()).fit(table, table["i"])
    for columns in (table.columns, table.select_dtypes("number").columns, pd.Index(["s"], dtype=object)):
        yield "index", ColumnTransformer([("a", "passthrough", columns)]).fit(table)
    yield "range index", [pd.RangeIndex(4), pd.Index([1, 2]), pd.Index(["a", "b"], name="x")]
    yield "categories", [pd.CategoricalDtype(["a", "b"]), pd.CategoricalDtype([1, 2], ordered=True)]
    yield "hgb", HistGradientBoostingClassifier(max_iter=2, categorical_features="from_dtype").fit(table[["n", "c"]], Y)
    yield "nothing known", [pd.NA, pd.NaT]


def _booster_variants() -> Iterator[tuple[str, Any]]:
    import catboost
    import lightgbm
    import pandas as pd
    import xgboost

    table = pd.DataFrame({"n": X[:, 0], "c": pd.Categorical(np.array(["x", "y", "z"])[Y])})
    few: dict[str, Any] = {"n_estimators": 3, "n_jobs": 1}
    for kind in (xgboost.XGBClassifier, xgboost.XGBRFClassifier):
        yield f"xgboost {kind.__name__}", kind(enable_categorical=True, **few).fit(table, Y)
    for kind in (xgboost.XGBRegressor, xgboost.XGBRFRegressor):
        yield f"xgboost {kind.__name__}", kind(**few).fit(X, X[:, 0])
    ranker = xgboost.XGBRanker(**few).fit(X, Y, qid=np.repeat([0, 1], 30))
    yield "xgboost XGBRanker", ranker
    yield "xgboost Booster", ranker.get_booster()
    yield (
        "xgboost early",
        xgboost.XGBClassifier(early_stopping_rounds=1, **few).fit(X, Y, eval_set=[(X, Y)], verbose=False),
    )
    stop = xgboost.callback.EarlyStopping(rounds=1)
    yield "xgboost stop", xgboost.XGBClassifier(callbacks=[stop], **few).fit(X, Y, eval_set=[(X, Y)], verbose=False)
    yield "lightgbm LGBMClassifier", lightgbm.LGBMClassifier(verbose=-1, **few).fit(table, Y.astype(str))
    yield "lightgbm LGBMRegressor", lightgbm.LGBMRegressor(verbose=-1, **few).fit(X, X[:, 0])
    ranks = lightgbm.LGBMRanker(verbose=-1, **few).fit(X, Y, group=[30, 30])
    yield "lightgbm LGBMRanker", ranks
    yield "lightgbm Booster", ranks.booster_
    for kind in (catboost.CatBoostClassifier, catboost.CatBoostRegressor, catboost.CatBoostRanker, catboost.CatBoost):
        extra = {"group_id": np.repeat([0, 1], 30)} if kind is catboost.CatBoostRanker else {}
        target = Y if kind is not catboost.CatBoostRegressor else X[:, 0]
        model = kind({"iterations": 3, "verbose": 0}) if kind is catboost.CatBoost else kind(iterations=3, verbose=0)
        pool = catboost.Pool(X, target, **extra)
        yield f"catboost {kind.__name__}", model.set_params(allow_writing_files=False, thread_count=1).fit(pool)


def dumps(model: Any) -> list[bytes]:
    """Write a model as joblib and as pickle would."""
    file = io.BytesIO()
    joblib.dump(model, file)
    return [file.getvalue(), pickle.dumps(model), pickle.dumps(model, protocol=2)]


def needs(data: bytes) -> dict[str, set[Any]]:
    """Return the names that a pickle uses, and how."""
    scan = Scan(Stream(data))
    scan.run()
    return {current_name(name): uses for name, uses in scan.uses.items()}


ON_PURPOSE = {
    "numpy.matrix", "numpy.memmap",  # the kinds of array that joblib may name
    "numpy.random.mtrand.RandomState", "numpy.random._generator.Generator",  # what listed functions return
    "sklearn.multiclass._ConstantPredictor",  # a class that does not occur in a fold
}  # fmt: skip


def survey() -> tuple[dict[str, str], dict[str, str], set[str]]:
    """Return the reason by estimator of what does not load, the same of variants, and the names that were needed."""
    seen: set[str] = set()
    failed: dict[str, str] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, estimator, why in fitted_estimators():
            reason = f"could not be fitted here ({why})" if why else refusal(estimator, seen)
            if reason:
                failed[name] = reason
        others = {name: reason for name, model in variants() if (reason := refusal(model, seen))}
    return failed, others, seen


def refusal(model: Any, seen: set[str]) -> str | None:
    """Return why a model does not load under the default policy, or None; note the names that it needs."""
    for data in dumps(model):
        seen |= set(needs(data))
        try:
            load_pickle(data, DEFAULT, digest="")
        except ArtifactError as exc:
            return str(exc)
    return None


EXPERIMENTAL = {"HalvingGridSearchCV", "HalvingRandomSearchCV", "IterativeImputer"}


def render(failed: dict[str, str]) -> str:
    """Return the page: how many estimators load, which do not, and what the corpus shows of those that serve."""
    if (folder := str(Path(__file__).resolve().parent)) not in sys.path:
        sys.path.append(folder)
    from corpus_page import corpus_section
    from sklearn import __version__
    from sklearn.utils import all_estimators

    names = {name for name, _ in all_estimators()} - EXPERIMENTAL
    rows = [f"| `{name}` | {reason} |" for name, reason in sorted(failed.items())] or ["| none | |"]
    return PAGE_TEXT.format(
        n_loaded=len(names - set(failed)),
        n_all=len(names),
        version=__version__,
        rows="\n".join(rows),
        n_names=len(allowed_names()),
        corpus=corpus_section(),
    )


PAGE_TEXT = """\
# Which estimators are served

<!-- Made by scripts/survey_estimators.py --write: change the list or the scripts, then make the page again. -->

Two questions: may the file be loaded at all, and does fitserve know how to serve what is in it?

## What loads under `allowlist`

Under the trust level `allowlist`, the default, a joblib file or pickle is loaded when every name that it uses is on a
list of {n_names} exact names, each in the uses that were reviewed. The survey fits every estimator that scikit-learn's
`all_estimators()` gives, saves each with joblib and with pickle (protocols 2 and the default), and loads the files.

**{n_loaded} of {n_all} estimators of scikit-learn {version} load**, and so do the three experimental ones.
These do not:

| estimator | reason |
|---|---|
{rows}

The scikit-learn wrappers of XGBoost, LightGBM and CatBoost, `xgboost.Booster` and `lightgbm.Booster` load too, and so
do the scorers, splitters, kernels, losses and distance metrics of scikit-learn.

An estimator that loads with one content may not with another. These contents are not on the list:

| content | why |
|---|---|
| `FunctionTransformer` with a function of yours, or another of NumPy's | code: `--allow` it, or `--pin` the file |
| `FunctionTransformer` with a `functools.partial` | a partial can hold any call |
| a transformer or estimator of your own | the same; one of a notebook must move into a module first |
| a metric, kernel, scorer, tokenizer or analyzer that is a function of yours | the same |
| `RandomizedSearchCV` with distributions of `scipy.stats` | restoring one runs `exec`: save `best_estimator_` |
| a `DataFrame` or `Series` inside an estimator | its blocks point into memory unchecked: drop it |
| sparse matrices other than CSR, CSC and COO | no fitted estimator holds one |
| `memory=` of a `Pipeline` that is a `joblib.Memory` | it opens a folder: set `memory=None` before saving |

`fitserve run` prints the names that are missing, and the commands that would let the file be loaded:
[Decide what to trust](../howto/decide-what-to-trust.md).

{corpus}"""


def main() -> None:
    """Print what the survey found; with ``--write``, renew the page."""
    failed, others, seen = survey()
    for name, reason in (failed | others).items():
        print(f"does not load: {name}: {reason}")
    for name in sorted(set(allowed_names()) - seen - ON_PURPOSE):
        print(f"nothing needs: {name}")
    if "--write" in sys.argv:
        PAGE.write_text(render(failed))


if __name__ == "__main__":
    main()
