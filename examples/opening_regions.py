"""A curriculum of spatial regions: parts of each image are masked, and open up as the run goes on.

The paper's outlook names regions as another thing to begin easier with. A grid of 8 x 8 cells covers each image; at
progress p a share 1 - 2 p of them is grey, and none from half of the run on. They are drawn anew in every step, the
same on any number of devices.

Run: python examples/opening_regions.py --data DIR --output runs/regions
"""

import argparse
from pathlib import Path

from torch import Tensor
from torch.nn.functional import interpolate

import upchirp
from upchirp.data import Moment

CELLS = 8
OPEN_FROM = 0.5
"""Share of the run after which nothing is masked."""


def opening_regions(images: Tensor, moment: Moment) -> Tensor:
    """The images with some cells of their grid at the mean colour, which is zero after normalisation."""
    draws = moment.uniform(CELLS * CELLS, images.device).view(-1, 1, CELLS, CELLS)
    shown = (draws < moment.progress / OPEN_FROM).to(images.dtype)
    return images * interpolate(shown, size=images.shape[-2:], mode="nearest")


def curriculum(size: int) -> dict:
    """Masked for the first half; bandwidths could rise at the same time."""
    return {
        "name": "opening-regions",
        "phases": [
            {"end": OPEN_FROM, "bandwidth": size, "transform": "regions"},
            {"end": 1.0, "bandwidth": size},
        ],
    }


def run(config: upchirp.TrainConfig) -> upchirp.TrainResult:
    """Train, or go on."""
    return upchirp.train(config, transforms={"regions": opening_regions})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="generated")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", default="resnet10t")
    parser.add_argument("--final-size", type=int, default=64)
    parser.add_argument("--epochs", type=float, default=3)
    options = vars(parser.parse_args())
    settings = {"curriculum": curriculum(options["final_size"]), "resume": "auto"}
    print(f"top-1 {run(upchirp.TrainConfig.from_flat({**settings, **options})).top1:.1f} %")


if __name__ == "__main__":
    main()
