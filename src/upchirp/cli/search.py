"""`upchirp search`."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from upchirp.cli.display import Display
from upchirp.cli.lasting_output import lasting_output
from upchirp.cli.live_line import duration
from upchirp.cli.opening import opening
from upchirp.cli.parsing import parse_training
from upchirp.cli.printable import json_text, print_interruption, print_note, printable
from upchirp.cli.search_display import SearchDisplay
from upchirp.errors import InputError
from upchirp.search import SearchConfig
from upchirp.training import Interrupted

DESCRIPTION = """Find the bandwidths of each stage of a training, by Algorithm 2 (or 1) of the paper, on a part of the
training images; write curriculum.yaml, which `upchirp train --curriculum` takes, and report.html."""


@dataclass(frozen=True, kw_only=True)
class SearchCommand:
    """Flags of `upchirp search`."""

    search: SearchConfig = field(default_factory=SearchConfig)
    """The search."""
    dry_run: bool = False
    """Print what the search costs and stop."""
    measure: bool = False
    """With --dry-run: take a few steps at each candidate on this machine, for the time of one after another."""
    json: bool = False
    """Print JSON."""
    print_config: bool = False
    """Print all settings as YAML and stop."""


def run(words: Sequence[str]) -> int:
    """Search, and return the exit code."""
    if any(word == "--curriculum" or word.startswith("--curriculum=") for word in words):
        raise InputError("a search finds the curriculum: leave out --curriculum")
    if count := re.search(r"--parallel[ =](\d+)", " ".join(words)):
        raise InputError(f"--parallel says what ranks hold: give --candidates-at-once {count[1]}")
    command = parse_training(
        words,
        prog="upchirp search",
        description=DESCRIPTION,
        build=lambda values, source: SearchCommand(search=SearchConfig.from_flat(values, source=source)),
        job=SearchConfig,
    )
    config = command.search
    if command.print_config:
        print(yaml.safe_dump(config.to_flat(), sort_keys=False), end="")
        return 0
    if command.measure and not command.dry_run:
        raise InputError("--measure goes with --dry-run: a search that runs says how long it takes")
    console = Console(stderr=command.json)
    with opening(console):
        from upchirp.search import estimate
        from upchirp.training.events import reporting
    if command.dry_run:
        with Display(Console(stderr=True)) as display:
            estimated = estimate(config, measure=command.measure, note=print_note, report=reporting([display]))
        show_estimate(estimated, as_json=command.json)
        return 0
    with lasting_output():
        return _search(command, console, shlex.join(["upchirp", "search", *words]))


def _search(command: SearchCommand, console: Console, line: str) -> int:
    from upchirp.search import search
    from upchirp.search.job import CURRICULUM
    from upchirp.search.summary import REPORT

    try:
        with SearchDisplay(console) as display:
            result = search(command.search, command=line, observers=(display,))
    except Interrupted as interruption:
        stopped = f"stopped in {interruption.folder}; {interruption.go_on}"
        return print_interruption(interruption.signum, stopped)
    if command.json:
        names = ("found", "phases", "trainings", "equivalent_epochs", "train_seconds")
        told = {name: result.summary[name] for name in names}
        print(json_text({**told, "output": str(result.output), "curriculum": str(result.output / CURRICULUM)}))
        return 0
    print(f"curriculum: {printable(result.output / CURRICULUM)}")
    if command.search.training.report:
        print(f"report: {printable(result.output / REPORT)}")
    return 0


def show_estimate(estimated: dict[str, Any], *, as_json: bool) -> None:
    """Print what a search costs."""
    if as_json:
        print(json_text(estimated, indent=2))
        return
    most = "" if estimated["exact"] else "at most "
    table = Table(title=f"{estimated['algorithm']} search, {estimated['stages']} stages", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right")
    rows = {
        "candidate bandwidths": f"{', '.join(map(str, estimated['candidates']))} px",
        "trainings": f"{most}{estimated['trainings']}",
        "equivalent epochs": f"{most}{estimated['equivalent_epochs']:.1f}",
        "times one training for T at the final size": f"{most}{estimated['times_one_training']:.1f}",
        "length of that training (T)": f"{estimated['epochs']:g} epochs",
        "length of the baseline's (T_0)": f"{estimated['baseline_epochs']:g} epochs",
        "fine-tuning of each candidate (T_ft)": f"{estimated['tuning_epochs']:g} epochs",
        "images to train on": f"{estimated['images']:,}",
        "images to score on": f"{estimated['val_images']:,}",
    }
    if "seconds" in estimated:
        rows[f"training time on this machine ({estimated['device']})"] = f"{most}{duration(estimated['seconds'])}"
    for name, value in rows.items():
        table.add_row(name, value)
    Console().print(table)
