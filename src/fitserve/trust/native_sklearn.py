"""The invariants of scikit-learn's and scipy's compiled code, one function a class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fitserve.errors import ArtifactError
from fitserve.trust import native_columns, native_ensembles
from fitserve.trust.reconstruct import check_random_state

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


MAX_THREADS = 1_024
"""Of the machine on which a model was fitted: KMeans keeps their number, and allocates for each."""


def _wanted(condition: object, what: str) -> None:
    if not condition:
        raise ArtifactError(f"is damaged: {what}")


def _check_children(left: NDArray[Any], right: NDArray[Any], n_nodes: int, max_depth: int | None) -> None:
    """Check the children of those nodes that split: later nodes, each with one parent, not too deep.

    Arrays of the whole tree, with -1 where a node is a leaf. Both builders of scikit-learn number a child
    after its parent, so a cycle is impossible.
    """
    index = np.flatnonzero(left >= 0)
    children = np.concatenate([left[index], right[index]])
    parents = np.concatenate([index, index])
    _wanted(np.all((children > parents) & (children < n_nodes)), "a node of a tree has a child that cannot be its own")
    _wanted(len(children) == 0 or np.bincount(children).max() == 1, "a node of a tree has two parents")
    if max_depth is None:
        return
    depth, layer = 0, np.array([0])
    while True:
        layer = layer[left[layer] >= 0]
        if not len(layer):
            break
        depth += 1
        _wanted(depth <= max_depth, "a tree is deeper than it says")
        layer = np.concatenate([left[layer], right[layer]])


def _check_tree(tree: Any) -> None:
    """Check ``sklearn.tree._tree.Tree`` (_tree.pyx: ``_apply_dense``, ``decision_path``)."""
    _wanted(1 <= tree.node_count <= tree.capacity, "a tree has another number of nodes than it says")
    left, right, feature = tree.children_left, tree.children_right, tree.feature
    splits = left != -1
    _wanted(np.all(left >= -1) and np.all(right[~splits] == -1), "a node of a tree has a child that cannot be its own")
    _check_children(left, right, tree.node_count, int(tree.max_depth))
    is_feature = (feature >= 0) & (feature < tree.n_features)
    _wanted(np.all(is_feature[splits]), "a tree splits by a feature that it does not have")


def _n_features(estimator: Any) -> int:
    n_features = vars(estimator).get("n_features_in_")
    _wanted(isinstance(n_features, int | np.integer) and n_features >= 0, "an estimator has no number of features")
    return int(n_features)


def _check_tree_estimator(estimator: Any) -> None:
    """Check an estimator of one tree: it passes rows of n_features_in_ numbers."""
    tree = vars(estimator).get("tree_")
    if tree is None:
        return
    _wanted(type(tree).__name__ == "Tree", "a tree is none")
    _wanted(tree.n_features == _n_features(estimator), "a tree has another number of features than its estimator")
    n_outputs = vars(estimator).get("n_outputs_")
    _wanted(tree.n_outputs == n_outputs, "a tree has another number of outputs than its estimator")


def _check_gradient_boosting(estimator: Any) -> None:
    """Check GradientBoosting (_gradient_boosting.pyx: ``predict_stages`` indexes rows, trees and outputs)."""
    state = vars(estimator)
    trees = state.get("estimators_")
    if trees is None:
        return
    n_features, n_trees = _n_features(estimator), state.get("n_trees_per_iteration_", 1)
    _wanted(isinstance(trees, np.ndarray) and trees.ndim == 2 and trees.shape[1] == n_trees, "stages of odd shape")  # noqa: PLR2004
    for tree in trees.ravel():
        inner = vars(tree)["tree_"]
        _wanted(type(inner).__name__ == "Tree" and inner.n_features == n_features, "a stage has other features")
        _wanted(inner.n_outputs == 1, "a stage has several outputs")
    native_ensembles.check_first_guess(estimator, n_trees)


def _check_hist_gradient_boosting(estimator: Any) -> None:
    """Check HistGradientBoosting (_predictor.pyx: ``_predict_one_from_raw_data``)."""
    state = vars(estimator)
    if "_predictors" not in state:
        return
    n_features, mapper = state["_n_features"], vars(state["_bin_mapper"])
    is_categorical = np.asarray(mapper["is_categorical_"], dtype=bool)
    _wanted(len(mapper["bin_thresholds_"]) == n_features == len(is_categorical), "bins of other features")
    _wanted(_n_features(estimator) == n_features, "stages of other features")
    native_ensembles.check_preprocessor(estimator, n_features)
    for predictor in (tree for stage in state["_predictors"] for tree in stage):
        nodes = vars(predictor)["nodes"]
        splits = nodes["is_leaf"] == 0
        features = nodes["feature_idx"][splits]
        _wanted(np.all((features >= 0) & (features < n_features)), "a tree splits by a feature that it does not have")
        by_category = nodes["is_categorical"][splits] != 0
        _wanted(np.all(is_categorical[features[by_category]]), "a tree splits a number by category")


def _check_predictor(predictor: Any) -> None:
    """Check the nodes of a tree of HistGradientBoosting."""
    state = vars(predictor)
    nodes = state["nodes"]
    _wanted(isinstance(nodes, np.ndarray) and nodes.ndim == 1 and len(nodes) > 0, "a tree has no nodes")
    splits = nodes["is_leaf"] == 0
    left = np.where(splits, nodes["left"].astype(np.int64), -1)
    right = np.where(splits, nodes["right"].astype(np.int64), -1)
    _check_children(left, right, len(nodes), None)
    sets = nodes["bitset_idx"][splits & (nodes["is_categorical"] != 0)]
    for name in ("raw_left_cat_bitsets", "binned_left_cat_bitsets"):
        bits = state[name]
        _wanted(isinstance(bits, np.ndarray) and bits.ndim == 2 and bits.shape[1] == 8, "a tree's categories")  # noqa: PLR2004
        _wanted(bits.dtype == np.uint32 and (not len(sets) or sets.max() < len(bits)), "a tree's categories")


def _check_neighbours_tree(tree: Any) -> None:
    """Check KDTree and BallTree (_binary_tree.pxi.tp: ``_query_single_depthfirst``)."""
    data, index, nodes, bounds, leaf_size, n_levels, n_nodes = tree.__getstate__()[:7]
    n_rows, n_features = np.shape(data)
    _wanted(index.shape == (n_rows,) and np.all((index >= 0) & (index < n_rows)), "a neighbours tree's index")
    _wanted(0 < n_levels < 48 and n_nodes == 2**n_levels - 1 == len(nodes), "a neighbours tree has other nodes")  # noqa: PLR2004
    _wanted(bounds.shape[1:] == (n_nodes, n_features) and leaf_size >= 1, "a neighbours tree's bounds")
    _wanted(len(bounds) == (2 if type(tree).__name__.startswith("KD") else 1), "a neighbours tree's bounds")
    start, end = nodes["idx_start"], nodes["idx_end"]
    _wanted(np.all((start >= 0) & (start <= end) & (end <= n_rows)), "a neighbours tree's nodes lie outside of it")
    inner = np.flatnonzero(nodes["is_leaf"] == 0)
    _wanted(not len(inner) or 2 * inner.max() + 2 < n_nodes, "a neighbours tree has no leaves")
    metric = held_by(tree)
    _, vector, matrix = metric.__getstate__()[:3]
    kind = type(metric).__name__
    needs_vector = kind.startswith("SEuclidean") or (kind.startswith("Minkowski") and len(vector) > 1)
    _wanted(not needs_vector or len(vector) >= n_features, "a metric has fewer weights than features")
    _wanted(not kind.startswith("Mahalanobis") or np.shape(matrix) == (n_features,) * 2, "a metric of other features")
    _wanted(not kind.startswith("Haversine") or n_features == 2, "a metric of other features")  # noqa: PLR2004


def _check_neighbours(estimator: Any) -> None:
    """Check what the neighbours models look up (_argkmin_classmode.pyx.tp indexes labels)."""
    state = vars(estimator)
    rows, labels, classes = state.get("_fit_X"), state.get("_y"), state.get("classes_")
    if rows is None:
        return
    n_rows = rows.shape[0]
    _wanted(state.get("n_samples_fit_", n_rows) == n_rows, "neighbours of another number of rows")
    n_features = _n_features(estimator)
    _wanted(len(rows.shape) == 2 and rows.shape[1] == n_features, "neighbours of other features")  # noqa: PLR2004
    _check_metric(state.get("effective_metric_params_") or {}, n_features)
    if isinstance(labels, np.ndarray):
        _wanted(len(labels) == n_rows, "neighbours have another number of labels")
        if isinstance(classes, np.ndarray) and labels.ndim == 1 and len(labels):
            _wanted(labels.dtype.kind in "iu" and 0 <= labels.min() <= labels.max() < len(classes), "a label")


def _check_metric(parameters: Any, n_features: int) -> None:
    """Check what a metric that is made anew for each call reads a value of for each feature."""
    for name in ("w", "V", "VI"):
        value = parameters.get(name)
        _wanted(value is None or set(np.shape(value)) == {n_features}, "a metric of other features")


def _check_libsvm(estimator: Any) -> None:
    """Check SVC, NuSVC, SVR, NuSVR, OneClassSVM (_libsvm.pyx, libsvm_helper.c: ``set_model``)."""
    state = vars(estimator)
    if "support_vectors_" not in state:
        return
    vectors, duals, support = state["support_vectors_"], state["_dual_coef_"], state["support_"]
    counts, intercepts = np.asarray(state["_n_support"]), np.asarray(state["_intercept_"])
    n_vectors = len(support)
    is_classifier = "classes_" in state
    n_classes = len(counts) if is_classifier else 2
    _wanted(np.all(counts >= 0) and len(counts) >= (2 if is_classifier else 1), "a support vector machine's counts")
    if is_classifier:
        is_whole = counts.sum() == n_vectors and len(state["classes_"]) == n_classes
        _wanted(is_whole, "a support vector machine has other classes than vectors")
    _wanted(np.shape(duals) == (n_classes - 1, n_vectors), "a support vector machine has other coefficients")
    n_pairs = n_classes * (n_classes - 1) // 2
    _wanted(intercepts.shape == (n_pairs,), "a support vector machine has other intercepts")
    for name in ("_probA", "_probB"):
        _wanted(len(state.get(name, ())) in (0, 1, n_pairs), "a support vector machine has other probabilities")
    if not isinstance(duals, np.ndarray):  # of a model on sparse rows: libsvm takes its numbers as a full table
        _wanted(duals.nnz == len(duals.data) == (n_classes - 1) * n_vectors, "a support vector machine's coefficients")
    if state.get("kernel") == "precomputed" or callable(state.get("kernel")):
        is_inside = np.all((support >= 0) & (support < state["shape_fit_"][0]))
        _wanted(is_inside and state["shape_fit_"][0] <= _n_features(estimator), "a support vector lies outside")
    else:
        _wanted(np.shape(vectors) == (n_vectors, _n_features(estimator)), "support vectors of other features")


def _check_centres(estimator: Any) -> None:
    """Check KMeans and its kin (_k_means_lloyd.pyx: BLAS takes the centres' length from the rows)."""
    state = vars(estimator)
    centres = state.get("cluster_centers_")
    if centres is None:
        return
    n_features = _n_features(estimator)
    is_table = isinstance(centres, np.ndarray) and centres.ndim == 2 and centres.shape[1] == n_features  # noqa: PLR2004
    _wanted(is_table and len(centres), "cluster centres of other features")
    n_threads = state.get("_n_threads", 1)
    _wanted(isinstance(n_threads, int | np.integer) and 1 <= n_threads <= MAX_THREADS, "clusters' number of threads")
    pending = [state["_bisecting_tree"]] if "_bisecting_tree" in state else []
    seen = 0
    while pending:
        node = vars(pending.pop())
        seen += 1
        _wanted(
            np.shape(node["center"]) == (n_features,) and seen <= 2 * len(centres) + 1, "clusters of other features"
        )
        pending.extend(node[side] for side in ("left", "right") if node.get(side) is not None)


def _check_compressed(matrix: Any) -> None:
    """Check csr, csc and bsr matrices (scipy/sparse/sparsetools)."""
    shape = vars(matrix).get("_shape")
    _wanted(type(shape) is tuple and all(isinstance(n, int | np.integer) and n >= 0 for n in shape), "a sparse shape")
    _wanted(all(isinstance(vars(matrix).get(name), np.ndarray) for name in ("data", "indices", "indptr")), "a sparse")
    _wanted(matrix.indices.dtype.kind == matrix.indptr.dtype.kind == "i", "a sparse matrix's indices")
    matrix.check_format(full_check=True)


def _check_coordinates(matrix: Any) -> None:
    """Check a coo matrix."""
    state = vars(matrix)
    shape, coords = state["_shape"], state["coords"]
    _wanted(len(shape) == len(coords), "a sparse matrix's indices")
    for length, index in zip(shape, coords, strict=True):
        is_inside = not len(index) or (index.min() >= 0 and index.max() < length)
        _wanted(index.dtype.kind == "i" and is_inside and len(index) == len(state["data"]), "a sparse matrix's indices")


def _check_spline(spline: Any) -> None:
    """Check a BSpline (scipy/interpolate/src/__fitpack.cc: ``_evaluate_spline``)."""
    state = vars(spline)
    knots, coefficients = (np.asarray(state.get(f"_{name}", state.get(name))) for name in "tc")  # scipy 1.15: t, c
    degree = state["k"]
    _wanted(isinstance(degree, int | np.integer) and 0 <= degree < 1000, "a spline has no degree")  # noqa: PLR2004
    _wanted(knots.ndim == 1 and np.all(np.diff(knots) >= 0), "a spline's knots are not in order")
    n_wanted = len(knots) - degree - 1
    _wanted(n_wanted >= degree + 1 and len(coefficients) >= n_wanted, "a spline has too few")


def _check_generator(generator: Any) -> None:
    """Check a random generator's state (mt19937.h: ``mt19937_next`` reads key[pos])."""
    if isinstance(generator, np.random.RandomState):
        check_random_state(generator.get_state(legacy=False))
    elif isinstance(generator, np.random.Generator):
        check_random_state(generator.bit_generator.state)
    else:
        check_random_state(generator.state)


def held_by(thing: object) -> Any:
    """Return what a compiled object holds besides its attributes, or None."""
    if type(thing).__module__ in ("sklearn.neighbors._kd_tree", "sklearn.neighbors._ball_tree"):
        state: Any = thing.__getstate__()
        return state[11]
    return None


CHECKS: dict[str, Callable[[Any], None]] = {
    "numpy.random.mtrand.RandomState": _check_generator,
    "numpy.random._generator.Generator": _check_generator,
    "numpy.random._mt19937.MT19937": _check_generator,
    "scipy.interpolate._bsplines.BSpline": _check_spline,
    "scipy.sparse._compressed._cs_matrix": _check_compressed,
    "scipy.sparse._coo._coo_base": _check_coordinates,
    "sklearn.cluster._kmeans._BaseKMeans": _check_centres,
    "sklearn.ensemble._gb.BaseGradientBoosting": _check_gradient_boosting,
    "sklearn.ensemble._hist_gradient_boosting.gradient_boosting.BaseHistGradientBoosting": (
        _check_hist_gradient_boosting
    ),
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor": _check_predictor,
    "sklearn.feature_extraction._dict_vectorizer.DictVectorizer": native_columns.check_vocabulary,
    "sklearn.feature_extraction._hash.FeatureHasher": native_columns.check_hasher,
    "sklearn.feature_extraction.text.CountVectorizer": native_columns.check_vocabulary,
    "sklearn.preprocessing._encoders.OneHotEncoder": native_columns.check_one_hot,
    "sklearn.preprocessing._label.MultiLabelBinarizer": native_columns.check_vocabulary,
    "sklearn.neighbors._base.NeighborsBase": _check_neighbours,
    "sklearn.neighbors._ball_tree.BinaryTree64": _check_neighbours_tree,
    "sklearn.neighbors._ball_tree.BinaryTree32": _check_neighbours_tree,
    "sklearn.neighbors._kd_tree.BinaryTree64": _check_neighbours_tree,
    "sklearn.neighbors._kd_tree.BinaryTree32": _check_neighbours_tree,
    "sklearn.svm._base.BaseLibSVM": _check_libsvm,
    "sklearn.tree._classes.BaseDecisionTree": _check_tree_estimator,
    "sklearn.tree._tree.Tree": _check_tree,
}
"""What is checked, by the full name of a class or of one of its bases."""
