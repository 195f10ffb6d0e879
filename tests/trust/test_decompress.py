"""Decompression ends: at the right bytes, at the bound, or with an error."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import struct
import zipfile
import zlib

import pytest

from fitserve.errors import ArtifactError
from fitserve.trust.decompress import MAX_MEMBERS, Bounds, decompress, open_zip

KINDS = {
    "zlib": zlib.compress,
    "gzip": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
}
TEXT = bytes(range(256)) * 8000  # more than a piece


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_comes_back(kind):
    assert decompress(KINDS[kind](TEXT)) == TEXT


def test_what_is_not_compressed_stays():
    assert decompress(b"\x80\x04.") == b"\x80\x04."
    assert decompress(b"xylophone") == b"xylophone"


@pytest.mark.parametrize("kind", ["gzip", "bz2", "xz"])
def test_streams_that_follow_one_another_are_joined(kind):
    assert decompress(KINDS[kind](b"one") + KINDS[kind](b"two")) == b"onetwo"


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_that_ends_early_is_truncated(kind):
    with pytest.raises(ArtifactError, match="is (truncated|damaged)"):
        decompress(KINDS[kind](TEXT)[:-20])


@pytest.mark.parametrize("kind", ["zlib", "gzip", "bz2", "xz"])
def test_a_changed_byte_is_found(kind):
    data = bytearray(KINDS[kind](TEXT))
    data[len(data) // 2] ^= 0xFF

    with pytest.raises(ArtifactError, match="is (truncated|damaged)"):
        decompress(bytes(data))


@pytest.mark.parametrize("kind", KINDS)
def test_junk_after_the_stream_is_refused(kind):
    with pytest.raises(ArtifactError, match="is (truncated|damaged)"):
        decompress(KINDS[kind](TEXT) + b"junk")


@pytest.mark.parametrize("kind", KINDS)
def test_a_bomb_is_refused_at_the_ratio(kind):
    bounds = Bounds(max_ratio=10, free_bytes=1000)

    with pytest.raises(ArtifactError, match="decompression bomb"):
        decompress(KINDS[kind](bytes(1_000_000)), bounds)


def test_below_the_free_size_the_ratio_does_not_matter():
    assert decompress(zlib.compress(bytes(1_000_000)), Bounds(max_ratio=10, free_bytes=1_000_000)) == bytes(1_000_000)


def test_above_the_free_size_what_is_within_the_ratio_comes_back():
    assert decompress(zlib.compress(TEXT), Bounds(max_ratio=1000, free_bytes=1000)) == TEXT


def test_the_size_is_bounded_whatever_the_ratio():
    for data in (TEXT, zlib.compress(TEXT)):
        with pytest.raises(ArtifactError, match="is refused"):
            decompress(data, Bounds(max_bytes=1000))


def test_many_small_streams_count_together():
    with pytest.raises(ArtifactError, match="decompression bomb"):
        decompress(gzip.compress(bytes(10_000)) * 20, Bounds(max_ratio=50, free_bytes=10_001))


def test_lz4_names_its_package():
    with pytest.raises(ArtifactError, match="needs the package 'lz4'"):
        decompress(b"\x04\x22\x4d\x18" + bytes(20))


def test_nothing_is_empty():
    with pytest.raises(ArtifactError, match="is empty"):
        decompress(b"")


def zipped(*members, **options) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return out.getvalue()


def test_a_zip_comes_back_by_name():
    assert open_zip(zipped(("schema.json", b"{}"), ("folder/", b""), ("folder/1.npy", TEXT))) == {
        "schema.json": b"{}",
        "folder/1.npy": TEXT,
    }


@pytest.mark.parametrize("name", ["../a", "/a", "a/../b", "a\\b", "C:a", "..", "a\nb"])
def test_a_name_that_leads_elsewhere_is_refused(name):
    with pytest.raises(ArtifactError, match="leads elsewhere"):
        open_zip(zipped((name, b"x")))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_twice_is_refused():
    with pytest.raises(ArtifactError, match="twice"):
        open_zip(zipped(("a", b"1"), ("a", b"2")))


def test_a_link_is_refused():
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16

    with pytest.raises(ArtifactError, match="a link"):
        open_zip(zipped((link, b"/etc/passwd")))


def test_an_encrypted_member_is_refused():
    data = bytearray(zipped(("a", b"x")))
    data[data.index(b"PK\x01\x02") + 8] |= 1

    with pytest.raises(ArtifactError, match="encrypted"):
        open_zip(bytes(data))


def test_a_zip_bomb_is_refused():
    with pytest.raises(ArtifactError, match="decompression bomb"):
        open_zip(zipped(("a", bytes(5_000_000))), Bounds(max_ratio=10, free_bytes=1000))


def test_a_zip_that_lies_about_a_size_is_refused():
    data = bytearray(zipped(("a", bytes(5_000_000))))
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, 10)

    with pytest.raises(ArtifactError, match="is (damaged|refused)"):
        open_zip(bytes(data), Bounds(max_ratio=10, free_bytes=1000))


def test_too_many_members_are_refused():
    with pytest.raises(ArtifactError, match="10001 files"):
        open_zip(zipped(*((str(i), b"") for i in range(10_001))))


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"no zip", zipped(("a", TEXT))[:-30]])
def test_what_is_no_zip_is_damaged(data):
    with pytest.raises(ArtifactError, match="is damaged, or no zip archive"):
        open_zip(data)


def test_megabytes_of_empty_streams_are_read_in_one_pass():
    # With the rest copied for each stream, four times as many bytes took sixteen times as long.
    data = gzip.compress(b"") * 200_000 + gzip.compress(b"end")

    assert decompress(data) == b"end"


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_of_many_pieces_that_does_not_compress_comes_back(kind):
    data = random.Random(0).randbytes(3_000_000)

    assert decompress(KINDS[kind](data)) == data


def test_archives_of_arrays_within_an_archive_count_together():
    inner = archive_of({"a.npy": bytes(3 << 20)})
    outer = archive_of({f"{i}.npz": inner for i in range(8)})
    bounds = Bounds(free_bytes=16 << 20)

    assert len(open_zip(archive_of({f"{i}.npz": inner for i in range(4)}), bounds)) == 4
    with pytest.raises(ArtifactError, match="decompression bomb"):
        open_zip(outer, bounds)


def test_the_members_of_an_archive_of_arrays_are_counted_before_they_are_listed():
    entries = (b"PK\x01\x02" + bytes(42)) * (MAX_MEMBERS + 1)
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 0, 0, len(entries), 0, 0)

    with pytest.raises(ArtifactError, match="it holds 10001 files"):
        open_zip(archive_of({"a.npz": entries + end}))


def archive_of(members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()
