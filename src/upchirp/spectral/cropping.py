"""The exact low-frequency crop of EfficientTrain++ (Equation 1), as two matrix products."""

import math

import torch
from torch import Tensor

from upchirp.spectral.resampling import check_images, check_side, constant_matrix, separable_product

# Widths that are multiples of 8 keep half-precision matrix products on the tensor cores.
_ROW_MULTIPLE = 8


def low_frequency_crop(images: Tensor, bandwidth: int, align: bool = False) -> Tensor:
    """Crop the `B x B` lowest frequencies of images and return the `B x B` images they make.

    EfficientTrain++, Equation 1: `X_c = F^-1(C_{B,B}(F(X)))`, with `F` the 2D discrete Fourier transform and
    `C_{B,B}` the crop of its centre, scaled by `B^2 / (H W)` so that brightness stays. Unlike any
    down-sampling in pixel space, nothing above the cut-off reaches the result, and the cropped spectrum can
    be recovered from it (Proposition 1); for an even `B` all of it but its unpaired Nyquist row and column,
    which taking the real part mixes.

    The crop is a real linear map: `Y = A X A^T - (v^T X v) u u^T`, in which the paper's symbols and ours are
    `A[n, m] = (1/H) sum_k cos(2 pi k (n/B - m/H))`, `k` over the `B` kept frequencies (:func:`_crop_matrix`),
    and, for an even `B` only, `u_n = (-1)^n` and `v_m = sin(pi B m / H) / H` (its Nyquist row). It is
    computed that way; :mod:`upchirp.spectral.reference` holds the Fourier transforms.

    Args:
        images: `(..., H, W)`, float16, bfloat16, float32 or float64; any memory layout, any value range.
        bandwidth: `B`, side in pixels of the result and of the kept square of the spectrum, from 1 to
            `min(H, W)`.
        align: put pixel centres where image resizers put them. The Fourier transform aligns the corners of
            the first pixels instead, which shifts the content by `(1 - B/H) / 2` pixels of the result against
            a resizer.

    Returns:
        `(..., B, B)` in the dtype of the images, contiguous (a copy even if nothing is cropped).
        Half-precision images are multiplied by matrices rounded to their own dtype, with a root-mean-square
        error of about 0.4 % of the result's in bfloat16 and 0.05 % in float16, about twice what rounding the
        exact result costs. Float32 is computed in float32 inside `torch.autocast` regions too, but obeys
        `torch.set_float32_matmul_precision`: anything below "highest" trades accuracy there as well.

    Raises:
        ValueError: if the images are not floating-point tensors with a height and a width, or the bandwidth
            is not a whole number, is below 1 or exceeds their smaller side.

    Example:
        >>> import torch, upchirp
        >>> upchirp.low_frequency_crop(torch.ones(2, 3, 224, 224), 96).shape
        torch.Size([2, 3, 96, 96])
    """
    height, width = check_images(images)
    bandwidth = check_side(bandwidth, "bandwidth", height, width)
    align = bool(align)
    if bandwidth == height == width:
        return images.clone(memory_format=torch.contiguous_format)
    dtype, device = images.dtype, images.device
    corrected = bandwidth % 2 == 0 and bandwidth < min(height, width)
    product = separable_product(
        images,
        None if bandwidth == height else _crop_matrix(dtype, device, height, bandwidth, align, corrected),
        None if bandwidth == width else _crop_matrix(dtype, device, width, bandwidth, align, corrected),
    )
    if not corrected:
        return product
    nyquist = product[..., bandwidth : bandwidth + 1, bandwidth : bandwidth + 1]
    signs = _alternating_signs(dtype, device, bandwidth)
    return torch.addcmul(product[..., :bandwidth, :bandwidth], nyquist, signs, value=-1)


@constant_matrix
def _crop_matrix(
    dtype: torch.dtype, device: torch.device, size: int, bandwidth: int, align: bool, corrected: bool
) -> Tensor:
    """Return `A`, `(B, H)`; if corrected, `v` is row `B` and zero rows follow up to a multiple of 8."""
    rows = torch.arange(bandwidth, dtype=torch.int64, device=device)
    pixels = torch.arange(size, dtype=torch.int64, device=device)
    # t = n/B - m/H, plus half a pixel on each grid if aligned, in whole numbers of 1 / (2 B H): the sum of
    # cosines has period 1 in t, and so reduced its angles carry no rounding error of large arguments.
    period = 2 * bandwidth * size
    twice = 2 * (rows[:, None] * size - pixels * bandwidth) + int(align) * (size - bandwidth)
    twice = _centred_remainder(twice, period)
    # In closed form the sum is sin(pi B t) / sin(pi t); the unpaired frequency of an even B adds cos(pi t).
    angle = math.pi / period * twice.to(dtype)
    numerator = torch.sin(math.pi / (2 * size) * _centred_remainder(twice, 4 * size).to(dtype))
    if bandwidth % 2 == 0:
        numerator = numerator * torch.cos(angle)
    peak = twice == 0
    matrix = torch.where(peak, float(bandwidth), numerator / torch.sin(angle).masked_fill(peak, 1.0)) / size
    if not corrected:
        return matrix
    position = _centred_remainder((2 * pixels + int(align)) * bandwidth, 4 * size)
    angle = math.pi / (2 * size) * position.to(dtype)
    nyquist = (torch.cos(angle) if align else torch.sin(angle)) / size
    padding = torch.zeros(-(bandwidth + 1) % _ROW_MULTIPLE, size, dtype=dtype, device=device)
    return torch.cat([matrix, nyquist[None], padding])


@constant_matrix
def _alternating_signs(dtype: torch.dtype, device: torch.device, bandwidth: int) -> Tensor:
    """Return `u u^T`, `(B, B)`: plus and minus one like a checkerboard."""
    signs = 1.0 - 2.0 * (torch.arange(bandwidth, dtype=dtype, device=device) % 2)
    return torch.outer(signs, signs)


def _centred_remainder(values: Tensor, period: int) -> Tensor:
    return (values + period // 2) % period - period // 2
