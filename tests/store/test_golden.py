"""Golden samples: what is recorded, and what a replay finds."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from fitserve.errors import ArtifactError, InvalidInputError
from fitserve.estimators.model import EstimatorModel
from fitserve.signature import Field, Signature
from fitserve.store.golden import golden_json, parse_golden, record, replay
from fitserve.store.made_rows import scattered_rows, self_made_rows
from fitserve.types import Golden, Outputs

ROWS = [[0.0, 1.0], [1.0, 0.0], [2.0, 5.0]]


def classifier() -> EstimatorModel:
    return EstimatorModel(LogisticRegression().fit(ROWS, ["no", "yes", "no"]))


def regressor(factor: float = 1.0) -> EstimatorModel:
    return EstimatorModel(LinearRegression().fit(ROWS, [factor, 2 * factor, 4 * factor]))


class Answering:
    """A model that gives what it is told to."""

    def __init__(self, outputs: Outputs, signature: Signature | None = None) -> None:
        self.outputs = outputs
        self.signature = signature or Signature((Field("x0"),))
        self.facts = None
        self.is_library_code = True

    def predict(self, inputs, asked=()) -> Outputs:
        return self.outputs


def test_what_was_recorded_is_replayed_without_a_difference():
    model = classifier()

    golden = parse_golden(golden_json(record(model, ROWS)))
    report = replay(model, golden)

    assert set(golden.outputs) == {"predict", "predict_proba", "decision_function"}
    assert golden.outputs["predict"] == ["no", "yes", "no"]
    assert report.is_ok
    assert [output.largest_abs for output in report.outputs] == [0.0, 0.0, 0.0]
    assert report.n_rows == 3


def test_another_label_is_told_without_its_value():
    before, after = (DecisionTreeClassifier(random_state=0).fit(ROWS, ["no", "yes", last]) for last in ("no", "yes"))
    golden = record(EstimatorModel(before), ROWS)

    report = replay(EstimatorModel(after), golden)

    assert not report.is_ok
    assert report.mismatch == "predict of golden row 2 is another value than at packing"
    assert report.outputs[0].n_differing == 1
    assert report.outputs[0].is_exact


def test_numbers_differ_within_a_tolerance():
    golden = record(regressor(), ROWS)

    near, far = replay(regressor(1 + 5e-7), golden), replay(regressor(1 + 1e-4), golden)

    assert near.is_ok
    assert 1e-7 < near.outputs[0].largest_rel < 1e-6
    assert not far.is_ok
    assert "predict of golden row" in far.mismatch
    assert "more than rtol 1e-06 and atol 1e-09" in far.mismatch
    assert far.outputs[0].n_differing == 3


def test_nan_equals_nan_and_infinity_itself():
    odd = Answering(Outputs(np.array([np.nan, np.inf, -np.inf, 1.0])))
    rows = [[0.0]] * 4

    golden = parse_golden(golden_json(record(odd, rows)))

    assert golden.outputs["predict"] == [None, "inf", "-inf", 1.0]
    assert replay(odd, golden).is_ok
    for changed in ([0.0, np.inf, -np.inf, 1.0], [np.nan, -np.inf, -np.inf, 1.0], [np.nan, np.inf, -np.inf, np.nan]):
        assert not replay(Answering(Outputs(np.array(changed))), golden).is_ok


@pytest.mark.parametrize(
    ("packed", "now"), [([1, 0], [True, False]), (["1", "0"], [1, 0]), ([1, 0], [1, 2]), ([[1, 0]], [[0, 1]])]
)
def test_labels_are_identical_in_kind_and_value(packed, now):
    rows = [[0.0]] * len(packed)
    golden = parse_golden(golden_json(record(Answering(Outputs(np.array(packed))), rows)))

    assert replay(Answering(Outputs(np.array(packed))), golden).is_ok
    assert not replay(Answering(Outputs(np.array(now))), golden).is_ok


def test_probabilities_of_several_outputs_belong_to_their_row():
    y = np.array([[0, 1], [1, 0], [1, 1]])
    model = EstimatorModel(DecisionTreeClassifier(random_state=0).fit(ROWS, y))

    golden = record(model, ROWS)

    assert golden.outputs["predict_proba"][0] == [[1.0, 0.0], [0.0, 1.0]]
    assert replay(model, parse_golden(golden_json(golden))).is_ok


def test_a_model_that_cannot_answer_any_more_is_told():
    golden = record(regressor(), ROWS)

    class Broken(Answering):
        def predict(self, inputs, asked=()):
            msg = "secret"
            raise RuntimeError(msg)

    raising = replay(Broken(None, Signature((Field("x0"), Field("x1")))), golden)
    narrower = replay(Answering(None), golden)
    shorter = replay(Answering(Outputs(np.zeros(2)), Signature((Field("x0"), Field("x1")))), golden)
    without = replay(regressor(), Golden(ROWS, {"predict_proba": [[1.0]] * 3}))

    assert raising.mismatch == "cannot answer its sample rows: it raised RuntimeError"
    assert narrower.mismatch.startswith("a golden row is refused now: row 0")
    assert shorter.mismatch == "gives 2 values of predict for 3 rows"
    assert without.mismatch == "the model has no output predict_proba any more"


def test_rows_that_do_not_fit_are_not_recorded():
    with pytest.raises(InvalidInputError, match="row 1"):
        record(regressor(), [[0.0, 1.0], ["a", 1.0]])


@pytest.mark.parametrize(
    ("document", "told"),
    [
        (b"{", "not valid JSON"),
        (b"[]", "valid dictionary"),
        (b'{"schema": 2, "rtol": 0, "atol": 0, "rows": [[1]], "outputs": {"predict": [1]}}', "schema"),
        (b'{"schema": 1, "rtol": 2, "atol": 0, "rows": [[1]], "outputs": {"predict": [1]}}', "rtol"),
        (b'{"schema": 1, "rtol": 0, "atol": 0, "rows": [], "outputs": {"predict": []}}', "rows"),
        (b'{"schema": 1, "rtol": 0, "atol": 0, "rows": [[1]], "outputs": {"predict": [1, 2]}}', "1 rows, but 2 of"),
    ],
)
def test_wrong_golden_samples_are_refused(document, told):
    with pytest.raises(ArtifactError, match=told):
        parse_golden(document)


def test_golden_samples_hold_strict_json():
    odd = Answering(Outputs(np.array([np.nan])))

    data = golden_json(record(odd, [[0.0]]))

    json.loads(data, parse_constant=pytest.fail)


def test_self_made_rows_show_each_category_and_each_null():
    table = pd.DataFrame({"age": [1.0, np.nan, 3.0], "plan": ["a", "b", "c"]})
    columns = make_column_transformer((SimpleImputer(), ["age"]), (OneHotEncoder(), ["plan"]))
    model = EstimatorModel(make_pipeline(columns, LogisticRegression()).fit(table, [0, 1, 0]))

    rows = self_made_rows(model.signature)

    assert {row["plan"] for row in rows} == {"a", "b", "c"}
    assert any(row["age"] is None for row in rows)
    assert replay(model, record(model, rows)).is_ok


def test_self_made_rows_are_bounded_and_positional_where_the_model_is():
    wide = Signature(tuple(Field(f"x{i}", is_nullable=True, categories=tuple(range(500))) for i in range(200)))

    rows = self_made_rows(wide)

    assert len(rows) == 64
    assert all(isinstance(row, list) for row in rows)
    assert self_made_rows(Signature((), is_open=True)) == []
    assert self_made_rows(Signature((Field("x0", "boolean"),))) == [[False], [False], [True]]


def test_scattered_rows_take_other_branches_and_are_ones_that_the_model_answers():
    X = np.linspace(0.5, 9.5, 60).reshape(30, 2)
    logarithm = make_pipeline(FunctionTransformer(np.log), StandardScaler(), LinearRegression())
    model = EstimatorModel(logarithm.fit(X, X[:, 0]))

    rows = scattered_rows(model)

    assert rows == scattered_rows(model)
    assert 4 < len(rows) < 32
    assert all(value > 0 for row in rows for value in row)
    assert len({tuple(row) for row in rows}) == len(rows)
