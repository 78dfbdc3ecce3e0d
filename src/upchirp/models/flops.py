"""The cost of a model: multiply-adds and parameters, as papers count them."""

from collections.abc import Iterable

from torch import nn

from upchirp.models.meta import unwrap
from upchirp.models.resizing.sizes import check_sizes, cost_at


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
    model = unwrap(model)
    check_sizes(model, [size])
    cost = cost_at(model, size)
    if isinstance(cost, Exception):
        raise cost
    return cost


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
    return {size: float(count_flops(model, size)) for size in sorted(set(sizes))}
