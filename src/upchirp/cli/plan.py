"""`upchirp plan`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from upchirp.cli.display import Display, say
from upchirp.cli.flags import with_flags
from upchirp.cli.live_line import duration
from upchirp.cli.opening import opening
from upchirp.cli.parsing import parse_training
from upchirp.cli.printable import json_text, printable
from upchirp.curriculum import Plan
from upchirp.training import TrainConfig

_TABLE_23 = "Table 23 for ResNet-50: InfoBatch alone 1.4x, EfficientTrain++ 1.5x, both 1.7x in training time."

DESCRIPTION = """Show the stages of a training and what they cost, before anything runs. Takes the flags of
`upchirp train`: put `plan` in place of `train`."""


@dataclass(frozen=True, kw_only=True)
class PlanCommand:
    """Flags of `upchirp plan`: those of `upchirp train`, and what stands for data that are not at hand."""

    training: TrainConfig = field(default_factory=TrainConfig)
    """The run."""
    dataset_size: int | None = None
    """Training images, without --data; by default the regime's, such as ImageNet-1K's."""
    num_classes: int | None = None
    """Classes, without --data; by default the regime's."""
    baseline_epochs: float | None = None
    """Passes at the final size that the computation speed-up is against; by default as much computation, and for the
    regime's own data the paper's."""
    measure: bool = False
    """Train a few steps of --data at each bandwidth, for time and memory on this machine."""
    json: bool = False
    """Print JSON."""


def run(words: Sequence[str]) -> int:
    """Print the plan, and return the exit code."""
    command = parse_training(
        words,
        prog="upchirp plan",
        description=DESCRIPTION,
        build=lambda values, source: PlanCommand(training=TrainConfig.from_flat(values, source=source)),
    )
    return price_and_show(command)


def price_and_show(command: PlanCommand) -> int:
    """Price a training and print its plan, and return the exit code."""
    console = Console(stderr=True)
    with opening(console):
        from upchirp.training import estimate
        from upchirp.training.events import reporting
    with Display(console) as display:
        priced = estimate(
            command.training,
            dataset_size=command.dataset_size,
            num_classes=command.num_classes,
            baseline_epochs=command.baseline_epochs,
            measure=command.measure,
            report=reporting([display]),
        )
    if command.json:
        print(json_text(priced, indent=2))
    else:
        show(priced, command.training.model, Console())
    return 0


def show(priced: dict[str, Any], model: str, console: Console) -> None:
    """Print a priced plan as a table."""
    print(f"{printable(priced['curriculum'])} for {printable(model)}\n\n{Plan.from_dict(priced)}\n")
    classes = f"of {priced['classes']:,} classes" if priced["classes"] else "without labels"
    say(
        console,
        f"{priced['images']:,} images {classes}. {priced['params'] / 1e6:.1f} M parameters, "
        f"{priced['flops'] / 1e9:.2f} G multiply-adds at {priced['final_size']} px.",
    )
    passes = sum(stage["samples"] for stage in priced["stages"]) / priced["images"]
    epochs, baseline = priced["equivalent_epochs"], priced["baseline_epochs"]
    against = f"{priced['speedup']:.2f}x less computation than {baseline:g} epochs as usual"
    if abs(baseline - epochs) < 1e-9 or f"{priced['speedup']:.2f}" == "1.00":
        against = f"the computation of {epochs:.1f} epochs as usual"
    say(console, f"{epochs:.1f} equivalent epochs, {passes:.1f} passes over the images: {against}.")
    for line in priced["chosen"]:
        say(console, with_flags(line))
    if "needs" in priced:
        needs = priced["needs"]
        speeds = ", ".join(f"{speed:,.0f} at {side} px" for side, speed in needs["images_per_second"].items())
        say(
            console,
            f"On this machine ({priced['device']}): {duration(needs['seconds'])} of training without evaluations, "
            f"{needs['memory_gib']:.1f} GiB of memory, images/s {speeds}.",
        )
    if "selection" in priced:
        summary = with_flags(priced["selection"]["expected"]["summary"])
        console.print(f"{summary[0].upper()}{summary[1:]}. {_TABLE_23}", highlight=False)
