"""Decoding: JPEG at a scale, and Pillow for everything else."""

import struct
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from upchirp.data.images.augmentation import TrainTransform
from upchirp.data.images.decoding import JpegPicture, PillowPicture, open_picture
from upchirp.data.images.pillow import decode, open_image
from upchirp.data.requests import Request
from upchirp.data.settings import Augmentation

ORIENTATION = 0x0112


def stored(image: Image.Image, format_: str, **options) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def palette_with_transparency() -> bytes:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([10, 20, 30, 200, 100, 50])
    return stored(image, "PNG", transparency=bytes([0, 128]))


def tiff_of_12_bits(value: int) -> bytes:
    """A TIFF file of 4 x 4 grey values, each pair of them in 3 bytes, which Pillow reads but does not write."""
    pixels = int.to_bytes(value << 12 | value, 3) * 8
    short, long = 3, 4
    tags = ((256, short, 4), (257, short, 4), (258, short, 12), (259, short, 1), (262, short, 1), (273, long, 8),
            (277, short, 1), (278, short, 4), (279, long, len(pixels)))  # fmt: skip
    folder = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, kind, 1, n) for tag, kind, n in tags)
    return struct.pack("<2sHI", b"II", 42, 8 + len(pixels)) + pixels + folder + bytes(4)


@pytest.mark.parametrize(
    ("data", "colour"),
    [
        (stored(Image.new("RGB", (4, 4), (9, 80, 200)), "PNG"), (9, 80, 200)),
        (stored(Image.new("RGB", (4, 4), (9, 80, 200)), "WEBP", lossless=True), (9, 80, 200)),
        (stored(Image.new("L", (4, 4), 7), "PNG"), (7, 7, 7)),
        (stored(Image.new("L", (4, 4), 7), "JPEG", quality=100), (7, 7, 7)),
        (stored(Image.new("1", (4, 4), 1), "PNG"), (255, 255, 255)),
        (stored(Image.new("LA", (4, 4), (7, 0)), "PNG"), (7, 7, 7)),
        (stored(Image.new("RGBA", (4, 4), (9, 80, 200, 40)), "PNG"), (9, 80, 200)),
        (palette_with_transparency(), (200, 100, 50)),
        (stored(Image.new("CMYK", (4, 4), (0, 0, 0, 255)), "TIFF"), (0, 0, 0)),
        (stored(Image.new("CMYK", (4, 4), (0, 0, 0, 255)), "JPEG", quality=100), (0, 0, 0)),
        (stored(Image.fromarray(np.full((4, 4), 40_000, np.uint16)), "PNG"), (156, 156, 156)),
        (stored(Image.fromarray(np.full((4, 4), 40_000, np.uint16)), "TIFF"), (156, 156, 156)),
        (b"P5 4 4 65535\n" + np.full((4, 4), 40_000, ">u2").tobytes(), (156, 156, 156)),
        (tiff_of_12_bits(2_500), (156, 156, 156)),
    ],
    ids=[
        "rgb", "webp", "grey", "grey jpeg", "bit", "grey+alpha", "rgba", "palette", "cmyk", "cmyk jpeg", "16 bit",
        "16 bit tiff",
        "16 bit pgm", "12 bit tiff",
    ],
)  # fmt: skip
def test_every_kind_of_image_decodes_to_rgb(data, colour):
    image = decode(open_image(data))
    assert image.mode == "RGB"
    assert set(map(tuple, np.asarray(image).reshape(-1, 3).tolist())) == {colour}
    picture = open_picture(data)
    assert picture.size == (4, 4)
    for pixels in (np.asarray(picture.whole()), picture.region((1, 0, 4, 4), least=2)):
        assert set(map(tuple, pixels.reshape(-1, 3).tolist())) == {colour}
    assert picture.region((1, 0, 4, 4), least=2).shape == (4, 3, 3)


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_grey_values_of_an_unknown_range_are_refused(kind):
    """They would turn black: 0 to 1 as much as 0 to 255 or 4095."""
    data = stored(Image.fromarray(np.full((4, 4), 200, kind)), "TIFF")
    with pytest.raises(OSError, match=r"grey values are .*, of a range that is not known: convert it to 8 or 16 bits"):
        open_picture(data).region((0, 0, 4, 4), least=2)


def test_integers_in_memory_are_of_16_bits():
    assert decode(Image.fromarray(np.full((4, 4), 40_000, np.int32))).getpixel((0, 0)) == (156, 156, 156)
    for value in (-1, 2**16):
        with pytest.raises(OSError, match="range that is not known"):
            decode(Image.fromarray(np.full((4, 4), value, np.int32)))


@pytest.mark.parametrize(
    "options", [{}, {"subsampling": 0}, {"subsampling": 2}, {"progressive": True}, {"quality": 40}]
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpeg_at_full_scale_is_pillows(photo, options, mode):
    data = stored(photo(203, 151).convert(mode), "JPEG", **options)
    picture = open_picture(data)
    assert isinstance(picture, JpegPicture)
    assert picture.size == (203, 151)
    box = (10, 20, 150, 140)
    np.testing.assert_array_equal(picture.region(box, least=120), np.asarray(decode(open_image(data)).crop(box)))
    np.testing.assert_array_equal(np.asarray(picture.whole()), np.asarray(decode(open_image(data))))


@pytest.mark.parametrize(("least", "divisor"), [(200, 1), (67, 1), (66, 2), (34, 2), (33, 4), (17, 4), (16, 8), (5, 8)])
def test_the_coarsest_scale_that_holds_the_crop_is_decoded(photo, least, divisor):
    data = stored(photo(401, 303), "JPEG", quality=95)
    box = (96, 40, 312, 240)
    pixels = open_picture(data).region(box, least)
    assert pixels.shape == (200 // divisor, 216 // divisor, 3)
    reference = decode(open_image(data)).crop(box).resize((216 // divisor, 200 // divisor), Image.Resampling.LANCZOS)
    difference = np.abs(pixels.astype(int) - np.asarray(reference))
    # A box that is off by one pixel of the coarse scale gives over twice that.
    assert difference.mean() < 4


@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    corners=st.tuples(*[st.floats(0, 1)] * 4),
    least=st.integers(1, 100),
)
def test_regions_are_never_empty_and_hold_what_was_asked_for(size, corners, least):
    width, height = size
    left, top = int(corners[0] * (width - 1)), int(corners[1] * (height - 1))
    box = (left, top, left + 1 + int(corners[2] * (width - left - 1)), top + 1 + int(corners[3] * (height - top - 1)))
    image = Image.effect_noise(size, 50).convert("RGB")
    for format_ in ("JPEG", "PNG"):
        pixels = open_picture(stored(image, format_)).region(box, least)
        least_side = min(box[2] - box[0], box[3] - box[1])
        assert pixels.ndim == 3
        assert min(pixels.shape[:2]) >= min(least, least_side)
        assert pixels.shape[0] <= box[3] - box[1] and pixels.shape[1] <= box[2] - box[0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_images_come_upright(orientation, format_):
    """EXIF orientations 1 to 8, each written over the turned pixels of one upright image."""
    upright = np.zeros((24, 40, 3), np.uint8)
    upright[:12, :20] = (250, 10, 10)
    upright[12:, 20:] = (10, 250, 10)
    turned = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.transpose(1, 0, 2), 6: np.rot90(upright), 7: np.rot90(upright.transpose(1, 0, 2), 2),
        8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"lossless": True} if format_ == "WEBP" else {"subsampling": 0, "quality": 95}
    data = stored(Image.fromarray(np.ascontiguousarray(turned)), format_, exif=exif, **options)
    picture = open_picture(data)
    assert picture.size == (40, 24)
    np.testing.assert_allclose(np.asarray(picture.whole()).astype(int), upright, atol=30)
    np.testing.assert_allclose(picture.region((0, 0, 20, 12), least=8).mean(axis=(0, 1)), (250, 10, 10), atol=12)
    np.testing.assert_allclose(picture.region((20, 12, 40, 24), least=8).mean(axis=(0, 1)), (10, 250, 10), atol=12)


def png_with_exif_behind_its_pixels(upright: np.ndarray) -> bytes:
    """As the PNG specification allows; the pixels are turned, and EXIF orientation 6 turns them back."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    data = stored(Image.fromarray(np.ascontiguousarray(np.rot90(upright))), "PNG", exif=exif)
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4])
    return data[:start] + data[end:-12] + data[start:end] + data[-12:]


def test_a_png_with_exif_behind_its_pixels_comes_upright(photo):
    upright = np.asarray(photo())
    data = png_with_exif_behind_its_pixels(upright)
    picture = open_picture(data)
    assert picture.size == (60, 45)
    np.testing.assert_array_equal(np.asarray(picture.whole()), upright)
    np.testing.assert_array_equal(open_picture(data).region((30, 5, 60, 45), least=30), upright[5:45, 30:60])
    for broken in (data[: len(data) // 2], data[:60]):
        with pytest.raises(OSError):
            open_picture(broken + b"eXIf").whole()


def test_a_size_that_changes_while_decoding_is_an_error(photo):
    """Pixels beyond the image would be black."""
    picture = PillowPicture(open_image(png_with_exif_behind_its_pixels(np.asarray(photo()))))
    with pytest.raises(OSError, match=r"has \(60, 45\) pixels, its header says \(45, 60\)"):
        picture.region((0, 0, 45, 60), least=30)


def test_jpegs_with_other_exif_data_stay_on_the_fast_path(photo):
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    assert isinstance(open_picture(stored(photo(), "JPEG", exif=exif)), JpegPicture)
    exif[ORIENTATION] = 6
    assert isinstance(open_picture(stored(photo(), "JPEG", exif=exif)), PillowPicture)
    # Nonsense where the orientation stands.
    assert open_picture(stored(photo(), "JPEG", exif=b"Exif\x00\x00nonsense")).size == (60, 45)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_broken_images_raise_oserror(photo, format_):
    data = stored(photo(), format_)
    for broken in (data[: len(data) // 2], data[:40], data[:3], b""):
        with pytest.raises(OSError):
            decode(open_image(broken))
        with pytest.raises(OSError):
            open_picture(broken).region((0, 0, 8, 8), least=4)
        with pytest.raises(OSError):
            open_picture(broken).whole()


def test_a_jpeg_with_harmless_damage_is_read_as_pillow_reads_it(photo):
    """Bytes between two segments: libjpeg-turbo warns, and so simplejpeg refuses; Pillow reads on."""
    data = stored(photo(), "JPEG")
    start = data.index(b"\xff\xda")
    damaged = data[:start] + b"\x00\x01\x02" + data[start:]
    reference = np.asarray(decode(open_image(damaged)))
    np.testing.assert_array_equal(open_picture(damaged).region((0, 0, 60, 45), least=45), reference)


@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
def test_training_pixels_hardly_depend_on_the_scale_that_is_decoded(photo, format_):
    """From a large original, at a bandwidth that takes it at 1/4, against Pillow's Lanczos from all pixels."""
    image = photo(600, 480)
    picture = open_picture(stored(image, format_, quality=95, subsampling=0))
    transform = TrainTransform(Augmentation(randaug_layers=0, scale=(0.6, 1.0)), 224)
    for seed in range(10):
        request = Request(0, 96, 0.0, seed)
        difference = transform(picture, request).astype(int) - transform(image, request)
        assert np.abs(difference).mean() < 2


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_one_rule_for_large_images(monkeypatch, kind):
    buffer = BytesIO()
    Image.new("RGB", (40, 30)).save(buffer, kind)
    # Warned of by Pillow, and taken; warnings are errors here.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 30 // 2)
    assert open_picture(buffer.getvalue()).region((0, 0, 40, 30), least=20).shape == (30, 40, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 30 // 2 - 1)
    with pytest.raises(OSError, match=r"too large: .* more than twice PIL.Image.MAX_IMAGE_PIXELS"):
        open_picture(buffer.getvalue())
