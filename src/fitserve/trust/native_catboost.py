"""What a CatBoost ``.cbm`` file must satisfy before CatBoost sees it.

The file is the mark ``CBM1``, the size of a FlatBuffer, that buffer, and the parts that it names: of
these, tables of statistics of categories. CatBoost verifies that the buffer is one, but believes the
indices in it, and verifies nothing of the tables: of 300 mutations 1 to 6 ended in a fatal signal.
Parts for text and embeddings are not looked into; they are why a file is first loaded in a confined process.

Source: the schemas in https://github.com/catboost/catboost/tree/master/catboost/libs/model/flatbuffers
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fitserve.trust.flatbuffers import Table
from fitserve.trust.trees import MAX_FEATURES, MAX_OUTPUTS, check_segments, damaged, expect, within

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MAGIC = b"CBM1"
MAX_DEPTH = 16
"""Of a symmetric tree. Source: https://catboost.ai/docs/en/references/training-parameters/common#depth"""

BORDERS, BUCKETS, BINARIZED_MEAN, FLOAT_MEAN, COUNTER, FREQUENCY = range(6)
"""The kinds of statistics of categories."""

BORDERS_IN_BYTE = 255
NO_LEAF = 2**32 - 1
NO_HASH = 2**64 - 1
CTR_TABLES = "static_provider_v1"

# The fields of each table, by their number in the schema.
_CORE_TREES, _CORE_PARTS = 1, 3
(
    _DIMENSION, _SPLITS, _SIZES, _STARTS, _CATEGORICAL, _FLOATS, _ONE_HOTS, _CTRS, _LEAF_VALUES, _LEAF_WEIGHTS, _STEPS,
    _LEAF_IDS, _TEXTS, _ESTIMATED, _SCALE, _BIAS, _BIASES, _REPACKED, _EMBEDDINGS,
) = range(19)  # fmt: skip

_STEP = np.dtype([("left", "<u2"), ("right", "<u2")])
_BIN = np.dtype([("feature", "<u2"), ("mask", "u1"), ("split", "u1")])
_BUCKET = np.dtype([("hash", "<u8"), ("index", "<u4")])
_SPLIT = np.dtype("<i4,<i4")


def check_catboost(data: bytes) -> None:
    """Look at every number of a model that CatBoost will use as an index or a length.

    Raises:
        ArtifactError: it is damaged.
    """
    head = len(MAGIC) + 4
    expect(len(data) > head and data[: len(MAGIC)] == MAGIC, "it ends before the model does")
    core_bytes = int.from_bytes(data[len(MAGIC) : head], "little")
    expect(head + core_bytes <= len(data), "it ends before the model does")
    core = Table.root(data[head : head + core_bytes])
    trees = core.table(_CORE_TREES)
    parts = core.texts(_CORE_PARTS)
    tables = _ctr_tables(data[head + core_bytes :], is_last=len(parts) == 1) if parts[:1] == [CTR_TABLES] else {}
    _check_trees(trees, _bins(trees, tables))


def _check_trees(trees: Table, bins: NDArray[Any]) -> None:
    """Check the trees; ``bins`` says of each split where the number is that it compares."""
    splits, sizes, starts = (trees.array(field, "<i4") for field in (_SPLITS, _SIZES, _STARTS))
    dimension = trees.number(_DIMENSION, "i", 0)
    expect(0 < dimension <= MAX_OUTPUTS, "it has no outputs")
    expect(len(trees.array(_BIASES, "<f8")) in {0, dimension}, "its biases are not one an output")
    expect(len(sizes) == len(starts) and within(sizes, 1 << 24), "the sizes of its trees do not fit")
    check_segments(np.append(starts, sizes[-1:].sum() + starts[-1:].sum()), len(splits), "its trees")
    expect((np.diff(starts.astype(np.int64)) == sizes[:-1]).all(), "its trees do not follow one another")
    if trees.has(_STEPS) and len(trees.array(_STEPS, _STEP)):
        n_leaves = _check_steps(trees, sizes, starts, dimension)
    else:
        expect(within(sizes, MAX_DEPTH + 1), "a tree is too deep")
        n_leaves = int((1 << sizes.astype(np.int64)).sum())
        expect(
            len(trees.array(_LEAF_VALUES, "<f8")) == n_leaves * dimension, "its leaves have too many numbers, or few"
        )
    expect(len(trees.array(_LEAF_WEIGHTS, "<f8")) in {0, n_leaves}, "its leaves do not each have a weight")
    if bins.size or not len(trees.array(_STEPS, _STEP)):
        expect(within(splits, bins.size), "a tree splits by a border that does not exist")
        repacked = trees.array(_REPACKED, _BIN)
        expect(not repacked.size or np.array_equal(repacked, bins[splits]), "its splits are not where it says")
    else:  # trees of one leaf each
        expect(not splits.any(), "a tree splits by a border that does not exist")


def _check_steps(trees: Table, sizes: NDArray[Any], starts: NDArray[Any], dimension: int) -> int:
    """Check trees that are not symmetric: a node says how far ahead its children are; 0 is a leaf."""
    steps, leaves = trees.array(_STEPS, _STEP), trees.array(_LEAF_IDS, "<u4")
    values = trees.array(_LEAF_VALUES, "<f8")
    expect(len(steps) == len(leaves) == sizes.sum() and (sizes > 0).all(), "its nodes are too many, or too few")
    expect(len(values) % dimension == 0, "its leaves have too many numbers, or few")
    ends = np.repeat(starts.astype(np.int64) + sizes, sizes)
    places = np.arange(len(steps))
    for side in ("left", "right"):
        # Children lie ahead in the same tree, so that there is no circle.
        expect((places + steps[side] < ends).all(), "a child of a node does not exist")
    is_leaf = (steps["left"] == 0) | (steps["right"] == 0)
    # A leaf is named by where its first number is.
    ids = leaves[is_leaf].astype(np.int64)
    expect(within(ids, len(values) - dimension + 1) and (ids % dimension == 0).all(), "a leaf does not exist")
    return len(values) // dimension


def _bins(trees: Table, tables: dict[Any, Any]) -> NDArray[Any]:
    """Where each border of each feature is found, in the order in which splits count them."""
    categorical, floats = trees.tables(_CATEGORICAL), trees.tables(_FLOATS)
    _check_features(trees, categorical, floats)
    used = {feature.number(0, "i", -1) for feature in categorical if feature.number(3, "B", 1)}
    lengths = [len(feature.array(3, "<f4")) for feature in floats]
    estimated = trees.tables(_ESTIMATED)
    lengths += [len(feature.array(3, "<f4")) for feature in estimated]
    n_ordered = len(lengths)
    for feature in trees.tables(_ONE_HOTS):
        lengths.append(len(feature.array(1, "<i4")))
        expect(feature.number(0, "i", -1) in used, "a split by category belongs to no feature")
        expect(len(feature.texts(2)) in {0, lengths[-1]}, "its categories do not each have a name")
    n_ordered_or_hot = len(lengths)
    for feature in trees.tables(_CTRS):
        lengths.append(len(feature.array(1, "<f4")))
        _check_ctr(feature.table(0), used, tables)
    found, bucket = [], 0
    for i, length in enumerate(lengths):
        borders = np.arange(length)
        bins = np.zeros(length, dtype=_BIN)
        bins["feature"] = bucket + borders // BORDERS_IN_BYTE
        number = borders % BORDERS_IN_BYTE + 1
        is_hot = n_ordered <= i < n_ordered_or_hot
        bins["split"] = 255 if is_hot else number
        bins["mask"] = 255 - number if is_hot else 0
        found.append(bins)
        bucket += -(-length // BORDERS_IN_BYTE)
    expect(bucket < 1 << 16, "it has more features than CatBoost can count")
    return np.concatenate(found) if found else np.zeros(0, dtype=_BIN)


def _check_features(trees: Table, categorical: Sequence[Table], floats: Sequence[Table]) -> None:
    """Check that features of each kind are numbered in order, and all together by different columns."""
    kinds = (  # with the fields of a feature's number and column
        (categorical, 0, 1), (floats, 1, 2), (trees.tables(_TEXTS), 0, 1), (trees.tables(_EMBEDDINGS), 0, 1),
    )  # fmt: skip
    columns = []
    for features, index, column in kinds:
        numbers = np.array([feature.number(index, "i", -1) for feature in features], dtype=np.int64)
        expect(within(numbers, MAX_FEATURES) and (np.diff(numbers) > 0).all(), "its features are not in order")
        columns += [feature.number(column, "i", -1) for feature in features]
    expect(within(np.array(columns), MAX_FEATURES) and len(set(columns)) == len(columns), "two features are one column")


def _key(base: Table) -> Any:
    """What a statistic of categories is of: the features that are combined, and its kind."""
    combination = base.table(0)
    kind = base.number(1, "b", BORDERS)
    parts = tuple(combination.array(field, dtype).tobytes() for field, dtype in enumerate(("<i4", _SPLIT, _SPLIT)))
    return kind, *parts


def _check_ctr(ctr: Table, used: set[int], tables: dict[Any, Any]) -> None:
    """Check a feature that is a statistic of categories."""
    base = ctr.table(0)
    expect(used.issuperset(base.table(0).array(0, "<i4").tolist()), "a statistic is of a feature that does not exist")
    n_classes = tables.get(_key(base))
    expect(n_classes is not None, "a statistic of categories is missing")
    border = ctr.number(1, "i", 0)
    expect(0 <= border < max(int(n_classes or 0), 1), "a statistic is of a class that does not exist")


def _ctr_tables(data: bytes, *, is_last: bool) -> dict[Any, int]:
    """Check the tables of statistics; for each, of how many classes it is."""
    tables: dict[Any, int] = {}
    n_tables, place = _size(data, 0)
    expect(n_tables <= len(data), "it has more tables than bytes")
    for _ in range(n_tables):
        size, place = _size(data, place)
        expect(size <= len(data) - place, "it ends before its tables do")
        table = Table.root(data[place : place + size])
        place += size
        key = _key(table.table(0))
        expect(key not in tables, "it has two tables of one statistic")
        tables[key] = _check_ctr_table(table, key[0])
    expect(place == len(data) or not is_last, "something follows after its end")
    return tables


def _size(data: bytes, place: int) -> tuple[int, int]:
    """A length before what it is of, and the place after it."""
    size = int.from_bytes(data[place : place + 4], "little")
    expect(place + 4 <= len(data) and size < NO_LEAF, "it ends before its tables do")
    return size, place + 4


def _check_ctr_table(table: Table, kind: int) -> int:
    """Check a table from hash to numbers, and return of how many classes it is."""
    raw, numbers = table.array(1, "u1"), table.array(2, "u1")
    expect(table.has(1) and table.has(2) and raw.size % _BUCKET.itemsize == 0, "a table of categories is cut off")
    buckets = raw.view(_BUCKET)
    expect(buckets.size > 0 and buckets.size & (buckets.size - 1) == 0, "a table of categories has no power of two")
    is_free = buckets["hash"] == NO_HASH
    # A search ends at a free bucket.
    expect(is_free.any(), "a table of categories has no free place")
    n_classes = table.number(4, "i", 0)
    expect(0 <= n_classes <= MAX_OUTPUTS, "a statistic has too many classes")
    match kind:
        case 0 | 1:
            width = 4 * (n_classes if kind == BUCKETS else max(n_classes, 2))
        case 2 | 3:
            width = 8
        case 4 | 5:
            width = 4
        case _:
            damaged("a statistic is of no known kind")
    expect(
        width > 0 and within(buckets["index"][~is_free].astype(np.int64), numbers.size // width), "a category is lost"
    )
    return n_classes if kind in {BORDERS, BUCKETS} else 1
