"""Anti-aliased Lanczos on uint8 pixels."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from upchirp.data.images import resizing


def exact(pixels: np.ndarray, side: int) -> np.ndarray:
    """The definition: a Lanczos window of three lobes around each output pixel's centre, widened when shrinking."""

    def matrix(size: int) -> np.ndarray:
        scale = max(size / side, 1.0)
        centres = (np.arange(side)[:, None] + 0.5) * size / side
        distance = (np.arange(size) + 0.5 - centres) / scale
        weights = np.where(np.abs(distance) < 3, np.sinc(distance) * np.sinc(distance / 3), 0)
        return weights / weights.sum(axis=1, keepdims=True)

    return np.einsum(
        "ah,hwc,bw->abc", matrix(pixels.shape[0]), pixels.astype(float), matrix(pixels.shape[1]), optimize=True
    )


SIZES = [(100, 130, 28), (130, 100, 96), (64, 64, 64), (30, 40, 64), (260, 300, 160), (300, 260, 224), (7, 90, 5)]


WAYS = [
    "rows",
    pytest.param(
        "torch",
        marks=pytest.mark.skipif(not resizing._torch_has_lanczos(), reason="no Lanczos for uint8 in this torch"),
    ),
]


def generated(width: int, height: int) -> Image.Image:
    """Sharp edges between black and white, where the filter overshoots most, and noise beside them."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 2, (height // 5 + 1, width // 5 + 1, 3), dtype=np.uint8) * 255
    pixels = np.repeat(np.repeat(coarse, 5, axis=0), 5, axis=1)[:height, :width]
    pixels[:, width // 2 :] = rng.integers(0, 256, (height, width - width // 2, 3))
    return Image.fromarray(pixels)


@pytest.mark.parametrize("kind", ["photo", "generated"])
@pytest.mark.parametrize(("height", "width", "side"), SIZES)
def test_sums_of_rows_are_the_definition_rounded_once(photo, monkeypatch, kind, height, width, side):
    monkeypatch.setattr(resizing, "_TORCH_HAS_LANCZOS", False)
    # A view with gaps between its rows, as a crop is.
    make = photo if kind == "photo" else generated
    pixels = np.array(make(width + 9, height + 5))[2 : 2 + height, 3 : 3 + width]
    threads = torch.get_num_threads()
    result = resizing.lanczos(pixels, side)
    assert torch.get_num_threads() == threads
    assert result.shape == (side, side, 3)
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous
    assert np.abs(result - exact(pixels, side).clip(0, 255)).max() < 0.501


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("height", "width", "side"), SIZES)
def test_on_photos_each_way_is_pillows(photo, monkeypatch, way, height, width, side):
    monkeypatch.setattr(resizing, "_TORCH_HAS_LANCZOS", way == "torch")
    image = photo(width + 9, height + 5).crop((3, 2, 3 + width, 2 + height))
    pillows = np.asarray(image.resize((side, side), Image.Resampling.LANCZOS), dtype=float)
    pixels = np.array(photo(width + 9, height + 5))[2 : 2 + height, 3 : 3 + width]
    result = resizing.lanczos(pixels, side)
    assert result.shape == (side, side, 3)
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous
    difference = np.abs(result - pillows)
    # Pillow and torch round and saturate between the two directions too.
    assert difference.mean() < 0.35
    assert difference.max() < 4


@pytest.mark.parametrize("way", WAYS)
@given(height=st.integers(1, 70), width=st.integers(1, 70), side=st.integers(1, 70), value=st.integers(0, 255))
def test_a_flat_image_stays_flat_at_any_size(way, height, width, side, value):
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(resizing, "_TORCH_HAS_LANCZOS", way == "torch")
        assert (resizing.lanczos(np.full((height, width, 3), value, np.uint8), side) == value).all()


def test_this_torch_is_asked_with_the_layout_that_is_used():
    """With other strides torch 2.15 fails where it works with these, and the slow way would go unnoticed."""
    try:
        resizing._by_torch(np.zeros((30, 40, 3), np.uint8), 28)
    except (NotImplementedError, ValueError):
        assert not resizing._TORCH_HAS_LANCZOS
    else:
        assert resizing._TORCH_HAS_LANCZOS
