"""Numbers that native code would index with are refused, wherever in a model they lie; sound models pass."""

from __future__ import annotations

import functools
import pickle

import hostile_files
import numpy as np
import pytest
from sklearn.ensemble import BaggingClassifier, IsolationForest, RandomForestRegressor, VotingClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC, SVR, NuSVC, OneClassSVM
from sklearn.tree import DecisionTreeClassifier

from fitserve.errors import ArtifactError
from fitserve.trust.structure import check_structure

X, Y = hostile_files.table()
SOUND = [
    DecisionTreeClassifier(), RandomForestRegressor(3), IsolationForest(n_estimators=3),
    BaggingClassifier(DecisionTreeClassifier(), 3, max_features=2), SVC(), SVC(kernel="linear"), NuSVC(nu=0.1), SVR(),
    OneClassSVM(), KNeighborsClassifier(algorithm="ball_tree"), KNeighborsClassifier(algorithm="kd_tree"),
    DecisionTreeClassifier(max_depth=1), DecisionTreeClassifier(max_leaf_nodes=2),
]  # fmt: skip


@pytest.mark.parametrize("estimator", SOUND, ids=str)
def test_a_sound_model_passes(estimator):
    check_structure(estimator.fit(X, Y))


def test_a_sound_model_on_a_kernel_matrix_passes():
    check_structure(SVC(kernel="precomputed").fit(X @ X.T, Y))


def test_a_tree_of_one_node_passes():
    check_structure(DecisionTreeClassifier().fit(X, np.zeros(len(X))))


def broken_tree():
    tree = DecisionTreeClassifier(random_state=0).fit(X, Y)
    tree.tree_.__setstate__(hostile_files.edited_tree(tree, left_child=1_000_000).tree_.reduced[2])
    return tree


def in_a_pipeline(tree):
    return make_pipeline(StandardScaler(), tree)


def in_a_bag(tree):
    bag = BaggingClassifier(DecisionTreeClassifier(), 2).fit(X, Y)
    bag.estimators_[1] = tree
    return bag


def in_a_vote(tree):
    vote = VotingClassifier([("a", DecisionTreeClassifier())]).fit(X, Y)
    vote.estimators_ = [tree]
    return vote


def in_arguments(tree):
    return FunctionTransformer(functools.partial(print, tree), kw_args={"a": 1})


def in_an_array(tree):
    return {"a": (np.array([[None, tree]], dtype=object), {3})}


@pytest.mark.parametrize("wrap", [in_a_pipeline, in_a_bag, in_a_vote, in_arguments, in_an_array])
def test_a_broken_tree_is_found_inside(wrap):
    with pytest.raises(ArtifactError, match="a node of a tree has a child that cannot be its own"):
        check_structure(wrap(broken_tree()))


REFUSED_BY_NUMPY = {"corrupt random state key"}


@pytest.mark.parametrize(
    "name", sorted({name for name in hostile_files.corruptions() if name.startswith("corrupt ")} - REFUSED_BY_NUMPY)
)
def test_each_corruption_is_found_in_a_live_model(name):
    model = pickle.loads(hostile_files.corruptions()[name])

    with pytest.raises(ArtifactError, match="is damaged"):
        check_structure(model)


def test_a_chain_of_objects_is_walked_without_recursion_and_a_cycle_ends():
    deep: list = []
    deep.append(deep)
    for _ in range(100_000):
        deep = [deep]

    check_structure(deep)


def test_no_property_or_method_of_a_model_is_called():
    class Trap:
        def __getattr__(self, name):
            raise AssertionError(name)

        def __iter__(self):
            raise AssertionError

        @property
        def trees(self):
            raise AssertionError

        __eq__ = __hash__ = __len__ = __bool__ = __iter__

    check_structure([Trap(), {"a": Trap()}])


def test_a_tree_of_other_features_than_its_estimator_is_refused():
    tree = DecisionTreeClassifier().fit(X, Y)
    tree.n_features_in_ = 1

    with pytest.raises(ArtifactError, match="another number of features"):
        check_structure(tree)
