"""The exact low-frequency crop.

`data/released_crops.npz` holds outputs, float32, of the low-frequency crop of the released EfficientTrain code
for inputs `numpy.random.default_rng(seed).standard_normal(shape)`. `seed1_h64_*` are whole, from shape
(2, 1, 64, 64); `seed0_h224_*`, from shape (1, 3, 224, 224), are every 7th row and every 5th column.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from upchirp import low_frequency_crop, low_pass_filter
from upchirp.spectral import reference

RELEASED_CROPS = Path(__file__).parent / "data" / "released_crops.npz"
KEYS = [f"seed1_h64_b{b}" for b in (28, 32, 46, 48)] + [f"seed0_h224_b{b}" for b in (96, 128, 160, 192)]


def normal(generator, *shape, dtype=torch.float64):
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def cropped_spectrum(images, bandwidth):
    """Return the lowest frequencies in the order of the DFT, scaled as the crop is."""
    height, width = images.shape[-2:]
    kept = reference.kept_frequencies(bandwidth)
    return torch.fft.fft2(images)[..., kept[:, None], kept] * bandwidth**2 / (height * width)


def high_frequencies(generator, height, width, bandwidth):
    """Return noise above the cut-off only; the mirrored frequencies of an even bandwidth are below it."""
    spectrum = torch.fft.fft2(normal(generator, 2, height, width))
    rows, columns = reference.kept_frequencies(height)[:, None], reference.kept_frequencies(width)
    spectrum[..., (rows.abs() <= bandwidth // 2) & (columns.abs() <= bandwidth // 2)] = 0
    return torch.fft.ifft2(spectrum).real


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("crop", [low_frequency_crop, reference.low_frequency_crop])
def test_equals_the_released_code(key, crop):
    seed, shape, strides = (1, (2, 1, 64, 64), (1, 1)) if "h64" in key else (0, (1, 3, 224, 224), (7, 5))
    images = torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).float()
    result = crop(images, int(key.rpartition("b")[2]))[..., :: strides[0], :: strides[1]]
    with np.load(RELEASED_CROPS) as expected:
        np.testing.assert_allclose(result.numpy(), expected[key], rtol=0, atol=1e-5)


@st.composite
def crops(draw):
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    return (
        height,
        width,
        draw(st.integers(1, min(height, width))),
        draw(st.booleans()),
        draw(st.integers(0, 99)),
    )


@given(crops())
@settings(max_examples=150, deadline=None)
def test_equals_the_reference(crop):
    height, width, bandwidth, align, seed = crop
    images = normal(torch.Generator().manual_seed(seed), 2, height, width)
    result = low_frequency_crop(images, bandwidth, align)
    assert result.shape == (2, bandwidth, bandwidth)
    torch.testing.assert_close(result, reference.low_frequency_crop(images, bandwidth, align), rtol=0, atol=1e-12)


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("bandwidth", [1, 24, 25])
def test_dtypes(generator, dtype, tolerance, bandwidth, align):
    images = normal(generator, 2, 3, 48, 40, dtype=dtype)
    result = low_frequency_crop(images, bandwidth, align)
    assert result.dtype == dtype
    assert result.is_contiguous()
    expected = reference.low_frequency_crop(images, bandwidth, align)
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("dtype", "relative_error"), [(torch.bfloat16, 5e-3), (torch.float16, 6e-4)])
def test_documented_error_of_half_precision(generator, dtype, relative_error):
    images = normal(generator, 4, 3, 224, 224, dtype=dtype)
    expected = reference.low_frequency_crop(images, 96)
    error = low_frequency_crop(images, 96).double() - expected
    assert error.square().mean().sqrt() < relative_error * expected.square().mean().sqrt()


@pytest.mark.parametrize("shape", [(20, 20), (3, 20, 24), (2, 1, 3, 24, 20)])
def test_leading_dimensions(generator, shape):
    images = normal(generator, *shape)
    result = low_frequency_crop(images, 10)
    assert result.shape == (*shape[:-2], 10, 10)
    torch.testing.assert_close(result, reference.low_frequency_crop(images, 10))


@pytest.mark.parametrize("bandwidth", [9, 10, 20])
def test_empty_batch(bandwidth):
    images = torch.zeros(0, 3, 24, 20, requires_grad=True)
    result = low_frequency_crop(images, bandwidth)
    assert result.shape == (0, 3, bandwidth, bandwidth)
    result.sum().backward()


@pytest.mark.parametrize("bandwidth", [10, 20])
@pytest.mark.parametrize(
    "layout",
    [
        lambda images: images.contiguous(memory_format=torch.channels_last),
        lambda images: images.transpose(-1, -2),
        lambda images: images[:, :, ::2, 3:].flip(-1),
        lambda images: images[:1].expand(4, -1, -1, -1),
    ],
    ids=["channels_last", "transposed", "strided", "expanded"],
)
def test_memory_layouts(generator, layout, bandwidth):
    images = layout(normal(generator, 2, 3, 40, 40))
    torch.testing.assert_close(low_frequency_crop(images, bandwidth), reference.low_frequency_crop(images, bandwidth))


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("size", [1, 7, 16])
def test_full_bandwidth_is_the_identity_and_a_copy(generator, size, align):
    images = normal(generator, 2, 3, size, size).contiguous(memory_format=torch.channels_last)
    result = low_frequency_crop(images, size, align)
    assert torch.equal(result, images)
    assert result.data_ptr() != images.data_ptr()
    assert result.is_contiguous()


def test_brightness_stays(dtype, tolerance):
    result = low_frequency_crop(torch.full((1, 3, 224, 160), 0.5, dtype=dtype), 96)
    torch.testing.assert_close(result, torch.full_like(result, 0.5), rtol=0, atol=tolerance)


@pytest.mark.parametrize("bandwidth", [6, 7])
def test_linearity(generator, bandwidth):
    one, other = normal(generator, 2, 3, 15, 18)
    torch.testing.assert_close(
        low_frequency_crop(2 * one - 3 * other, bandwidth),
        2 * low_frequency_crop(one, bandwidth) - 3 * low_frequency_crop(other, bandwidth),
    )


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("bandwidth", [4, 5, 6])
def test_gradient(generator, bandwidth, align):
    images = normal(generator, 2, 8, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: low_frequency_crop(x, bandwidth, align), images)


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("bandwidth", [14, 15])
def test_proposition_1_the_crop_depends_on_nothing_above_the_cut_off(generator, bandwidth, align):
    images = normal(generator, 2, 32, 36)
    detail = high_frequencies(generator, 32, 36, bandwidth)
    assert detail.std() > 0.5
    torch.testing.assert_close(
        low_frequency_crop(images + detail, bandwidth, align),
        low_frequency_crop(images, bandwidth, align),
        rtol=0,
        atol=1e-12,
    )


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_proposition_1_plain_down_sampling_depends_on_what_is_above_the_cut_off(generator, mode):
    detail = high_frequencies(generator, 32, 32, 14)
    leaked = F.interpolate(detail[None], size=(14, 14), mode=mode, antialias=False)
    assert leaked.std() > 0.1 * detail.std()


@pytest.mark.parametrize("bandwidth", [14, 15])
def test_proposition_1_the_cropped_spectrum_is_recovered(generator, bandwidth):
    images = normal(generator, 2, 32, 36)
    recovered = torch.fft.fft2(low_frequency_crop(images, bandwidth))
    expected = cropped_spectrum(images, bandwidth)
    same = torch.isclose(recovered, expected, rtol=0, atol=1e-10)
    nyquist = reference.kept_frequencies(bandwidth) * 2 == -bandwidth
    assert same[..., ~(nyquist[:, None] | nyquist)].all()
    assert same.all() == bool(bandwidth % 2)


def test_takes_the_same_information_as_the_low_pass_filter(generator):
    images = normal(generator, 2, 32, 36)
    torch.testing.assert_close(low_frequency_crop(low_pass_filter(images, side=15), 15), low_frequency_crop(images, 15))


@pytest.mark.parametrize("bandwidth", [12, 13])
def test_align_puts_pixel_centres_where_resizers_put_them(bandwidth):
    def wave(size, offset):
        position = (torch.arange(size, dtype=torch.float64) + offset) / size
        rows = torch.cos(2 * torch.pi * 3 * position + 0.4)
        columns = torch.sin(2 * torch.pi * 2 * position) + 0.5
        return torch.outer(rows, columns)

    for align, offset in ((True, 0.5), (False, 0.0)):
        torch.testing.assert_close(low_frequency_crop(wave(40, offset), bandwidth, align), wave(bandwidth, offset))


@pytest.mark.parametrize(("backend", "dynamic"), [("eager", None), ("aot_eager", False), ("aot_eager", True)])
def test_compile_without_graph_breaks(generator, backend, dynamic):
    torch.compiler.reset()
    compiled = torch.compile(low_frequency_crop, backend=backend, fullgraph=True, dynamic=dynamic)
    for height, width, bandwidth, align in ((32, 36, 14, False), (32, 28, 15, True), (40, 36, 14, True)):
        images = normal(generator, 2, 3, height, width, dtype=torch.float32).requires_grad_()
        result = compiled(images, bandwidth, align)
        expected = low_frequency_crop(images, bandwidth, align)
        torch.testing.assert_close(result, expected)
        (gradient,) = torch.autograd.grad(result.square().sum(), images)
        torch.testing.assert_close(gradient, torch.autograd.grad(expected.square().sum(), images)[0])


@pytest.mark.parametrize("wrap", [lambda crop: crop, lambda crop: torch.compile(crop, backend="eager", fullgraph=True)])
def test_inference_first_and_training_later(generator, wrap):
    torch.compiler.reset()
    crop = wrap(low_frequency_crop)
    with torch.inference_mode():
        crop(normal(generator, 1, 29, 31), 22)
    images = normal(generator, 1, 29, 31).requires_grad_()
    crop(images, 22).sum().backward()
    assert images.grad is not None


@pytest.mark.parametrize("wrap", [lambda crop: crop, lambda crop: torch.compile(crop, backend="eager", fullgraph=True)])
def test_autocast_does_not_degrade_float32(generator, wrap):
    torch.compiler.reset()
    crop = wrap(low_frequency_crop)
    images = normal(generator, 2, 3, 32, 36, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        result = crop(images, 14)
        assert torch.mm(images[0, 0], images[0, 0].T).dtype == torch.bfloat16
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), reference.low_frequency_crop(images, 14), rtol=0, atol=1e-5)


def test_two_crops_in_one_graph(generator):
    def stacked(images):
        return low_frequency_crop(images, 14) + low_frequency_crop(images, 20, align=True)[..., :14, :14]

    torch.compiler.reset()
    images = normal(generator, 2, 3, 32, 36)
    compiled = torch.compile(stacked, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), stacked(images))


def test_fake_tensors_leave_nothing_behind(generator):
    with FakeTensorMode():
        assert low_frequency_crop(torch.empty(1, 3, 33, 34), 26).shape == (1, 3, 26, 26)
    images = normal(generator, 1, 3, 33, 34, dtype=torch.float32)
    expected = low_frequency_crop(images, 26)
    with FakeTensorMode():
        assert low_frequency_crop(torch.empty(1, 3, 33, 34), 26).shape == (1, 3, 26, 26)
    exported = torch.export.export(Crop(26), (images,))
    torch.testing.assert_close(exported.module()(images), expected)


class Crop(torch.nn.Module):
    def __init__(self, bandwidth):
        super().__init__()
        self.bandwidth = bandwidth

    def forward(self, images):
        return low_frequency_crop(images, self.bandwidth)


def test_meta_tensors():
    assert low_frequency_crop(torch.empty(2, 3, 32, 32, device="meta"), 20).shape == (2, 3, 20, 20)


def test_numpy_integers_are_bandwidths(generator):
    images = normal(generator, 1, 16, 16)
    assert torch.equal(low_frequency_crop(images, np.int64(8)), low_frequency_crop(images, 8))


@pytest.mark.parametrize(
    ("images", "bandwidth", "message"),
    [
        (torch.zeros(3, 8, 8, dtype=torch.uint8), 4, r"uint8: convert them to float first"),
        (torch.zeros(3, 8, 8, dtype=torch.int64), 4, r"int64: convert them to float first"),
        (torch.zeros(3, 8, 8, dtype=torch.bool), 4, r"bool: convert them to float first"),
        (torch.zeros(3, 8, 8, dtype=torch.complex64), 4, r"complex64: convert them to float first"),
        (torch.zeros(8), 4, r"must have shape \(\.\.\., H, W\), got \(8,\)"),
        (torch.zeros(3, 8, 0), 4, r"at least one pixel, got shape \(3, 8, 0\)"),
        (torch.zeros(3, 8, 6), 0, r"bandwidth 0 does not fit images of 8 x 6 pixels: choose it from 1 to 6"),
        (torch.zeros(3, 8, 6), -4, r"bandwidth -4 does not fit"),
        (torch.zeros(3, 8, 6), 7, r"bandwidth 7 does not fit images of 8 x 6 pixels: choose it from 1 to 6"),
        (torch.zeros(3, 8, 6), 4.0, r"bandwidth must be a whole number of pixels, got 4\.0"),
    ],
)
def test_exceptions(images, bandwidth, message):
    with pytest.raises(ValueError, match=message):
        low_frequency_crop(images, bandwidth)
