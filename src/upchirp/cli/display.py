"""What a training shows while it runs."""

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from upchirp.cli.printable import printable
from upchirp.curriculum import Plan
from upchirp.training import Evaluated, Event, Finished, Logged, Noted, Reduced, Saved, Selected, Started, Stepped

_REFRESH_SECONDS = 0.5


class Display:
    """An observer that shows stage, speed, waiting and time left: live on a terminal, else a line at each log.

    Use it as a context manager, so that the terminal is left tidy. `in_all` gives the seconds that are left of several
    trainings together.
    """

    def __init__(self, console: Console, title: str = "", *, in_all: Callable[[], float | None] = lambda: None) -> None:
        self.console = console
        self.in_all = in_all
        self.title = f"{title}: " if title else ""
        self.progress = live_bar(console, "{task.percentage:>3.0f} %", "{task.fields[speed]}")
        self.task: TaskID | None = None
        self.plan: Plan | None = None
        self.shown = 0.0
        self.pace = _Pace()

    def __enter__(self) -> "Display":
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        match event:
            case Started():
                self.plan = event.plan
                self.task = self.progress.add_task("", total=event.plan.total_steps, completed=event.step, speed="")
                begun = f"from step {event.step}" if event.step else f"{event.plan.total_steps} steps"
                self._print(f"{event.plan.curriculum}, {begun}, run folder {event.output}")
            case Stepped():
                self._step(event)
            case Logged():
                if not self.console.is_terminal:
                    self._print(
                        f"step {event.step.index + 1}, {event.step.progress:.0%}, B={event.step.bandwidth}, "
                        f"loss {event.loss:.3f}, {event.images_per_second:.0f} images/s, "
                        f"waiting for data {event.wait_share:.0%}"
                    )
            case Evaluated():
                self._print(
                    f"step {event.step}, {event.progress:.0%}: {event.weights} at {event.bandwidth} px: "
                    f"top-1 {event.result.top1:.2f} %, top-5 {event.result.top5:.2f} %, loss {event.result.loss:.3f}"
                )
            case Noted():
                self._print(f"note: {event.message}")
            case Finished():
                self._print(
                    f"done: top-1 {event.top1:.2f} % (best {event.best_top1:.2f} %) "
                    f"in {duration(event.train_seconds)} of training"
                )
            case Saved() | Selected() | Reduced():
                pass

    def _step(self, event: Stepped) -> None:
        assert self.plan is not None and self.task is not None
        self.pace.add(event)
        now = time.monotonic()
        if now - self.shown < _REFRESH_SECONDS:
            return
        self.shown = now
        step = event.step
        speed, wait = self.pace.images_per_second, self.pace.wait_share
        left = duration(self.pace.seconds_left(self.plan, step.index))
        self.progress.update(
            self.task,
            completed=step.index + 1,
            description=f"{self.title}stage {step.stage + 1}/{len(self.plan.stages)}  B={step.bandwidth}",
            speed=f"{speed:.0f} images/s  waiting {wait:.0%}  {left} left{self._of_all()}",
        )
        self.progress.refresh()

    def _of_all(self) -> str:
        """The time left of what this training is a part of, if it is a part."""
        left = self.in_all()
        return "" if left is None else f", {duration(left)} in all"

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


class _Pace:
    """Speed over the last steps, and what it says about the time left."""

    def __init__(self) -> None:
        self.images = self.seconds = self.wait = self.cost = 0.0

    def add(self, event: Stepped) -> None:
        keep = 0.98
        self.images = keep * self.images + event.step.batch_size
        self.seconds = keep * self.seconds + event.seconds
        self.wait = keep * self.wait + event.wait_seconds

    @property
    def images_per_second(self) -> float:
        return self.images / max(self.seconds, 1e-9)

    @property
    def wait_share(self) -> float:
        return self.wait / max(self.seconds, 1e-9)

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
