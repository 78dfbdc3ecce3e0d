"""Linear centered kernel alignment: how alike two networks represent the same images."""

import torch
from torch import Tensor

from upchirp.errors import InputError


def linear_cka(first: Tensor, second: Tensor, *, batch_size: int = 256) -> Tensor:
    r"""Similarity of every representation in one stack to every one in another, 0 to 1.

    Minibatch CKA with the linear kernel (T. Nguyen, M. Raghu, S. Kornblith, "Do Wide and Deep Networks Learn the Same
    Things?", ICLR 2021, equations 2 and 3; the paper's [124], Figure 6): with $K = X X^T$ and $L = Y Y^T$ of the images
    of a batch,

    $$ \mathrm{CKA} = \frac{\overline{\mathrm{HSIC}_1(K, L)}}
                           {\sqrt{\overline{\mathrm{HSIC}_1(K, K)}\;\overline{\mathrm{HSIC}_1(L, L)}}} $$

    where the bars are means over batches and $\mathrm{HSIC}_1$ is the estimator without bias, so that the result does
    not depend on the size of the batches but for noise. Images beyond the last whole batch are left out, unless there
    is no whole one.

    Args:
        first: (a, N, D), features of N images by each of a networks.
        second: (b, N, E), features of the same images by each of b networks.
        batch_size: images in a batch.

    Returns:
        (a, b), float64. Noise can take it a little below 0 or above 1.

    >>> features = torch.randn(1, 64, 5, generator=torch.Generator().manual_seed(0))
    >>> turned = features @ torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(1)))[0]
    >>> round(float(linear_cka(features, 3 * turned)), 6)
    1.0

    Raises:
        InputError: not the same images, or fewer than four.
    """
    images = first.shape[1]
    if second.shape[1] != images or min(images, batch_size) < 4:
        raise InputError(f"{images} and {second.shape[1]} images: compare networks on the same ones, at least 4")
    size = min(batch_size, images)
    sums = [torch.zeros(len(a), len(b), dtype=torch.float64) for a, b in ((first, second), (first,) * 2, (second,) * 2)]
    for start in range(0, images - size + 1, size):
        kernels = [_kernels(stack[:, start : start + size]) for stack in (first, second)]
        for total, (k, other) in zip(sums, ((0, 1), (0, 0), (1, 1)), strict=True):
            total += _hsic(kernels[k], kernels[other])
    across, own, others = sums
    return across / torch.sqrt(own.diagonal()[:, None] * others.diagonal()[None, :])


def _kernels(features: Tensor) -> Tensor:
    """Linear kernels of features (a, n, D) without their diagonals, (a, n, n)."""
    features = features.double()
    # The estimator does not change, but for the digits that a large mean would take.
    features = features - features.mean(1, keepdim=True)
    kernels = features @ features.transpose(1, 2)
    return kernels - torch.diag_embed(kernels.diagonal(dim1=1, dim2=2))


def _hsic(first: Tensor, second: Tensor) -> Tensor:
    """The unbiased estimator for all pairs of kernels without diagonals: (a, n, n) and (b, n, n) to (a, b)."""
    n = first.shape[1]
    trace = first.flatten(1) @ second.flatten(1).T
    sums = first.sum((1, 2))[:, None] * second.sum((1, 2))[None, :] / ((n - 1) * (n - 2))
    rows = first.sum(2) @ second.sum(2).T * (2 / (n - 2))
    return (trace + sums - rows) / (n * (n - 3))
