"""Anti-aliased Lanczos on uint8 pixels, by torch or by Pillow."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from upchirp.data.images import resizing


def exact(pixels: np.ndarray, side: int) -> np.ndarray:
    """The definition: a Lanczos window of three lobes around each output pixel's centre, widened when shrinking."""

    def matrix(size: int) -> np.ndarray:
        scale = max(size / side, 1.0)
        centres = (np.arange(side)[:, None] + 0.5) * size / side
        distance = (np.arange(size) + 0.5 - centres) / scale
        weights = np.where(np.abs(distance) < 3, np.sinc(distance) * np.sinc(distance / 3), 0)
        return weights / weights.sum(axis=1, keepdims=True)

    return np.einsum("ah,hwc,bw->abc", matrix(pixels.shape[0]), pixels.astype(float), matrix(pixels.shape[1]))


@pytest.mark.parametrize("torch_has_it", [False, True])
@pytest.mark.parametrize(("height", "width", "side"), [(100, 130, 28), (130, 100, 96), (64, 64, 64), (30, 40, 64)])
def test_both_libraries_keep_to_the_definition(photo, monkeypatch, torch_has_it, height, width, side):
    if torch_has_it and not resizing._torch_has_lanczos():
        pytest.skip("this torch has no Lanczos for uint8")
    monkeypatch.setattr(resizing, "_TORCH_HAS_LANCZOS", torch_has_it)
    # A view with gaps between its rows, as a crop is.
    pixels = np.array(photo(width + 9, height + 5))[2 : 2 + height, 3 : 3 + width]
    result = resizing.lanczos(pixels, side)
    assert result.shape == (side, side, 3)
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous
    difference = np.abs(result - exact(pixels, side).clip(0, 255))
    # Both round to whole numbers between the two directions too.
    assert difference.mean() < 0.45
    assert difference.max() < 3


@given(height=st.integers(1, 70), width=st.integers(1, 70), side=st.integers(1, 70), value=st.integers(0, 255))
def test_a_flat_image_stays_flat_at_any_size(height, width, side, value):
    assert (resizing.lanczos(np.full((height, width, 3), value, np.uint8), side) == value).all()


def test_this_torch_is_asked_with_the_layout_that_is_used():
    """With other strides torch 2.15 fails where it works with these, and the slow way would go unnoticed."""
    try:
        resizing._by_torch(np.zeros((30, 40, 3), np.uint8), 28)
    except (NotImplementedError, ValueError):
        assert not resizing._TORCH_HAS_LANCZOS
    else:
        assert resizing._TORCH_HAS_LANCZOS
