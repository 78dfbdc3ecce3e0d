"""What a model costs: multiply-adds and parameters, as papers count them."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from upchirp.models.meta import bare_copy, meta_copy, run_forward, unwrap
from upchirp.models.resizing.families import apply_fits, plan_fits
from upchirp.models.resizing.input_size import check_sizes, size_multiple
from upchirp.models.structure import known_of


def count_flops(model: nn.Module, size: int) -> int:
    """Multiply-adds of one forward pass on one image of side `size`.

    Counted on a copy without values that is fitted to the size, so the model is not touched and no memory is
    needed. Convolutions and matrix products count, attention's two included; PyTorch's counter counts two
    operations for each multiply-add, the papers one (Table 7).

    Raises:
        InputError: the model cannot take the size.

    >>> count_flops(nn.Conv2d(3, 8, 3, padding=1), 10) == 10 * 10 * 8 * 3 * 9
    True
    """
    return _count(unwrap(model), size, size_multiple(model))


def count_parameters(model: nn.Module) -> int:
    """Number of parameter values, shared ones counted once.

    >>> count_parameters(nn.Linear(3, 4))
    16
    """
    return sum(parameter.numel() for parameter in model.parameters())


def flops_table(model: nn.Module, sizes: Iterable[int]) -> dict[int, float]:
    """`count_flops` at each of the `sizes`, ascending: the cost table of the cost `flops`.

    >>> flops_table(nn.Sequential(nn.Conv2d(1, 1, 1)), [20, 10])
    {10: 100.0, 20: 400.0}
    """
    model, multiple = unwrap(model), size_multiple(model)
    return {size: float(_count(model, size, multiple)) for size in sorted(set(sizes))}


def _count(model: nn.Module, size: int, multiple: int) -> int:
    if size < 1 or size % multiple:
        check_sizes(model, [size])
    known = known_of(model)
    try:
        if ("flops", size) not in known:
            known["flops", size] = _count_on(meta_copy(model), size)
        return int(known["flops", size])
    except Exception:
        check_sizes(model, [size])
        # The model takes the size, so an operator of it does not run without values.
        if any(parameter.is_meta for parameter in model.parameters()):
            raise
        return _count_on(bare_copy(model), size)


def _count_on(twin: nn.Module, size: int) -> int:
    apply_fits(plan_fits(twin, size))
    # With gradients on, the counter follows modules through autograd, which shared tokens can break.
    twin.requires_grad_(False)
    # Fused attention is one operator, which the counter knows on some devices only; the plain form is two
    # products.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        run_forward(twin, size)
    return int(counter.get_total_flops()) // 2
