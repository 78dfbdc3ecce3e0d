"""`upchirp compare`."""

import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from upchirp.cli.display import Display, say
from upchirp.cli.help import values_of_flags
from upchirp.cli.lasting_output import lasting_output
from upchirp.cli.live_line import duration
from upchirp.cli.opening import opening
from upchirp.cli.parsing import parse_training
from upchirp.cli.printable import print_interruption, print_note, printable
from upchirp.cli.words import apart
from upchirp.compare import CompareConfig
from upchirp.curriculum.table import aligned, count_text
from upchirp.errors import InputError
from upchirp.reports.words import counted_seconds, score_name, shortened, spent_text
from upchirp.training import Interrupted

if TYPE_CHECKING:
    from upchirp.compare import Comparison
    from upchirp.compare.jobs import Job
    from upchirp.compare.progress import Turn

DESCRIPTION = """Train several variants on the same data and seeds, at shares of one budget; write summary.json and
report.html. An EXPERIMENT.yaml says which: shared settings, and `variants` that change any of them.
Without one the variants are --curricula, the first of which is the baseline, trained for --epochs."""


@dataclass(frozen=True, kw_only=True)
class CompareCommand:
    """Flags of `upchirp compare`."""

    compare: CompareConfig = field(default_factory=CompareConfig)
    """The comparison."""
    dry_run: bool = False
    """Print what the comparison costs and stop; with its time, if runs in --output are finished."""
    measure: bool = False
    """With --dry-run: take a few steps at each bandwidth on this machine, for the time."""


def run(words: Sequence[str]) -> int:
    """Train and compare, and return the exit code."""
    experiment, flags = apart(words, values_of_flags(CompareCommand()) | {"--config": "FILE"})
    for name in experiment:
        if Path(name).is_dir():
            raise InputError(f"{name} is a folder: name an experiment's file, or what to compare by flags (--help)")
    # An experiment is a file of settings.
    files = [*experiment, *(word for word in flags if word.partition("=")[0] == "--config")]
    if len(files) > 1:
        raise InputError(f"{' and '.join(files)}: an experiment is one file, with all of its settings")
    command = parse_training(
        [*(["--config", *experiment] if experiment else []), *flags],
        prog="upchirp compare",
        description=DESCRIPTION,
        build=lambda values, source: CompareCommand(compare=CompareConfig.from_flat(values, source=source)),
        job=CompareConfig,
    )
    if command.measure and not command.dry_run:
        raise InputError("--measure goes with --dry-run: a comparison that runs knows its speed")
    with lasting_output():
        return _compare(command, shlex.join(["upchirp", "compare", *words]))


def _compare(flags: CompareCommand, command: str) -> int:
    console = Console()
    with opening(console):
        from upchirp.compare import compare
        from upchirp.compare.jobs import estimate
    if flags.dry_run:
        show_estimate(estimate(flags.compare, measure=flags.measure, note=print_note))
        return 0
    with ExitStack() as current:

        def observer(turn: "Turn") -> Display:
            current.close()
            name = f"run {turn.number}/{turn.runs}"
            left = turn.pace.seconds_left()
            about = f", about {duration(left)} for all that is left" if left else ""
            say(console, f"run {turn.number} of {turn.runs}: {turn.name}{about}")
            return current.enter_context(Display(console, name, in_all=turn.pace.seconds_left))

        try:
            comparison = compare(flags.compare, command=command, observer=observer, note=print_note)
        except Interrupted as interruption:
            stopped = f"stopped in {interruption.folder}; {interruption.go_on}"
            return print_interruption(interruption.signum, stopped)
    show(comparison, console)
    return 0


def show_estimate(jobs: Sequence["Job"]) -> None:
    """Print what runs cost, a line for each, and all together."""
    rows = [("run", "epochs", "passes", "images", "steps", "time")]
    for job in jobs:
        rows.append(
            (
                printable(shortened(f"{job.entry.name} seed {job.seed}", 38)),
                f"{job.plan.equivalent_epochs:.2f}",
                f"{job.plan.total_samples / job.plan.dataset_size:.2f}",
                count_text(job.plan.total_samples),
                f"{job.plan.total_steps:,}",
                "" if job.seconds is None else duration(job.seconds),
            )
        )
    times = [job.seconds for job in jobs if job.seconds is not None]
    rows.append(
        (
            f"{len(jobs)} runs",
            f"{sum(job.plan.equivalent_epochs for job in jobs):.2f}",
            "",
            count_text(sum(job.plan.total_samples for job in jobs)),
            f"{sum(job.plan.total_steps for job in jobs):,}",
            duration(sum(times)) if times else "",
        )
    )
    print(aligned(rows, left=1))
    left = [job for job in jobs if job.steps_done() < job.plan.total_steps]
    if len(left) < len(jobs):
        takes = [job.seconds for job in left if job.seconds is not None]
        others = f"; the others take {duration(sum(takes))}" if takes else ""
        print(f"{len(jobs) - len(left)} of them are finished{others}.")
    if not times:
        print("The time is known after the first run, or by --measure.")


def show(comparison: "Comparison", console: Console) -> None:
    """Print accuracy, time and speed-up, and where the report is."""
    from upchirp.compare.comparison import REPORT
    from upchirp.reports.verdict import difference_text, verdict

    summary = comparison.summary
    seeds = len(summary["seeds"])
    title = f"{summary['model']} on {summary['data']}, final size {summary['final_size']}, {seeds} seed(s)"
    # As text: names in brackets would be taken for markup.
    table = Table(title=Text(printable(title)))
    table.add_column("variant", no_wrap=True)
    # Of the budget its compute tells enough, and there is no room for both.
    for heading in (score_name(summary), "difference", "time", "ratio", "compute"):
        table.add_column(heading, justify="right", no_wrap=True)
    usual = counted_seconds(summary["runs"][0])
    for entry in summary["runs"]:
        times = counted_seconds(entry)
        accuracy = sum(entry["accuracy"]) / seeds
        table.add_row(
            Text(printable(shortened(entry["name"], 24))),
            f"{accuracy:.2f} %",
            difference_text(entry["difference"]) if entry["difference"] else "",
            _time_text(times, seeds),
            f"{fmean(times) / fmean(usual):.2f}" if times and usual else "",
            f"{entry['relative_compute']:.2f}",
        )
    console.print(table)
    spent = [
        f"{entry['name']} {entry['budget']:g}: {spent_text(_together(entry['spent']))}"
        for entry in summary["runs"]
        if any(entry.get("spent", ()))
    ]
    for line in (*spent, *verdict(summary), f"report: {comparison.output / REPORT}"):
        say(console, line)


def _time_text(times: Sequence[float], seeds: int) -> str:
    """The mean of the times that nothing disturbed, and of how many seeds it is if not of all."""
    if not times:
        return "disturbed"
    return duration(fmean(times)) + (f" ({len(times)} of {seeds})" if len(times) < seeds else "")


def _together(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The sum of what several runs spent."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: sum(part.get(name, 0.0) for part in parts) for name in names}
