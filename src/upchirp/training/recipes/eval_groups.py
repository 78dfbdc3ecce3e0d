"""Settings of what is done with trained weights, in groups that evaluation, prediction, probes and similarity share.

None leaves a setting to what the weights say, else to the run.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from upchirp.data.settings import DEFAULT_TIMEOUT, Interpolation, loader_processes
from upchirp.errors import InputError
from upchirp.training.recipes.checks import at_least
from upchirp.training.recipes.group import Group


@dataclass(frozen=True, kw_only=True)
class Origin(Group):
    """Which trained weights, and of which model: a run's, or a file's.

    >>> Origin(run=Path("runs/first"), which="raw").weights is None
    True
    """

    run: Path | None = None
    """Run folder; gives model, data, input side and weights where they are not given."""
    weights: Path | None = None
    """A weights file; see `read_weights`."""
    model: str | None = None
    """timm's name; by default what the weights say."""
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments for the model's constructor."""
    which: Literal["average", "raw"] | None = None
    """The average of the weights, or the raw ones; by default the average where there is one."""


@dataclass(frozen=True, kw_only=True)
class EvalData(Group):
    """Which images weights are evaluated on.

    >>> EvalData(data="photos", val_share=1.5)
    Traceback (most recent call last):
    ...
    upchirp.errors.InputError: `val_share` is 1.5: it must lie between 0 and 1
    """

    data: str | None = None
    """As in `open_data`; by default the run's."""
    val_share: float | None = None
    """Share of each class that training holds out where the data has no validation images; by default the run's, of its
    own data."""
    val_split: str | None = None
    """Name of the validation images' folder, split, or value in a table's column of splits."""
    label_column: str | None = None
    """The column of labels of a table or a Hugging Face data set, where its name does not tell."""

    def __post_init__(self) -> None:
        if self.val_share is not None and not 0 < self.val_share < 1:
            raise InputError(f"`val_share` is {self.val_share}: it must lie between 0 and 1")
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class EvalPreprocessing(Group):
    """How images are prepared for weights, where it shall be another way than the weights say."""

    mean: tuple[float, ...] | None = None
    """Mean of the values of each channel."""
    std: tuple[float, ...] | None = None
    """Standard deviation of the same."""
    crop_pct: float | None = None
    """Share of the resized image that the centre crop keeps; by default what the weights say for their own input side,
    and the paper's rule for others."""
    interpolation: Interpolation | None = None
    """Filter of the resize."""

    def __post_init__(self) -> None:
        if self.crop_pct is not None and not 0 < self.crop_pct <= 1:
            raise InputError(f"`crop_pct` is {self.crop_pct}: it is a share, above 0 up to 1")
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class EvalLoading(Group):
    """How images are loaded."""

    batch_size: int = 256
    """Images in one forward pass."""
    workers: int | None = None
    """Loader processes, by default one for each core, 16 at most."""
    loader_timeout: float = DEFAULT_TIMEOUT
    """Seconds without a batch from them after which loading ends with an `InputError`; 0 waits forever."""

    def __post_init__(self) -> None:
        at_least(1, batch_size=self.batch_size)
        at_least(0, loader_timeout=self.loader_timeout)
        loader_processes(self.workers)
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class Frequencies(Group):
    """Which frequencies are left in images: an evaluation for each radius, in periods per image; by default all are."""

    low_pass: Sequence[float] = ()
    """Radii within which frequencies are left (Figure 4)."""
    high_pass: Sequence[float] = ()
    """Radii beyond which they are left (Table 1)."""

    def __post_init__(self) -> None:
        for radius in (*self.low_pass, *self.high_pass):
            if not 0 <= radius < math.inf:
                raise InputError(f"radius {radius}: it must be 0 or more periods per image")
        super().__post_init__()
