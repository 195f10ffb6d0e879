"""Dates are read as ISO 8601 spells them, alike one by one and together."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitserve.errors import InvalidInputError
from fitserve.signature import Field, Signature
from fitserve.signature.datetimes import instant, instants

DATE = Signature(inputs=(Field("a", "datetime"),))

READ = {
    "2026-01-31": "2026-01-31T00:00:00",
    "2026-01-31T08:30": "2026-01-31T08:30:00",
    "2026-01-31 08:30:05": "2026-01-31T08:30:05",
    "2026-01-31T08:30:05Z": "2026-01-31T08:30:05",
    "2026-01-31t08:30:05z": "2026-01-31T08:30:05",
    "2026-01-31T08:30:05.25+02:00": "2026-01-31T06:30:05.250000",
    "2026-01-31T23:30-05:30": "2026-02-01T05:00:00",
    "2026-01-31T08:30:05.123456789Z": "2026-01-31T08:30:05.123456",
    "2024-02-29": "2024-02-29T00:00:00",
    "0001-01-01T00:00:00+14:00": "0000-12-31T10:00:00",
    "9999-12-31T23:59:59.999999-23:59": "10000-01-01T23:58:59.999999",
}
REFUSED = [
    "", "2026", "2026-01", "20260131", "2026-1-31", "2026-02-30", "2026-13-01", "2026-01-31T24:00", "2026-01-31T08",
    "2026-01-31T08:60", "2026-01-31T08:30:60Z", "2026-01-31T08:30:05.", "2026-01-31T08:305", "2026-01-31Z",
    "2026-01-31+02:00", "2026-01-31T08:30+24:00", "2026-01-31T08:30+02:60", "2026-01-31T08:30+0200", "2026-W05-6",
    "2026-01-31T08:30:05,5", "0000-01-01", "now", "today", "NaT", "1767225600", "٢٠٢٦-01-31", "2026-01-31\n",
    " 2026-01-31", "2026-01-31\x00", "2026-01-3\ud800", "31.01.2026", "2026-01-31x08:30", "2026-01-31T08:30:05 Z",
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), READ.items())
def test_a_date_is_read_as_utc(text, expected):
    assert instant(text) == np.datetime64(expected, "us")


@pytest.mark.parametrize("text", REFUSED)
def test_anything_else_is_none(text):
    assert instant(text) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not text or instants([text] * 20) is None
        with pytest.raises(InvalidInputError, match="came a string that is none"):
            DATE.check([[text]] * 20)


def spelt(moment: datetime, separator: str, digits: str, *, is_zulu: bool) -> str:
    text = moment.isoformat(separator, digits)
    return text.removesuffix("+00:00") + "Z" if is_zulu and text.endswith("+00:00") else text


@given(
    st.lists(
        st.datetimes(timezones=st.sampled_from([None, UTC, timezone(timedelta(hours=-3, minutes=-30))])),
        min_size=1,
        max_size=30,
    ),
    st.sampled_from("T "),
    st.sampled_from(["minutes", "seconds", "milliseconds", "microseconds"]),
    st.booleans(),
)
def test_together_they_are_what_they_are_one_by_one(moments, separator, digits, is_zulu):
    texts = [spelt(moment, separator, digits, is_zulu=is_zulu) for moment in moments]
    expected = np.array([instant(text) for text in texts], dtype="datetime64[us]")

    together = instants(texts)
    column = DATE.check({"a": texts})["a"]

    assert together is None or together.tolist() == expected.tolist()
    assert column.tolist() == expected.tolist()
    for text, moment in zip(texts, moments, strict=True):
        if digits == "microseconds" and moment.tzinfo is None:
            assert instant(text) == np.datetime64(moment, "us")


@given(st.lists(st.text("0123456789-:.TZ+ t", max_size=28) | st.text(max_size=3), min_size=1, max_size=4))
def test_what_is_refused_together_is_refused_one_by_one(texts):
    together = instants(texts)

    assert together is None or all(instant(text) == one for text, one in zip(texts, together, strict=True))


@pytest.mark.parametrize("n_rows", [1, 50])
def test_a_null_is_not_a_time_where_it_may_be(n_rows):
    nullable = Signature(inputs=(Field("a", "datetime", is_nullable=True),))

    column = nullable.check([["2026-01-31T08:30:00+01:00"], [None]] * n_rows)["a"]

    assert np.isnat(column[1::2]).all()
    assert (column[::2] == np.datetime64("2026-01-31T07:30")).all()
    assert np.isnat(nullable.check([[None]] * n_rows)["a"]).all()
    with pytest.raises(InvalidInputError, match="column 'a': wanted a date, .* came null"):
        DATE.check([["2026-01-31"], [None]] * n_rows)
