"""The named recipes, one for each row of Table 7, and the regimes that adapt them.

A recipe belongs to the model and a regime to the task. Where the paper says "as in the original papers" (drop path,
weight decay, moving average), the values are those of the released training commands; PVT's drop path and CAFormer's
dropout, which those leave out, are their authors' own.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from upchirp.curriculum import counts_passes, mean_cost, preset
from upchirp.errors import InputError
from upchirp.training.recipes.recipe import Optimization, Recipe

Regime = Literal["imagenet1k", "imagenet22k", "pretrain", "finetune", "mae", "fixres"]

STANDARD_EPOCHS = 200.0
"""The budget Table 24's drop path is for, with a curriculum on the compute axis."""
STANDARD_EPOCHS_CONSTANT = 300.0
"""The same for the baselines and for EfficientTrain, which count real passes."""


def _recipe(curriculum: str = "efficienttrain_plus_plus", **optimization: Any) -> Recipe:
    return Recipe(optimization=Optimization(**optimization), curriculum=curriculum)


def _convnext(drop_path: float) -> Recipe:
    # Appendix A.1: at 96 px the rims of the last 7 x 7 kernels get no gradient.
    return _recipe("efficienttrain_plus_plus_convnext", drop_path=drop_path, model_ema=True, amp=False)


def _deit() -> Recipe:
    # Table 7's speed-ups are those of Table 6's schedule; the released code's own for DeiT is there by name.
    return _recipe(drop_path=0.1, clip_grad=5.0)


def _clipped(drop_path: float) -> Recipe:
    return _recipe(drop_path=drop_path, clip_grad=5.0)


def _cswin(drop_path: float, **changes: Any) -> Recipe:
    return _recipe(drop_path=drop_path, model_ema=True, **changes)


def _caformer(drop_path: float, drop: float) -> Recipe:
    return _recipe(opt="lamb", lr_base=8e-3, drop_path=drop_path, drop=drop)


_LARGE_CSWIN: dict[str, Any] = {"opt": "lamb", "lr_base": 8e-3, "weight_decay": 0.1, "model_ema_decay": 0.9998}

_ROWS: dict[str, Recipe] = {
    "resnet50": _recipe(),
    "convnext_tiny": _convnext(0.1),
    "convnext_small": _convnext(0.4),
    "convnext_base": _convnext(0.5),
    "convnext_large": _convnext(0.5),
    "deit_tiny": _deit(),
    "deit_small": _deit(),
    "pvt_tiny": _clipped(0.1),
    "pvt_small": _clipped(0.1),
    "pvt_medium": _clipped(0.3),
    "pvt_large": _clipped(0.3),
    "swin_tiny": _clipped(0.2),
    "swin_small": _clipped(0.3),
    "swin_base": _clipped(0.5),
    "swin_large": _clipped(0.5),
    "cswin_tiny": _cswin(0.2),
    "cswin_small": _cswin(0.4),
    "cswin_base": _cswin(0.5, **_LARGE_CSWIN),
    "cswin_large": _cswin(0.5, **_LARGE_CSWIN),
    "caformer_s18": _caformer(0.15, 0.0),
    "caformer_s36": _caformer(0.3, 0.4),
    "caformer_m36": _caformer(0.4, 0.4),
    "caformer_b36": _caformer(0.6, 0.5),
}

RECIPES: dict[str, Recipe] = {
    "default": Recipe(),
    "light": Recipe(
        optimization=Optimization(warmup=0.05),
        augmentation=replace(
            Recipe().augmentation, scale=(0.35, 1.0), randaug_layers=1, reprob=0.0, mixup=0.0, cutmix=0.0
        ),
    ),
    **_ROWS,
}
"""Recipe by name. `light` is for small data and short runs, where strong regularisation only slows learning."""

CHOOSING = ("auto", "paper")
"""Names that stand for one of them: what suits the data, and what the paper trains the model by."""

_OF_FAMILY = {
    "resnet": "resnet50",
    "convnext": "convnext_tiny",
    "deit": "deit_small",
    "pvt": "pvt_small",
    "swin": "swin_tiny",
    "cswin": "cswin_tiny",
    "caformer": "caformer_s18",
}
"""The recipe for models of a family that Table 7 does not list."""


def recipe_name(model: str) -> str:
    """The recipe that the paper trains a model by: of its row in Table 7, else of its family, else `default`.

    >>> [recipe_name(name) for name in ("swin_small_patch4_window7_224", "convnext_atto", "vit_tiny_patch16_224")]
    ['swin_small', 'convnext_tiny', 'default']
    """
    return _row_of(model) or next((name for family, name in _OF_FAMILY.items() if model.startswith(family)), "default")


def papers_curriculum(model: str) -> str | None:
    """The curriculum that the paper trains a model with, by its name; None if the model is none of its.

    >>> papers_curriculum("convnext_tiny.in12k"), papers_curriculum("convnext_atto")
    ('efficienttrain_plus_plus_convnext', None)
    """
    row = _row_of(model)
    return None if row is None else str(RECIPES[row].curriculum)


def usual_epochs(curriculum: str | Mapping[str, Any], recipe: Recipe, regime: str) -> float:
    """The budget of a curriculum where none is given: the recipe's, or that of training as usual (Table 7).

    Training as usual and the curricula that count passes over the data, as EfficientTrain does (Table 5), have the
    baseline's epochs. `linear` gets as many as make its compute EfficientTrain's (Table 19 c), within 1 % whatever
    sizes a model takes.

    Args:
        curriculum: a preset's name, a YAML file, or what such a file holds.
        recipe: gives the others' budget.
        regime: a key of `REGIMES`.

    >>> [usual_epochs(name, Recipe(), "imagenet1k") for name in ("constant", "efficienttrain", "linear")]
    [300.0, 300.0, 353.0]
    >>> usual_epochs("efficienttrain_plus_plus", Recipe(), "imagenet1k")
    200.0
    """
    passes = REGIMES[regime].baseline_epochs
    if curriculum == "linear":
        return float(round(passes * mean_cost(preset("efficienttrain")) / mean_cost(preset("linear"))))
    return passes if counts_passes(curriculum) else recipe.epochs


def _row_of(model: str) -> str | None:
    return next((name for name in _ROWS if model.startswith(name)), None)


def recipe(name: str = "auto", model: str = "", regime: str = "imagenet1k") -> Recipe:
    """The recipe of that name, or with `paper` the model's own, adapted to a regime.

    Args:
        name: `paper` or a key of `RECIPES`; `auto` is the same as `paper` until the data is known.
        model: timm's name of the model.
        regime: a key of `REGIMES`.

    >>> recipe("auto", "swin_small_patch4_window7_224").optimization.drop_path
    0.3
    >>> recipe("auto", "swin_small_patch4_window7_224", "finetune").curriculum
    'constant'

    Raises:
        InputError: an unknown name.
    """
    if name in CHOOSING:
        name = recipe_name(model)
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=2)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise InputError(f"unknown recipe {name!r}: {hint}choose one of {', '.join([*CHOOSING, *RECIPES])}")
    if regime not in REGIMES:
        raise InputError(f"unknown regime {regime!r}: choose one of {', '.join(REGIMES)}")
    return REGIMES[regime].adapt(RECIPES[name], name, model)


def _imagenet1k(recipe: Recipe, name: str, model: str) -> Recipe:
    return recipe


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


@dataclass(frozen=True, kw_only=True)
class RegimeFacts:
    """What a regime makes of a recipe, and what `upchirp plan` compares its runs with."""

    adapt: Callable[[Recipe, str, str], Recipe]
    """From a recipe, its name and the model's to the recipe under this regime."""
    baseline_epochs: float
    """Passes over the data at the final size of training as usual."""
    dataset_size: int = 1_281_167
    """Images."""
    num_classes: int = 1000
    """Classes."""


REGIMES: dict[str, RegimeFacts] = {
    "imagenet1k": RegimeFacts(adapt=_imagenet1k, baseline_epochs=300.0),
    "imagenet22k": RegimeFacts(adapt=_imagenet22k, baseline_epochs=150.0, dataset_size=14_197_122, num_classes=21_841),
    "pretrain": RegimeFacts(adapt=_pretrain, baseline_epochs=1600.0),
    "finetune": RegimeFacts(adapt=_finetune, baseline_epochs=30.0),
    "mae": RegimeFacts(adapt=_mae, baseline_epochs=100.0),
    "fixres": RegimeFacts(adapt=_fixres, baseline_epochs=5.0),
}
"""Training from scratch (Appendix A.1), pre-training on ImageNet-22K (A.2) and without labels (Table 15), fine-tuning
(as ConvNeXt's, which A.2 follows), fine-tuning of what was pre-trained without labels (as MAE's) and FixRes: head and
norms tuned on evaluation's own view at a larger size (Table 11)."""
