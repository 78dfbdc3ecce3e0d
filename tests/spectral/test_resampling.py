import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from upchirp import downsample, low_frequency_crop


def pillow_lanczos(image, height, width):
    resized = Image.fromarray(image.numpy()).resize((width, height), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(resized))


@st.composite
def sizes(draw):
    height, width = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    return height, width, draw(st.integers(1, height)), draw(st.integers(1, width)), draw(st.integers(0, 99))


@given(sizes())
@settings(max_examples=100, deadline=None)
def test_equals_pillow(case):
    height, width, new_height, new_width, seed = case
    image = torch.randn(height, width, generator=torch.Generator().manual_seed(seed))
    result = downsample(image, (new_height, new_width))
    torch.testing.assert_close(result, pillow_lanczos(image, new_height, new_width), rtol=0, atol=1e-5)


def test_dtypes(generator, dtype, tolerance):
    images = torch.randn(2, 3, 48, 40, generator=generator, dtype=torch.float64).to(dtype)
    result = downsample(images, 20)
    assert result.dtype == dtype
    torch.testing.assert_close(result.double(), downsample(images.double(), 20), rtol=0, atol=tolerance)


def test_brightness_stays(dtype, tolerance):
    result = downsample(torch.full((3, 45, 64), 0.5, dtype=dtype), 28)
    torch.testing.assert_close(result, torch.full_like(result, 0.5), rtol=0, atol=tolerance)


def test_leaks_less_than_plain_down_sampling_and_stays_near_the_aligned_crop(generator):
    white = torch.randn(4, 3, 64, 64, generator=generator)
    crop = low_frequency_crop(white, 28, align=True)
    distance = {
        "lanczos": (downsample(white, 28) - crop).std(),
        "bicubic": (F.interpolate(white, size=(28, 28), mode="bicubic") - crop).std(),
        "unaligned": (low_frequency_crop(white, 28) - crop).std(),
    }
    assert distance["lanczos"] < 0.5 * distance["bicubic"]
    assert distance["lanczos"] < 0.5 * distance["unaligned"]


def test_gradient(generator):
    images = torch.randn(2, 9, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: downsample(x, (5, 4)), images)


def test_same_size_is_a_copy(generator):
    images = torch.randn(2, 9, 9, generator=generator)
    result = downsample(images, 9)
    assert torch.equal(result, images)
    assert result.data_ptr() != images.data_ptr()


def test_autocast_compile_and_memory_layout(generator):
    torch.compiler.reset()
    images = torch.randn(2, 3, 24, 18, generator=generator)
    compiled = torch.compile(downsample, backend="aot_eager", fullgraph=True)
    with torch.autocast("cpu", torch.bfloat16):
        for size in (10, 12, (20, 18)):
            result = compiled(images.contiguous(memory_format=torch.channels_last), size)
            assert result.dtype == torch.float32
            torch.testing.assert_close(result, downsample(images, size))


def test_inference_first_and_training_later(generator):
    with torch.inference_mode():
        downsample(torch.randn(1, 31, 37, generator=generator), 21)
    images = torch.randn(1, 31, 37, generator=generator, requires_grad=True)
    downsample(images, 21).sum().backward()
    assert images.grad is not None


def test_empty_batch():
    assert downsample(torch.zeros(0, 3, 8, 8), 4).shape == (0, 3, 4, 4)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (0, "height 0 does not fit"),
        (7, "width 7 does not fit"),
        ((9, 6), "height 9 does not fit"),
        ((2.5, 6), r"height must be a whole number of pixels, got 2\.5"),
        ((4, 4, 4), "size must be a whole number or a pair"),
        ([4, 4], "size must be a whole number or a pair"),
    ],
)
def test_exceptions(size, message):
    with pytest.raises(ValueError, match=message):
        downsample(torch.zeros(3, 8, 6), size)


def test_integer_images_are_refused():
    with pytest.raises(ValueError, match="convert them to float first"):
        downsample(torch.zeros(3, 8, 6, dtype=torch.uint8), 4)
