"""The display of a search while it runs."""

from types import TracebackType

from rich.console import Console
from rich.progress import TaskID

from upchirp.cli.display import live_bar, say
from upchirp.cli.flags import with_flags
from upchirp.cli.live_line import duration
from upchirp.search import Begun, Found, Scored, SearchEvent, Working
from upchirp.training import Noted


class SearchDisplay:
    """An observer that shows what runs, and the cost so far and to come: live on a terminal, else line by line.

    Use it as a context manager, so that the terminal is left tidy.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress = live_bar(
            console,
            "{task.completed:.1f} of {task.fields[most]}{task.total:.1f} eq. epochs",
            "{task.fields[left]}",
        )
        self.task: TaskID | None = None

    def __enter__(self) -> "SearchDisplay":
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def __call__(self, event: SearchEvent) -> None:
        """Show an event."""
        match event:
            case Begun():
                price = event.price
                most = "" if price.exact else "at most "
                self.task = self.progress.add_task("", total=price.cost, most=most, left="")
                self._print(
                    f"search over {', '.join(map(str, event.candidates))} px: {most}{price.trainings} trainings, "
                    f"{price.cost:.1f} equivalent epochs, folder {event.output}"
                )
                if event.finished:
                    self._print(f"going on, trainings finished before: {event.finished}")
            case Working():
                assert self.task is not None
                left = "" if event.seconds_left is None else f"{duration(event.seconds_left)} left"
                names = ", ".join(event.running)
                self.progress.update(self.task, completed=event.spent, description=names, left=left)
                self.progress.refresh()
            case Scored():
                outcome = event.outcome
                self._print(
                    f"{event.trial.name}: {outcome.accuracy:.2f} % at the final size, loss {outcome.loss:.3f}, "
                    f"{outcome.cost:.2f} equivalent epochs, {duration(event.seconds)}"
                )
            case Found():
                self._print(
                    f"found {', '.join(map(str, event.bandwidths))} px by {event.equivalent_epochs:.1f} equivalent "
                    f"epochs, {duration(event.seconds)} of training"
                )
            case Noted():
                self._print(f"note: {with_flags(event.message)}")

    def _print(self, text: str) -> None:
        say(self.console, text)
