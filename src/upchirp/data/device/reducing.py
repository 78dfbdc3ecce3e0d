"""From images at the final size to a bandwidth, on the device, and the low-pass filter that keeps the size."""

from torch import Tensor
from torch.nn import functional

from upchirp.curriculum import Operator
from upchirp.spectral import downsample, low_frequency_crop


def reduced(images: Tensor, side: int, operator: Operator) -> Tensor:
    """Reduce square images to a bandwidth by an operator.

    Args:
        images: floating, (N, channels, S, S).
        side: the bandwidth, pixels, at most S.
        operator: the exact crop of the spectrum (Equation 1), Lanczos with anti-aliasing (Section 5.2), or an
            interpolation without, whose result holds high frequencies too (Proposition 1, Table 19 b).

    Returns:
        (N, channels, side, side); at their own side the images as they are.

    >>> import torch
    >>> images = torch.arange(16.0).view(1, 1, 4, 4)
    >>> reduced(images, 2, "nearest").flatten().tolist(), reduced(images, 2, "bilinear").flatten().tolist()
    ([0.0, 2.0, 8.0, 10.0], [2.5, 4.5, 10.5, 12.5])
    """
    if images.shape[-1] == side:
        return images
    if operator == "crop":
        return low_frequency_crop(images, side)
    if operator == "lanczos":
        return downsample(images, side)
    if operator == "nearest":
        return functional.interpolate(images, size=(side, side), mode="nearest")
    return functional.interpolate(images, size=(side, side), mode=operator, align_corners=False, antialias=False)
