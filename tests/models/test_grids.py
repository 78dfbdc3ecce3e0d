import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from upchirp.errors import InputError
from upchirp.models.resizing.grids import GridChange, resize_grid

GRIDS = st.tuples(st.integers(1, 9), st.integers(1, 9))


def bilinear(grid, rows, columns):
    """Half-pixel bilinear interpolation of (H, W, C), edges repeated, written out."""
    result = np.empty((rows, columns, grid.shape[2]))
    for i in range(rows):
        y = min(max((i + 0.5) * grid.shape[0] / rows - 0.5, 0), grid.shape[0] - 1)
        top, bottom = int(y), min(int(y) + 1, grid.shape[0] - 1)
        for j in range(columns):
            x = min(max((j + 0.5) * grid.shape[1] / columns - 0.5, 0), grid.shape[1] - 1)
            left, right = int(x), min(int(x) + 1, grid.shape[1] - 1)
            upper = grid[top, left] * (1 - (x - left)) + grid[top, right] * (x - left)
            lower = grid[bottom, left] * (1 - (x - left)) + grid[bottom, right] * (x - left)
            result[i, j] = upper * (1 - (y - top)) + lower * (y - top)
    return result


@settings(deadline=None, max_examples=50)
@given(old=GRIDS, new=GRIDS, prefix=st.integers(0, 2), suffix=st.integers(0, 3), seed=st.integers(0, 2**16))
def test_equals_bilinear_written_out(old, new, prefix, suffix, seed):
    area = old[0] * old[1]
    values = np.random.default_rng(seed).standard_normal((prefix + area + suffix, 3))
    result = resize_grid(torch.from_numpy(values), old, new, prefix=prefix, suffix=suffix).numpy()
    expected = bilinear(values[prefix : prefix + area].reshape(*old, 3), *new).reshape(-1, 3)
    np.testing.assert_array_equal(result[:prefix], values[:prefix])
    np.testing.assert_array_equal(result[len(result) - suffix :], values[prefix + area :])
    np.testing.assert_allclose(result[prefix : len(result) - suffix], expected, atol=1e-12)
    shapes = resize_grid(torch.from_numpy(values).to("meta"), old, new, prefix=prefix, suffix=suffix)
    assert (shapes.shape, shapes.dtype, shapes.is_meta) == (result.shape, torch.float64, True)


@settings(deadline=None, max_examples=20)
@given(old=GRIDS, new=GRIDS, dim=st.integers(0, 2), seed=st.integers(0, 2**16))
def test_grid_over_two_dimensions(old, new, dim, seed):
    shape = [2, 3]
    shape[dim:dim] = old
    values = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    change = GridChange(nn.Parameter(values), old, new, dim=dim, flat=False)
    maps = values.movedim((dim, dim + 1), (0, 1)).reshape(*old, 6).numpy()
    result = change.resized(values).movedim((dim, dim + 1), (0, 1)).reshape(*new, 6).numpy()
    np.testing.assert_allclose(result, bilinear(maps, *new), atol=1e-12)


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ({"dim": 1, "flat": False}, "over 3 x 4, not 4 x 3"),
        ({"dim": -2, "flat": False}, "dim is -2"),
        ({"dim": 2, "flat": False}, "over 4, not 4 x 3"),
        ({"dim": 1, "suffix": 2}, "has 3 entries along dimension 1, but 2 and a grid"),
    ],
)
def test_wrong_layout(layout, message):
    with pytest.raises(InputError, match=message):
        GridChange(nn.Parameter(torch.zeros(2, 3, 4)), (4, 3), (2, 2), **layout)


@settings(deadline=None, max_examples=50)
@given(old=GRIDS, new=GRIDS, seed=st.integers(0, 2**16))
def test_stays_within_the_range_of_the_values(old, new, seed):
    values = torch.rand(2, old[0] * old[1], generator=torch.Generator().manual_seed(seed)) ** 8
    result = resize_grid(values, old, new, dim=1)
    assert result.shape == (2, new[0] * new[1])
    assert (result >= 0).all() and (result <= values.max() * (1 + 1e-6)).all()


def test_same_grid_is_a_copy():
    values = torch.randn(1, 5, 4, generator=torch.Generator().manual_seed(0))
    result = resize_grid(values, (2, 2), (2, 2), dim=1, prefix=1)
    assert torch.equal(result, values) and result.data_ptr() != values.data_ptr()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_is_kept(dtype):
    values = torch.randn(16, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    result = resize_grid(values.to(dtype), (4, 4), (7, 7))
    assert result.dtype == dtype
    exact = resize_grid(values.to(dtype).double(), (4, 4), (7, 7))
    torch.testing.assert_close(result, exact.to(dtype))


def test_wrong_grid():
    with pytest.raises(InputError, match="1 and a grid of 3 x 3 make 10"):
        resize_grid(torch.zeros(1, 9, 4), (3, 3), (2, 2), dim=1, prefix=1)
