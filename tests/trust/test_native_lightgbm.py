"""What is wrong with a LightGBM text is found before LightGBM sees it."""

import re

import pytest
from formats.samples import sample

from fitserve.errors import ArtifactError
from fitserve.trust.native_lightgbm import check_lightgbm


def text_of(kind):
    return sample(f"lightgbm {kind} text").artifact.data


def changed(data, tree, key, value):
    """The text with another value in a line of a tree, and the tree's size in the head put right."""
    head, *blocks = re.split(rb"(?=\nTree=\d+\n)", data)
    line = re.compile(rb"^" + key + rb"=.*\n" if key else rb"$", re.MULTILINE)
    old = len(blocks[tree])
    new_line = b"" if value is None else key + b"=" + value + b"\n"
    blocks[tree] = line.sub(lambda _: new_line, blocks[tree], count=1)
    sizes = re.search(rb"tree_sizes=(.*)", head)[1].split()
    sizes[tree] = b"%d" % (int(sizes[tree]) + len(blocks[tree]) - old)
    return re.sub(rb"tree_sizes=.*", b"tree_sizes=" + b" ".join(sizes), head) + b"".join(blocks)


def values(data, tree, key):
    return re.findall(rb"^" + key + rb"=(.*)$", data, re.MULTILINE)[tree].split()


def with_value(data, tree, key, place, value):
    found = values(data, tree, key)
    found[place] = value
    return changed(data, tree, key, b" ".join(found))


@pytest.mark.parametrize("kind", ["binary", "named classes", "linear", "categories"])
def test_what_lightgbm_writes_passes(kind):
    head = check_lightgbm(text_of(kind))

    assert head.n_features == (3 if kind == "categories" else 4)
    assert head.n_outputs == (3 if kind == "named classes" else 1)


@pytest.mark.parametrize(
    ("key", "place", "value", "message"),
    [
        (b"left_child", 0, b"99", "child of tree 0 does not exist"),
        (b"left_child", 0, b"-99", "child of tree 0 does not exist"),
        (b"right_child", 0, b"0", "reached twice, or never"),
        (b"left_child", -1, b"-1", "reached twice, or never"),
        (b"split_feature", 0, b"4", "feature that does not exist"),
        (b"split_feature", 0, b"-1", "feature that does not exist"),
        (b"decision_type", 0, b"12", "no known kind"),
        (b"decision_type", 0, b"1", "categories that it does not have"),
        (b"threshold", 0, b"0x1", "something else than numbers"),
        (b"leaf_value", 0, b"1_0", "something else than numbers"),
        (b"leaf_value", 0, b"1e", "cannot be read"),
        (b"split_gain", 0, b"0x1", "something else than numbers"),
    ],
)
def test_a_number_that_does_not_fit_is_found(key, place, value, message):
    data = with_value(text_of("binary"), 0, key, place, value)

    with pytest.raises(ArtifactError, match=message):
        check_lightgbm(data)


def test_a_circle_is_found():
    data = text_of("binary")
    left = values(data, 0, b"left_child")
    # The split below the root becomes its own child, in the place of the one that the root gets: each has one parent.
    child = int(left[0])
    assert child > 0
    left[0], left[child] = left[child], left[0]

    with pytest.raises(ArtifactError, match="circle"):
        check_lightgbm(changed(data, 0, b"left_child", b" ".join(left)))


@pytest.mark.parametrize(
    "key", [b"left_child", b"leaf_value", b"threshold", b"split_feature", b"decision_type", b"num_cat"]
)
def test_a_missing_list_is_found(key):
    with pytest.raises(ArtifactError, match=key.decode()):
        check_lightgbm(changed(text_of("binary"), 1, key, None))


@pytest.mark.parametrize("key", [b"leaf_value", b"threshold", b"right_child", b"leaf_count", b"internal_value"])
def test_a_list_that_is_too_short_is_found(key):
    data = text_of("binary")

    with pytest.raises(ArtifactError, match="instead of"):
        check_lightgbm(changed(data, 0, key, b" ".join(values(data, 0, key)[:-1])))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (rb"num_class=3", b"num_class=2", "number of classes in two ways"),
        (rb"num_tree_per_iteration=3", b"num_tree_per_iteration=1", "number of classes in two ways"),
        (rb"num_class:3", b"num_class:30000", "number of classes in two ways"),
        (rb"max_feature_idx=3", b"max_feature_idx=2147483647", "max_feature_idx"),
        (rb"max_feature_idx=3", b"max_feature_idx=2", "does not name its 3 features"),
        (rb"feature_infos=\S+", b"feature_infos=x", "feature_infos"),
        (rb"objective=multiclass", b"objective=os.system", "objective is unknown"),
        (rb"version=v4", b"version=v9", "version"),
        (rb"version=v4", b"version=v4\nversion=v3", "says twice"),
        (rb"tree_sizes=\d+", b"tree_sizes=1", "tree 0 is not where"),
        (rb"tree_sizes=(.*) \d+", rb"tree_sizes=\1", "more trees than"),
        (rb"tree_sizes=.*\n", b"", "save it with a later one"),
        (rb"num_leaves", b"num_leaves\0", "zero byte"),
        (rb"\n", b"\r\n", "Windows"),
        (rb"pandas_categorical:.*", b'pandas_categorical:[{"a": 1}]', "no table"),
        (rb"pandas_categorical:.*", b"pandas_categorical:[[null]]", "no plain value"),
        (rb"pandas_categorical:.*", b"pandas_categorical:" + b"[" * 100_000, "no JSON"),
        (rb"\[boosting: gbdt\]", b"boosting gbdt", "none that LightGBM writes"),
    ],
)
def test_a_head_or_tail_that_does_not_fit_is_found(old, new, message):
    with pytest.raises(ArtifactError, match=message):
        check_lightgbm(re.sub(old, new, text_of("named classes")))


def test_trees_must_be_as_many_as_classes():
    data = text_of("named classes")
    head, *blocks = re.split(rb"(?=\nTree=\d+\n)", data)
    last, tail = re.split(rb"(?=\nend of trees)", blocks[-1])
    sizes = re.search(rb"tree_sizes=(.*)", head)[1].split()
    head = re.sub(rb"tree_sizes=.*", b"tree_sizes=" + b" ".join(sizes[:-1]), head)

    with pytest.raises(ArtifactError, match="too few trees"):
        check_lightgbm(head + b"".join(blocks[:-1]) + tail)
    assert last


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (b"cat_boundaries", b"0 99", "do not cut"),
        (b"cat_boundaries", b"1 1", "do not cut"),
        (b"cat_threshold", b"4294967296", "sets of bits"),
        (b"num_cat", b"0", "categories that it does not have"),
        (b"num_cat", b"16777216", "instead of"),
    ],
)
def test_categories_that_do_not_fit_are_found(key, value, message):
    data = text_of("categories")
    tree = next(i for i, count in enumerate(re.findall(rb"num_cat=(\d+)", data)) if count == b"1")

    with pytest.raises(ArtifactError, match=message):
        check_lightgbm(changed(data, tree, key, value))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (b"leaf_features", b"4", "features that do not exist"),
        (b"num_features", b"99", "too many features"),
        (b"leaf_coeff", b"1e-310", "too small or too large"),
        (b"leaf_coeff", b"1e400", "too small or too large"),
        (b"leaf_const", b"1e-400", "too small or too large"),
    ],
)
def test_linear_leaves_that_do_not_fit_are_found(key, value, message):
    data = text_of("linear")
    tree = next(i for i in range(8) if values(data, i, b"leaf_coeff"))

    with pytest.raises(ArtifactError, match=message):
        check_lightgbm(with_value(data, tree, key, 0, value))


@pytest.mark.parametrize("data", [b"", b"tree\nversion=v4\n", b"tree\nversion=v4\n\nTree=0\n\nend of trees\n"])
def test_a_text_without_trees_is_refused(data):
    with pytest.raises(ArtifactError, match="is damaged"):
        check_lightgbm(data)
