"""Versions are in one order, that of semantic versions where they are such."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fitserve.store.versions import highest, is_numbered, version_key

LETTERS = "0123456789ABZabvz._+-"
IDENTIFIERS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,12}", fullmatch=True)
NUMBERED = st.from_regex(
    r"v?[0-9]{1,2}(\.[0-9]{1,2}){0,3}(-(rc|a|[0-9]{1,2})(\.[0-9]{1,2})?)?(\+[a-b0-9]{1,2})?", fullmatch=True
)
VERSIONS = NUMBERED | IDENTIFIERS | st.text(LETTERS, min_size=1, max_size=8) | st.text(max_size=5)


@pytest.mark.parametrize(
    "ascending",
    [
        # item 11 of semver.org
        [
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
        ],
        ["1.0.0", "2.0.0", "2.1.0", "2.1.1"],
        ["2.9.0", "2.10.0-rc.1", "2.10.0", "2.10.0+1", "2.10.0+a", "2.10.1"],
        ["1.2.3", "1.2.3+9", "1.2.3+10"],
        ["1.1.9", "1.2", "1.2+build", "1.2.0", "1.2.1"],
        ["0", "9", "10", "0011", "11.0.1", "12"],
        ["v1.2.2", "1.2.3", "v1.2.3", "v1.3"],
        ["2", "20251231", "20260101", "20260101-090000", "20260101T103000Z", "20260102"],
        ["2026-02-28", "2026-10-01", "2026-10-01-2", "2026-11-01-rc1", "2026-11-01"],
        ["1.0.0-9", "1.0.0-10", "1.0.0-1a"],
        ["sha256-00ff", "sha256-22be", "blue", "green", "0.0.0-0", "0"],
        ["1.0.0rc1", "1.0.0rc9", "1.0.0rc10", "run9", "run10", "0.1"],
        ["9" * 4999, "1" * 5000, "2" * 5000],
    ],
)
def test_the_order_of_versions(ascending):
    assert sorted(ascending, key=version_key) == ascending
    assert all(version_key(low) < version_key(high) for low, high in pairwise(ascending))


def test_the_highest_serves_at_first():
    assert highest(["2.9.0", "sha256-ff", "2.10.0", "zzz", "2.10.0-rc.1"]) == "2.10.0"
    with pytest.raises(ValueError, match="empty"):
        highest([])


@given(VERSIONS, VERSIONS)
@example("1.2", "1.2.0")
@example("01", "1")
@example("1+01", "1+1")
def test_of_two_different_versions_one_is_the_higher(one, other):
    a, b = version_key(one), version_key(other)

    assert (a < b) + (b < a) + (a == b) == 1
    assert (a == b) == (one == other)


@given(st.lists(VERSIONS, min_size=3, max_size=3))
def test_the_order_is_transitive(versions):
    keys = sorted(map(version_key, versions))

    assert keys[0] <= keys[2]
    assert all(a <= b for a, b in pairwise(keys))


@given(st.lists(st.integers(0, 30), min_size=1, max_size=4), st.lists(st.integers(0, 30), min_size=1, max_size=4))
def test_numbers_are_compared_as_numbers(one, other):
    width = max(len(one), len(other))
    a, b = (tuple(numbers + [0] * (width - len(numbers))) for numbers in (one, other))
    texts = [".".join(map(str, numbers)) for numbers in (one, other)]

    if a != b:
        assert (version_key(texts[0]) < version_key(texts[1])) == (a < b)


@given(NUMBERED, IDENTIFIERS)
def test_numbers_stand_above_words_and_words_above_digests(numbered, word):
    word = f"x{word}"

    assert version_key("sha256-22be5e2ea862") < version_key(word) < version_key(numbered)


@pytest.mark.parametrize("version", ["1", "v1.2.3", "1.2.3-rc.1+b", "2026-11-23", "20261123T09"])
def test_numbered_versions(version):
    assert is_numbered(version)


@pytest.mark.parametrize("version", ["code", "v", "1.2.3rc1", "sha256-22be", "", "1..2", "²", "1\n"])
def test_what_is_no_numbered_version(version):
    assert not is_numbered(version)
