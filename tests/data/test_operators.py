"""What reduces images to the bandwidth, and the filter that keeps the size (Sections 4.1 and 5.2, Table 19 b)."""

from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional
from torch.utils.data import Dataset

from upchirp import Augmentation, Curriculum, InputError, Loader, Phase, downsample, low_frequency_crop, low_pass_filter
from upchirp import plan as make_plan
from upchirp.curriculum import Operator
from upchirp.data import BatchTransform, normalize
from upchirp.data.device.reducing import reduced

QUIET = Augmentation(randaug_layers=0, reprob=0.0, mixup=0.0, cutmix=0.0)
DEFINITIONS = {
    "crop": low_frequency_crop,
    "lanczos": downsample,
    **{
        mode: lambda images, side, mode=mode: functional.interpolate(images, size=(side, side), mode=mode)
        for mode in ("nearest", "bilinear", "bicubic")
    },
}


class Noise(Dataset[tuple[Image.Image, int]]):
    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        pixels = np.random.default_rng(index).integers(0, 256, (40, 48, 3), dtype=np.uint8)
        return Image.fromarray(pixels), index % 2


@pytest.mark.parametrize("operator", get_args(Operator))
def test_proposition_1_only_the_crop_is_blind_to_high_frequencies(operator: Operator) -> None:
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    smooth = low_pass_filter(images, side=13)
    change = (reduced(images, 13, operator) - reduced(smooth, 13, operator)).std() / images.std()
    torch.testing.assert_close(reduced(images, 13, operator), DEFINITIONS[operator](images, 13))
    assert change < 1e-12 if operator == "crop" else change > 0.05
    # Without anti-aliasing far more of them stays than by Lanczos (Section 5.2).
    assert (change > 0.4) == (operator not in ("crop", "lanczos"))


def test_each_phase_is_reduced_and_filtered_as_it_says() -> None:
    operators = ("lanczos", "crop", "nearest", None)
    phases = [Phase(end=(k + 1) / 5, bandwidth=20, operator=operator) for k, operator in enumerate(operators)]
    phases.append(Phase(end=1.0, bandwidth=32, radius=6.0))
    curriculum = Curriculum(name="mine", axis="samples", phases=tuple(phases))
    run = make_plan(curriculum, epochs=5, dataset_size=16, batch_size=16)

    def loader(**options: object) -> Loader:
        return Loader(Noise(), run, augmentation=QUIET, workers=0, seed=1, low_frequency="bilinear", **options)

    batches = loader()
    whole = [
        batch.images for batch in Loader(Noise(), run, augmentation=QUIET, workers=0, seed=1, low_frequency="crop")
    ]
    for number, batch in enumerate(batches):
        operator = batch.step.operator or "bilinear"
        assert batch.images.shape[-1] == (20 if operator == "lanczos" else 32)
        inputs, _ = batch.prepare(batches.transform)
        assert inputs.shape[-1] == batch.bandwidth
        if operator != "lanczos":
            expected = DEFINITIONS[operator](whole[number].float(), 20) if number < 4 else batch.images.float()
            if batch.step.radius is not None:
                expected = low_pass_filter(expected, radius=6.0)
            torch.testing.assert_close(inputs, normalize(expected, QUIET.mean, QUIET.std))
    with pytest.raises(InputError, match="low-frequency lanczos only, not by fast with"):
        loader(prepare="device")


def test_a_filtered_input_has_no_frequency_beyond_the_radius() -> None:
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(4)
    inputs, _ = BatchTransform(QUIET, seed=0)(images, labels, bandwidth=32, step=0, batch_size=4, radius=6.0)
    frequencies = torch.fft.fftfreq(32, 1 / 32)
    beyond = frequencies[:, None] ** 2 + frequencies**2 > 36
    spectrum = torch.fft.fft2(inputs.double()).abs()
    assert spectrum[..., beyond].max() < 1e-4 * spectrum.max() and spectrum[..., ~beyond].min() > 0
