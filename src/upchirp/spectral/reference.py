"""The plain discrete Fourier transforms that define the operators: slow, readable, for tests.

EfficientTrain++, Equation 1 and Appendix D. Every function computes in complex double precision and returns
the real part as float64.
"""

import math

import torch
from torch import Tensor


def kept_frequencies(side: int) -> Tensor:
    """Return the `side` lowest frequencies in the order of the DFT: `0, 1, ..., -2, -1`; `-side/2` if even.

    Example:
        >>> kept_frequencies(4).tolist(), kept_frequencies(5).tolist()
        ([0, 1, -2, -1], [0, 1, 2, -2, -1])
    """
    return torch.cat([torch.arange((side + 1) // 2), torch.arange(-(side // 2), 0)])


def low_frequency_crop(images: Tensor, bandwidth: int, align: bool = False) -> Tensor:
    """Crop the spectrum of `(..., H, W)` images to its `B x B` lowest frequencies (Equation 1).

    With `align`, the spectrum is first multiplied by the phases that move the content by `(1 - B/H) / 2`
    pixels of the result along each axis, so that pixel centres coincide with those of a resizer.

    Example:
        >>> low_frequency_crop(torch.ones(1, 6, 8), 4).sum().item()
        16.0
    """
    height, width = images.shape[-2:]
    frequencies = kept_frequencies(bandwidth)
    spectrum = torch.fft.fft2(images.to(torch.complex128))
    cropped = spectrum[..., frequencies[:, None], frequencies] * (bandwidth**2 / (height * width))
    if align:
        rows, columns = (
            torch.exp(1j * math.pi * frequencies.double() * (1 / bandwidth - 1 / size)) for size in (height, width)
        )
        cropped = cropped * rows[:, None] * columns
    result: Tensor = torch.fft.ifft2(cropped).real
    return result


def low_pass_filter(images: Tensor, *, radius: float | None = None, side: int | None = None) -> Tensor:
    """Keep the frequencies of `(..., H, W)` images in a circle of a radius, or in a square of a side.

    Example:
        >>> low_pass_filter(torch.eye(4), side=1)[0].tolist()
        [0.25, 0.25, 0.25, 0.25]
    """
    height, width = images.shape[-2:]
    rows, columns = kept_frequencies(height)[:, None], kept_frequencies(width)
    if radius is not None:
        kept = (rows.double() ** 2 + columns.double() ** 2).sqrt() <= radius + 1e-9
    elif side is not None:
        kept = torch.isin(rows, kept_frequencies(side)) & torch.isin(columns, kept_frequencies(side))
    else:
        raise ValueError("give either radius or side")
    result: Tensor = torch.fft.ifft2(torch.fft.fft2(images.to(torch.complex128)) * kept).real
    return result


def circular_convolution(images: Tensor, kernel: Tensor) -> Tensor:
    """Convolve `(..., H, W)` images with a periodic `(H, W)` kernel, term by term.

    Example:
        >>> circular_convolution(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.0, 1.0, 0.0]])).tolist()
        [[3.0, 1.0, 2.0]]
    """
    height, width = kernel.shape
    total = torch.zeros(images.shape, dtype=torch.float64)
    for row in range(height):
        for column in range(width):
            total += kernel[row, column].double() * images.double().roll((row, column), (-2, -1))
    return total
