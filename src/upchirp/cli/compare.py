"""`upchirp compare`."""

import shlex
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from upchirp.cli.display import Display, duration
from upchirp.cli.lasting_output import lasting_output
from upchirp.cli.opening import opening
from upchirp.cli.parsing import parse_training
from upchirp.cli.printable import print_note, printable
from upchirp.compare import CompareConfig
from upchirp.training import Interrupted, TrainConfig

if TYPE_CHECKING:
    from upchirp.compare import Comparison

DESCRIPTION = """Train several curricula on the same data, seeds and budgets; write summary.json and report.html.
The first curriculum is the baseline, trained for --epochs; the others get shares of that by --budgets."""


def run(words: Sequence[str]) -> int:
    """Train and compare, and return the exit code."""
    config = parse_training(
        CompareConfig,
        words,
        prog="upchirp compare",
        description=DESCRIPTION,
        build=lambda values, source: CompareConfig(training=TrainConfig.from_flat(values, source=source)),
    )
    with lasting_output():
        return _compare(config, shlex.join(["upchirp", "compare", *words]))


def _compare(config: CompareConfig, command: str) -> int:
    console = Console()
    with opening(console):
        from upchirp.compare import compare
    with ExitStack() as current:

        def observer(title: str) -> Display:
            current.close()
            return current.enter_context(Display(console, title))

        try:
            comparison = compare(config, command=command, observer=observer, note=print_note)
        except Interrupted as interruption:
            print(
                f"upchirp: {signal.Signals(interruption.signum).name}: stopped in {interruption.folder}; "
                "go on by the same command with --resume auto",
                file=sys.stderr,
            )
            return 128 + interruption.signum
    show(comparison, console)
    return 0


def show(comparison: "Comparison", console: Console) -> None:
    """Print accuracy, time and speed-up, and where the report is."""
    from upchirp.compare.comparison import REPORT
    from upchirp.reports.verdict import difference_text, verdict

    summary = comparison.summary
    seeds = len(summary["seeds"])
    title = f"{summary['model']} on {summary['data']}, final size {summary['final_size']}, {seeds} seed(s)"
    # As text: names in brackets would be taken for markup.
    table = Table(title=Text(printable(title)))
    table.add_column("curriculum", no_wrap=True)
    for heading in ("epochs", "top-1", "difference", "time", "ratio"):
        table.add_column(heading, justify="right", no_wrap=True)
    baseline = sum(summary["runs"][0]["train_seconds"]) / seeds
    for entry in summary["runs"]:
        seconds = sum(entry["train_seconds"]) / seeds
        accuracy = sum(entry["accuracy"]) / seeds
        table.add_row(
            Text(printable(entry["curriculum"])),
            f"{entry['equivalent_epochs']:.2f}",
            f"{accuracy:.2f} %",
            difference_text(entry["difference"]) if entry["difference"] else "",
            duration(seconds),
            f"{seconds / baseline:.2f}",
        )
    console.print(table)
    for line in (verdict(summary), f"report: {comparison.output / REPORT}"):
        console.print(printable(line), highlight=False, markup=False, soft_wrap=True)
