"""The regimes, which adapt a model's recipe to a task: one row of a table each, with all that is particular to it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from upchirp.training.recipes.recipe import Optimization, Recipe

Regime = Literal["imagenet1k", "imagenet22k", "pretrain", "finetune", "mae", "fixres"]


_IMAGENET22K_CHANGES: dict[str, dict[str, Any]] = {
    "convnext_base": {"drop_path": 0.1},
    "convnext_large": {"drop_path": 0.1},
    "cswin_base": {"drop_path": 0.2, "opt": "adamw", "lr_base": 2e-3, "weight_decay": 0.05},
    "cswin_large": {"drop_path": 0.5, "opt": "adamw", "lr_base": 2e-3, "weight_decay": 0.1},
}


def _imagenet22k(recipe: Recipe, name: str, model: str) -> Recipe:
    changes = {
        "model_ema": False,
        "drop_path_scaling": False,
        "warmup": None,
        "warmup_passes": 5.0,
        **_IMAGENET22K_CHANGES.get(name, {}),
    }
    # Table 12: ConvNeXt at two thirds of the baseline's 150 epochs, others at half of it, where they ended above it;
    # at a third of it, 50, level with it.
    epochs = 100.0 if name.startswith("convnext") else 75.0
    return replace(recipe, optimization=replace(recipe.optimization, **changes), epochs=epochs)


def _pretrain(recipe: Recipe, name: str, model: str) -> Recipe:
    # MAE's: crops of 0.2 to 1 and flips are all that is done to images.
    augmentation = replace(
        Recipe().augmentation, scale=(0.2, 1.0), randaug_layers=0, reprob=0.0, mixup=0.0, cutmix=0.0, smoothing=0.0
    )
    optimization = Optimization(
        lr_base=1.5e-4,
        lr_base_size=256,
        lr_base_scale="linear",
        opt_betas=(0.9, 0.95),
        warmup=40 / 1600,
        warmup_lr=0.0,
        min_lr=0.0,
    )
    return Recipe(optimization=optimization, augmentation=augmentation, epochs=400.0)


_LARGE_VITS = ("large", "huge", "giant", "gigantic", "enormous")


def _mae(recipe: Recipe, name: str, model: str) -> Recipe:
    # The commands released with MAE.
    large = any(size in model for size in _LARGE_VITS)
    optimization = Optimization(
        lr_base=1e-3 if large else 5e-4,
        lr_base_size=256,
        lr_base_scale="linear",
        layer_decay=0.75 if large else 0.65,
        drop_path=0.1,
        drop_path_scaling=False,
        warmup=0.1 if large else 0.05,
    )
    return Recipe(optimization=optimization, curriculum="constant", epochs=50.0 if large else 100.0, batch_size=1024)


_CSWIN_TUNING: dict[str, Any] = {"layer_decay": 0.9, "layer_groups": 20}
_FINETUNE_CHANGES: dict[str, dict[str, Any]] = {
    # ConvNeXt's own settings for fine-tuning after ImageNet-22K, which A.2 follows.
    "convnext_base": {"drop_path": 0.2},
    "convnext_large": {"drop_path": 0.3},
    # The released commands.
    "cswin_tiny": _CSWIN_TUNING,
    "cswin_small": _CSWIN_TUNING,
    "cswin_base": {**_CSWIN_TUNING, "drop_path": 0.2, "model_ema_decay": 0.9998},
    "cswin_large": {**_CSWIN_TUNING, "model_ema_decay": 0.9998},
}


def _finetune(recipe: Recipe, name: str, model: str) -> Recipe:
    # A.2 tunes drop path, layer decay and moving average per model; where it says nothing, drop path is the recipe's.
    optimization = replace(
        recipe.optimization,
        opt="adamw",
        lr_base=5e-5,
        lr_base_size=512,
        warmup=0.0,
        weight_decay=1e-8,
        drop_path_scaling=False,
        **{
            "layer_decay": 0.8,
            "layer_groups": 12,
            "model_ema": True,
            "model_ema_decay": 0.9999,
            **_FINETUNE_CHANGES.get(name, {}),
        },
    )
    augmentation = replace(recipe.augmentation, mixup=0.0, cutmix=0.0)
    return Recipe(
        optimization=optimization, augmentation=augmentation, curriculum="constant", epochs=30.0, batch_size=512
    )


def _fixres(recipe: Recipe, name: str, model: str) -> Recipe:
    optimization = replace(
        recipe.optimization,
        opt="adamw",
        lr_base=1e-3,
        lr_base_size=512,
        warmup=0.0,
        weight_decay=0.0,
        tune="head_and_norms",
        model_ema=False,
        drop_path=0.0,
        drop=0.0,
    )
    augmentation = replace(
        recipe.augmentation, crop="center", randaug_layers=0, reprob=0.0, mixup=0.0, cutmix=0.0, smoothing=0.0
    )
    return Recipe(
        optimization=optimization,
        augmentation=augmentation,
        curriculum="constant",
        epochs=5.0,
        batch_size=512,
        keep_head=True,
    )


_TUNING_ON_FEW_IMAGES: dict[str, Any] = {
    "warmup": 0.1,
    "weight_decay": 0.05,
    "layer_decay": 0.75,
    "model_ema": False,
    "randaug_layers": 0,
}
"""Appendix A.2's values, for 1.28 million images, leave a new head nearly where it began."""


@dataclass(frozen=True, kw_only=True)
class RegimeFacts:
    """All that the package knows of a regime: another regime is another row of `REGIMES`."""

    baseline_epochs: float
    """Passes over the data at the final size of training as usual."""
    adapt: Callable[[Recipe, str, str], Recipe] = lambda recipe, name, model: recipe
    """From a recipe, its name and the model's to the recipe under this regime."""
    dataset_size: int = 1_281_167
    """Images of the data set that the paper takes, with which `upchirp plan` compares."""
    num_classes: int = 1000
    """Classes of that data set."""
    labelled: bool = True
    """Whether the labels are learnt; if not, what a method without labels asks for."""
    from_weights: bool = False
    """Whether it starts from trained weights, and cannot do without."""
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the model's constructor where none are given."""
    follows_data: bool = True
    """Whether settings that nobody asked for follow from the data and the length of the run, not from the recipe."""
    one_recipe: bool = False
    """Whether it has one recipe whatever the data: the batch alone follows the run's length, and the rate the batch."""
    passes: float | None = 100.0
    """Equivalent epochs that are usual for few images; None leaves that to the recipe."""
    paper_when_long: bool = False
    """Whether the paper's recipe is taken for few images if the run is long enough for its augmentation."""
    on_few_images: Mapping[str, Any] = field(default_factory=dict)
    """Settings for fewer images than ImageNet has."""


REGIMES: dict[str, RegimeFacts] = {
    "imagenet1k": RegimeFacts(baseline_epochs=300.0, paper_when_long=True),
    "imagenet22k": RegimeFacts(
        adapt=_imagenet22k, baseline_epochs=150.0, dataset_size=14_197_122, num_classes=21_841, follows_data=False
    ),
    "pretrain": RegimeFacts(adapt=_pretrain, baseline_epochs=1600.0, labelled=False, one_recipe=True),
    "finetune": RegimeFacts(
        adapt=_finetune, baseline_epochs=30.0, from_weights=True, passes=30.0, on_few_images=_TUNING_ON_FEW_IMAGES
    ),
    "mae": RegimeFacts(
        adapt=_mae,
        baseline_epochs=100.0,
        from_weights=True,
        # As published: the head sees the mean of the patches.
        model_kwargs={"global_pool": "avg"},
        one_recipe=True,
    ),
    "fixres": RegimeFacts(adapt=_fixres, baseline_epochs=5.0, from_weights=True, passes=None),
}
"""Training from scratch (Appendix A.1), pre-training on ImageNet-22K (A.2) and without labels (Table 15), fine-tuning
(as ConvNeXt's, which A.2 follows), fine-tuning of what was pre-trained without labels (as MAE's) and FixRes: head and
norms tuned on evaluation's own view at a larger size (Table 11)."""
