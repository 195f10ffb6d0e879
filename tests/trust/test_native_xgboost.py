"""What is wrong with an XGBoost model is found before XGBoost sees it, in JSON as in UBJSON."""

import json
import struct

import pytest
from formats.samples import sample, xgboost_model

from fitserve.errors import ArtifactError
from fitserve.trust.native_xgboost import check_xgboost
from fitserve.trust.ubjson import MAX_DEPTH, read_ubjson

KINDS = ("binary", "multiclass", "dart", "linear", "vector leaves", "categories")


def document(kind):
    return json.loads(bytes(xgboost_model(kind).estimator.get_booster().save_raw("json")))


def model_of(doc):
    booster = doc["learner"]["gradient_booster"]
    return booster["gbtree"]["model"] if "gbtree" in booster else booster["model"]


def check(doc):
    return check_xgboost(json.dumps(doc).encode())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("encoding", ["json", "ubj"])
def test_what_xgboost_writes_passes(kind, encoding):
    head = check_xgboost(bytes(xgboost_model(kind).estimator.get_booster().save_raw(encoding)))

    assert head.n_features == (3 if kind == "categories" else 4)
    assert head.n_groups == {"multiclass": 3, "vector leaves": 2}.get(kind, 1)


def test_what_a_pickled_booster_holds_passes():
    state = xgboost_model("binary").estimator.get_booster().__getstate__()

    assert check_xgboost(bytes(state["handle"])).objective == "binary:logistic"


@pytest.mark.parametrize("kind", ["gamma", "exact"])
def test_trees_that_were_pruned_pass(kind):
    import xgboost
    from formats.samples import _matrix

    X = _matrix()
    model = xgboost.XGBRegressor(
        n_estimators=4, max_depth=4, gamma=0.5, tree_method="exact" if kind == "exact" else "hist"
    )
    model.fit(X, X[:, 1] + X[:, 2] ** 2)

    assert check_xgboost(bytes(model.get_booster().save_raw("json"))).n_features == 4


def test_what_older_versions_leave_out_may_be_missing():
    doc = document("binary")
    model = model_of(doc)
    del model["iteration_indptr"], model["cats"]
    for tree in model["trees"]:
        for name in ("split_type", "categories", "categories_nodes", "categories_segments", "categories_sizes"):
            del tree[name]
        tree["default_left"] = [bool(value) for value in tree["default_left"]]
    doc["learner"]["learner_model_param"]["base_score"] = "5E-1"
    del doc["learner"]["learner_model_param"]["num_target"]

    assert check(doc).n_groups == 1


@pytest.mark.parametrize(
    ("name", "place", "value", "message"),
    [
        ("left_children", 0, 999, "child does not exist"),
        ("left_children", 0, -2, "child does not exist"),
        ("right_children", 0, 0, "reached twice, or never"),
        ("left_children", 0, 2, "reached twice, or never"),
        ("right_children", -1, 1, "a leaf has a child"),
        ("split_indices", 0, 4, "feature that does not exist"),
        ("split_indices", 0, 2**31 - 1, "num_deleted"),
        ("parents", 1, 5, "another parent"),
        ("parents", 0, 0, "its root has a parent"),
        ("split_type", 0, 1, "not those that it lists"),
        ("split_type", 0, 2, "no known kind"),
        ("left_children", 0, 1.5, "not an array of numbers that fit"),
        ("left_children", 0, "1", "not an array of numbers"),
        ("left_children", 0, 10**30, "not an array of numbers"),
        ("left_children", 0, [1], "not an array of numbers"),
    ],
)
def test_a_node_that_does_not_fit_is_found(name, place, value, message):
    doc = document("binary")
    model_of(doc)["trees"][0][name][place] = value

    with pytest.raises(ArtifactError, match=message):
        check(doc)


def test_a_circle_is_found():
    doc = document("binary")
    tree = next(t for t in model_of(doc)["trees"] if len(t["parents"]) >= 7)
    # Nodes 1 and 2 swap a child with each other's parent: each still has one parent.
    root = tree["left_children"][0]
    child = tree["left_children"][root]
    tree["left_children"][root] = root
    tree["left_children"][0] = child
    tree["parents"][root], tree["parents"][child] = root, 0

    with pytest.raises(ArtifactError, match="circle"):
        check(doc)


@pytest.mark.parametrize(
    "name",
    ["left_children", "right_children", "parents", "split_indices", "split_conditions", "default_left", "base_weights",
     "loss_changes", "sum_hessian", "split_type", "categories_sizes"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["binary", "categories"])
def test_an_array_that_is_too_short_or_missing_is_found(kind, name):
    for change in (lambda tree: tree[name].pop(), lambda tree: tree.update({name: None})):
        doc = document(kind)
        tree = next(t for t in model_of(doc)["trees"] if t[name]) if kind == "categories" else model_of(doc)["trees"][0]
        if not tree[name]:
            continue
        change(tree)

        with pytest.raises(ArtifactError, match="is damaged"):
            check(doc)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("learner_model_param", "num_feature"), "2", "more features than the model"),
        (("learner_model_param", "num_feature"), "999999999", "num_feature"),
        (("learner_model_param", "num_feature"), 4, "num_feature"),
        (("learner_model_param", "num_class"), "4", "number of classes in two ways"),
        (("learner_model_param", "num_class"), "-1", "num_class"),
        (("learner_model_param", "num_target"), "2", "both classes and targets"),
        (("learner_model_param", "base_score"), "[1,2]", "one number an output"),
        (("learner_model_param", "base_score"), "nan", "not a number"),
        (("objective", "softmax_multiclass_param", "num_class"), "9", "number of classes in two ways"),
        (("objective", "name"), 5, "name"),
        (("feature_names",), ["a"], "does not fit its 4 features"),
        (("gradient_booster", "name"), "gbforest", "its booster is none of"),
        (("gradient_booster", "model", "tree_info", 0), 3, "output that does not exist"),
        (("gradient_booster", "model", "iteration_indptr", 1), 99, "do not cut"),
        (("gradient_booster", "model", "gbtree_model_param", "num_trees"), "1", "num_trees"),
        (("gradient_booster", "model", "trees", 0, "id"), 1, "'id' is wrong"),
        (("gradient_booster", "model", "trees", 0, "tree_param", "size_leaf_vector"), "2", "instead of"),
        (("gradient_booster", "model", "trees", 0, "tree_param", "num_nodes"), "99", "instead of 99"),
        (("gradient_booster", "model", "cats", "feature_segments"), [0], "belong to no feature"),
        (("gradient_booster",), None, "gradient_booster"),
    ],
)  # fmt: skip
def test_a_head_that_does_not_fit_is_found(path, value, message):
    doc = document("multiclass")
    place = doc["learner"]
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value

    with pytest.raises(ArtifactError, match=message):
        check(doc)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("categories", 1 << 24, "not a number that fits"),
        ("categories", -1, "not a number that fits"),
        ("categories_nodes", 99, "not those that it lists"),
        ("categories_segments", 7, "categories overlap"),
        ("categories_sizes", 0, "has none"),
    ],
)
def test_categories_that_do_not_fit_are_found(name, value, message):
    doc = document("categories")
    tree = next(tree for tree in model_of(doc)["trees"] if tree["categories"])
    tree[name][0] = value

    with pytest.raises(ArtifactError, match=message):
        check(doc)


def test_the_weights_of_a_linear_booster_are_counted():
    doc = document("linear")
    doc["learner"]["gradient_booster"]["model"]["weights"].pop()

    with pytest.raises(ArtifactError, match="'weights' has 4 numbers instead of 5"):
        check(doc)


def test_the_weights_of_dart_are_counted():
    doc = document("dart")
    doc["learner"]["gradient_booster"]["weight_drop"].pop()

    with pytest.raises(ArtifactError, match="'weight_drop' has 7 numbers instead of 8"):
        check(doc)


def test_vector_leaves_must_have_their_numbers():
    doc = document("vector leaves")
    model_of(doc)["trees"][0]["leaf_weights"].pop()

    with pytest.raises(ArtifactError, match="'leaf_weights'"):
        check(doc)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"5", b'{"learner": 1}', b'{"a": 1, "a": 2}', b"[" * 100_000, b'{"learner": {}, "version": []}'],
)
def test_what_is_no_model_is_refused(data):
    with pytest.raises(ArtifactError, match="is damaged"):
        check_xgboost(data)


@pytest.mark.parametrize("score", ["1" * 1_000_000 + "x", "[" + "1" * 1_000_000 + "]x", "1" * 1_000_000 + "e"])
def test_a_base_score_of_a_million_digits_is_read_in_one_pass(score):
    doc = document("multiclass")
    doc["learner"]["learner_model_param"]["base_score"] = score

    with pytest.raises(ArtifactError, match="'base_score' is not a number"):
        check(doc)


def test_strings_are_refused_before_an_array_is_made_of_them():
    doc = document("multiclass")
    # An array of as wide strings would take 400 GB.
    doc["learner"]["gradient_booster"]["model"]["tree_info"] = ["a" * 1_000_000] + [""] * 100_000

    with pytest.raises(ArtifactError, match="'tree_info' is not an array of numbers"):
        check(doc)


def test_a_member_named_twice_is_refused_in_either_encoding():
    twice = b"{" + 2 * (b"L" + struct.pack(">q", 1) + b"aZ") + b"}"

    with pytest.raises(ArtifactError, match="names a member twice"):
        read_ubjson(twice)
    with pytest.raises(ArtifactError, match="names a member twice"):
        check_xgboost(b'{"a": 1, "a": 2}')


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "ends before"),
        (b"{", "ends before"),
        (b"[$d#L" + struct.pack(">q", 2**40), "longer than the file"),
        (b"[$d#L" + struct.pack(">q", 3) + b"\0" * 8, "a length in it is wrong"),
        (b"[#L" + struct.pack(">q", 2**62), "longer than the file"),
        (b"[#L" + struct.pack(">q", -1), "longer than the file"),
        (b"[$Z#L" + struct.pack(">q", 2**40), "no known kind"),
        (b"SL" + struct.pack(">q", -5), "a length in it is wrong"),
        (b"Si\x05hello", "a length in it is not one"),
        (b"SL" + struct.pack(">q", 1) + b"\xff", "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[" * MAX_DEPTH + b"Z" + b"]" * MAX_DEPTH, "nested too deeply"),
        (b"Zx", "follows after its end"),
        (b"H", "no known kind"),
    ],
)
def test_ubjson_that_is_none_is_refused_before_anything_is_allocated(data, message):
    with pytest.raises(ArtifactError, match=message):
        read_ubjson(data)


def test_ubjson_is_read():
    data = (
        b"{L" + struct.pack(">q", 1) + b"a[$l#L" + struct.pack(">q", 2) + struct.pack(">ii", 7, -1)
        + b"L" + struct.pack(">q", 1) + b"b[i\x05TFZSL" + struct.pack(">q", 2) + b"hi]}"
    )  # fmt: skip

    read = read_ubjson(data)

    assert read["a"].tolist() == [7, -1]
    assert read["b"] == [5, True, False, None, "hi"]


def test_ubjson_and_json_of_a_model_are_one_document():
    ubj = read_ubjson(sample("xgboost binary ubj").artifact.data)

    assert ubj.keys() == document("binary").keys()


def test_a_tree_that_is_too_deep_is_found():
    # XGBoost recurses, and ends the process at the end of its stack.
    n = 20_011
    doc = document("binary")
    model = model_of(doc)
    tree = model["trees"][0]
    splits = range(0, n - 1, 2)
    tree["left_children"], tree["right_children"] = [-1] * n, [-1] * n
    tree["parents"] = [2**31 - 1] + [(i - 1) // 2 * 2 for i in range(1, n)]
    for i in splits:
        tree["left_children"][i], tree["right_children"][i] = i + 1, i + 2
    for name in (
        "split_indices",
        "split_type",
        "default_left",
        "base_weights",
        "loss_changes",
        "sum_hessian",
        "split_conditions",
    ):
        tree[name] = [0] * n
    tree["tree_param"]["num_nodes"] = str(n)

    with pytest.raises(ArtifactError, match="more than 10000 deep"):
        check(doc)


def test_outputs_must_have_trees():
    doc = document("multiclass")
    doc["learner"]["learner_model_param"]["num_class"] = "50000"
    doc["learner"]["learner_model_param"]["base_score"] = "[5E-1]"
    doc["learner"]["objective"]["softmax_multiclass_param"]["num_class"] = "50000"

    with pytest.raises(ArtifactError, match="fewer trees than outputs"):
        check(doc)
