import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from upchirp import high_pass_filter, low_pass_filter, sinc_kernel
from upchirp.spectral import reference


def normal(generator, *shape, dtype=torch.float64):
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


@st.composite
def squares(draw):
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    return height, width, draw(st.integers(1, min(height, width)))


@given(squares(), st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_square_equals_the_reference(square, seed):
    height, width, side = square
    images = normal(torch.Generator().manual_seed(seed), 2, height, width)
    torch.testing.assert_close(
        low_pass_filter(images, side=side), reference.low_pass_filter(images, side=side), rtol=0, atol=1e-12
    )


@given(st.integers(1, 20), st.integers(1, 20), st.floats(0, 20), st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_circle_equals_the_reference(height, width, radius, seed):
    images = normal(torch.Generator().manual_seed(seed), 2, height, width)
    torch.testing.assert_close(
        low_pass_filter(images, radius=radius),
        reference.low_pass_filter(images, radius=radius),
        rtol=0,
        atol=1e-12,
    )


@given(squares(), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_proposition_2_1_the_square_is_a_convolution(square, seed):
    height, width, side = square
    images = normal(torch.Generator().manual_seed(seed), height, width)
    kernel = sinc_kernel(height, width, side, dtype=torch.float64)
    torch.testing.assert_close(
        reference.circular_convolution(images, kernel), low_pass_filter(images, side=side), rtol=0, atol=1e-12
    )


def test_sinc_kernel_tends_to_the_sinc_function():
    # Appendix D.3, with the side 2H of the paper written H and gamma = B / (2H): per axis the kernel tends to
    # sin(pi B x / H) / (pi x).
    kernel = sinc_kernel(1001, 1001, 101, dtype=torch.float64)
    offsets = torch.arange(20, dtype=torch.float64)
    limit = torch.sinc(offsets * 101 / 1001) * 101 / 1001
    torch.testing.assert_close(kernel[:20, :20], torch.outer(limit, limit), rtol=0, atol=1e-5)


def test_sinc_kernel_dtype():
    assert sinc_kernel(6, 8, 3).dtype == torch.float32
    kernel = sinc_kernel(6, 8, 3, dtype=torch.float16)
    assert kernel.dtype == torch.float16
    assert kernel.argmax() == 0


@pytest.mark.parametrize("arguments", [{"radius": 5}, {"side": 9}, {"side": 10}])
def test_dtypes_and_complement(generator, dtype, tolerance, arguments):
    images = normal(generator, 2, 3, 24, 21, dtype=dtype)
    low, high = low_pass_filter(images, **arguments), high_pass_filter(images, **arguments)
    assert low.dtype == high.dtype == dtype
    expected = reference.low_pass_filter(images, **arguments)
    torch.testing.assert_close(low.double(), expected, rtol=0, atol=tolerance)
    torch.testing.assert_close(high.double(), images.double() - expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("arguments", [{"radius": 5.5}, {"side": 9}])
def test_filters_are_projections(generator, arguments):
    images = normal(generator, 2, 24, 21)
    low = low_pass_filter(images, **arguments)
    torch.testing.assert_close(low_pass_filter(low, **arguments), low)
    torch.testing.assert_close(high_pass_filter(low, **arguments), torch.zeros_like(low))


@pytest.mark.parametrize("square", [2, 5, 13, 25])
def test_circle_contains_its_own_rim(square):
    # One wave with k^2 + l^2 = 2, 5, 13 or 25; the floating-point square of sqrt(13) is below 13.
    rows, columns = {2: (1, 1), 5: (1, 2), 13: (2, 3), 25: (3, 4)}[square]
    position = torch.arange(16, dtype=torch.float64) / 16
    wave = torch.cos(2 * torch.pi * (rows * position[:, None] + columns * position))
    torch.testing.assert_close(low_pass_filter(wave, radius=math.sqrt(square)), wave)
    torch.testing.assert_close(low_pass_filter(wave, radius=math.sqrt(square) - 1e-3), 0 * wave)


def test_full_square_and_wide_circle_are_the_identity(generator):
    images = normal(generator, 2, 12, 12)
    torch.testing.assert_close(low_pass_filter(images, side=12), images)
    torch.testing.assert_close(low_pass_filter(images, radius=100), images)


@pytest.mark.parametrize("arguments", [{"radius": 2}, {"side": 3}, {"side": 4}])
@pytest.mark.parametrize("operator", [low_pass_filter, high_pass_filter])
def test_gradient(generator, operator, arguments):
    images = normal(generator, 2, 6, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: operator(x, **arguments), images)


def test_autocast_compile_and_memory_layout(generator):
    torch.compiler.reset()
    images = normal(generator, 2, 3, 16, 12, dtype=torch.float32)
    compiled = torch.compile(low_pass_filter, backend="aot_eager", fullgraph=True)
    with torch.autocast("cpu", torch.bfloat16):
        result = compiled(images.contiguous(memory_format=torch.channels_last), side=6)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, low_pass_filter(images, side=6))


def test_empty_batch():
    assert low_pass_filter(torch.zeros(0, 3, 8, 8), side=4).shape == (0, 3, 8, 8)


@pytest.mark.parametrize("operator", [low_pass_filter, high_pass_filter])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give either radius"),
        ({"radius": 2, "side": 2}, "give either radius"),
        ({"radius": -1}, "radius must be a finite number, at least 0, got -1"),
        ({"radius": math.nan}, "radius must be a finite number"),
        ({"radius": math.inf}, "radius must be a finite number"),
        ({"side": 0}, "side 0 does not fit images of 8 x 6 pixels: choose it from 1 to 6"),
        ({"side": 7}, "side 7 does not fit"),
        ({"side": 2.5}, r"side must be a whole number of pixels, got 2\.5"),
    ],
)
def test_exceptions(operator, arguments, message):
    with pytest.raises(ValueError, match=message):
        operator(torch.zeros(8, 6), **arguments)


def test_integer_images_are_refused():
    with pytest.raises(ValueError, match="convert them to float first"):
        low_pass_filter(torch.zeros(8, 6, dtype=torch.uint8), side=3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, 8, 1), "height must be"), ((8, 2.5, 1), "width must be"), ((8, 6, 7), "side 7 does not fit")],
)
def test_sinc_kernel_exceptions(arguments, message):
    with pytest.raises(ValueError, match=message):
        sinc_kernel(*arguments)
