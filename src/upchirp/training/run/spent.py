"""The clock of a training, and where its time went."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from time import perf_counter


class Clock:
    """Counts the time of a training from lap to lap, but for what is done while it is paused."""

    def __init__(self) -> None:
        self._since = perf_counter()

    def lap(self) -> float:
        """Seconds since the last lap, or since a pause ended."""
        now = perf_counter()
        seconds, self._since = now - self._since, now
        return seconds

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out the time of what is done inside, and what passed since the last lap."""
        yield
        self._since = perf_counter()


@dataclass(kw_only=True)
class Spent:
    """Seconds of a run by what they were spent on; the first four make up its training time.

    >>> spent = Spent()
    >>> spent.step(stage=0, seconds=6.0, waited=1.0)
    >>> spent.step(stage=0, seconds=2.5, waited=0.5)
    >>> spent.step(stage=0, seconds=2.0, waited=0.0)
    >>> spent.seconds()["changing_bandwidth"], spent.seconds()["computing"], spent.seconds()["waiting"]
    (3.0, 6.0, 1.5)
    """

    computing: float = 0.0
    """Steps, without the next two."""
    waiting: float = 0.0
    """The device had nothing to do until images came."""
    changing_bandwidth: float = 0.0
    """What the first step of each stage, and of this process, took more than the others of its stage."""
    compiling: float = 0.0
    """Graphs, before the first step."""
    evaluating: float = 0.0
    """Evaluations on the way."""
    saving: float = 0.0
    """Checkpoints and the weights at the end, as far as training waited for them."""
    _stage: "_Stage" = field(default_factory=lambda: _Stage(-1), repr=False)

    def step(self, *, stage: int, seconds: float, waited: float) -> None:
        """Count a step."""
        if stage != self._stage.number:
            self.computing += self._stage.computing
            self.changing_bandwidth += self._stage.changing_bandwidth
            self._stage = _Stage(stage)
        waited = min(waited, seconds)
        self.waiting += waited
        self._stage.steps += 1
        self.rest(seconds - waited)

    def rest(self, seconds: float) -> None:
        """Count time in which the device came to the end of the last step."""
        if self._stage.steps <= 1:
            self._stage.first += seconds
        else:
            self._stage.others += seconds

    @contextmanager
    def on(self, name: str) -> Iterator[None]:
        """Count the time of what is done inside."""
        begun = perf_counter()
        try:
            yield
        finally:
            setattr(self, name, getattr(self, name) + perf_counter() - begun)

    def seconds(self) -> dict[str, float]:
        """By name, as plain numbers."""
        now = {"computing": self._stage.computing, "changing_bandwidth": self._stage.changing_bandwidth}
        return {name: round(getattr(self, name) + now.get(name, 0.0), 3) for name in NAMES}


@dataclass
class _Stage:
    """Seconds of a stage's steps without waiting."""

    number: int
    steps: int = 0
    first: float = 0.0
    others: float = 0.0

    @property
    def changing_bandwidth(self) -> float:
        """What the first step took more than the others."""
        usual = self.others / (self.steps - 1) if self.steps > 1 else self.first
        return max(0.0, self.first - usual)

    @property
    def computing(self) -> float:
        """All else."""
        return self.first + self.others - self.changing_bandwidth


NAMES = tuple(entry.name for entry in fields(Spent) if not entry.name.startswith("_"))
