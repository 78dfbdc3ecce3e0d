"""Tables of relative positions, one row for each offset between two cells of a window.

timm's `set_window_size` brings buffers and attributes in line with a new window and replaces the table by one of its
own making. Here the table is resized as every parameter is, and a stand-in without values takes its place while timm
is at work; so timm's own code decides what else changes, and the parameter stays the same object.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from upchirp.errors import InputError
from upchirp.models.resizing.grids import GridChange

_NAME = "relative_position_bias_table"


@dataclass(frozen=True, eq=False)
class Table:
    """One table, with the module that holds it."""

    owner: Any
    window: int
    """Side of the window now, cells."""
    change: Callable[[int], GridChange]
    """Window wanted -> how the table changes."""


def tables_in(module: nn.Module) -> list[Table]:
    """The tables inside `module` whose window timm can set.

    Raises:
        InputError: a table of a form that cannot be resized.
    """
    owners = (owner for owner in module.modules() if callable(getattr(type(owner), "set_window_size", None)))
    return [_table(owner) for owner in owners if isinstance(getattr(owner, _NAME, None), nn.Parameter)]


def _table(owner: Any) -> Table:
    parameter: nn.Parameter = getattr(owner, _NAME)
    rows, columns = (int(side) for side in owner.window_size)
    grid = (2 * rows - 1, 2 * columns - 1)
    # Offsets to and from the class token, and its own, are at the end (BEiT).
    suffix = len(parameter) - grid[0] * grid[1]
    if parameter.ndim == 2 and rows == columns and suffix in (0, 3):
        return Table(owner, rows, lambda new: GridChange(parameter, grid, _offsets(new), suffix=suffix))
    if parameter.ndim == 3 and rows == columns and tuple(parameter.shape[1:]) == grid:
        return Table(owner, rows, lambda new: GridChange(parameter, grid, _offsets(new), dim=1, flat=False))
    raise InputError(
        f"{type(owner).__name__} has a table of shape {tuple(parameter.shape)} for windows of {rows} x {columns}, a "
        "form upchirp cannot resize: define `grid_changes` (see upchirp.models.ResizableInput)"
    )


def _offsets(window: int) -> tuple[int, int]:
    return (2 * window - 1, 2 * window - 1)


class StandIns:
    """What timm may replace in the place of tables; made before the tables are resized."""

    def __init__(self, tables: list[Table]):
        self._places = [
            (table.owner, getattr(table.owner, _NAME), _without_values(getattr(table.owner, _NAME))) for table in tables
        ]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """While this lasts the stand-ins are where the tables were."""
        for owner, _, stand_in in self._places:
            setattr(owner, _NAME, stand_in)
        try:
            yield
            for owner, parameter, _ in self._places:
                wanted = getattr(owner, _NAME).shape
                if wanted != parameter.shape:
                    raise InputError(f"{_NAME} has {tuple(parameter.shape)} values, timm expects {tuple(wanted)}")
        finally:
            for owner, parameter, _ in self._places:
                setattr(owner, _NAME, parameter)


def _without_values(parameter: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(torch.empty_like(parameter, device="meta"), parameter.requires_grad)
