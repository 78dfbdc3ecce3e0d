"""RandAugment: the draws are timm's, and the fast operations do what timm's do."""

import random
from collections import Counter

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from timm.data import auto_augment

from upchirp.data.images.augmentation import TrainTransform
from upchirp.data.images.rand_augment import Operation, draw_operations, on_image, on_pixels
from upchirp.data.requests import Request
from upchirp.data.settings import Augmentation

FILL = (124, 116, 104)
NAMES = auto_augment.rand_augment_choices("rand", increasing=True)
GEOMETRIC = {"Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel"}
BLENDS = {"ColorIncreasing", "ContrastIncreasing", "BrightnessIncreasing", "SharpnessIncreasing"}


def all_operations(level: float) -> list[Operation]:
    """Every operation at a level from 0 to 1, each with both signs if it has one."""
    drawn = {
        operation
        for seed in range(400)
        for operation in draw_operations(random.Random(seed), 10 * level, layers=1, prob=1.0, std=0.0)
    }
    assert {operation.name for operation in drawn} == set(NAMES)
    return sorted(drawn, key=str)


@pytest.mark.parametrize("magnitude", [0, 5, 9])
def test_operations_are_drawn_as_timm_draws_them(monkeypatch, magnitude):
    draws = 6000
    ours = [
        operation
        for seed in range(draws)
        for operation in draw_operations(random.Random(seed), float(magnitude), layers=2, prob=0.5, std=0.5)
    ]
    theirs: list[tuple[str, tuple[float, ...]]] = []
    for name in NAMES:

        def recorder(image, *args, name=name, **kwargs):
            theirs.append((name, args))
            return image

        monkeypatch.setitem(auto_augment.NAME_TO_OP, name, recorder)
    reference = auto_augment.rand_augment_transform(f"rand-m{magnitude}-mstd0.5-inc1", {"img_mean": FILL})
    random.seed(0)
    np.random.seed(0)
    for _ in range(draws):
        reference(Image.new("RGB", (8, 8)))

    # 15 operations, 2 layers, half of them carried out: 400 calls each on average.
    counts = Counter(name for name, _ in ours)
    assert set(counts) == set(NAMES)
    for name, count in counts.items():
        assert count == pytest.approx(draws / 15, abs=100), name
        arguments = np.array([argument for op, argument in ours if op == name and argument is not None])
        expected = np.array([args[0] for op, args in theirs if op == name and args])
        assert bool(len(arguments)) == bool(len(expected)), name
        if name == "PosterizeIncreasing":
            # We keep at least one bit.
            assert arguments.mean() == pytest.approx(expected.clip(1).mean(), abs=0.15)
        elif len(arguments):
            spread = expected.std() + 1e-9
            assert arguments.mean() == pytest.approx(expected.mean(), abs=0.4 * spread), name
            assert arguments.std() == pytest.approx(expected.std(), rel=0.25, abs=1e-6), name
            # Integers stay integers: a threshold of 12.0 is the same, a count of bits is not.
            assert {float(value).is_integer() for value in arguments} <= {
                float(value).is_integer() for value in expected
            } | {True}, name


@pytest.mark.parametrize("level", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_fast_operations_do_what_timms_do(level, photo):
    for operation in all_operations(level):
        for image in (photo(), Image.new("RGB", (9, 7), (3, 3, 200)), photo(33, 33, seed=2)):
            pixels = np.asarray(image)
            before = pixels.copy()
            expected = np.asarray(on_image(image, [operation], FILL, Image.Resampling.BICUBIC)).astype(int)
            result = on_pixels(pixels, [operation], FILL, cv2.INTER_CUBIC)
            np.testing.assert_array_equal(pixels, before)
            assert result.dtype == np.uint8
            difference = np.abs(result - expected)
            if operation.name in BLENDS:
                # Pillow rounds the grey value first, blends in float32 and cuts fractions off.
                assert difference.max() <= 2, operation
            elif operation.name.startswith("Translate"):
                assert difference.max() <= 1, operation
            elif operation.name in GEOMETRIC:
                # Other bicubic kernels, and OpenCV blends with the fill at the border.
                assert difference.mean() < (6 if image.width > 20 else 12), operation
                inside = (expected != FILL).any(axis=-1) & (result != FILL).any(axis=-1)
                inside = cv2.erode(inside.astype(np.uint8), np.ones((7, 7), np.uint8), borderValue=0) > 0
                assert not inside.any() or difference[inside].mean() < 3, operation
            else:
                assert difference.max() == 0, operation


def test_geometry_lands_where_pillows_does():
    """A smooth image, where interpolation kernels agree: a shift by half a pixel would show."""
    x, y = np.meshgrid(np.arange(64), np.arange(64))
    smooth = np.stack([127 + 60 * np.sin(x / 9), 127 + 60 * np.cos(y / 7), x + y], axis=-1).round().astype(np.uint8)
    image = Image.fromarray(smooth)
    for operation in all_operations(0.35):
        if operation.name in GEOMETRIC:
            expected = np.asarray(on_image(image, [operation], FILL, Image.Resampling.BICUBIC)).astype(int)
            result = on_pixels(smooth, [operation], FILL, cv2.INTER_CUBIC)
            centre = np.s_[24:40, 24:40]
            assert np.abs(result[centre] - expected[centre]).mean() < 0.7, operation


@given(
    pixels=st.integers(0, 2**32).map(lambda seed: np.random.default_rng(seed)),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    few=st.integers(1, 256),
)
@settings(max_examples=100)
def test_histogram_operations_are_exact_on_any_image(pixels, shape, few):
    values = (pixels.integers(0, few, (*shape, 3)) + pixels.integers(0, 257 - few)).astype(np.uint8)
    for name in ("AutoContrast", "Equalize"):
        operation = [Operation(name, None)]
        expected = np.asarray(on_image(Image.fromarray(values), operation, FILL, Image.Resampling.BICUBIC))
        np.testing.assert_array_equal(on_pixels(values, operation, FILL, cv2.INTER_CUBIC), expected)


@pytest.mark.parametrize("mode", ["fast", "faithful"])
def test_the_greatest_magnitude_works_on_this_pillow(mode, photo):
    transform = TrainTransform(Augmentation(randaug_layers=8, randaug_prob=1.0), 16, mode)
    for seed in range(300):
        transform(photo(), Request(0, 16, 10.0, seed))


def test_posterize_keeps_a_bit():
    drawn = [draw_operations(random.Random(seed), 10.0, layers=4, prob=1.0, std=0.0) for seed in range(100)]
    assert {op.argument for ops in drawn for op in ops if op.name == "PosterizeIncreasing"} == {1}


def test_both_modes_carry_out_the_same_operations(photo):
    augmentation = Augmentation(randaug_prob=1.0, hflip=0.0)
    for seed in range(40):
        request = Request(0, 32, 9.0, seed)
        image = photo(32, 32)
        fast, faithful = (TrainTransform(augmentation, 32, mode)(image, request) for mode in ("fast", "faithful"))
        # Crops are resized by other filters and solarising turns small differences into large ones, but an image
        # that underwent other operations correlates by chance only.
        correlation = np.corrcoef(fast.ravel(), faithful.ravel())[0, 1]
        assert correlation > 0.7 or fast.std() < 20, seed


@pytest.mark.parametrize("mode", ["fast", "faithful"])
def test_translation_is_relative_to_the_side(mode):
    side_seen = {}
    for side in (20, 40, 80):
        pixels = np.zeros((side, side, 3), np.uint8)
        operations = [Operation("TranslateXRel", 0.45)]
        if mode == "fast":
            shifted = on_pixels(pixels, operations, FILL, cv2.INTER_CUBIC)
        else:
            shifted = np.asarray(on_image(Image.fromarray(pixels), operations, FILL, Image.Resampling.BICUBIC))
        side_seen[side] = (shifted == FILL).all(axis=-1).mean()
        assert side_seen[side] == pytest.approx(0.45, abs=1.5 / side)
