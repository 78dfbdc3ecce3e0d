"""Parameters laid out on a grid that follows the input size, and their optimizer moments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard, runtime_checkable

import torch
from torch import nn
from torch.nn import functional

from upchirp.errors import InputError


@dataclass(frozen=True, eq=False)
class GridChange:
    """One parameter whose grid of positions changes shape."""

    parameter: nn.Parameter
    old_grid: tuple[int, int]
    """Rows and columns now."""
    new_grid: tuple[int, int]
    """Rows and columns afterwards."""
    dim: int = 0
    """The dimension along which the cells of the grid lie, row by row."""
    prefix: int = 0
    """Entries before the grid that are kept as they are, such as class tokens."""
    suffix: int = 0
    """Entries after the grid that are kept as they are, such as BEiT's offsets of the class token."""
    flat: bool = True
    """Whether the cells lie along one dimension; if not, rows lie along `dim` and columns along the next."""

    def __post_init__(self) -> None:
        if not self.flat and self.dim < 0:
            raise InputError(f"dim is {self.dim}: count the dimension of a grid's rows from the front")
        lies_over = tuple(self.parameter.shape[self.dim : self.dim + 2])
        if not self.flat and lies_over != tuple(self.old_grid):
            found, wanted = (" x ".join(map(str, grid)) for grid in (lies_over, self.old_grid))
            raise InputError(f"a tensor of shape {tuple(self.parameter.shape)} lies over {found}, not {wanted}")
        _check_grid(self._flattened(self.parameter), self.old_grid, self.dim, self.prefix, self.suffix)

    def resized(self, values: torch.Tensor) -> torch.Tensor:
        """`values`, laid out as the parameter is, on the new grid."""
        flat = resize_grid(
            self._flattened(values), self.old_grid, self.new_grid, dim=self.dim, prefix=self.prefix, suffix=self.suffix
        )
        return flat if self.flat else flat.reshape(*flat.shape[: self.dim], *self.new_grid, *flat.shape[self.dim + 1 :])

    def _flattened(self, values: torch.Tensor) -> torch.Tensor:
        return values if self.flat else values.detach().flatten(self.dim, self.dim + 1)


@runtime_checkable
class ResizableInput(Protocol):
    """What a module of one's own offers so that `fit_to_bandwidth` can resize it.

    `grid_changes` lists the parameters that change and changes nothing; it is empty at the current size, and
    raises `InputError` for a size the module cannot take. `set_bandwidth` brings everything else (attributes,
    buffers) in line, after the parameters have their new shapes; it must be harmless to repeat.

    Two attributes are optional: `size_multiple`, of which every side that it takes is a multiple, and
    `img_size`, the side (or the two sides) it is set to now.

    >>> class Positions(nn.Module):
    ...     def __init__(self, side):
    ...         super().__init__()
    ...         self.grid = (side // 8, side // 8)
    ...         self.table = nn.Parameter(torch.zeros(self.grid[0] * self.grid[1], 5))
    ...     def grid_changes(self, bandwidth):
    ...         new = (bandwidth // 8, bandwidth // 8)
    ...         return [] if new == self.grid else [GridChange(self.table, self.grid, new)]
    ...     def set_bandwidth(self, bandwidth):
    ...         self.grid = (bandwidth // 8, bandwidth // 8)
    >>> isinstance(Positions(32), ResizableInput)
    True
    """

    def grid_changes(self, bandwidth: int) -> Sequence[GridChange]:
        """The parameters that change shape at `bandwidth`."""
        ...

    def set_bandwidth(self, bandwidth: int) -> None:
        """Update what is not a parameter."""
        ...


def resize_grid(
    values: torch.Tensor,
    old_grid: tuple[int, int],
    new_grid: tuple[int, int],
    *,
    dim: int = 0,
    prefix: int = 0,
    suffix: int = 0,
) -> torch.Tensor:
    """Interpolate `values`, which lie on `old_grid` along `dim`, to `new_grid`.

    Bilinear at cell centres (`align_corners=False`), without anti-aliasing, as in the released code. The
    weights are never negative, so second moments stay at or above 0. Half precision is interpolated in
    float32.

    Args:
        values: floating-point tensor with `prefix + rows * columns + suffix` entries along `dim`.
        old_grid: rows and columns now.
        new_grid: rows and columns wanted.
        dim: dimension of the grid, cells row by row.
        prefix: leading entries along `dim` that are copied unchanged.
        suffix: trailing entries along `dim` that are copied unchanged.

    Raises:
        InputError: `values` does not hold `old_grid` along `dim`.

    >>> resize_grid(torch.tensor([9.0, 0.0, 0.0, 4.0, 4.0]), (2, 2), (1, 1), prefix=1)
    tensor([9., 2.])
    """
    _check_grid(values, old_grid, dim, prefix, suffix)
    rows, columns = old_grid
    values = values.detach()
    if old_grid == new_grid:
        return values.clone()
    if values.is_meta:
        # Without values only the shape counts, and PyTorch interpolates there in Python, slowly.
        shape = list(values.shape)
        shape[dim] = prefix + new_grid[0] * new_grid[1] + suffix
        return values.new_empty(shape)
    before, cells, after = torch.split(values, [prefix, rows * columns, suffix], dim=dim)
    maps = cells.movedim(dim, -1)
    precise = maps.to(torch.promote_types(maps.dtype, torch.float32))
    resized = functional.interpolate(
        precise.reshape(1, -1, rows, columns), size=new_grid, mode="bilinear", align_corners=False
    )
    resized = resized.reshape(*maps.shape[:-1], new_grid[0] * new_grid[1]).to(values.dtype)
    return torch.cat([before, resized.movedim(-1, dim), after], dim=dim).contiguous()


def _check_grid(values: torch.Tensor, grid: tuple[int, int], dim: int, prefix: int, suffix: int) -> None:
    kept = prefix + suffix
    entries = kept + grid[0] * grid[1]
    if values.shape[dim] != entries:
        raise InputError(
            f"a tensor of shape {tuple(values.shape)} has {values.shape[dim]} entries along dimension {dim}, "
            f"but {kept} and a grid of {grid[0]} x {grid[1]} make {entries}: give the grid it has"
        )


def check_moments(change: GridChange, name: str, optimizer: torch.optim.Optimizer) -> None:
    """Raise `InputError` if the optimizer keeps state for the parameter that we don't know how to resize."""
    for key, value in _state(optimizer, change.parameter).items():
        if not follows_shape(value, change.parameter):
            raise InputError(
                f"{type(optimizer).__name__} keeps state {key!r} for {name} in another shape than the parameter's, so "
                "it cannot be resized: use an optimizer whose states have the parameters' shapes, such as AdamW, LAMB "
                "or SGD"
            )


def follows_shape(state: object, parameter: torch.Tensor) -> bool:
    """Whether an optimizer's state can stay with a parameter that is resized.

    It can if it has a value for each of the parameter's, which is resized as the parameter is, or is a plain number.

    >>> positions = torch.zeros(1, 16, 8)
    >>> [follows_shape(state, positions) for state in (torch.ones(1, 16, 8), torch.tensor(3.0), torch.ones(1, 16), 3)]
    [True, True, False, True]
    """
    return _has_shape(state, parameter) or not _holds_values(state)


def apply_change(change: GridChange, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Resize the parameter, in place, with its gradient and its moments."""
    parameter = change.parameter
    state = {} if optimizer is None else _state(optimizer, parameter)
    state.update({key: change.resized(value) for key, value in state.items() if _has_shape(value, parameter)})
    values = change.resized(parameter)
    gradient, parameter.grad = parameter.grad, None
    # While a loss of the last step is alive, autograd keeps the accumulator with the old shape and would
    # refuse the next gradient. It lets go of it only when the type changes, hence the detour.
    detour = torch.float32 if values.dtype == torch.float64 else torch.float64
    parameter.data = torch.empty(0, dtype=detour, device=values.device)
    parameter.data = values
    if gradient is not None:
        # Of an update that several steps of a plan add up to, which this is in the middle of.
        parameter.grad = change.resized(gradient)


def _state(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, Any]:
    """The optimizer's own dictionary for the parameter; looking it up with `[]` would create one."""
    found: dict[str, Any] = optimizer.state.get(parameter, {})
    return found


def _has_shape(state: object, parameter: torch.Tensor) -> TypeGuard[torch.Tensor]:
    return isinstance(state, torch.Tensor) and state.shape == parameter.shape


def _holds_values(value: object) -> bool:
    if isinstance(value, torch.Tensor):
        return value.numel() > 1
    if isinstance(value, Mapping):
        return any(_holds_values(item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(_holds_values(item) for item in value)
    return False
