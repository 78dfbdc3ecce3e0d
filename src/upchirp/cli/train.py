"""`upchirp train`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import yaml
from rich.console import Console

from upchirp.cli.display import Display
from upchirp.cli.lasting_output import lasting_output
from upchirp.cli.opening import opening
from upchirp.cli.parsing import parse_training
from upchirp.cli.printable import print_interruption, print_note, printable
from upchirp.errors import InputError
from upchirp.reports.words import figure_text
from upchirp.training import Interrupted, Regime, TrainConfig
from upchirp.training.parallel.launcher import is_first_process

DESCRIPTION = """Train a model by curriculum. Settings come from the recipe, over it from --config FILE (YAML, the same
names), over it from the flags."""

if TYPE_CHECKING:
    from upchirp.training import TrainResult


@dataclass(frozen=True, kw_only=True)
class TrainCommand:
    """Flags of `upchirp train`."""

    training: TrainConfig = field(default_factory=TrainConfig)
    """The run."""
    print_config: bool = False
    """Print all settings as YAML and stop: with --data as its images decide, else as the recipe has them for
    ImageNet."""


Command = TypeVar("Command", bound=TrainCommand)


def run(words: Sequence[str]) -> int:
    """Train, and return the exit code."""
    return train_by(parse_train(TrainCommand, words, prog="upchirp train", description=DESCRIPTION))


def parse_train(
    target: type[Command], words: Sequence[str], *, prog: str, description: str, regime: Regime | None = None
) -> Command:
    """The command that flags ask for, whose other values come from a regime.

    Raises:
        InputError: an unknown flag or a wrong value.
    """
    return parse_training(
        words,
        prog=prog,
        description=description,
        build=lambda values, source: target(training=TrainConfig.from_flat(values, source=source)),
        regime=regime,
    )


def train_by(command: TrainCommand, then: Callable[["TrainResult", Console], None] | None = None) -> int:
    """Train, or print the settings if that is asked for, and return the exit code; `then` is called with the result."""
    if command.print_config:
        training = command.training
        if training.data and training.model:
            from upchirp.training.events import reporting
            from upchirp.training.jobs.pricing import settings_for_data

            try:
                with Display(Console(stderr=True)) as display:
                    training = settings_for_data(training, report=reporting([display]))
            except InputError as error:
                # Settings may be written down where the data are not.
                print_note(f"{error}; what the data decide stands as the recipe has it")
        print(yaml.safe_dump(training.to_flat(), sort_keys=False), end="")
        return 0
    with lasting_output():
        console = Console(quiet=not is_first_process())
        with opening(console):
            from upchirp.training import train
        try:
            with Display(console) as display:
                result = train(command.training, observers=(display,))
        except Interrupted as interruption:
            if is_first_process():
                return print_interruption(interruption.signum, interruption)
            return 128 + interruption.signum
        if is_first_process():
            print(f"{printable(result.output)}: {figure_text(result.figure, result.top1)}")
        if then is not None:
            then(result, console)
    return 0
