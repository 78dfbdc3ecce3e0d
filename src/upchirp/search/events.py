"""The events of a search. Displays are functions of them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from upchirp.search.cost import Price
from upchirp.search.trial import Outcome, Trial
from upchirp.training import Noted


@dataclass(frozen=True, kw_only=True)
class Begun:
    """The search is planned and begins, or goes on."""

    price: Price
    """What it costs as a whole."""
    candidates: tuple[int, ...]
    """Bandwidths to choose from."""
    finished: int
    """Trials that were finished before."""
    output: Path
    """The folder of the search."""


@dataclass(frozen=True, kw_only=True)
class Working:
    """Where the search is, about twice a second."""

    running: tuple[str, ...]
    """Names of the trials that run now."""
    spent: float
    """Equivalent epochs so far."""
    seconds_left: float | None
    """Time to come at the pace of this session; None before there is one."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A trial is finished."""

    trial: Trial
    outcome: Outcome
    seconds: float
    """Its training time."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """The search is done."""

    bandwidths: tuple[int, ...]
    """One for each stage."""
    equivalent_epochs: float
    """What was spent."""
    seconds: float
    """Training time of all trials together."""


SearchEvent = Begun | Working | Scored | Found | Noted
SearchObserver = Callable[[SearchEvent], None]
