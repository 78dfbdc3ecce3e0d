"""Settings that follow from what is there: the recipe, budget, batch and rate that nobody asked for.

Pure functions of a configuration, the number of images and what the model is made of. `benchmarks/defaults.py` holds
what they choose against a grid of batches, rates and recipes.
"""

import math
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from upchirp.curriculum import Plan
from upchirp.data import mix_group
from upchirp.errors import InputError
from upchirp.models import check_name
from upchirp.training.checkpoints.description import check_file
from upchirp.training.recipes.config import TrainConfig
from upchirp.training.recipes.groups import Choice, Start
from upchirp.training.recipes.optimizer_choice import kind_of
from upchirp.training.recipes.recipe import Optimization

IMAGENET_SIZED = 500_000
"""Training images from which the paper's recipe is chosen; it is for 1.28 million."""
FEW_STEPS = 300
"""Optimizer steps below which a run has hardly begun to learn, whatever its rate."""
LONG = 70
"""Equivalent epochs from which strong regularisation pays on few images: it lost at 50 and won at 100."""

_MOST_PASSES = 100.0
_LEAST_IMAGES = 20_000
"""Images, at the final size, that even the smallest data set is worth."""
_SMALLEST_BATCH, _LARGEST_BATCH = 16, 4096
_RATE_BATCH = 64
_RATES = {"batch norm": (3e-3, 4e-3), "attention": (3e-4, 1e-3), "neither batch norm nor attention": (2e-3, 3e-3)}
"""AdamW's rate at that batch and the highest, by what a network is made of; the first that it has counts."""
_TUNING_RATES = {**dict.fromkeys(_RATES, (5e-4, 1e-3)), "batch norm": (3e-3, 4e-3)}
"""The same for weights that are trained already."""
_MODELS = "resnet18, resnet50 or convnext_tiny (any size), deit_small_patch16_224 or swin_tiny_patch4_window7_224"
_TRANSFORMERS = "vit_small_patch16_224 or vit_base_patch16_224"


@dataclass(frozen=True)
class Settled:
    """A configuration whose open settings were chosen."""

    config: TrainConfig
    reasons: tuple[str, ...] = ()
    """One line for each choice but the batch size."""
    asked: TrainConfig | None = None
    """The settings before any was chosen, if a recipe was."""
    batch_chosen: bool = False
    """Whether the batch size was, by the length of the run."""

    def told(self, plan: Plan) -> tuple[str, ...]:
        """A line for each choice, and for the batch size the steps that the plan made of it."""
        if not self.batch_chosen:
            return self.reasons
        return (*self.reasons, f"batch size {self.config.batch_size}: makes {plan.total_steps:,} steps")

    def for_time(self, images: int, plan: Plan) -> "Settled | None":
        """The choice of another recipe for the length that a time budget turned out to have; None if this suits it.

        Args:
            images: to train on.
            plan: with the recipe that `choose_recipe` took before the length was known.

        >>> from upchirp.curriculum import constant, plan
        >>> settled = choose_recipe(TrainConfig.from_flat({"model": "resnet18", "time_budget": "3h"}), 200)
        >>> settled.config.recipe
        'light'
        >>> longer = settled.for_time(200, plan(constant(96), epochs=100, dataset_size=200, batch_size=32))
        >>> longer.config.recipe, longer.reasons
        ('paper', ("recipe paper: 100 epochs are long enough for its augmentation (`recipe='light'` is without)",))
        >>> settled.for_time(200, plan(constant(96), epochs=20, dataset_size=200, batch_size=32)) is None
        True
        """
        if self.asked is None or self.asked.time_budget is None:
            return None
        other = choose_recipe(self.asked, images, epochs_in_time=plan.equivalent_epochs)
        return None if other.config.recipe == self.config.recipe else other


def check_model(start: Start, *, labelled: bool) -> None:
    """Raise if no model is named that there is: before any data is read.

    Raises:
        InputError: with models to consider, the nearest names, or the missing file that would have named it.
    """
    if not start.model:
        if start.weights is not None:
            # It would have named the model.
            check_file(start.weights)
        models = _MODELS if labelled else _TRANSFORMERS
        raise InputError(f"no model: name any of timm's by `model`, for a start {models}")
    check_name(start.model)


def choose_recipe(config: TrainConfig, images: int, *, epochs_in_time: float | None = None) -> Settled:
    """The recipe and the budget by the number of training images, where they are not given.

    `epochs_in_time` are the equivalent epochs that a time budget is enough for, once that was measured.

    >>> settled = choose_recipe(TrainConfig.from_flat({"model": "resnet50"}), 1_281_167)
    >>> settled.config.recipe, settled.config.epochs, settled.config.batch_size
    ('paper', 200.0, 4096)
    >>> settled = choose_recipe(TrainConfig.from_flat({"model": "resnet50", "epochs": 10, "mixup": 0.5}), 6_500)
    >>> settled.config.recipe, settled.config.epochs, settled.config.augmentation.mixup
    ('light', 10.0, 0.5)

    Raises:
        InputError: no learning rate is given for an optimizer that none is known for.
    """
    if not config.asks_for("lr", "lr_base") and kind_of(config.optimization.opt) is None:
        raise InputError(f"no learning rate is known for `opt={config.optimization.opt!r}`: give one by `lr`")
    if not _is_open(config):
        return Settled(config)
    facts, asked = config.facts, set(config.asked())
    if facts.one_recipe:
        name = "paper" if config.recipe == "auto" else config.recipe
        return Settled(_filled(config.to_flat(), asked - {"recipe"}, recipe=name))
    reasons = []
    if config.time_budget is not None and "epochs" in asked:
        reasons.append(f"`time_budget` decides how long it takes: `epochs` {config.epochs:g} is not used")
    recipe, epochs, others = config.recipe, config.epochs, {}
    if recipe == "auto" and images >= IMAGENET_SIZED:
        recipe = "paper"
        reasons.append(f"recipe paper: {images:,} images are a data set like ImageNet")
        # All of it, its batch and its rate too, as if it had been named.
        asked |= {"recipe"}
    elif recipe in ("auto", "light"):
        if facts.passes is not None and asked.isdisjoint({"epochs", "time_budget"}):
            epochs = float(math.ceil(max(facts.passes, min(_MOST_PASSES, _LEAST_IMAGES / images))))
            reasons.append(f"epochs {epochs:g}: usual for so many images (`epochs` or `time_budget` changes it)")
        if recipe == "auto":
            length = epochs if config.time_budget is None else epochs_in_time
            # Images of an odd batch cannot be mixed in pairs.
            pairs = "batch_size" not in asked or config.batch_size % 2 == 0
            recipe, why = _recipe_for(length if facts.paper_when_long and pairs else None, images)
            reasons.insert(0, f"recipe {recipe}: {why}")
            asked -= {"recipe"}
            others = {name: value for name, value in facts.on_few_images.items() if name not in asked}
            if "warmup_passes" in asked:
                others.pop("warmup", None)
    elif recipe == "paper" and images < IMAGENET_SIZED and "batch_size" not in asked:
        # Its batch and rate are for a hundred times as many images.
        asked -= {"recipe"}
    filled = _filled(config.to_flat(), asked, recipe=recipe, epochs=epochs, **others)
    return Settled(filled, tuple(reasons), config)


def choose_batch_size(settled: Settled, samples: int, model: nn.Module, *, ranks: int = 1) -> Settled:
    """The batch size and the learning rate by the length of the run, where they are not given and no recipe says them.

    `samples` are the images that it trains on, each time counted.
    """
    config = settled.config
    if not follows_length(config):
        return settled
    reasons = list(settled.reasons)
    # Whoever names recipe and batch gets the recipe's own rate.
    named_both = config.asks_for("recipe") and config.asks_for("batch_size")
    rate_too = not (config.asks_for("lr", "lr_base") or named_both or config.facts.one_recipe)
    batch_too = chooses_batch_size(config)
    if batch_too:
        unit = ranks * mix_group(config.augmentation, _LARGEST_BATCH)
        size = math.ceil(_batch_size(samples) / unit) * unit
        config = replace(config, batch_size=size)
    if rate_too:
        rate, why = _rate(config.optimization, config.batch_size, model, tunes=config.facts.from_weights)
        config = replace(config, optimization=replace(config.optimization, lr=rate))
        reasons.append(f"learning rate {rate:.2g}: {why}")
    return replace(settled, config=config, reasons=tuple(reasons), batch_chosen=batch_too)


def follows_length(choice: Choice) -> bool:
    """Whether settings follow from the run's length, in a configuration whose recipe is chosen."""
    return _is_open(choice) and (choice.recipe == "light" or not choice.asks_for("recipe"))


def chooses_batch_size(choice: Choice) -> bool:
    """Whether the batch size is one of them."""
    return follows_length(choice) and not choice.asks_for("batch_size")


def steps_note(plan: Plan) -> str | None:
    """What to tell of a run with too few steps; None if it has enough.

    >>> from upchirp.curriculum import constant, plan
    >>> print(steps_note(plan(constant(96), epochs=10, dataset_size=6500, batch_size=4096)))
    only 16 steps, too few to learn much at any rate: 4096 is a large batch for 65,536 images, try `batch_size=64`
    """
    steps, size = plan.total_steps, plan.stages[-1].batch_size
    if steps >= FEW_STEPS:
        return None
    better = _batch_size(plan.total_samples)
    told = f"only {steps} steps, too few to learn much at any rate: "
    if better < size:
        return f"{told}{size} is a large batch for {plan.total_samples:,} images, try `batch_size={better}`"
    return f"{told}give more `epochs` or `time_budget`"


def _batch_size(samples: int) -> int:
    """The power of two up to a quarter of the root of the samples: 4,096 at the length of the paper's runs.

    Steps and batch then grow alike, so that short runs get their steps and long ones large batches.

    >>> [_batch_size(samples) for samples in (2_000, 20_000, 1_500_000, 582_000_000)]
    [16, 32, 256, 4096]
    """
    size = int(2 ** math.floor(math.log2(max(1.0, math.sqrt(samples) / 4))))
    return min(_LARGEST_BATCH, max(_SMALLEST_BATCH, size))


def _recipe_for(epochs: float | None, images: int) -> tuple[str, str]:
    """The recipe for fewer images than ImageNet's, and why; without epochs it is the one for short runs."""
    if epochs is not None and epochs >= LONG:
        return "paper", f"{epochs:.4g} epochs are long enough for its augmentation (`recipe='light'` is without)"
    return "light", f"{images:,} images are fewer than the paper's recipe is for (`recipe='paper'` takes it)"


def _is_open(choice: Choice) -> bool:
    return choice.given is not None and choice.facts.follows_data


def _filled(flat: Mapping[str, Any], asked: Set[str], **chosen: Any) -> TrainConfig:
    """The configuration with some values chosen and, where its recipe is, the recipe's others."""
    made = TrainConfig.from_flat({**{name: flat[name] for name in asked}, **chosen})
    return replace(made, given=frozenset(asked))


def _rate(optimization: Optimization, batch_size: int, model: nn.Module, *, tunes: bool) -> tuple[float, str]:
    kind = kind_of(optimization.opt)
    if kind == "sgd":
        return 0.1 * batch_size / 256, f"for SGD with a batch of {batch_size}"
    made_of = _made_of(model)
    at_64, highest = (_TUNING_RATES if tunes else _RATES)[made_of]
    rate = min(at_64 * math.sqrt(batch_size / _RATE_BATCH), highest)
    if kind == "lamb":
        rate *= 2
    return float(f"{rate:.2g}"), f"for a network with {made_of} and a batch of {batch_size}"


def _made_of(model: nn.Module) -> str:
    """The key of the table of rates.

    >>> _made_of(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))), _made_of(nn.MultiheadAttention(8, 1))
    ('batch norm', 'attention')
    """
    modules = list(model.modules())
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in modules):
        return "batch norm"
    # No class is common to the attention of timm, torchvision and others; its name is.
    names = {type(module).__name__.lower() for module in modules}
    if any("attention" in name or "attn" in name for name in names):
        return "attention"
    return "neither batch norm nor attention"
