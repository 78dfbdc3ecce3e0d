"""`upchirp plan`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.console import Console

from upchirp.cli.opening import opening
from upchirp.cli.parsing import parse
from upchirp.cli.printable import json_text, printable
from upchirp.curriculum import Plan
from upchirp.curriculum.replay import ReplayMode
from upchirp.errors import InputError
from upchirp.training import REGIMES, Regime, TrainConfig
from upchirp.training.config import flat_names

_TABLE_23 = "Table 23 for ResNet-50: InfoBatch alone 1.4x, EfficientTrain++ 1.5x, both 1.7x in training time."

DESCRIPTION = "Show the stages of a training and its computation speed-up, before anything runs."


@dataclass(frozen=True, kw_only=True)
class PlanCommand:
    """Flags of `upchirp plan`; the defaults are the recipe's and the regime's, such as ImageNet-1K's size."""

    model: str = ""
    """Any timm model by name."""
    regime: Regime = "imagenet1k"
    """The task: what is not given follows from it."""
    epochs: float | None = None
    """Budget in equivalent epochs; real passes if the curriculum counts samples; by default the regime's."""
    baseline_epochs: float | None = None
    """Passes at the final size that the speed-up is against; by default the regime's."""
    curriculum: str | None = None
    """Name of a preset, or a YAML file; by default the recipe's."""
    final_size: int = 224
    """Input side of the last stage, pixels."""
    dataset_size: int | None = None
    """Training images; by default the regime's."""
    num_classes: int | None = None
    """Classes of the data set, which change the model's last layer; by default the regime's."""
    batch_size: int | None = None
    """Images in one optimizer step at the final size; by default the regime's."""
    early_batch: tuple[int, ...] | Literal["auto"] | None = None
    """Larger batches below the final size (Section 5.3): one for each bandwidth, smallest first; `auto` for steps of
    about one cost."""
    max_batch_size: int | None = None
    """Largest batch that early_batch may take; by default the cost alone decides."""
    lr_cap: float | None = None
    """Highest learning rate that larger early batches may raise it to (Equation 2); by default they raise nothing."""
    recipe: str = "auto"
    """Preset that curriculum and learning rate come from."""
    cost: Literal["pixels", "flops"] = "pixels"
    """What the plan counts as the cost of a sample."""
    replay: int | Literal["auto"] = 0
    """Replayed batches for each fresh one (Section 5.3); `auto` works in `upchirp train` only."""
    replay_mode: ReplayMode = "batch"
    """`batch` replays whole batches; `mixed` replays a part of each batch, as the released code does."""
    replay_final: bool = False
    """Replay in the stages at the final size too."""
    select: Literal["infobatch"] | None = None
    """`infobatch` leaves out images of low loss and rescales the others like them (Section 6.4.3)."""
    select_prune: float = 0.5
    """Probability with which a pass leaves out an image whose loss is below the mean."""
    select_until: float = 0.875
    """Progress from which passes are whole again."""
    json: bool = False
    """Print JSON."""


def run(words: Sequence[str]) -> int:
    """Print the plan, and return the exit code."""
    command = parse(PlanCommand, words, prog="upchirp plan", description=DESCRIPTION, default=PlanCommand())
    priced = make(command)
    if command.json:
        print(json_text(priced, indent=2))
    else:
        show(priced, command.model, Console())
    return 0


def make(command: PlanCommand) -> dict[str, Any]:
    """The priced plan as plain data."""
    if not command.model:
        raise InputError("no model: give a timm model's name by --model")
    facts = REGIMES[command.regime]
    baseline_epochs = facts.baseline_epochs if command.baseline_epochs is None else command.baseline_epochs
    if not baseline_epochs > 0:
        raise InputError(f"baseline epochs are {baseline_epochs}: they must be more than 0")
    if command.replay == "auto":
        raise InputError("`--replay auto` needs the machine's speed: it works in `upchirp train` only, give a number")
    with opening(Console(stderr=True)):
        import torch

        from upchirp.models import create_model
        from upchirp.training import curriculum_for, make_plan, price, with_selection
    with torch.device("meta"):
        classes = facts.num_classes if command.num_classes is None else command.num_classes
        model = create_model(command.model, num_classes=classes, final_size=command.final_size)
    given = {name: value for name, value in vars(command).items() if name in flat_names() and value is not None}
    config = TrainConfig.from_flat(given, source="plan")
    curriculum = curriculum_for(model, config.curriculum, config.final_size)
    images = facts.dataset_size if command.dataset_size is None else command.dataset_size
    plan = make_plan(config, curriculum, images, model=model)
    return with_selection(price(plan, model, baseline_epochs), plan, config)


def show(priced: dict[str, Any], model: str, console: Console) -> None:
    """Print a priced plan as a table."""
    print(f"{printable(priced['curriculum'])} for {printable(model)}\n\n{Plan.from_dict(priced)}\n")
    console.print(
        f"{priced['params'] / 1e6:.1f} M parameters, {priced['flops'] / 1e9:.2f} G multiply-adds "
        f"at {priced['final_size']} px. "
        f"{priced['equivalent_epochs']:.1f} equivalent epochs: {priced['speedup']:.2f}x less computation than "
        f"{priced['baseline_epochs']:g} epochs as usual.",
        highlight=False,
    )
    if "selection" in priced:
        summary = priced["selection"]["expected"]["summary"]
        console.print(f"{summary[0].upper()}{summary[1:]}. {_TABLE_23}", highlight=False)
