"""Crop, flip and RandAugment in the loader worker."""

import math
import pickle
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, RandomResizedCrop, Resize
from torchvision.transforms import functional as F

from upchirp.data.images import augmentation as augmentation_module
from upchirp.data.images.augmentation import TrainTransform
from upchirp.data.images.crops import crop_box, default_crop_pct
from upchirp.data.images.decoding import PillowPicture
from upchirp.data.images.evaluation import EvalTransform
from upchirp.data.images.rand_augment import Operation
from upchirp.data.images.resizing import lanczos
from upchirp.data.requests import Request
from upchirp.data.settings import Augmentation
from upchirp.errors import InputError

PLAIN = Augmentation(randaug_layers=0, hflip=0.0)
requests = st.builds(
    Request,
    index=st.just(0),
    bandwidth=st.sampled_from([5, 16, 28, 32]),
    magnitude=st.floats(0, 10),
    seed=st.integers(0, 2**64 - 1),
    operator=st.none(),
)


@given(request=requests, mode=st.sampled_from(["fast", "faithful"]), low=st.sampled_from(["lanczos", "crop"]))
@settings(max_examples=60, deadline=None)
def test_output_is_a_function_of_image_and_request(request, mode, low, photo):
    transform = TrainTransform(Augmentation(), 32, mode, low)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    first = transform(photo().copy(), request)
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])

    # Another history of the same transform, other global random numbers, a pickled copy: nothing may change.
    random.seed(request.seed ^ 1)
    transform(photo(20, 30), request._replace(seed=request.seed ^ 2, magnitude=10.0))
    for again in (transform, pickle.loads(pickle.dumps(transform))):
        np.testing.assert_array_equal(again(photo().copy(), request), first)

    side = request.bandwidth if low == "lanczos" else 32
    assert first.shape == (side, side, 3)
    assert first.dtype == np.uint8
    assert first.flags.c_contiguous


def test_other_seeds_give_other_images(photo):
    transform = TrainTransform(Augmentation(), 32)
    results = {transform(photo(), Request(0, 16, 5.0, seed)).tobytes() for seed in range(50)}
    assert len(results) == 50


@pytest.mark.parametrize("size", [(200, 150), (64, 64), (500, 20), (20, 500)])
def test_crop_boxes_are_distributed_as_torchvisions(size):
    scale, ratio, draws = (0.08, 1.0), (3 / 4, 4 / 3), 4000
    rng = random.Random(1)
    boxes = np.array([crop_box(rng, size, scale, ratio) for _ in range(draws)])
    ours = np.column_stack([boxes[:, 0], boxes[:, 1], boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]])
    torch.manual_seed(1)
    image = torch.empty(3, size[1], size[0])
    theirs = np.array([RandomResizedCrop.get_params(image, list(scale), list(ratio)) for _ in range(draws)])
    theirs = theirs[:, [1, 0, 3, 2]]
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= size).all()
    for start, length, side in ((0, 2, size[0]), (1, 3, size[1])):
        slack = side - ours[:, length]
        place = ours[slack > 20, start] / slack[slack > 20]
        assert not len(place) or place.mean() == pytest.approx(0.5, abs=0.012)
    # Two-sample Kolmogorov-Smirnov distances; 0.05 is exceeded by chance once in 10,000 comparisons.
    for name, a, b in zip(("left", "top", "width", "height"), ours.T, theirs.T, strict=True):
        values = np.union1d(a, b)
        distance = np.abs(
            np.searchsorted(np.sort(a), values, "right") - np.searchsorted(np.sort(b), values, "right")
        ).max()
        assert distance / draws < 0.05, name


@pytest.mark.parametrize("size", [(1000, 10), (10, 1000), (37, 37)])
def test_the_fallback_crop_is_torchvisions(size):
    ratio = (2.0, 2.1) if size[0] == size[1] else (3 / 4, 4 / 3)
    box = crop_box(random.Random(0), size, (1.0, 1.0), ratio)
    top, left, height, width = RandomResizedCrop.get_params(torch.empty(3, size[1], size[0]), [1.0, 1.0], list(ratio))
    assert box == (left, top, left + width, top + height)


def gradient(width: int = 96, height: int = 64) -> Image.Image:
    """Red grows with x and green with y, so the means of a crop tell where it is and which way it faces."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, np.full_like(x, 128)], axis=-1).round().astype(np.uint8))


@pytest.mark.parametrize("mode", ["fast", "faithful"])
def test_one_seed_gives_one_crop_and_flip_at_every_bandwidth(mode):
    transform = TrainTransform(Augmentation(randaug_layers=0), 32, mode)
    flips = 0
    for seed in range(40):
        seen = []
        for bandwidth in (16, 24, 32):
            pixels = transform(gradient(), Request(0, bandwidth, 0.0, seed)).astype(float)
            edges = pixels[:, 0, 0].mean(), pixels[:, -1, 0].mean(), pixels[0, :, 1].mean(), pixels[-1, :, 1].mean()
            seen.append((*edges, pixels[..., 0].mean(), pixels[..., 1].mean()))
        flips += seen[0][0] > seen[0][1]
        np.testing.assert_allclose(seen, np.broadcast_to(seen[0], (3, 6)), atol=8)
        np.testing.assert_allclose(np.array(seen)[:, 4:], np.broadcast_to(seen[0][4:], (3, 2)), atol=2.5)
    assert 10 < flips < 30


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "lanczos"])
def test_modes_against_their_definition(interpolation, photo):
    augmentation = Augmentation(randaug_layers=0, hflip=1.0, interpolation=interpolation)
    for seed in range(20):
        request = Request(0, 20, 0.0, seed)
        box = crop_box(random.Random(seed), photo().size, augmentation.scale, augmentation.ratio)
        left, top, right, bottom = box
        crop = F.hflip(
            F.resized_crop(photo(), top, left, bottom - top, right - left, [32, 32], InterpolationMode(interpolation))
        )
        fast = lanczos(np.array(F.hflip(photo().crop(box))), 20)
        faithful = crop.resize((20, 20), Image.Resampling.LANCZOS)
        for mode, low_frequency, expected, atol in (
            ("fast", "lanczos", fast, 1),
            ("faithful", "lanczos", faithful, 0),
            ("fast", "crop", crop, 0),
            ("faithful", "crop", crop, 0),
        ):
            pixels = TrainTransform(augmentation, 32, mode, low_frequency)(photo(), request)
            np.testing.assert_allclose(pixels.astype(int), np.asarray(expected), rtol=0, atol=atol)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "lanczos"])
def test_the_final_size_has_the_pipeline_s_filter_in_every_mode(interpolation, photo):
    """Table 24's pipeline crops by bicubic interpolation, the baseline throughout; `fast` does at the final size."""
    augmentation = Augmentation(randaug_layers=0, hflip=0.0, interpolation=interpolation)
    for seed in range(10):
        for size in ((100, 80), (40, 30)):
            request, picture = Request(0, 32, 0.0, seed), photo(*size)
            expected = TrainTransform(augmentation, 32, "faithful")(picture, request).astype(int)
            fast = TrainTransform(augmentation, 32, "fast")(picture, request)
            # Where torch has no Lanczos filter, other code than its own stands in, which rounds elsewhere.
            np.testing.assert_allclose(fast.astype(int), expected, rtol=0, atol=2)
            assert np.abs(fast - expected).mean() < 0.3
            # Runs of before crop by Lanczos, whatever the setting.
            before = TrainTransform(augmentation, 32, "fast_lanczos")(picture, request)
            plain = replace(augmentation, interpolation="lanczos")
            assert np.array_equal(before, TrainTransform(plain, 32, "fast")(picture, request))


@pytest.mark.parametrize("bandwidth", [96, 160])
def test_sharpness_is_as_strong_at_a_bandwidth_as_at_the_final_size(bandwidth, monkeypatch):
    """It was three times as strong at 96 px: the one operation of RandAugment that counts in pixels."""
    rng = np.random.default_rng(0)
    # As photographs have it, an amplitude that falls with frequency.
    spectrum = np.fft.fft2(rng.standard_normal((256, 256, 3)), axes=(0, 1))
    distance = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.fftfreq(256))[..., None] + 1 / 256
    values = np.fft.ifft2(spectrum / distance, axes=(0, 1)).real
    picture = Image.fromarray((128 + 40 * values / values.std()).clip(0, 255).astype(np.uint8))
    augmentation = Augmentation(scale=(1.0, 1.0), ratio=(1.0, 1.0), hflip=0.0, randaug_prob=1.0, randaug_layers=1)

    def change(mode, sharpness):
        drawn = [Operation("SharpnessIncreasing", sharpness)]
        monkeypatch.setattr(augmentation_module, "draw_operations", lambda *_, **__: drawn)
        return TrainTransform(augmentation, 224, mode)(picture, Request(0, bandwidth, 9.0, 1)).astype(float)

    strength = {
        mode: np.abs(change(mode, 1.9) - change(mode, 1.0)).mean() for mode in ("fast", "faithful", "fast_lanczos")
    }
    assert 0.8 < strength["fast"] / strength["faithful"] < 1.25
    assert strength["fast_lanczos"] > 1.4 * strength["faithful"]


def test_magnitude_matters_and_zero_layers_turn_it_off(photo):
    def damage(augmentation, magnitude):
        transform, plain = TrainTransform(augmentation, 24), TrainTransform(PLAIN, 24)
        pairs = [(Request(0, 24, magnitude, seed), seed) for seed in range(60)]
        return np.mean([np.abs(transform(photo(), r).astype(float) - plain(photo(), r)).mean() for r, _ in pairs])

    # Half of the operations grow with the magnitude; the rest (invert, equalise, ...) do the same at any.
    assert damage(Augmentation(hflip=0.0), 9.0) > 1.15 * damage(Augmentation(hflip=0.0), 0.0)
    assert damage(PLAIN, 9.0) == 0
    assert damage(Augmentation(hflip=0.0, randaug_prob=0.0), 9.0) == 0


@pytest.mark.parametrize("size", [(64, 64), (100, 75), (75, 101), (33, 500), (640, 481), (10, 10)])
@pytest.mark.parametrize(("side", "share"), [(32, 0.875), (31, 0.9), (48, 1.0)])
def test_evaluation_is_torchvisions_resize_and_centre_crop(size, side, share, photo):
    image = photo(*size)
    reference = Compose([Resize(math.floor(side / share), InterpolationMode.BICUBIC), CenterCrop(side)])
    result = EvalTransform(side, share)(image)
    np.testing.assert_array_equal(result, np.asarray(reference(image)))
    assert result.flags.c_contiguous
    assert result.dtype == np.uint8


def test_default_crop_share():
    # The paper, appendix: 0.875 at 224, 1.0 at 384.
    assert [default_crop_pct(size) for size in (32, 224, 288, 384, 512)] == [0.875, 0.875, 0.875, 1.0, 1.0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hflip": 1.5}, "`hflip` is 1.5"),
        ({"reprob": -0.1}, "`reprob` is -0.1"),
        ({"mixup_prob": math.nan}, "`mixup_prob` is nan"),
        ({"mixup": -1.0}, "`mixup` is -1.0"),
        ({"cutmix": math.inf}, "`cutmix` is inf"),
        ({"scale": (0.5, 0.2)}, "`scale` is"),
        ({"scale": (0.0, 1.0)}, "`scale` is"),
        ({"ratio": (0.0, 1.0)}, "`ratio` is"),
        ({"interpolation": "nearest"}, "bicubic"),
        ({"randaug_layers": -1}, "`randaug_layers` is -1"),
        ({"randaug_std": -0.5}, "`randaug_std` is -0.5"),
        ({"smoothing": 1.0}, "`smoothing` is 1.0"),
        ({"mean": (0.5, 0.5)}, "`mean` is"),
        ({"std": (0.2, 0.0, 0.2)}, "`std` is"),
    ],
)
def test_bad_settings_say_what_to_do(change, words):
    with pytest.raises(InputError, match=words) as caught:
        Augmentation(**change)
    assert "\n" not in str(caught.value)


def test_bad_transforms_are_refused():
    with pytest.raises(InputError, match="mode 'quick'"):
        TrainTransform(Augmentation(), 32, "quick")
    with pytest.raises(InputError, match="low-frequency 'fft'"):
        TrainTransform(Augmentation(), 32, "fast", "fft")
    with pytest.raises(InputError, match="final size 0"):
        TrainTransform(Augmentation(), 0)
    with pytest.raises(InputError, match="crop share"):
        EvalTransform(32, 0.0)
    with pytest.raises(InputError, match="evaluation size"):
        EvalTransform(0, 1.0)
    with pytest.raises(InputError, match="interpolation"):
        EvalTransform(32, 1.0, "nearest")


@pytest.mark.parametrize("mode", ["fast", "faithful"])
def test_center_crop_is_the_view_of_evaluation(mode: str) -> None:
    """FixRes trains on what evaluation looks at: the same square, whatever the seed, flipped half of the time."""
    settings = Augmentation(crop="center", randaug_layers=0, hflip=0.0)
    size = (100, 80)
    horizontal, vertical = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    image = Image.fromarray(np.stack([horizontal, vertical, 0 * vertical], axis=-1).astype(np.uint8) * 2)
    pixels = TrainTransform(settings, final_size=70, mode=mode)(image, Request(0, 70, 5.0, seed=3))
    expected = EvalTransform(70, default_crop_pct(70))(image)
    assert np.abs(pixels.astype(int) - expected.astype(int)).max() <= 2
    other = TrainTransform(settings, final_size=70, mode=mode)(image, Request(0, 70, 5.0, seed=4))
    np.testing.assert_array_equal(pixels, other)


def test_unknown_crop() -> None:
    with pytest.raises(InputError, match="choose one of random, center"):
        Augmentation(crop="middle")


@pytest.mark.parametrize("mode", ["fast", "faithful"])
def test_images_that_are_finished_together_are_those_that_are_made_one_by_one(photo, mode) -> None:
    transform = TrainTransform(Augmentation(randaug_prob=1.0), 32, mode)
    # The last is so large that its crop is resized as soon as it is decoded.
    pictures = [PillowPicture(photo(width, width - 9, seed=width)) for width in (33, 40, 60, 300)]
    requests = [Request(k, 24, 5.0, seed=k, operator="crop" if k == 2 else None) for k in range(4)]
    begun = [transform.begin(picture, request) for picture, request in zip(pictures, requests, strict=True)]
    if mode == "fast":
        assert [image.pixels.shape == (24, 24, 3) for image in begun] == [False, False, False, True]
    for one, picture, request in zip(transform.finish(begun), pictures, requests, strict=True):
        assert np.array_equal(one, transform(picture, request))
        assert one.shape == ((32, 32, 3) if request.operator else (24, 24, 3))
