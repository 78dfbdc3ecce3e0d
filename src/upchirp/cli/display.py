"""The display of a training while it runs."""

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn

from upchirp.cli.flags import with_flags
from upchirp.cli.live_line import LiveLine, Pace, Ticker, duration, work_text
from upchirp.cli.printable import printable
from upchirp.curriculum import Plan
from upchirp.reports.words import figure_text, speed_text, spent_text
from upchirp.training import (
    Evaluated,
    Event,
    Finished,
    Logged,
    Noted,
    Reduced,
    Saved,
    Selected,
    Started,
    Stepped,
    Working,
)

_REFRESH_SECONDS = 0.5
_LINE_SECONDS = 10.0


class Display:
    """An observer that shows what goes on: live in one line on a terminal, else a line for each thing.

    Use it as a context manager, so that the terminal is left tidy.

    Args:
        console: where to.
        title: what the lines begin with, where several runs follow each other.
        in_all: gives the seconds that are left of all of them together.
    """

    def __init__(self, console: Console, title: str = "", *, in_all: Callable[[], float | None] = lambda: None) -> None:
        self.console = console
        self.in_all = in_all
        self.title = f"{title}: " if title else ""
        self.plan: Plan | None = None
        self.shown = 0.0
        self.pace = Pace()
        self.line = LiveLine(self.title)
        self.live = Live(self.line, console=console, transient=True, auto_refresh=False)
        self.ticker = Ticker(self.live)
        self.said = ""

    def __enter__(self) -> "Display":
        if self.console.is_terminal:
            self.live.start()
            self.ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ticker.stop()
        self.live.stop()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        match event:
            case Working():
                self._work(event)
            case Started():
                self.plan = event.plan
                begun = f"from step {event.step}" if event.step else f"{event.plan.total_steps} steps"
                self._print(f"{event.plan.curriculum}, {begun}, run folder {event.output}")
            case Stepped():
                self._step(event)
            case Logged():
                if not self.console.is_terminal:
                    assert self.plan is not None
                    left = self.pace.seconds_left(self.plan, event.step.index)
                    self._print(
                        f"step {event.step.index + 1}, {event.step.progress:.0%}, B={event.step.bandwidth}, "
                        f"loss {event.loss:.3f}, {speed_text(event.images_per_second)} images/s, "
                        f"waiting for data {event.wait_share:.0%}, {duration(left)} left"
                    )
            case Evaluated():
                self._print(
                    f"step {event.step}, {event.progress:.0%}: {event.weights} at {event.bandwidth} px: "
                    f"{event.result.describe()}"
                )
            case Noted():
                self._print(f"note: {with_flags(event.message)}")
            case Finished():
                self._print(
                    f"done: {figure_text(event.figure, event.top1)} (best {event.best_top1:.2f} %) "
                    f"in {duration(event.train_seconds)} of training"
                    + (f"; all time: {spent_text(event.spent)}" if event.spent else "")
                )
            case Saved() | Selected() | Reduced():
                pass

    def _work(self, event: Working) -> None:
        now = time.monotonic()
        self.line.work(event, now)
        if self.console.is_terminal:
            if event.what != self.said or now - self.shown > _REFRESH_SECONDS:
                self.said, self.shown = event.what, now
                self.live.refresh()
        elif self.pace.images:
            # Log lines come often enough.
            return
        elif event.what != self.said or now - self.shown > _LINE_SECONDS:
            # Counts are told now and then, as there is no line to change.
            self.said, self.shown = event.what, now
            self._print(work_text(event))

    def _step(self, event: Stepped) -> None:
        assert self.plan is not None
        self.pace.add(event)
        now = time.monotonic()
        if now - self.shown < _REFRESH_SECONDS and self.line.working is None:
            return
        self.shown = now
        self.line.step(self.plan, event.step, self.pace, now, self.in_all())
        if self.console.is_terminal:
            self.live.refresh()

    def _print(self, text: str) -> None:
        say(self.console, f"{self.title}{text}")


def live_bar(console: Console, *texts: str) -> Progress:
    """A bar between its description and more texts, in the last line of a terminal; elsewhere there is none."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        *map(TextColumn, texts),
        console=console,
        transient=True,
        auto_refresh=False,
        disable=not console.is_terminal,
    )


def say(console: Console, text: str) -> None:
    """Print a line as it is, whatever names in it hold."""
    console.print(printable(text), highlight=False, markup=False, soft_wrap=True)
