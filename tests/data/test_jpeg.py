"""JPEG files that are decoded from the top only as far as needed."""

from io import BytesIO

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st

from upchirp.data.images.decoding import open_picture
from upchirp.data.images.jpeg import decode_rows, read_header

WIDTH, HEIGHT = 75, 150


@pytest.fixture(scope="module")
def encode(photo):
    """A file of the photo in colours or grey, with Pillow's options of encoding."""

    def encode(mode="RGB", size=(WIDTH, HEIGHT), **options):
        buffer = BytesIO()
        photo(*size).convert(mode).save(buffer, "JPEG", **options)
        return buffer.getvalue()

    return encode


KINDS = [
    {"subsampling": "4:4:4"},
    {"subsampling": "4:2:2"},
    {"subsampling": "4:2:0"},
    {"mode": "L"},
    {"subsampling": "4:2:0", "restart_marker_rows": 1},
    {"optimize": True},
    {"exif": b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x00\x00"},
]


@given(kind=st.sampled_from(KINDS), bottom=st.integers(1, HEIGHT), divisor=st.sampled_from([1, 2, 4, 8]))
@settings(deadline=None)
def test_the_rows_are_those_of_the_whole_picture(encode, kind, bottom, divisor):
    data = encode(**kind)
    whole = simplejpeg.decode_jpeg(data, min_height=-(-HEIGHT // divisor), min_width=-(-WIDTH // divisor))
    rows = decode_rows(data, read_header(data), (WIDTH, HEIGHT), bottom=bottom, divisor=divisor)
    wanted = -(-bottom // divisor)
    assert rows.shape[1:] == whole.shape[1:] and wanted <= len(rows) <= wanted + 3
    np.testing.assert_array_equal(rows[:wanted], whole[:wanted])


@pytest.mark.parametrize("kind", [{"progressive": True}, {"mode": "CMYK"}])
def test_files_whose_pixels_do_not_come_row_by_row_are_decoded_as_a_whole(encode, kind):
    data = encode(**kind)
    header = read_header(data)
    if "progressive" in kind:
        assert header.height_at is None
        assert len(decode_rows(data, header, (WIDTH, HEIGHT), bottom=10, divisor=1)) == HEIGHT
    else:
        assert open_picture(data).region((0, 0, 10, 10), 4).shape == (10, 10, 3)


def test_a_file_of_one_scan_for_each_colour_is_decoded_as_a_whole(encode):
    data = encode()
    scan = data.index(b"\xff\xda")
    assert read_header(data).height_at is not None
    assert read_header(data[: scan + 4] + b"\x01" + data[scan + 5 :]).height_at is None


def test_a_file_that_ends_below_the_crop_is_no_less_damaged(encode):
    data = encode()
    with pytest.raises(OSError):
        open_picture(data[:-400]).region((0, 0, 10, 10), 4)


def test_damage_above_the_last_row_is_found(encode):
    data = bytearray(encode(restart_marker_rows=1))
    marker = data.index(b"\xff\xd1", data.index(b"\xff\xda"))
    data[marker + 2 : marker + 60] = b"\xff" * 58
    with pytest.raises(ValueError):
        simplejpeg.decode_jpeg(bytes(data))
    whole = open_picture(bytes(data)).whole()
    region = open_picture(bytes(data)).region((0, 0, WIDTH, 100), WIDTH)
    assert np.abs(region.astype(int) - np.asarray(whole)[:100]).max() <= 1
