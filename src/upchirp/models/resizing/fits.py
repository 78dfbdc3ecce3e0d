"""Fits: what a module needs for a new input size, as every family tells it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import nn

from upchirp.models.resizing.grids import GridChange


@dataclass(frozen=True, eq=False)
class Fit:
    """What one module needs: parameters to resize, then a call that updates everything else."""

    finish: Callable[[], None]
    changes: list[GridChange] = field(default_factory=list)
    tried_first: bool = True
    """Whether to try it on a copy first; not if the module's own code says that no parameter changes."""


class Family(Protocol):
    """One module of a family that depends on the input size, seen from outside.

    A family's class method `of(module)` makes it, or None of a module that belongs to another family.
    """

    def multiple(self) -> int:
        """Smallest side whose multiples lose nothing in patches and windows."""
        ...

    def size(self) -> int | None:
        """The input side that the module is set to now; None if it does not say."""
        ...

    def arguments(self, size: int) -> dict[str, Any]:
        """What timm's constructor is given for images of side `size`."""
        ...

    def plan(self, bandwidth: int) -> Fit | None:
        """What the module needs for `bandwidth`, a multiple of `multiple()`; None if nothing."""
        ...


def has_set_input_size(module: object) -> bool:
    """Whether timm can be asked to set the module to a size."""
    return callable(getattr(type(module), "set_input_size", None))


def noted_size(module: Any) -> int | None:
    """The size that a model was set to, where timm writes it down in the model itself."""
    traits = getattr(module, "_traits", None)
    size = traits.get("img_size") if isinstance(traits, dict) else None
    return None if size is None else int(size[0])


def stages_of(module: nn.Module) -> list[Any]:
    """The stages of a model that has its blocks in stages."""
    for name in ("layers", "stages"):
        stages: Any = getattr(module, name, None)
        if isinstance(stages, nn.Sequential | nn.ModuleList):
            return [stage for stage in stages if getattr(stage, "blocks", None) is not None]
    return []
