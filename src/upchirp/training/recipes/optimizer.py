"""The optimizer and the average of the weights, as the recipe says."""

from typing import Any

import torch
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3
from torch import nn

from upchirp.training.recipes.recipe import Optimization


def create_optimizer(
    model: nn.Module, optimization: Optimization, *, learning_rate: float, fused: bool = True
) -> torch.optim.Optimizer:
    """The recipe's optimizer over the parameters it tunes; biases, norms and what the model names don't decay."""
    options: dict[str, Any] = {"betas": optimization.opt_betas, "eps": optimization.opt_eps, "fused": True}
    if optimization.opt == "lamb":
        options = {"betas": optimization.opt_betas}
    elif optimization.opt == "sgd":
        options = {"momentum": optimization.momentum, "fused": fused}
    if all(parameter.device.type == "mps" for parameter in model.parameters()):
        options.pop("fused", None)
    if optimization.layer_decay is not None:
        options["layer_decay"] = optimization.layer_decay
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        model, opt=optimization.opt, lr=learning_rate, weight_decay=optimization.weight_decay, **options
    )
    return optimizer


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the rate of every group of parameters; with layer decay each has its own share of it."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get("lr_scale", 1.0)


def autocast_dtype(optimization: Optimization) -> torch.dtype | None:
    """The number format of mixed precision, if it is on."""
    if not optimization.amp:
        return None
    return torch.bfloat16 if optimization.amp_dtype == "bfloat16" else torch.float16


def create_ema(model: nn.Module, optimization: Optimization, *, fused: bool = True) -> ModelEmaV3 | None:
    """An average of the weights whose decay warms up, or none if the recipe keeps none."""
    if not optimization.model_ema:
        return None
    return ModelEmaV3(model, decay=optimization.model_ema_decay, use_warmup=True, foreach=fused)
