"""A file of listed names only cannot use them in ways in which no fitted model does."""

from __future__ import annotations

import functools
import pickle

import hostile_files
import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import StackingClassifier
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.feature_selection import SelectFromModel
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import DistanceMetric
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.validation import check_array

from fitserve.errors import ArtifactError
from fitserve.trust.policy import TrustPolicy
from fitserve.trust.structure import check_structure
from fitserve.trust.unpickler import load_pickle

X, Y = hostile_files.table()


def loaded(model):
    return load_pickle(pickle.dumps(model), TrustPolicy(), digest="0" * 64)


def tree():
    return DecisionTreeClassifier(random_state=0).fit(X, Y)


def stacked(estimator, method):
    model = StackingClassifier([("a", LogisticRegression())], cv=2).fit(X, Y)
    model.estimators_, model.stack_method_ = [estimator], [method]
    return model


def test_a_stack_cannot_call_a_method_that_writes_a_file(tmp_path):
    target = tmp_path / "written"
    names = DummyClassifier(strategy="constant", constant=str(target))
    names.fit(X[:2], np.array([str(target), "b"], dtype=object))
    writes = stacked(np.array(["import os"]), "tofile")
    model = stacked(names, "predict")
    as_text = [FunctionTransformer(np.asarray, kw_args={"dtype": object}), FunctionTransformer(np.max)]
    model.final_estimator_ = make_pipeline(*as_text, writes)

    with pytest.raises(ArtifactError, match="call a method that gives no predictions"):
        loaded(model).predict(X[:1])
    assert not target.exists()


def test_a_threshold_cannot_name_a_method():
    model = FixedThresholdClassifier(LogisticRegression()).fit(X, Y > 0)
    model.response_method = "__setstate__"

    with pytest.raises(ArtifactError, match="call a method that gives no predictions"):
        loaded(model)


def test_a_selector_cannot_look_at_private_attributes():
    model = SelectFromModel(LogisticRegression()).fit(X, Y)
    model.importance_getter = "predict.__globals__"

    with pytest.raises(ArtifactError, match="look at a private attribute"):
        loaded(model)


def test_a_method_cannot_be_hidden_behind_an_attribute():
    model = tree()
    vars(model)["_validate_X_predict"] = functools.partial(check_array, dtype=np.float32)

    with pytest.raises(ArtifactError, match="hides the method '_validate_X_predict' of a DecisionTreeClassifier"):
        loaded(model)


@pytest.mark.parametrize("kind", [CountVectorizer, TfidfVectorizer, HashingVectorizer])
@pytest.mark.parametrize("way", ["filename", "file"])
def test_whoever_asks_cannot_name_files_that_a_vectorizer_reads(kind, way):
    model = kind().fit(["some text"])
    model.input = way

    with pytest.raises(ArtifactError, match=f"input='{way}', by which whoever asks names files"):
        loaded(model)


def several(part):
    model = MultiOutputClassifier(tree()).fit(X, np.column_stack([Y, Y]))
    model.estimators_ = [part, part]
    return model


def test_a_native_tree_cannot_be_given_rows_that_nobody_checked():
    whole = tree()

    with pytest.raises(ArtifactError, match="a Tree lies where nothing checks the rows"):
        loaded(several(whole.tree_))
    with pytest.raises(ArtifactError, match="a Tree lies where nothing checks the rows"):
        check_structure([whole, whole.tree_])
    with pytest.raises(ArtifactError, match="a Tree lies where nothing checks the rows"):
        check_structure([whole.tree_, whole])


def test_neighbours_cannot_lie_outside_of_their_model():
    model = KNeighborsClassifier(algorithm="kd_tree").fit(X, Y)

    check_structure(model)
    with pytest.raises(ArtifactError, match="a KDTree lies where"):
        loaded(several(model._tree))
    model.effective_metric_ = DistanceMetric.get_metric("euclidean")
    with pytest.raises(ArtifactError, match="a EuclideanDistance64 lies where"):
        loaded(model)
