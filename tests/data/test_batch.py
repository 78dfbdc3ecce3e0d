"""What happens to a batch on the device, and the loss of mixed targets."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.data.mixup import mixup_target
from timm.loss import SoftTargetCrossEntropy

from upchirp.data.device.erasing import erase_box_by_box, erase_together
from upchirp.data.device.mixing import Targets, mix_group, mixed_cross_entropy
from upchirp.data.device.transform import BatchTransform, normalize
from upchirp.data.settings import Augmentation
from upchirp.errors import InputError
from upchirp.spectral import low_frequency_crop

QUIET = Augmentation(mixup=0.0, cutmix=0.0, reprob=0.0)
MIX_ONLY = Augmentation(reprob=0.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
CUT_ONLY = Augmentation(reprob=0.0, mixup=0.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
ERASE_ONLY = Augmentation(mixup=0.0, cutmix=0.0, reprob=1.0)


def uint8_images(count: int, side: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)


def flat_images(count: int, side: int) -> torch.Tensor:
    """Image `i` is `i` everywhere, so that every output pixel tells where it comes from."""
    return torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, side, side).contiguous()


@settings(max_examples=25)
@given(
    batch_size=st.sampled_from([2, 6, 12, 32, 48, 96, 128]),
    side=st.integers(1, 12),
    step=st.integers(0, 2**40),
    seed=st.integers(0, 2**63),
    channels_last=st.booleans(),
    data=st.data(),
)
def test_slices_of_a_batch_give_the_same_as_the_whole(batch_size, side, step, seed, channels_last, data):
    augmentation = Augmentation(reprob=0.5)
    images, labels = uint8_images(batch_size, side), torch.arange(batch_size)
    kept = images.clone()
    whole, targets = BatchTransform(augmentation, seed=seed)(
        images, labels, bandwidth=side, step=step, batch_size=batch_size
    )
    assert torch.equal(images, kept)
    group = mix_group(augmentation, batch_size)
    cuts = data.draw(st.sets(st.integers(0, batch_size // group)))
    bounds = sorted({0, batch_size} | {cut * group for cut in cuts})
    # One process after another, with no memory of the other slices; the memory format changes no value.
    for start, stop in pairwise(bounds):
        transform = BatchTransform(augmentation, seed=seed, channels_last=channels_last)
        part, part_targets = transform(
            images[start:stop],
            labels[start:stop],
            bandwidth=side,
            step=step,
            batch_size=batch_size,
            first_row=start,
        )
        assert torch.equal(part, whole[start:stop])
        for name in ("labels", "partners", "weight"):
            assert torch.equal(getattr(part_targets, name), getattr(targets, name)[start:stop])


def test_steps_and_seeds_differ():
    images, labels = uint8_images(64, 8), torch.arange(64)
    results = [
        BatchTransform(Augmentation(), seed=seed)(images, labels, bandwidth=8, step=step, batch_size=64)[0]
        for seed, step in ((0, 0), (0, 1), (1, 0), (0, 0))
    ]
    assert torch.equal(results[0], results[3])
    assert not torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_history_does_not_matter():
    used, fresh = BatchTransform(Augmentation(), seed=3), BatchTransform(Augmentation(), seed=3)
    for step, side in ((0, 8), (1, 12), (2, 12)):
        used(uint8_images(32, side), torch.arange(32), bandwidth=side, step=step, batch_size=32)
    arguments = {"bandwidth": 8, "step": 3, "batch_size": 32}
    images, labels = uint8_images(32, 8), torch.arange(32)
    assert torch.equal(used(images, labels, **arguments)[0], fresh(images, labels, **arguments)[0])


def test_without_mixing_and_erasing_it_only_normalises():
    images, labels = uint8_images(5, 7), torch.arange(5)
    pixels, targets = BatchTransform(QUIET, seed=0)(images, labels, bandwidth=7, step=0, batch_size=9, first_row=3)
    mean, std = (torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in (QUIET.mean, QUIET.std))
    expected = ((images.double() / 255 - mean) / std).float()
    torch.testing.assert_close(pixels, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(normalize(images, QUIET.mean, QUIET.std), pixels, rtol=0, atol=0)
    assert targets.labels.tolist() == targets.partners.tolist() == [0, 1, 2, 3, 4]
    assert targets.weight.tolist() == [1.0] * 5
    assert targets.weight.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("low_frequency", ["lanczos", "crop"])
def test_shape_dtype_and_memory_format(dtype, channels_last, low_frequency):
    transform = BatchTransform(
        Augmentation(), seed=0, low_frequency=low_frequency, channels_last=channels_last, dtype=dtype
    )
    side = 8 if low_frequency == "lanczos" else 12
    pixels, targets = transform(uint8_images(8, side), torch.arange(8), bandwidth=8, step=0, batch_size=8)
    assert pixels.shape == (8, 3, 8, 8)
    assert pixels.dtype == dtype
    wanted = torch.channels_last if channels_last else torch.contiguous_format
    assert pixels.is_contiguous(memory_format=wanted)
    assert (targets.labels.dtype, targets.partners.dtype) == (torch.int64, torch.int64)
    assert pixels.isfinite().all()


def test_exact_crop_comes_first():
    images, labels = uint8_images(4, 16), torch.arange(4)
    transform = BatchTransform(QUIET, seed=0, low_frequency="crop")
    pixels, _ = transform(images, labels, bandwidth=6, step=0, batch_size=4)
    expected = normalize(low_frequency_crop(images.float(), 6), QUIET.mean, QUIET.std)
    torch.testing.assert_close(pixels, expected, rtol=1e-5, atol=1e-5)
    pixels, _ = transform(images, labels, bandwidth=16, step=0, batch_size=4)
    torch.testing.assert_close(pixels, normalize(images, QUIET.mean, QUIET.std), rtol=0, atol=0)


@given(step=st.integers(0, 2**40), side=st.integers(2, 24), group=st.sampled_from([2, 4, 32]))
def test_cutmix_weight_is_the_share_of_pixels_kept(step, side, group):
    count = 2 * group
    pixels, targets = BatchTransform(CUT_ONLY, seed=0)(
        flat_images(count, side), torch.arange(count), bandwidth=side, step=step, batch_size=count
    )
    values = (pixels * 255).round().long()
    own, other = targets.labels.view(-1, 1, 1, 1), targets.partners.view(-1, 1, 1, 1)
    assert ((values == own) | (values == other)).all()
    kept = (values == own).float().mean(dim=(1, 2, 3))
    torch.testing.assert_close(kept, targets.weight, rtol=0, atol=1e-6)
    # One box for a whole group and all its channels.
    size = mix_group(CUT_ONLY, count)
    inside = (values == other).view(-1, size, 3, side, side)
    assert (inside == inside[:, :1, :1]).all()
    # A box is a rectangle: its rows and columns explain it.
    box = inside[:, 0, 0]
    assert (box == (box.any(2)[:, :, None] & box.any(1)[:, None, :])).all()


@given(step=st.integers(0, 2**40))
def test_mixup_blends_by_the_weight(step):
    augmentation = Augmentation(reprob=0.0, cutmix=0.0)
    images, labels = uint8_images(64, 5), torch.arange(64)
    pixels, targets = BatchTransform(augmentation, seed=0)(images, labels, bandwidth=5, step=step, batch_size=64)
    weight = targets.weight.view(-1, 1, 1, 1)
    plain = normalize(images, augmentation.mean, augmentation.std)
    torch.testing.assert_close(pixels, plain * weight + plain[targets.partners] * (1 - weight), rtol=1e-5, atol=1e-5)


def test_partners_are_the_flipped_order_of_each_group():
    size = mix_group(MIX_ONLY, 96)
    assert 2 <= size <= 32
    _, targets = BatchTransform(Augmentation(cutmix=0.0), seed=0)(
        flat_images(96, 2), torch.arange(96), bandwidth=2, step=0, batch_size=96
    )
    groups = torch.arange(96).view(-1, size)
    assert torch.equal(targets.partners.view(-1, size), groups.flip(1))
    weights = targets.weight.view(-1, size)
    assert (weights == weights[:, :1]).all()
    assert len(set(weights[:, 0].tolist())) == len(groups)


def drawn(augmentation: Augmentation, groups: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """For each group: the weight of its own samples, and whether it was cut (not blended)."""
    pixels, targets = BatchTransform(augmentation, seed=5)(
        flat_images(2, 16).repeat(groups, 1, 1, 1),
        torch.arange(2).repeat(groups),
        bandwidth=16,
        step=0,
        batch_size=2 * groups,
    )
    values = (pixels[::2] * 255).flatten(1)
    blended = ((values > 1e-4) & (values < 1 - 1e-4)).any(1)
    return targets.weight[::2].numpy(), ~blended.numpy()


def test_lambdas_follow_their_distributions(monkeypatch):
    # Groups of 2, so that one batch holds thousands of draws.
    monkeypatch.setattr("upchirp.data.device.mixing.MIX_GROUP", 2)
    weight, _ = drawn(Augmentation(reprob=0.0, cutmix=0.0, mean=(0.0,) * 3, std=(1.0,) * 3))
    # Beta(a, a) has mean 1/2 and variance 1 / (4 (2 a + 1)).
    assert weight.mean() == pytest.approx(0.5, abs=0.02)
    assert weight.var() == pytest.approx(1 / (4 * (2 * 0.8 + 1)), rel=0.06)

    reference = np.random.default_rng(0)
    lambdas, sides = reference.beta(1.0, 1.0, 4000), 16
    kept = []
    for lam in lambdas:
        # timm's box: side floor(S sqrt(1 - lambda)) around a uniform centre, cut off at the borders.
        cut, y, x = int(sides * np.sqrt(1 - lam)), *reference.integers(0, sides, 2)
        height = min(y + (cut + 1) // 2, sides) - max(y - cut // 2, 0)
        width = min(x + (cut + 1) // 2, sides) - max(x - cut // 2, 0)
        kept.append(1 - height * width / sides**2)
    weight, _ = drawn(CUT_ONLY)
    assert weight.mean() == pytest.approx(np.mean(kept), abs=0.02)
    assert weight.std() == pytest.approx(np.std(kept), rel=0.06)

    weight, cut = drawn(MIX_ONLY)
    assert cut.mean() == pytest.approx(0.5, abs=0.04)
    half = Augmentation(reprob=0.0, mixup_prob=0.5, mixup_switch_prob=0.2, mean=(0.0,) * 3, std=(1.0,) * 3)
    weight, cut = drawn(half)
    # Half are not mixed; of the others a fifth are cut (a few of them with an empty box).
    assert cut.mean() == pytest.approx(0.5 + 0.5 * 0.2, abs=0.04)
    assert (weight == 1).mean() == pytest.approx(0.5, abs=0.04)


def erased_boxes(augmentation: Augmentation, count: int, side: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Erased pixels (count, side, side) of a batch of zeros, and the pixels."""
    images = torch.zeros(count, 3, side, side, dtype=torch.uint8)
    pixels, _ = BatchTransform(augmentation, seed=seed)(
        images, torch.zeros(count, dtype=torch.int64), bandwidth=side, step=0, batch_size=count
    )
    return (pixels != normalize(images, augmentation.mean, augmentation.std)).any(1), pixels


def test_erasing_is_timms():
    side, count = 32, 2000
    erased, pixels = erased_boxes(ERASE_ONLY, count, side)
    assert erased.flatten(1).any(1).all()
    rows, columns = erased.any(2), erased.any(1)
    # Noise equals the background with probability 0: what is erased is a filled rectangle.
    assert (erased == (rows[:, :, None] & columns[:, None, :])).all()
    height, width = rows.sum(1).numpy(), columns.sum(1).numpy()
    area = height * width / side**2
    # Area 2 % to 1/3 and aspect 0.3 to 1/0.3, up to rounding to whole pixels; boxes never span a whole side.
    assert 0.01 < area.min() < 0.03
    assert 0.30 < area.max() < 0.37
    assert max(height.max(), width.max()) == side - 1
    assert (height / width).min() < 0.4
    assert (height / width).max() > 2.5
    assert np.median(height / width) == pytest.approx(1, abs=0.1)
    top, left = rows.int().argmax(1).numpy(), columns.int().argmax(1).numpy()
    for start, length in ((top, height), (left, width)):
        place = start / (side - length)
        assert place.mean() == pytest.approx(0.5, abs=0.02)
        assert (place.min(), place.max()) == (0, 1)
    corner = np.corrcoef(top / (side - height), left / (side - width))
    assert abs(corner[0, 1]) < 0.08
    noise = pixels.permute(0, 2, 3, 1)[erased]
    assert noise.mean().abs() < 0.02
    assert noise.std() == pytest.approx(1, abs=0.02)
    # Each channel has noise of its own.
    assert np.abs(np.corrcoef(noise.T.numpy()) - np.eye(3)).max() < 0.02


def test_erasing_is_the_same_on_every_device():
    side = 9
    rng = np.random.default_rng(0)
    bank = torch.from_numpy(rng.standard_normal(1000)).as_strided((50, 3 * side**2), (7, 1))
    images = torch.from_numpy(rng.standard_normal((40, side, 3 * side)))
    corners = np.sort(rng.integers(0, side + 1, (25, 2, 2)), axis=2).reshape(25, 4)
    boxes = np.column_stack([rng.permutation(40)[:25], rng.integers(0, 50, 25), corners])
    one, other = images.clone(), images.clone()
    erase_box_by_box(one, bank, boxes)
    erase_together(other, bank, boxes)
    assert not torch.equal(one, images)
    torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_share_of_erased_images():
    erased, _ = erased_boxes(Augmentation(mixup=0.0, cutmix=0.0), 4000, 8)
    assert erased.flatten(1).any(1).float().mean() == pytest.approx(0.25, abs=0.03)


def test_samples_get_noise_of_their_own():
    erased, pixels = erased_boxes(ERASE_ONLY, 64, 16)
    both = erased[:, None] & erased[None]
    a, b = pixels[:, None, 0].expand_as(both)[both], pixels[None, :, 0].expand_as(both)[both]
    different = ~torch.eye(64, dtype=torch.bool)[:, :, None, None].expand_as(both)[both]
    # Two samples share a row of the noise bank once in 250 pairs.
    assert (a == b)[different].float().mean() < 0.02


@given(
    count=st.integers(1, 20),
    classes=st.integers(2, 30),
    smoothing=st.sampled_from([0.0, 0.1, 0.5]),
    lam=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_loss_is_timms_on_mixed_smoothed_targets(count, classes, smoothing, lam, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 5 * torch.randn(count, classes, generator=generator)
    labels = torch.randint(classes, (count,), generator=generator)
    expected = SoftTargetCrossEntropy()(logits, mixup_target(labels, classes, lam, smoothing))
    targets = Targets(labels, labels.flip(0), torch.full((count,), lam), smoothing)
    loss = mixed_cross_entropy(logits, targets)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(SoftTargetCrossEntropy()(logits, targets.dense(classes)), expected, rtol=1e-5, atol=1e-5)
    assert loss.shape == ()


def test_loss_is_float32_inside_and_its_gradient_is_right():
    targets = Targets(torch.tensor([0, 2]), torch.tensor([1, 2]), torch.tensor([0.3, 1.0]))
    logits = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    low = mixed_cross_entropy(logits.bfloat16(), targets, 0.1)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, mixed_cross_entropy(logits.bfloat16().float(), targets, 0.1), rtol=0, atol=0)
    logits.requires_grad_()
    mixed_cross_entropy(logits, targets, 0.1).backward()
    wanted = torch.full((2, 4), 0.025)
    wanted[0, 0] += 0.9 * 0.3
    wanted[0, 1] += 0.9 * 0.7
    wanted[1, 2] += 0.9
    torch.testing.assert_close(logits.grad, (logits.detach().softmax(1) - wanted) / 2)


@pytest.mark.parametrize(
    ("shape", "arguments", "words"),
    [
        ((4, 3, 8, 8), {"batch_size": 7}, "batch size 7 is odd"),
        ((4, 3, 8, 8), {"batch_size": 8}, "cut a mixing group of 8: make the micro-batch a multiple of 8"),
        ((8, 3, 8, 8), {"batch_size": 64, "first_row": 4}, "rows 4 to 12 of a batch of 64"),
        ((8, 3, 8, 8), {"batch_size": 8, "first_row": 8}, "rows 8 to 16 do not lie in a batch of 8"),
        ((8, 3, 8, 8), {"batch_size": 4}, "rows 0 to 8 do not lie in a batch of 4"),
        ((8, 3, 8, 8), {"bandwidth": 6}, "bandwidth 6 for images of 8 pixels"),
        ((8, 3, 8, 9), {}, "expected torch.uint8"),
        ((8, 1, 8, 8), {}, "expected torch.uint8"),
        ((3, 8, 8), {}, "expected torch.uint8"),
    ],
)
def test_bad_batches(shape, arguments, words):
    images = torch.zeros(shape, dtype=torch.uint8)
    with pytest.raises(InputError, match=words):
        BatchTransform(Augmentation(), seed=0)(
            images, torch.zeros(len(images)), **{"bandwidth": 8, "step": 0, "batch_size": 8, **arguments}
        )


def test_bad_dtype_and_method():
    with pytest.raises(InputError, match=r"torch\.float32 of shape"):
        BatchTransform(QUIET, seed=0)(torch.zeros(2, 3, 4, 4), torch.zeros(2), bandwidth=4, step=0, batch_size=2)
    with pytest.raises(InputError, match="bandwidth 8 for images of 4 pixels"):
        BatchTransform(QUIET, seed=0, low_frequency="crop")(
            uint8_images(2, 4), torch.zeros(2), bandwidth=8, step=0, batch_size=2
        )
    with pytest.raises(InputError, match="low-frequency 'dct'"):
        BatchTransform(QUIET, seed=0, low_frequency="dct")


def test_odd_batches_are_fine_without_mixing():
    assert mix_group(QUIET, 7) == 1
    pixels, _ = BatchTransform(QUIET, seed=0)(
        uint8_images(3, 4), torch.arange(3), bandwidth=4, step=0, batch_size=7, first_row=4
    )
    assert pixels.shape == (3, 3, 4, 4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("low_frequency", ["lanczos", "crop"])
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype feature")
def test_on_cuda_no_step_waits_for_the_device_and_values_are_the_cpus(low_frequency):
    side = 32 if low_frequency == "lanczos" else 48
    images, labels = uint8_images(64, side), torch.arange(64)
    arguments = {"bandwidth": 32, "step": 4, "batch_size": 64}
    expected, expected_targets = BatchTransform(Augmentation(), seed=0, low_frequency=low_frequency)(
        images, labels, **arguments
    )
    transform = BatchTransform(Augmentation(), seed=0, low_frequency=low_frequency)
    images, labels = images.cuda(), labels.cuda()
    transform(images, labels, **{**arguments, "step": 3})
    logits = torch.zeros(64, 64, device="cuda")
    try:
        # Inside, as the mode would stay for other tests if setting it raised.
        torch.cuda.set_sync_debug_mode("error")
        pixels, targets = transform(images, labels, **arguments)
        mixed_cross_entropy(logits, targets, 0.1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(pixels.cpu(), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(targets.weight.cpu(), expected_targets.weight)
