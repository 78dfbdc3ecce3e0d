"""The optimizer and the average of the weights, as the recipe says."""

from typing import Any

import torch
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3
from torch import nn

from upchirp.curriculum import Step
from upchirp.models import fit_to_bandwidth
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


def follow(
    step: Step,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    ema: nn.Module | None = None,
) -> bool:
    """Bring a model and its optimizer to where a step of a plan has them, before its forward pass.

    The model is fitted to the bandwidth with the optimizer's moments and the moving average (`fit_to_bandwidth`), and
    every group of parameters gets its share of the learning rate (`set_learning_rate`).

    Args:
        step: of a plan, or of a batch: `batch.step`.
        model: the model, without `DistributedDataParallel`.
        optimizer: holds the model's parameters.
        ema: a copy of the model, or a wrapper with one as its `module`.

    Returns:
        Whether parameters have new shapes, so that `DistributedDataParallel` is to be wrapped around the model anew.

    Raises:
        InputError: the model cannot take the bandwidth.

    >>> from upchirp.curriculum import efficienttrain_plus_plus, plan
    >>> from upchirp.models import create_model
    >>> vit = create_model("vit_tiny_patch16_224", depth=1, embed_dim=24, num_classes=10)
    >>> optimizer = torch.optim.AdamW(vit.parameters())
    >>> steps = plan(efficienttrain_plus_plus(), epochs=1, dataset_size=640, batch_size=64).steps()
    >>> [step.index for step in steps if follow(step, vit, optimizer)]
    [0, 11, 19]
    """
    resized = fit_to_bandwidth(model, step.bandwidth, optimizer, ema)
    set_learning_rate(optimizer, step.learning_rate)
    return resized


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
