"""From decoded regions to uint8 images on the device: resize, flip, RandAugment."""

import numpy as np
from torch import Tensor

from upchirp.data.device.rand_augment import rand_augment
from upchirp.data.device.resizing import resize_regions
from upchirp.data.images.augmentation import WARP_FLAGS, fill_colour
from upchirp.data.images.regions import Regions
from upchirp.data.settings import Augmentation


class Preparation:
    """Does on the device what `TrainTransform` does in a worker after it has decoded an image.

    The two agree up to rounding: the same seed gives the same crops, flips, operations and magnitudes.

    Args:
        augmentation: the settings.
    """

    def __init__(self, augmentation: Augmentation) -> None:
        self._fill = fill_colour(augmentation)
        self._interpolation = WARP_FLAGS[augmentation.interpolation]

    def __call__(self, regions: Regions, side: int) -> Tensor:
        """Images at a bandwidth.

        Args:
            regions: with their pixels on the device, and `resizing.slack` more bytes behind them.
            side: the bandwidth, pixels.

        Returns:
            uint8, (N, side, side, 3), on the device, which nothing waits for.
        """
        recipes = regions.recipes
        sizes, flips = recipes[:, :2].astype(np.int64), recipes[:, 2] > 0
        images = resize_regions(regions.pixels, sizes, flips, side)
        return rand_augment(images, recipes[:, 3:], self._fill, self._interpolation)
