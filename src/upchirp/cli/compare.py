"""`upchirp compare`."""

import shlex
import signal
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from upchirp.cli.display import Display, duration
from upchirp.cli.parsing import parse_training
from upchirp.compare import CompareConfig, Comparison, compare
from upchirp.compare.comparison import REPORT
from upchirp.training import Interrupted

DESCRIPTION = """Train several curricula on the same data, seeds and budgets; write summary.json and report.html.
The first curriculum is the baseline, trained for --epochs; the others get shares of that by --budgets."""


def run(words: Sequence[str]) -> int:
    """Train and compare, and return the exit code."""
    config = parse_training(
        CompareConfig,
        words,
        prog="upchirp compare",
        description=DESCRIPTION,
        wrap=lambda training: CompareConfig(training=training),
    )
    console = Console()
    displays: list[Display] = []

    def observer(title: str) -> Display:
        for previous in displays:
            previous.__exit__(None, None, None)
        displays[:] = [Display(console, title).__enter__()]
        return displays[0]

    try:
        comparison = compare(config, command=shlex.join(["upchirp", "compare", *words]), observer=observer)
    except Interrupted as interruption:
        print(
            f"upchirp: {signal.Signals(interruption.signum).name}: stopped in {interruption.folder}; "
            "go on by the same command with --resume auto",
            file=sys.stderr,
        )
        return 128 + interruption.signum
    finally:
        for display in displays:
            display.__exit__(None, None, None)
    show(comparison, console)
    return 0


def show(comparison: Comparison, console: Console) -> None:
    """Print accuracy, time and speed-up, and where the report is."""
    summary = comparison.summary
    seeds = len(summary["seeds"])
    table = Table(title=f"{summary['model']} on {summary['data']}, final size {summary['final_size']}, {seeds} seed(s)")
    for heading in ("curriculum", "equivalent epochs", "top-1", "training time", "time / baseline"):
        table.add_column(heading, justify="left" if heading == "curriculum" else "right")
    baseline = sum(summary["runs"][0]["train_seconds"]) / seeds
    for entry in summary["runs"]:
        seconds = sum(entry["train_seconds"]) / seeds
        accuracy = sum(entry["accuracy"]) / seeds
        table.add_row(
            entry["curriculum"],
            f"{entry['equivalent_epochs']:.2f}",
            f"{accuracy:.2f} %",
            duration(seconds),
            f"{seconds / baseline:.2f}",
        )
    console.print(table)
    for name, speedup in summary["speedups"].items():
        console.print(_verdict(name, speedup, summary["runs"][0]["curriculum"]), highlight=False, soft_wrap=True)
    console.print(f"report: {comparison.output / REPORT}", highlight=False, soft_wrap=True)


def _verdict(name: str, speedup: dict[str, object], baseline: str) -> str:
    if speedup["ratio"] is None:
        return f"{name} did not reach the accuracy of {baseline} ({speedup['baseline_accuracy']:.2f} %)"
    at_least = "at least " if speedup["kind"] == "at least" else ""
    return (
        f"{name}: {at_least}{speedup['ratio']:.2f}x less training time than {baseline} "
        f"at the same accuracy ({speedup['baseline_accuracy']:.2f} %)"
    )
