"""The optimizer and the average of the weights, as the recipe says."""

import math
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from weakref import WeakSet

import torch
from timm.models import group_parameters
from timm.optim import create_optimizer_v2, param_groups_layer_decay
from timm.utils import ModelEmaV3
from torch import nn

from upchirp.curriculum import Plan, Step
from upchirp.errors import InputError
from upchirp.models import fit_to_bandwidth
from upchirp.training.recipes.recipe import Optimization


def create_optimizer(
    model: nn.Module, optimization: Optimization, *, learning_rate: float, fused: bool = True
) -> torch.optim.Optimizer:
    """The recipe's optimizer over the parameters it tunes; biases, norms and what the model names don't decay.

    Any of timm's, with its own defaults for what is not set; see `optimizer_choice`.

    Args:
        model: what is trained.
        optimization: the optimizer's name, its arguments, and how parameters are grouped.
        learning_rate: the highest of the run.
        fused: whether SGD updates by torch's fused operator; AdamW does.
    """
    options = arguments(optimization)
    if not all(parameter.device.type == "mps" for parameter in model.parameters()):
        options |= {"fused": True} if optimization.opt == "adamw" else {}
        # torch's fused SGD takes momentum of all parameters or of none, and the head has it first.
        options |= {"fused": fused and not optimization.head_only} if optimization.opt == "sgd" else {}
    if optimization.layer_decay is not None:
        options["param_group_fn"] = partial(layer_groups, optimization=optimization)
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        model, opt=optimization.opt, lr=learning_rate, weight_decay=optimization.weight_decay, **options
    )
    return optimizer


def arguments(optimization: Optimization) -> dict[str, Any]:
    """What timm is told of an optimizer, beside its name, learning rate and weight decay."""
    options: dict[str, Any] = {"momentum": optimization.momentum, **optimization.opt_kwargs}
    options |= {} if optimization.opt_betas is None else {"betas": optimization.opt_betas}
    options |= {} if optimization.opt_eps is None else {"eps": optimization.opt_eps}
    return options


def layer_groups(model: nn.Module, optimization: Optimization) -> list[dict[str, Any]]:
    """Groups of parameters whose learning rates decay from the head to the stem, for torch's optimizers.

    As in ConvNeXt's fine-tuning, which Appendix A.2 follows, neighbouring blocks make a group: 36 blocks are 12 groups
    of three. A model that does not say what its blocks are, by a `group_matcher` as timm's have it, is cut into layers
    by timm.
    """
    unlike: Any = getattr(model, "no_weight_decay", None)
    options: dict[str, Any] = {"weight_decay": optimization.weight_decay, "layer_decay": optimization.layer_decay}
    options["no_weight_decay_list"] = unlike() if callable(unlike) else ()
    options |= {name: value for name, value in optimization.opt_kwargs.items() if name in _GROUPING}
    own: Any = getattr(model, "group_matcher", None)
    if optimization.layer_groups is None or own is None:
        return list(param_groups_layer_decay(model, **options))
    levels: dict[str, int] = group_parameters(model, own(coarse=False), reverse=True)
    head = max(levels.values())
    blocks = max(1, math.ceil((head - 1) / optimization.layer_groups))
    groups = {name: math.ceil(level / blocks) if level < head else head for name, level in levels.items()}
    grouped: Any = _Grouped(model, groups)
    return list(param_groups_layer_decay(grouped, **options))


_GROUPING = ("fallback_list", "fallback_no_weight_decay")
"""Arguments that say which parameters an optimizer of two kinds, such as Muon, leaves to its other kind."""


class _Grouped:
    """What timm asks of a model to put its parameters into groups, by given groups."""

    def __init__(self, model: nn.Module, groups: Mapping[str, int]) -> None:
        self.named_parameters = model.named_parameters
        self._groups = groups

    def group_matcher(self, *, coarse: bool) -> Callable[[str], tuple[int]]:
        return lambda name: (self._groups[name],)


_followed: WeakSet[torch.optim.Optimizer] = WeakSet()
"""Optimizers whose rates have been set here."""


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the rate of every group of parameters, times the group's `lr_scale` if it has one, as with layer decay.

    Groups that have rates of their own and no `lr_scale` lose them, and the first time a warning says so.
    """
    if optimizer not in _followed:
        _followed.add(optimizer)
        own = {float(group["lr"]) for group in optimizer.param_groups if "lr_scale" not in group}
        if len(own) > 1:
            rates = ", ".join(f"{rate:g}" for rate in sorted(own))
            warnings.warn(
                f"groups of the optimizer have learning rates of their own ({rates}), and the plan's takes the place "
                "of all: give such a group its share of it by a key `lr_scale`",
                stacklevel=3,
            )
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get("lr_scale", 1.0)


def follow(step: Step, model: nn.Module, optimizer: torch.optim.Optimizer, ema: nn.Module | None = None) -> bool:
    """Bring a model and its optimizer to where a step of a plan has them, before its forward pass.

    The model is fitted to the bandwidth with the optimizer's moments and the moving average (`fit_to_bandwidth`), and
    every group of parameters gets the step's learning rate, times its `lr_scale` if it has one (`set_learning_rate`).

    Args:
        step: of a plan, or of a batch: `batch.step`.
        model: the model, without `DistributedDataParallel`.
        optimizer: holds the model's parameters.
        ema: a copy of the model, or a wrapper with one as its `module`.

    Returns:
        Whether parameters have new shapes, so that `DistributedDataParallel` is to be wrapped around the model anew.

    Raises:
        InputError: the model cannot take the bandwidth, or the arguments are none of these, or in another order.

    >>> from upchirp.curriculum import efficienttrain_plus_plus, plan
    >>> from upchirp.models import create_model
    >>> vit = create_model("vit_tiny_patch16_224", depth=1, embed_dim=24, num_classes=10)
    >>> optimizer = torch.optim.AdamW(vit.parameters())
    >>> steps = plan(efficienttrain_plus_plus(), epochs=1, dataset_size=640, batch_size=64).steps()
    >>> [step.index for step in steps if follow(step, vit, optimizer)]
    [0, 11, 19]
    """
    if not (hasattr(step, "learning_rate") and isinstance(model, nn.Module) and hasattr(optimizer, "param_groups")):
        given = ", ".join(type(each).__name__ for each in (step, model, optimizer))
        raise InputError(f"`follow` is given {given}: give `batch.step`, the model and its optimizer, in this order")
    resized = fit_to_bandwidth(model, step.bandwidth, optimizer, ema)
    set_learning_rate(optimizer, step.learning_rate)
    return resized


_SHARE_OF_RUN = 1 / 7
"""Of a run's steps that an average spans at most: 10,000, as a decay of 0.9999 does, of the 71,000 of 100 equivalent
epochs of ImageNet."""
_SHARE_OF_LAST = 0.4
"""Of its steps at the last bandwidth, so that little is left of the weights before, which know other sizes: 10,000 of
the 25,000 of EfficientTrain++'s 200 equivalent epochs."""
_TIMMS_POWER = 2 / 3


def create_ema(
    model: nn.Module, optimization: Optimization, *, plan: Plan | None = None, fused: bool = True
) -> ModelEmaV3 | None:
    """An average of the weights whose decay warms up, or none if the recipe keeps none.

    Args:
        model: what is averaged.
        optimization: the decay, and how long it rises.
        plan: the run; without it the decay rises by timm's rule, 1 - (1 + step)^(-2/3).
        fused: update many parameters at once.
    """
    if not optimization.model_ema:
        return None
    decay, power = optimization.model_ema_decay, _TIMMS_POWER
    if plan is not None and optimization.model_ema_warmup is not None:
        decay, power = ema_decay(decay, plan, optimization.model_ema_warmup)
    return ModelEmaV3(model, decay=decay, use_warmup=True, warmup_power=power, foreach=fused)


def ema_decay(decay: float, plan: Plan, share: float) -> tuple[float, float]:
    """The highest decay in a run, and the power by which 1 - (1 + step)^(-power) reaches it after a share of it.

    >>> from upchirp.curriculum import efficienttrain_plus_plus, plan
    >>> papers = plan(efficienttrain_plus_plus(), epochs=200, dataset_size=1_281_167, batch_size=4096)
    >>> short = plan(efficienttrain_plus_plus(), epochs=2, dataset_size=6_500, batch_size=32)
    >>> [round(ema_decay(0.9999, each, 0.2)[0], 4) for each in (papers, short)]
    [0.9999, 0.9846]
    """
    at_last = sum(stage.steps for stage in plan.stages if stage.bandwidth == plan.stages[-1].bandwidth)
    span = min(_SHARE_OF_RUN * plan.total_steps, _SHARE_OF_LAST * at_last)
    highest = min(decay, max(0.0, 1 - 1 / span))
    return highest, -math.log(1 - highest) / math.log(1 + max(1.0, share * plan.total_steps))
