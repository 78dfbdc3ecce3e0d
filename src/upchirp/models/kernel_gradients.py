"""The parts of a model's kernels that learn nothing at a small bandwidth (Appendix A.1)."""

from typing import NamedTuple

import torch
from torch import nn

from upchirp.models.meta import bare_copy, input_channels, unwrap
from upchirp.models.resizing.input_size import fit_to_tried

_PERTURBATION = 0.02
_IMAGES = 2


class DeadShare(NamedTuple):
    """One convolution, and how much of its kernel gets no gradient."""

    name: str
    """Name of the layer."""
    kernel: tuple[int, int]
    """Rows and columns of the kernel."""
    share: float
    """Share of the kernel's positions, 0 to 1."""


def dead_kernel_shares(model: nn.Module, bandwidth: int, final_size: int) -> list[DeadShare]:
    """Convolutions with kernel positions that get a gradient at `final_size` and none at `bandwidth`.

    Where maps are smaller than half a kernel, its rims only ever meet padding. One backward pass at each side decides,
    on a copy whose weights are perturbed, since freshly initialised networks have parameters without gradient for
    other reasons, such as scales that start at zero. Most such networks train well all the same; the paper skips 96 px
    for ConvNeXt because of it.

    Args:
        model: the model, with values; it is not changed, and neither is the global random state.
        bandwidth: the smallest side of the curriculum, pixels.
        final_size: side of the last stage, pixels.

    Returns:
        The convolutions concerned, the greatest share first.

    >>> from upchirp.models import create_model
    >>> convnext = create_model("convnext_atto", depths=(1, 1, 1, 1), dims=(4, 4, 4, 4), num_classes=2)
    >>> [(dead.kernel, round(dead.share, 3)) for dead in dead_kernel_shares(convnext, 96, 224)]
    [((7, 7), 0.49)]
    >>> dead_kernel_shares(convnext, 160, 224)
    []
    """
    model = unwrap(model)
    alive = _alive_positions(model, bandwidth)
    if all(positions.all() for positions in alive.values()):
        return []
    alive_at_final = _alive_positions(model, final_size)
    found = []
    for name, positions in alive.items():
        lost = alive_at_final[name] & ~positions
        if lost.any():
            rows, columns = lost.shape
            found.append(DeadShare(name, (rows, columns), lost.float().mean().item()))
    return sorted(found, key=lambda dead: -dead.share)


def _alive_positions(model: nn.Module, size: int) -> dict[str, torch.Tensor]:
    """For each convolution, which positions of its kernel get a gradient from any channel at an input side."""
    # On the CPU: some of an accelerator's convolutions leave rounding errors where the gradient is zero.
    twin = bare_copy(model).cpu().float()
    fit_to_tried(twin, size)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * _PERTURBATION)
    twin.requires_grad_(True)
    for module in twin.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            # Untrained statistics would let activations grow from layer to layer.
            module.train()
    images = torch.randn(_IMAGES, input_channels(model), size, size, generator=generator)
    output = twin(images)
    logits = output[0] if isinstance(output, tuple) else output
    torch.log_softmax(logits, dim=-1)[..., 0].sum().backward()  # type: ignore[no-untyped-call]
    return {
        name: (module.weight.grad != 0).any(dim=1).any(dim=0)
        for name, module in twin.named_modules()
        if isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1 and module.weight.grad is not None
    }
