"""A curriculum whose low-pass filter learns with the model: T_t of the paper's Section 3, with parameters.

The filter keeps each band of frequencies in part. How much of it follows from how far the run is, low frequencies
first, and from one learned number for each band. At the end of the run nothing is filtered, as nothing is at test time.

Run: python examples/learned_low_pass.py --data DIR --output runs/learned
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

import upchirp
from upchirp.data import Moment

BANDS = 8


class LearnedLowPass(nn.Module):
    """Weighs bands of spatial frequencies; the weights open with progress, each at a pace that is learned."""

    def __init__(self) -> None:
        super().__init__()
        # Where on the way each band opens: the highest last.
        self.opening = nn.Parameter(torch.linspace(-1.0, 1.0, BANDS))

    def forward(self, images: Tensor, moment: Moment) -> Tensor:
        height, width = images.shape[-2:]
        rows = torch.fft.fftfreq(height, device=images.device)[:, None]
        columns = torch.fft.rfftfreq(width, device=images.device)
        band = (2 * (rows**2 + columns**2).sqrt() * BANDS).long().clamp(max=BANDS - 1)
        opened = torch.sigmoid(8 * (2 * moment.progress - 1 - self.opening))
        weights = moment.progress + (1 - moment.progress) * opened
        return torch.fft.irfft2(torch.fft.rfft2(images) * weights[band], s=(height, width))


def curriculum(size: int) -> dict:
    """The final size throughout: what is saved is not compute, what is easier first is the images."""
    return {
        "name": "learned-low-pass",
        "transform": "low_pass",
        "phases": [{"end": 1.0, "bandwidth": size}],
    }


def run(config: upchirp.TrainConfig) -> LearnedLowPass:
    """Train, or go on; returns the filter."""
    learned = LearnedLowPass()
    upchirp.train(config, transforms={"low_pass": learned})
    return learned


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="generated")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", default="resnet10t")
    parser.add_argument("--final-size", type=int, default=64)
    parser.add_argument("--epochs", type=float, default=3)
    options = vars(parser.parse_args())
    settings = {"curriculum": curriculum(options["final_size"]), "resume": "auto"}
    learned = run(upchirp.TrainConfig.from_flat({**settings, **options}))
    print("each band opens at", [round((place + 1) / 2, 2) for place in learned.opening.tolist()])


if __name__ == "__main__":
    main()
