"""Recipes: how a model is optimised and its images augmented (Table 24 and the models' own exceptions)."""

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from upchirp.curriculum import LearningRate
from upchirp.data import Augmentation
from upchirp.errors import InputError

STANDARD_EPOCHS = 200.0
"""The budget Table 24's drop path is for, with a curriculum on the compute axis."""
STANDARD_EPOCHS_CONSTANT = 300.0
"""The same for the baselines and for EfficientTrain, which count real passes."""


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """Optimizer, learning rate, regularisation and precision; the defaults are Table 24's."""

    opt: Literal["adamw", "lamb", "sgd"] = "adamw"
    """Optimizer."""
    lr: float | None = None
    """Highest learning rate; by default lr_base scaled to the batch size."""
    lr_base: float = 4e-3
    """Highest learning rate at a batch of lr_base_size."""
    lr_base_size: int = 4096
    """Batch size that lr_base belongs to."""
    lr_base_scale: Literal["sqrt", "linear"] = "sqrt"
    """How the learning rate follows the batch size."""
    warmup: float = 0.018
    """Share of the run spent warming up linearly."""
    warmup_lr: float = 1e-6
    """Learning rate at the first step."""
    min_lr: float = 1e-6
    """Learning rate at the end of the cosine."""
    weight_decay: float = 0.05
    """Weight decay; biases, norms and what the model names are left out."""
    opt_betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of the two moments (AdamW, LAMB)."""
    opt_eps: float = 1e-8
    """Term added to the denominator (AdamW)."""
    momentum: float = 0.9
    """Momentum (SGD)."""
    clip_grad: float | None = None
    """Largest gradient norm; none clips nothing."""
    drop_path: float = 0.0
    """Highest stochastic-depth rate at the standard budget."""
    drop_path_scaling: bool = True
    """Scale drop_path down in proportion when the budget is below the standard one (Appendix A.1)."""
    drop: float = 0.0
    """Dropout rate of the classifier."""
    model_ema: bool = False
    """Keep an exponential moving average of the weights."""
    model_ema_decay: float = 0.9999
    """Decay of the average; it warms up, so short runs are served too."""
    amp: bool = True
    """Mixed precision."""
    amp_dtype: Literal["bfloat16", "float16"] = "bfloat16"
    """Number format of mixed precision."""

    def __post_init__(self) -> None:
        for name in ("lr", "lr_base", "lr_base_size", "clip_grad"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise InputError(f"{name} is {value}: it must be positive")
        if not all(0 <= beta < 1 for beta in self.opt_betas):
            raise InputError(f"opt_betas are {self.opt_betas}: both must lie in 0 to below 1")
        for name in ("weight_decay", "opt_eps"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}: it must not be negative")
        for name in ("drop_path", "drop", "momentum", "model_ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: it must lie in 0 to below 1")
        self.schedule()

    def schedule(self) -> LearningRate:
        """The learning rate over progress."""
        return LearningRate(warmup=self.warmup, warmup_lr=self.warmup_lr, min_lr=self.min_lr)

    def learning_rate(self, batch_size: int) -> float:
        """The highest learning rate at a batch size.

        >>> Optimization().learning_rate(1024)
        0.002
        """
        if self.lr is not None:
            return self.lr
        ratio = batch_size / self.lr_base_size
        return self.lr_base * (math.sqrt(ratio) if self.lr_base_scale == "sqrt" else ratio)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything about a training but the data, the model, the curriculum and the budget."""

    optimization: Optimization = field(default_factory=Optimization)
    """Optimizer, learning rate, regularisation, precision."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """Crop, flip, RandAugment, erasing, mixing, label smoothing."""


def _resnet(_: str) -> Recipe:
    return Recipe(optimization=Optimization(model_ema=True))


def _convnext(model: str) -> Recipe:
    rate = _by_size(model, {"tiny": 0.1, "small": 0.4, "base": 0.5, "large": 0.5}, default=0.1)
    return Recipe(optimization=Optimization(drop_path=rate, model_ema=True, amp=False))


def _deit(_: str) -> Recipe:
    return Recipe(
        optimization=Optimization(drop_path=0.1, clip_grad=5.0, warmup=0.2, model_ema=True, model_ema_decay=0.99996)
    )


def _swin(model: str) -> Recipe:
    rate = _by_size(model, {"tiny": 0.2, "small": 0.3, "base": 0.5, "large": 0.5}, default=0.2)
    return Recipe(optimization=Optimization(drop_path=rate, clip_grad=5.0))


def _caformer(model: str) -> Recipe:
    rate = _by_size(model, {"s18": 0.15, "s36": 0.3, "m36": 0.4, "b36": 0.6}, default=0.15)
    return Recipe(optimization=Optimization(opt="lamb", lr_base=8e-3, drop_path=rate))


def _light(_: str) -> Recipe:
    """For small data and short runs, where strong regularisation only slows learning."""
    return Recipe(
        optimization=Optimization(warmup=0.05),
        augmentation=Augmentation(scale=(0.35, 1.0), randaug_layers=1, reprob=0.0, mixup=0.0, cutmix=0.0),
    )


def _default(_: str) -> Recipe:
    return Recipe()


RECIPES: dict[str, Callable[[str], Recipe]] = {
    "default": _default,
    "light": _light,
    "resnet": _resnet,
    "convnext": _convnext,
    "deit": _deit,
    "swin": _swin,
    "caformer": _caformer,
}
"""Recipe by name; the family recipes take the model's name for its own drop path."""

_FAMILIES = ("resnet", "convnext", "deit", "swin", "caformer")


def recipe(name: str = "auto", model: str = "") -> Recipe:
    """The recipe of that name, or with `auto` the one of the model's family.

    >>> recipe("auto", "swin_small_patch4_window7_224").optimization.drop_path
    0.3

    Raises:
        InputError: an unknown name.
    """
    if name == "auto":
        name = next((family for family in _FAMILIES if model.startswith(family)), "default")
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=2)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise InputError(f"unknown recipe {name!r}: {hint}choose auto or one of {', '.join(RECIPES)}")
    return RECIPES[name](model)


def _by_size(model: str, rates: dict[str, float], *, default: float) -> float:
    return next((rate for size, rate in rates.items() if size in model), default)
