"""What is wrong with a CatBoost file is found before CatBoost sees it."""

import struct

import numpy as np
import pytest
from formats.samples import _classes, _matrix, _table, _table_classes, sample

from fitserve.errors import ArtifactError
from fitserve.trust.flatbuffers import Table
from fitserve.trust.native_catboost import check_catboost

COMMON = {"iterations": 6, "depth": 3, "verbose": False, "allow_writing_files": False, "thread_count": 1}


def core_of(data):
    return data[8 : 8 + int.from_bytes(data[4:8], "little")]


def trees_of(data):
    return Table.root(core_of(data)).table(1)


def with_number(data, field, dtype, place, value):
    """The file with another number in a list of its trees."""
    table = trees_of(data)
    where = 8 + table._items(field, np.dtype(dtype).itemsize)[1] + place * np.dtype(dtype).itemsize
    return data[:where] + np.array(value, dtype=dtype).tobytes() + data[where + np.dtype(dtype).itemsize :]


@pytest.mark.parametrize("kind", ["binary", "regression", "multiclass", "categories"])
def test_what_catboost_writes_passes(kind):
    check_catboost(sample(f"catboost {kind} cbm").artifact.data)


@pytest.mark.parametrize("policy", ["Lossguide", "Depthwise"])
def test_trees_that_are_not_symmetric_pass(policy):
    import catboost

    model = catboost.CatBoostClassifier(grow_policy=policy, **COMMON).fit(_matrix(), _classes(3))

    check_catboost(model._serialize_model())


@pytest.mark.parametrize("kind", ["Borders", "Buckets", "Counter", "BinarizedTargetMeanValue"])
def test_every_statistic_of_categories_passes(kind):
    import catboost

    table = _table().assign(pet=np.random.default_rng(0).integers(0, 30, 200))
    features = {
        "cat_features": ["city", "pet"],
        "simple_ctr": [kind],
        "combinations_ctr": [kind],
        "max_ctr_complexity": 2,
    }
    model = catboost.CatBoostClassifier(**features, **COMMON).fit(table, _table_classes())

    check_catboost(model._serialize_model())


def test_categories_by_name_pass():
    import catboost

    features = {"cat_features": ["city"], "one_hot_max_size": 5}
    model = catboost.CatBoostClassifier(**features, **COMMON).fit(_table(), _table_classes())

    check_catboost(model._serialize_model())


@pytest.mark.parametrize(
    ("field", "dtype", "value", "message"),
    [
        (1, "<i4", 10_000, "border that does not exist"),
        (1, "<i4", -1, "border that does not exist"),
        (2, "<i4", 2, "do not follow one another"),
        (3, "<i4", 1, "do not cut"),
        (17, "<u4", 9999, "not where it says"),
    ],
)
def test_a_number_of_the_trees_that_does_not_fit_is_found(field, dtype, value, message):
    data = with_number(sample("catboost binary cbm").artifact.data, field, dtype, 0, value)

    with pytest.raises(ArtifactError, match=message):
        check_catboost(data)


@pytest.mark.parametrize(
    ("field", "dtype", "place", "value", "message"),
    [
        (10, "<u2", 0, 60_000, "child of a node does not exist"),
        (10, "<u2", 1, 60_000, "child of a node does not exist"),
        (11, "<u4", -1, 2**31, "a leaf does not exist"),
        (2, "<i4", 0, 3, "do not follow one another"),
    ],
)
def test_a_step_that_does_not_fit_is_found(field, dtype, place, value, message):
    import catboost

    model = catboost.CatBoostRegressor(grow_policy="Lossguide", **COMMON).fit(_matrix(), _matrix()[:, 0])
    data = model._serialize_model()
    if place < 0:
        place += len(trees_of(data).array(field, dtype))

    with pytest.raises(ArtifactError, match=message):
        check_catboost(with_number(data, field, dtype, place, value))


def test_a_table_of_categories_without_a_free_place_is_found():
    # A search for a category that is not there would never end.
    data = sample("catboost categories cbm").artifact.data
    core_end = 8 + len(core_of(data))

    with pytest.raises(ArtifactError, match="no free place"):
        check_catboost(data[:core_end] + data[core_end:].replace(b"\xff" * 8, b"\x01" * 8))


def test_a_category_whose_numbers_are_not_there_is_found():
    data = sample("catboost categories cbm").artifact.data
    core_end = 8 + len(core_of(data))
    tail = data[core_end:]
    bucket = Table.root(tail[8:])._items(1, 1)[1] + 8 + 12

    with pytest.raises(ArtifactError, match="a category is lost"):
        check_catboost(data[:core_end] + tail[: bucket + 8] + struct.pack("<I", 1000) + tail[bucket + 12 :])


@pytest.mark.parametrize("length", [0, 4, 8, 100, 3000, -1])
def test_a_file_that_ends_early_is_refused(length):
    data = sample("catboost categories cbm").artifact.data

    with pytest.raises(ArtifactError, match="is damaged"):
        check_catboost(data[:length])


def test_bytes_after_the_end_are_refused():
    with pytest.raises(ArtifactError, match="follows after its end"):
        check_catboost(sample("catboost categories cbm").artifact.data + b"\0")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xff\xff\xff",
        struct.pack("<I", 4) + b"\xff" * 8,
        struct.pack("<Ii", 4, 100),
        struct.pack("<IiHH", 4, -4, 65535, 65535),
        struct.pack("<IiHH", 4, -4, 4, 65535),
    ],
)
def test_a_buffer_that_leads_out_of_itself_is_refused(data):
    with pytest.raises(ArtifactError, match="is damaged"):
        Table.root(data).table(0)


def test_offsets_that_all_lead_to_one_place_are_refused():
    n = 10_000
    head = struct.pack("<I HHH xx", 12, 6, 8, 4) + struct.pack("<i I", 8, 4)  # a table with one field: what follows
    offsets = b"".join(struct.pack("<I", 4 * (n - i)) for i in range(n))
    text = struct.pack("<I", 100_000) + bytes(100_001)

    with pytest.raises(ArtifactError, match="upon one another"):  # they would be 1 GB
        Table.root(head + struct.pack("<I", n) + offsets + text).texts(0)
