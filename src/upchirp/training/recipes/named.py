"""The named recipes, one for each row of Table 7.

A recipe belongs to the model and a regime to the task. Where the paper says "as in the original papers" (drop path,
weight decay, moving average), the values are those of the released training commands; PVT's drop path and CAFormer's
dropout, which those leave out, are their authors' own.
"""

import difflib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from upchirp.curriculum import counts_passes, mean_cost, preset
from upchirp.errors import InputError
from upchirp.training.recipes.recipe import Optimization, Recipe
from upchirp.training.recipes.regimes import REGIMES

STANDARD_EPOCHS = 200.0
"""The budget Table 24's drop path is for, with a curriculum on the compute axis."""
STANDARD_EPOCHS_CONSTANT = 300.0
"""The same for the baselines and for EfficientTrain, which count real passes."""


def _recipe(curriculum: str = "efficienttrain_plus_plus", **optimization: Any) -> Recipe:
    return Recipe(optimization=Optimization(**optimization), curriculum=curriculum)


def _convnext(drop_path: float) -> Recipe:
    # Appendix A.1: at 96 px the rims of the last 7 x 7 kernels get no gradient.
    return _recipe("efficienttrain_plus_plus_convnext", drop_path=drop_path, model_ema=True, amp=False)


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
    # Table 7's speed-ups are those of Table 6's schedule; the released code's own for DeiT is there by name.
    "deit_tiny": _clipped(0.1),
    "deit_small": _clipped(0.1),
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
