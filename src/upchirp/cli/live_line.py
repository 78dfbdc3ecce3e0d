"""The one line of a terminal that shows a training while it runs."""

import os
import threading
import time
from functools import cache

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from upchirp.cli.printable import printable
from upchirp.curriculum import Plan, Step
from upchirp.reports.words import speed_text
from upchirp.training import Stepped, Working

_LEAST_BAR, _MOST_BAR = 8, 40
_GAP = 2
_SHORT_TITLE = 12
_TICK_SECONDS = 1.0
_TICKING = threading.Lock()


class LiveLine:
    """What goes on, as wide as the terminal: what does not fit is left out, and the bar takes the rest.

    Args:
        title: what the line begins with, shortened where room is short.
    """

    def __init__(self, title: str = "") -> None:
        self.title = title
        self.working: Working | None = None
        self.since = 0.0
        self.percent = 0.0
        self.head = self.speed = self.wait = ""
        self.next_bandwidth: int | None = None
        self.all_ends: float | None = None
        self.ends: tuple[float, float] | None = None
        """When the stage and the whole are done."""

    def work(self, event: Working, now: float) -> None:
        """Show what goes on besides steps, and for how long."""
        if self.working is None or self.working.what != event.what:
            self.since = now
        self.working = event

    def step(self, plan: Plan, step: Step, pace: "Pace", now: float, in_all: float | None = None) -> None:
        """Show where the training is, and how many seconds are left of several together."""
        self.working = None
        self.percent = 100 * (step.index + 1) / plan.total_steps
        self.head = f"stage {step.stage + 1}/{len(plan.stages)}  B={step.bandwidth}"
        self.speed = f"{speed_text(pace.images_per_second)} img/s"
        self.wait = f"wait {100 * pace.wait_share:.0f} %"
        self.all_ends = None if in_all is None else now + in_all
        later = plan.stages[step.stage + 1 :]
        self.next_bandwidth = later[0].bandwidth if later else None
        self.ends = now + pace.seconds_in_stage(plan, step.index), now + pace.seconds_left(plan, step.index)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The line at this moment: times go on between steps."""
        now, width = time.monotonic(), options.max_width - 1
        if self.working is not None:
            told = f"{work_text(self.working)}  {duration(now - self.since)}"
            yield Text(printable(_joined(self.title, told, width)), no_wrap=True, overflow="ellipsis")
        elif self.ends is not None:
            yield self._bar(now, width, *self.ends)

    def _bar(self, now: float, width: int, stage_ends: float, ends: float) -> Table:
        percent, left = f"{self.percent:.0f} %", f"{duration(max(0.0, ends - now))} left"
        in_all = "" if self.all_ends is None else f"{duration(max(0.0, self.all_ends - now))} in all"
        change = ""
        if self.next_bandwidth is not None:
            change = f"B={self.next_bandwidth} in {duration(max(0.0, stage_ends - now))}"
        room = width - sum(len(text) + _GAP for text in (self.head, percent, left)) - _LEAST_BAR
        # The first that are wanted; a long title last of all.
        short = len(self.title) <= _SHORT_TITLE
        wanted = [self.title if short else "", in_all, self.speed, self.wait, change, "" if short else self.title]
        taken = {percent, left}
        for text in wanted:
            if text and len(text) + _GAP <= room:
                taken.add(text)
                room -= len(text) + _GAP
        bar = min(_MOST_BAR, _LEAST_BAR + room)
        line = Table.grid(padding=(0, _GAP, 0, 0))
        cells: tuple[RenderableType, ...] = (
            Text((printable(self.title) if self.title in taken else "") + self.head),
            ProgressBar(total=100, completed=self.percent, width=bar),
            *(Text(text) for text in (percent, self.speed, self.wait, change, left, in_all) if text in taken),
        )
        for _ in cells:
            line.add_column(no_wrap=True)
        line.add_row(*cells)
        return line


class Ticker:
    """Draws a live line anew each second, so that it goes on where a step takes long."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._ended = threading.Event()

    def start(self) -> None:
        """Begin, in a thread."""
        _hold_at_forks()
        threading.Thread(target=self._tick, daemon=True).start()

    def stop(self) -> None:
        """End."""
        with _TICKING:
            self._ended.set()

    def _tick(self) -> None:
        while not self._ended.wait(_TICK_SECONDS):
            with _TICKING:
                if not self._ended.is_set():
                    self._live.refresh()


@cache
def _hold_at_forks() -> None:
    # Loader workers are forked: not while the thread holds a lock of the console, which nobody would give back there.
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_TICKING.acquire, after_in_parent=_TICKING.release, after_in_child=_TICKING.release)


def work_text(event: Working) -> str:
    """What goes on, and how much of it is done.

    >>> work_text(Working(what="scanning the data", done=12000)), work_text(Working(what="measuring", done=3, total=8))
    ('scanning the data: 12,000', 'measuring: 3 of 8')
    """
    if event.done is None:
        return event.what
    return f"{event.what}: {event.done:,}" + ("" if event.total is None else f" of {event.total:,}")


def _joined(title: str, text: str, width: int) -> str:
    return title + text if len(title) + len(text) <= width else text


class Pace:
    """Speed over the last steps, and what it says about the time left."""

    def __init__(self) -> None:
        self.images = self.seconds = self.wait = self.cost = 0.0

    def add(self, event: Stepped) -> None:
        """Count a step."""
        keep = 0.98
        self.images = keep * self.images + event.step.batch_size
        self.seconds = keep * self.seconds + event.seconds
        self.wait = keep * self.wait + event.wait_seconds

    @property
    def images_per_second(self) -> float:
        """Speed."""
        return self.images / max(self.seconds, 1e-9)

    @property
    def wait_share(self) -> float:
        """Share of the time spent waiting for data."""
        return self.wait / max(self.seconds, 1e-9)

    def seconds_in_stage(self, plan: Plan, index: int) -> float:
        """What the current stage still costs."""
        stage = plan.step(index).stage
        steps = sum(other.steps for other in plan.stages[: stage + 1]) - index - 1
        return steps * plan.stages[stage].batch_size / max(self.images_per_second, 1e-9)

    def seconds_left(self, plan: Plan, index: int) -> float:
        """What the plan still costs, at the pace of the current stage."""
        current = plan.step(index)
        stage = plan.stages[current.stage]
        end_of_stage = sum(other.steps for other in plan.stages[: current.stage + 1])
        left = (end_of_stage - index - 1) * stage.batch_size * stage.cost_per_sample
        left += sum(later.cost for later in plan.stages[current.stage + 1 :])
        return left / stage.cost_per_sample / max(self.images_per_second, 1e-9)


def duration(seconds: float) -> str:
    """Seconds as a short text.

    >>> duration(75), duration(7500)
    ('1m15s', '2h05m')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
