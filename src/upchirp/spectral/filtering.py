"""Low-pass and high-pass filters that keep the size of the images, and the kernel of the square one."""

import math

import torch
from torch import Tensor

from upchirp.spectral.resampling import check_images, check_side


def low_pass_filter(images: Tensor, *, radius: float | None = None, side: int | None = None) -> Tensor:
    """Set all frequencies outside a centred circle or square to zero; the size of the images stays.

    EfficientTrain++, Figure 2 (the circle) and Appendix D (the square). Frequencies are counted in periods
    per image, along each axis from `-H/2` to `H/2 - 1`. The square of an even side `B` keeps `-B/2` but not
    `B/2`, as the low-frequency crop does, and the real part is returned.

    Args:
        images: `(..., H, W)`, float16, bfloat16, float32 or float64. Half precision is filtered in float32.
        radius: keep the frequencies `(k, l)` with `k^2 + l^2 <= radius^2`.
        side: keep the `side x side` lowest frequencies; at most `min(H, W)`.

    Returns:
        `(..., H, W)` in the dtype of the images.

    Raises:
        ValueError: if the images are not floating-point tensors with a height and a width, unless exactly one
            of radius and side is given, or if that one is out of range.

    Example:
        >>> import torch, upchirp
        >>> images = torch.rand(2, 3, 64, 64)
        >>> blurred = upchirp.low_pass_filter(images, radius=10)
        >>> detail = upchirp.high_pass_filter(images, radius=10)
        >>> torch.allclose(blurred + detail, images, atol=1e-5)
        True
    """
    return _apply_mask(images, _half_spectrum_mask(images, radius, side))


def high_pass_filter(images: Tensor, *, radius: float | None = None, side: int | None = None) -> Tensor:
    """Set all frequencies inside a centred circle or square to zero: what :func:`low_pass_filter` takes away.

    EfficientTrain++, Section 4.1. The mean of the images goes too.

    Args:
        images: `(..., H, W)`, float16, bfloat16, float32 or float64. Half precision is filtered in float32.
        radius: drop the frequencies `(k, l)` with `k^2 + l^2 <= radius^2`.
        side: drop the `side x side` lowest frequencies; at most `min(H, W)`.

    Returns:
        `(..., H, W)` in the dtype of the images.

    Raises:
        ValueError: as :func:`low_pass_filter` does.

    Example:
        >>> import torch, upchirp
        >>> float(upchirp.high_pass_filter(torch.ones(1, 8, 8), side=1).abs().max())
        0.0
    """
    return _apply_mask(images, 1.0 - _half_spectrum_mask(images, radius, side))


def sinc_kernel(
    height: int,
    width: int,
    side: int,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return the kernel whose circular convolution is the low-pass filter of a square (Proposition 2.1).

    EfficientTrain++, Appendix D: `alpha(x, y) = 1/(HW) sum_{u,v} cos(2 pi (u x / H + v y / W))`, with `u` and
    `v` over the `side` lowest frequencies. (The paper writes `2H` and `2W` for the image's sides.) It is
    periodic: entry `[x, y]` belongs to the offsets `x` and `y` modulo the sides, so the peak is at `[0, 0]`.

    Args:
        height: `H` in pixels of the images to convolve.
        width: `W` in pixels.
        side: of the square of frequencies, at most `min(H, W)`.
        dtype: of the kernel, which is computed in float64.
        device: of the kernel.

    Returns:
        `(height, width)`.

    Raises:
        ValueError: if a side is not a whole number of at least 1, or `side` exceeds the others.

    Example:
        >>> import torch, upchirp
        >>> kernel = upchirp.sinc_kernel(32, 48, 9)
        >>> kernel.shape, round(float(kernel.sum()), 5)
        (torch.Size([32, 48]), 1.0)
    """
    for name, value in (("height", height), ("width", width)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number of pixels, at least 1, got {value!r}")
    side = check_side(side, "side", height, width)
    kernel = torch.ones((), dtype=torch.float64, device="cpu")
    unpaired = torch.ones((), dtype=torch.float64, device="cpu")
    for size, shape in ((height, (-1, 1)), (width, (1, -1))):
        offsets = torch.arange(size, dtype=torch.int64, device="cpu")
        frequencies = torch.arange(-(side // 2), side - side // 2, dtype=torch.int64, device="cpu")
        turns = (offsets[:, None] * frequencies % size).double() / size
        kernel = kernel * torch.cos(2 * math.pi * turns).mean(1).mul(side / size).view(shape)
        unpaired = unpaired * torch.sin(2 * math.pi * turns).mean(1).mul(side / size).view(shape)
    # The real part of a product of two complex sums: sines stay where frequency -side/2 has no partner.
    return (kernel - unpaired).to(dtype).to(device)


def _apply_mask(images: Tensor, mask: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    if images.numel() == 0:
        # torch's Fourier transforms refuse an empty batch.
        return images.clone()
    exact = images.float() if images.dtype in (torch.float16, torch.bfloat16) else images
    filtered: Tensor = torch.fft.irfft2(torch.fft.rfft2(exact) * mask, s=(height, width))
    return filtered.to(images.dtype)


def _half_spectrum_mask(images: Tensor, radius: float | None, side: int | None) -> Tensor:
    """Return the weight of every frequency in the half spectrum of `rfft2`, `(H, W // 2 + 1)`."""
    height, width = check_images(images)
    rows = _centred(torch.arange(height, device=images.device), height)
    columns = torch.arange(width // 2 + 1, device=images.device)
    dtype = torch.float64 if images.dtype == torch.float64 else torch.float32
    if radius is not None and side is None:
        if not (math.isfinite(radius) and radius >= 0):
            raise ValueError(f"radius must be a finite number, at least 0, got {radius!r}")
        # Squares of frequencies are whole numbers; the factor keeps 13 if the radius is math.sqrt(13).
        limit = math.floor(radius * radius * (1 + 1e-12))
        return (rows[:, None] ** 2 + columns**2 <= limit).to(dtype)
    if side is not None and radius is None:
        side = check_side(side, "side", height, width)
        # Taking the real part averages the weights of each frequency and its opposite.
        kept = _kept(rows, height, side)[:, None] & _kept(columns, width, side)
        opposite = _kept(-rows, height, side)[:, None] & _kept(-columns, width, side)
        return (kept.to(dtype) + opposite.to(dtype)) / 2
    raise ValueError("give either radius, for a circle, or side, for a square")


def _centred(frequencies: Tensor, size: int) -> Tensor:
    return (frequencies + size // 2) % size - size // 2


def _kept(frequencies: Tensor, size: int, side: int) -> Tensor:
    centred = _centred(frequencies, size)
    return (centred >= -(side // 2)) & (centred < side - side // 2)
