"""compile_model: what it reports, when it gives up; and what the engines do with what libraries do."""

from __future__ import annotations

import copy
import subprocess
import sys
import warnings

import numpy as np
import pytest
from lightgbm import LGBMRegressor
from optimize.kinds import GTIL, QUIET, SEED, SMALL, TIMES, D, V, X, Y, fitted
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from xgboost import XGBClassifier

from fitserve.estimators.model import EstimatorModel
from fitserve.optimize import compile as compiling
from fitserve.optimize.base import Compiled
from fitserve.optimize.compile import compile_model, load_compiled
from fitserve.optimize.split import split

pytestmark = pytest.mark.filterwarnings("ignore")


def model_of(name):
    return EstimatorModel(copy.deepcopy(fitted(name)))


def served(estimator):
    model = EstimatorModel(estimator)
    (one,), report = compile_model(model)
    return model, one, report, load_compiled(one, model)


def test_a_report_says_what_was_done():
    _, report = compile_model(model_of("forest"))

    (entry,) = report
    assert entry["engine"] == "onnx-float32"
    assert (entry["verdict"], entry["reason"], entry["n_unequal"]) == ("used", None, 0)
    assert entry["n_rows"] > entry["n_threshold_rows"] > 1000
    assert 0 < entry["differences"]["predict_proba"] <= entry["tolerance"]
    assert entry["memory_bytes"] >= 2**16
    assert entry["cost"]["fixed_s"] + entry["cost"]["per_row_s"] > 0
    assert entry["native_cost"]["fixed_s"] > 0
    assert entry["seconds"] > 0
    assert {"scikit-learn", "onnxruntime", "treelite"} <= set(entry["versions"])


def test_it_gives_up_before_a_conversion_that_would_not_end_in_time(monkeypatch):
    monkeypatch.setattr(compiling, "NODES_PER_S", {"onnx": 1, "treelite": 1})

    found, report = compile_model(model_of("forest"), deadline_s=5.0)

    assert found == []
    assert all(entry["verdict"] == "refused" and "would take" in entry["reason"] for entry in report)


def test_it_gives_up_when_its_time_is_over():
    found, report = compile_model(model_of("logistic regression"), deadline_s=0.0)

    assert found == []
    assert all("too long" in entry["reason"] for entry in report)


@pytest.mark.parametrize(
    ("estimator", "reason"),
    [
        (make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(["good", "bad", "good film"], [1, 0, 1]), "free text"),
        (type("Own", (LogisticRegression,), {"__module__": "own"})(max_iter=500).fit(X, Y), "no engine knows"),
    ],
)  # fmt: skip
def test_what_no_engine_can_compute_is_refused_with_the_reason(estimator, reason):
    found, report = compile_model(EstimatorModel(estimator))

    assert found == []
    assert all(entry["verdict"] == "refused" and reason in entry["reason"] for entry in report)


def test_a_subclass_of_a_booster_is_not_taken_for_the_booster():
    kind = type("Own", (RandomForestClassifier,), {"__module__": "own"})

    assert split(kind(5, **SEED).fit(X, Y)).library is None


def test_a_wrong_engine_is_refused_and_the_next_one_tried(monkeypatch):
    right = compiling.RUNS["onnx-float32"]

    def swapped(data, note):
        run = right(data, note)
        return lambda inputs: [run(inputs)[0][:, ::-1]]

    monkeypatch.setitem(compiling.RUNS, "onnx-float32", swapped)

    (one,), report = compile_model(model_of("forest"))

    assert one.engine == GTIL
    assert [entry["verdict"] for entry in report] == ["refused", "used"]
    assert "another label" in report[0]["reason"]


@pytest.mark.parametrize("name", ["logistic regression", "LightGBM"])
def test_damaged_data_are_an_error_and_no_crash(name):
    model = model_of(name)
    (one,), _ = compile_model(model)

    for data in (one.data[: len(one.data) // 2], b"", b"nothing"):
        with pytest.raises(Exception):  # noqa: B017, PT011 - the runtimes have their own
            load_compiled(Compiled(one.engine, data, one.note), model)


def test_the_model_is_not_changed():
    model = model_of("columns and XGBoost")
    inputs = model.signature.check([[30.0, 5.0, 1.7e9, "Rome", "free"]])
    before = model.predict(inputs).probabilities[0].tolist()

    compile_model(model)

    assert model.predict(inputs).probabilities[0].tolist() == before


def test_lightgbm_takes_tiny_numbers_for_zero_and_so_do_we():
    rows = TIMES[:, :1] - TIMES[:, :1].mean()
    rows[::2] = 0.0
    tiny = float(np.float32(1e-35))
    model, one, _, predict = served(LGBMRegressor(**QUIET).fit(rows, np.arange(len(rows)) % 2 + np.sign(rows[:, 0])))
    table = np.array([[-tiny], [tiny], [0.0], [-2 * tiny], [2 * tiny], [-tiny / 2]])

    assert one.engine == GTIL
    assert predict(table, ()).predictions.tolist() == model.predict(table).predictions.tolist()


def test_xgboost_stops_at_its_best_round():
    model = XGBClassifier(n_estimators=60, n_jobs=1, early_stopping_rounds=3)
    model.fit(X[::2], Y[::2], eval_set=[(X[1::2], Y[1::2])], verbose=False)
    assert model.best_iteration < 58

    loaded, _, _, predict = served(model)

    np.testing.assert_allclose(predict(X, ()).probabilities[0], loaded.predict(X).probabilities[0], atol=1e-6)


def test_values_come_in_the_floats_of_the_library():
    for name in ("XGBoost", "forest", "gradient boosting of a value"):
        model = model_of(name)
        (one,), _ = compile_model(model)
        rows = {"XGBoost": TIMES, "forest": X}.get(name, D)[:2]
        came, wanted = load_compiled(one, model)(rows, ()), model.predict(rows)

        assert came.predictions.dtype == wanted.predictions.dtype
        assert [p.dtype for p in came.probabilities or ()] == [p.dtype for p in wanted.probabilities or ()]


def test_a_row_of_another_width_never_reaches_the_trees():
    model = model_of("LightGBM")
    (one,), _ = compile_model(model)

    with pytest.raises(AssertionError):
        load_compiled(one, model)(np.zeros((1, 1)), ())


def test_loading_imports_no_converter():
    code = "import fitserve.optimize.compile, fitserve.optimize.treelite, sys; print([m for m in ('skl2onnx', 'onnx', 'treelite', 'onnxruntime', 'sklearn') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_warnings_of_converters_stay_within():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compile_model(EstimatorModel(LinearRegression().fit(D, V)))
        compile_model(EstimatorModel(XGBClassifier(**SMALL).fit(X, Y)))

    assert caught == []
