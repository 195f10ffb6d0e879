"""Which version a request gets, what is let go of, and who waits for the last reply of an old version."""

from __future__ import annotations

import gc
from dataclasses import replace

import pytest
from sklearn.linear_model import LogisticRegression

from fitserve.errors import ModelNotFoundError, ModelNotReadyError, VersionNotLoadedError
from fitserve.store.assignment import Assignment, KnownVersion, ServedModel, from_json, to_json
from fitserve.store.catalog import Catalog
from fitserve.store.loading import adopt_model
from fitserve.types import ModelRef


@pytest.fixture(scope="module")
def one():
    return adopt_model(LogisticRegression().fit([[0], [1]], [0, 1]), name="m", version="1")


def version(one, label, name="m"):
    return replace(one, name=name, version=label, identity=f"id-{label}")


def model(serving, *labels, name="m", **fields):
    known = {label: KnownVersion(label, None, "", f"id-{label}") for label in labels}
    return ServedModel(name, serving, known, **fields)


def assigned(generation, *models):
    assignment = Assignment(generation)
    for one in models:
        assignment = assignment.with_model(one)
    return assignment


@pytest.fixture
def catalog(one):
    """Version 1 serves, version 2 is champion, version 3 is known."""
    catalog = Catalog()
    for label in "12":
        catalog.prepare(version(one, label))
    catalog.apply(assigned(1, model("1", "1", "2", "3", aliases={"champion": "2"})), 0.0)
    return catalog


def test_nothing_is_leased_before_the_start():
    with pytest.raises(ModelNotReadyError, match="no model is loaded yet"):
        Catalog().lease(ModelRef())
    with pytest.raises(ModelNotReadyError, match="no model is loaded yet"):
        Catalog().lease(ModelRef(name="m"))


@pytest.mark.parametrize(
    ("ref", "wanted"),
    [
        (ModelRef(), "1"),
        (ModelRef(name="m"), "1"),
        (ModelRef(version="2"), "2"),
        (ModelRef(alias="champion"), "2"),
        (ModelRef(name="m", version="2", alias="champion"), "2"),
    ],
)
def test_a_version_is_found_by_what_it_is_asked_by(catalog, ref, wanted):
    assert catalog.lease(ref).version == wanted


@pytest.mark.parametrize(
    ("ref", "text"),
    [
        (ModelRef(name="n"), r"no model 'n'; there is: m"),
        (ModelRef(version="9"), r"no model version '9'; there is: 1, 2, 3"),
        (ModelRef(alias="champ"), r"no alias '@champ'; there is: @champion; did you mean '@champion'\?"),
        (ModelRef(version="1", alias="champion"), r"no model version '1'; there is: 2"),
    ],
)
def test_what_is_not_there_is_told_with_what_is(catalog, ref, text):
    with pytest.raises(ModelNotFoundError, match=text):
        catalog.lease(ref)


def test_a_version_that_is_known_and_not_in_memory_says_so(catalog):
    with pytest.raises(VersionNotLoadedError) as caught:
        catalog.lease(ModelRef(version="3"))

    assert (caught.value.name, caught.value.version) == ("m", "3")


def test_each_lease_follows_the_generation_in_shared_memory(catalog, one):
    cells = memoryview(bytearray(16)).cast("Q")
    cells[0] = 1
    catalog.follow(cells, lambda: catalog.apply(assigned(2, model("2", "1", "2")), 0.0), len)
    before = catalog.lease(ModelRef()).version
    cells[0] = 2

    assert (before, catalog.lease(ModelRef()).version, catalog.generation) == ("1", "2", 2)
    assert catalog.current.version == "2"


def test_a_version_out_of_service_is_told_when_its_last_request_has_ended(catalog):
    lease = catalog.lease(ModelRef())

    catalog.apply(assigned(2, model("2", "1", "2", held={"1": 9.0})), 0.0)
    while_computing = catalog.n_old_leases
    del lease
    gc.collect()

    assert (while_computing, catalog.n_old_leases) == (1, 0)
    assert catalog.loaded("m", "1") is not None, "it is held for a roll back"


def test_a_held_version_goes_when_its_time_is_over(catalog):
    dropped = []
    catalog.dropped = dropped.append
    after = assigned(2, model("2", "1", "2", held={"1": 9.0}))

    catalog.apply(after, 8.0)
    within = catalog.loaded("m", "1")
    catalog.apply(after, 9.5)

    assert within is not None
    assert catalog.loaded("m", "1") is None
    assert [one.version for one in dropped] == ["1"]


def test_what_is_prepared_serves_only_once_it_is_assigned(catalog, one):
    catalog.prepare(version(one, "3"))
    with pytest.raises(VersionNotLoadedError):
        catalog.lease(ModelRef(version="3"))

    catalog.apply(assigned(2, model("3", "1", "2", "3")), 0.0)

    assert catalog.lease(ModelRef()).version == "3"


def test_what_is_withdrawn_is_dropped_and_what_serves_is_not(catalog, one):
    dropped = []
    catalog.dropped = dropped.append
    catalog.prepare(version(one, "3"))

    catalog.withdraw("m", "3")
    catalog.withdraw("m", "1")

    assert [one.version for one in dropped] == ["3"]
    assert catalog.lease(ModelRef()).version == "1"


def test_other_bytes_under_the_same_label_are_missing(catalog):
    other = model("1", "1", "2")
    other = replace(other, versions={"1": KnownVersion("1", None, "", "id-other")})

    assert [known.identity for known in catalog.missing_of(other, 0.0)] == ["id-other"]
    assert catalog.missing_of(model("1", "1"), 0.0) == []


def test_versions_on_demand_leave_by_least_recent_use(catalog, one):
    labels = ["3", "4", "5"]
    catalog.apply(assigned(2, model("1", "1", *labels)), 0.0)
    size = one.size_bytes
    catalog.add_on_demand(version(one, "3"), 2 * size)
    catalog.add_on_demand(version(one, "4"), 2 * size)
    catalog.lease(ModelRef(version="3"))

    catalog.add_on_demand(version(one, "5"), 2 * size)

    assert [label for label in labels if catalog.loaded("m", label) is not None] == ["3", "5"]


def test_a_version_on_demand_goes_with_its_model(catalog, one):
    catalog.add_on_demand(version(one, "3"), 10**9)

    catalog.apply(assigned(2, model("1", "1")), 0.0)

    assert catalog.loaded("m", "3") is None


def test_an_assignment_is_the_same_after_a_journey_as_json():
    assignment = assigned(7, model("1", "1", "2", aliases={"a": "2"}, previous="2", held={"2": 1.5}, operation="op"))

    assert from_json(7, to_json(assignment)) == assignment
    assert from_json(0, b"") == Assignment()
