"""From decoded regions to uint8 images on the device: resize, flip, RandAugment."""

import numpy as np
import torch
from torch import Tensor

from upchirp.data.device.rand_augment import rand_augment
from upchirp.data.device.resizing import resize_regions
from upchirp.data.images.augmentation import WARP_FLAGS, fill_colour
from upchirp.data.images.regions import Regions
from upchirp.data.settings import Augmentation, Interpolation, Mode, filter_at


class Preparation:
    """Does on the device what `TrainTransform` does in a worker after it has decoded an image.

    The two agree up to rounding: the same seed gives the same crops, flips, operations and magnitudes.

    Args:
        augmentation: the settings.
        final_size: input side of the last stage, pixels, to which the pipeline's own filter resizes.
        mode: as in `TrainTransform`.
    """

    def __init__(self, augmentation: Augmentation, final_size: int, mode: Mode = "fast") -> None:
        self._final_size = final_size
        self._mode: Mode = mode
        self._filter: Interpolation = augmentation.interpolation
        self._fill = fill_colour(augmentation)
        self.channels = augmentation.channels
        """What the images consist of."""
        self._interpolation = WARP_FLAGS[augmentation.interpolation]

    def __call__(self, regions: Regions, side: int) -> Tensor:
        """Images at a bandwidth.

        Args:
            regions: with their pixels on the device, and `resizing.slack` more bytes behind them.
            side: the bandwidth, pixels.

        Returns:
            uint8, (N, side, side, channels), on the device, which nothing waits for.
        """
        recipes = regions.recipes
        sizes, flips = recipes[:, :2].astype(np.int64), recipes[:, 2] > 0
        interpolation = filter_at(side, self._final_size, self._filter, self._mode)
        images = resize_regions(regions.pixels, sizes, flips, side, interpolation)
        images = rand_augment(images, recipes[:, 3:], self._fill, self._interpolation)
        return grey(images) if self.channels.count == 1 else images


def grey(images: Tensor) -> Tensor:
    """RGB values as grey ones, uint8 (N, S, S, 1): to the bit as Pillow has them.

    >>> grey(torch.tensor([[[[255, 0, 0], [9, 9, 9]]]], dtype=torch.uint8)).flatten().tolist()
    [76, 9]
    """
    weights = torch.tensor([19595, 38470, 7471], dtype=torch.int32, device=images.device)
    return ((images.int() * weights).sum(dim=3, keepdim=True, dtype=torch.int32) + 32768 >> 16).to(torch.uint8)
