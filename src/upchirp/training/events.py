"""The events of a training. Logs and displays are functions of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from upchirp.curriculum import Plan, Step

if TYPE_CHECKING:
    # What shows events is there before torch is.
    from upchirp.data import PassSummary
    from upchirp.training.evaluation.evaluation import Evaluation


@dataclass(frozen=True, kw_only=True)
class Started:
    """The plan is made and training begins, or goes on, after `step` steps."""

    plan: Plan
    step: int
    output: Path


@dataclass(frozen=True, kw_only=True)
class Working:
    """Something other than steps goes on that may take longer than a moment, until the next event of any other kind."""

    what: str
    """What it is, such as `scanning the data`."""
    done: int | None = None
    """How much of it is done, if that is counted."""
    total: int | None = None
    """How much there is, if that is known."""


@dataclass(frozen=True, kw_only=True)
class Stepped:
    """One optimizer step is done."""

    step: Step
    seconds: float
    """Wall-clock time of the step."""
    wait_seconds: float
    """Part of it spent waiting for data."""


@dataclass(frozen=True, kw_only=True)
class Logged:
    """Means over the steps since the last such event."""

    step: Step
    loss: float
    images_per_second: float
    wait_share: float
    """Share of the time spent waiting for data."""
    train_seconds: float
    """Training time of the whole run so far, without evaluations and checkpoints."""
    prepared_per_second: float = 0.0
    """Images newly prepared, by all ranks: less than images per second where some are replayed."""
    megabytes_per_second: float = 0.0
    """10^6 bytes that loaders gave to devices, all ranks: images at the bandwidth, or larger ones to reduce there."""


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """One set of weights was evaluated at one input side."""

    step: int
    progress: float
    bandwidth: int
    """Input side of this evaluation, pixels."""
    weights: Literal["model", "ema"]
    result: "Evaluation"
    train_seconds: float


@dataclass(frozen=True, kw_only=True)
class Reduced:
    """Memory ran out in the step, which was redone with fewer images at once; the batch stays as it is."""

    step: Step
    micro_batch: int
    """Images in one forward pass at the step's bandwidth from now on."""


@dataclass(frozen=True, kw_only=True)
class Selected:
    """With selection: a pass over the data began in the step."""

    step: Step
    summary: "PassSummary"
    """What it leaves out."""


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A checkpoint is on disk."""

    step: int
    path: Path


@dataclass(frozen=True, kw_only=True)
class Noted:
    """Something the user should know: a damaged image or checkpoint, a choice that was made."""

    message: str


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The run is done."""

    step: int
    top1: float
    """Of the exported weights at the final size: the average's if there is one."""
    best_top1: float
    train_seconds: float
    spent: Mapping[str, float] = field(default_factory=dict)
    """Seconds of the whole run by what they went to: computing, waiting, changing_bandwidth and compiling, which make
    up the training time, evaluating and saving. Empty for runs of before that was counted."""
    figure: str = "top1"
    """What `top1` and `best_top1` measure: another figure where a task is none of telling labels."""


Event = Started | Working | Stepped | Logged | Evaluated | Reduced | Selected | Saved | Noted | Finished
Observer = Callable[[Event], None]


class Report(Protocol):
    """Tells somebody that something goes on."""

    def __call__(self, what: str, done: int | None = None, total: int | None = None) -> None:
        """Take the fields of `Working`."""


def reporting(observers: Sequence[Observer]) -> Report:
    """What tells observers that something goes on."""

    def report(what: str, done: int | None = None, total: int | None = None) -> None:
        for observer in observers:
            observer(Working(what=what, done=done, total=total))

    return report


def unreported(what: str, done: int | None = None, total: int | None = None) -> None:
    """A `Report` to nobody."""


def noting(observers: Sequence[Observer]) -> Callable[[str], None]:
    """What tells observers a line that the user should know."""

    def note(message: str) -> None:
        for observer in observers:
            observer(Noted(message=message))

    return note
