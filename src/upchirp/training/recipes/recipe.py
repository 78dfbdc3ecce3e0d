"""Recipes: how a model is optimised and its images augmented, and with which curriculum and budget."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from upchirp.curriculum import LearningRate
from upchirp.curriculum.schedule import Shape
from upchirp.curriculum.warmup import WARMUP_PASSES
from upchirp.data import Augmentation
from upchirp.errors import InputError
from upchirp.training.recipes.checks import check_least
from upchirp.training.recipes.group import Group

Tuned = Literal["all", "head_and_norms"]
Frozen = int | tuple[str, ...]
Loss = Literal["cross_entropy", "bce"]
OWN = ("adamw", "lamb", "sgd")
"""Optimizers of the recipes."""


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """Optimizer, learning rate, regularisation and precision; the defaults are Table 24's."""

    opt: str = "adamw"
    """Any of timm's optimizers by name (`timm.optim.list_optimizers`)."""
    opt_kwargs: dict[str, Any] = field(default_factory=dict)
    """Further arguments for the optimizer's constructor."""
    lr: float | None = None
    """Highest learning rate; by default lr_base scaled to the batch size."""
    lr_base: float = 4e-3
    """Highest learning rate at a batch of lr_base_size."""
    lr_base_size: int = 4096
    """Batch size that lr_base belongs to."""
    lr_base_scale: Literal["sqrt", "linear"] = "sqrt"
    """How the learning rate follows the batch size."""
    lr_cap: float | None = None
    """Highest learning rate that larger early batches may raise it to (LR_max of Equation 2); by default twice the
    final size's, a choice of ours."""
    layer_decay: float | None = None
    """Factor of the learning rate from each group of layers to the one before it, 1 at the head; none treats all layers
    alike."""
    layer_groups: int | None = None
    """Most groups that layer_decay counts between stem and head, of neighbouring blocks (Appendix A.2: 12 for
    ConvNeXt); none makes each block one."""
    tune: Tuned = "all"
    """Which parameters are trained; the others stay as they are."""
    freeze: Frozen | None = None
    """Parts of the model that stay as they are, by name (conv1 layer1), or how many of its first groups of layers: the
    stem, then its stages or blocks."""
    head_only: float = 0.0
    """Share of the run, from its start, in which the classifier alone is trained."""
    warmup: float | None = None
    """Share of the run spent warming up linearly; by default what warmup_passes are of it."""
    warmup_passes: float = WARMUP_PASSES
    """Passes over the data, from the start, spent warming up linearly, but at most a fifth of the run."""
    warmup_lr: float = 1e-6
    """Learning rate at the first step."""
    min_lr: float = 1e-6
    """Learning rate at the end."""
    sched: Shape = "cosine"
    """How the learning rate falls after the warm-up: by a cosine, by a line, or (wsd) at the end alone, by 1 - sqrt."""
    sched_decay: float = 0.2
    """Share of the run, at its end, in which the rate of wsd falls."""
    weight_decay: float = 0.05
    """Weight decay; biases, norms and what the model names are left out."""
    opt_betas: tuple[float, ...] | None = None
    """Decay rates of the moments; by default the optimizer's own: 0.9 0.999 for AdamW and LAMB."""
    opt_eps: float | None = None
    """Term added to the denominator; by default the optimizer's own: 1e-8 for AdamW, 1e-6 for LAMB."""
    momentum: float = 0.9
    """Momentum, of optimizers that have one (SGD)."""
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
    """Decay of the average, or less in a short run: it spans a seventh of the run at most, and two fifths of the steps
    at the last bandwidth."""
    model_ema_warmup: float | None = 0.2
    """Share of the run in which the decay rises to its value; none raises it by timm's rule, whatever the length."""
    amp: bool = True
    """Mixed precision."""
    amp_dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Number format of mixed precision; `auto` is the first of these that the device has instructions for: bfloat16,
    float16 on older GPUs, and float32, which is none, on older CPUs."""

    def __post_init__(self) -> None:
        for name in ("lr", "lr_base", "lr_base_size", "lr_cap", "clip_grad"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise InputError(f"`{name}` is {value}: it must be positive")
        if not all(0 <= beta < 1 for beta in self.opt_betas or ()):
            raise InputError(f"`opt_betas` are {self.opt_betas}: each must lie in 0 to below 1")
        for name in ("weight_decay", "opt_eps"):
            if (getattr(self, name) or 0) < 0:
                raise InputError(f"`{name}` is {getattr(self, name)}: it must not be negative")
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise InputError(f"`layer_decay` is {self.layer_decay}: it must lie in 0 to 1, 0 left out")
        for name in ("drop_path", "drop", "momentum", "model_ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"`{name}` is {getattr(self, name)}: it must lie in 0 to below 1")
        if self.freeze == () or (isinstance(self.freeze, int) and self.freeze < 1):
            raise InputError("`freeze` says nothing: give the names of parts, or 1 or more groups of layers")
        if not 0 <= self.head_only <= 1:
            raise InputError(f"`head_only` is {self.head_only}: it is a share of the run, from 0 to 1")
        if self.layer_groups is not None and self.layer_groups < 1:
            raise InputError(f"`layer_groups` is {self.layer_groups}: give 1 or more")
        if self.model_ema_warmup is not None and not 0 < self.model_ema_warmup <= 1:
            raise InputError(
                f"`model_ema_warmup` is {self.model_ema_warmup}: it is a share of the run, above 0 up to 1"
            )
        if not 0 <= self.warmup_passes < math.inf:
            raise InputError(f"`warmup_passes` is {self.warmup_passes}: give 0 or more passes over the data")
        usual_betas = self.opt_betas is None or (self.opt != "sgd" and len(self.opt_betas) == 2)
        if self.opt not in OWN or self.opt_kwargs or not usual_betas:
            # It takes timm, and timm takes seconds.
            from upchirp.training.recipes.optimizer_choice import check_optimizer

            check_optimizer(self)
        self.schedule()

    def schedule(self) -> LearningRate:
        """The learning rate over progress; without a share of its own, its warm-up follows from the plan."""
        return LearningRate(
            warmup=self.warmup or 0.0,
            warmup_lr=self.warmup_lr,
            min_lr=self.min_lr,
            shape=self.sched,
            decay=self.sched_decay,
        )

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
class Recipe(Group):
    """Everything about a training but the data and the model."""

    optimization: Optimization = field(default_factory=Optimization)
    """Optimizer, learning rate, regularisation, precision."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """Crop, flip, RandAugment, erasing, mixing, label smoothing."""
    curriculum: str | dict[str, Any] = "efficienttrain_plus_plus"
    """Name of a preset, or a YAML file; by default the recipe's. Files of settings may hold one themselves."""
    epochs: float = 200.0
    """Budget in equivalent epochs; real passes if the curriculum counts samples; by default what suits the data."""
    batch_size: int = 4096
    """Images in one optimizer step at the final size, over all micro-batches; by default it follows from the length of
    the run."""
    keep_head: bool = False
    """Keep the classifier of the weights; by default a new one is made, except for FixRes."""

    def __post_init__(self) -> None:
        if not self.epochs > 0:
            raise InputError(f"`epochs` is {self.epochs}: it must be more than 0")
        check_least(self, 1, "batch_size")
        super().__post_init__()
