"""Trained weights from disk into a model."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from upchirp.data import open_data
from upchirp.errors import InputError
from upchirp.models import create_model, fit_to_bandwidth
from upchirp.training import checkpoint
from upchirp.training.assembly import autocast_dtype
from upchirp.training.config import TrainConfig, check_model_kwargs, load_config
from upchirp.training.device import choose_device
from upchirp.training.evaluate import Evaluation, EvaluationSet, View, evaluate
from upchirp.training.run_folder import CONFIG, WEIGHTS, WEIGHTS_EMA, holds_run


def load_weights(model: nn.Module, path: Path, final_size: int) -> None:
    """Load exported weights (`.safetensors`) or a checkpoint (`.pt`, its average if it holds one) into a model.

    A checkpoint of an early stage is resized to `final_size`, the input side that the model is made for.

    Raises:
        InputError: a missing or damaged file, or weights of another model or class count.
    """
    if path.suffix == ".safetensors":
        try:
            weights = load_file(path)
        except (OSError, SafetensorError) as error:
            raise InputError(f"cannot read the weights {path}: {error}") from error
        _assign(model, weights, path)
        return
    state = checkpoint.load(path).get("state")
    if not isinstance(state, dict):
        raise InputError(f"{path} holds no training state: give a checkpoint of upchirp or a .safetensors file")
    fit_to_bandwidth(model, state["bandwidth"])
    _assign(model, state["ema"] or state["model"], path)
    fit_to_bandwidth(model, final_size)


def _assign(model: nn.Module, weights: dict[str, torch.Tensor], path: Path) -> None:
    own = model.state_dict()
    if missing := sorted(own.keys() - weights.keys()):
        raise InputError(f"{path} lacks {missing[0]}{_more(missing)}: it belongs to another model")
    if unknown := sorted(weights.keys() - own.keys()):
        raise InputError(
            f"{path} holds {unknown[0]}{_more(unknown)}, unknown to the model: it belongs to another model"
        )
    for name, tensor in weights.items():
        if tensor.shape != own[name].shape:
            raise InputError(
                f"{path}: {name} is {tuple(tensor.shape)} but the model needs {tuple(own[name].shape)}: "
                "another model, class count or final size"
            )
    model.load_state_dict(weights)


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def evaluate_weights(
    *,
    run: Path | None = None,
    model: str | None = None,
    model_kwargs: dict[str, Any] | None = None,
    weights: Path | None = None,
    data: str | None = None,
    final_size: int | None = None,
    crop_pct: float | None = None,
    batch_size: int = 256,
    workers: int = 2,
    device: str | None = None,
) -> Evaluation:
    """Evaluate a run's weights, or a weights file, on the validation images; a run fills in what is not given.

    Raises:
        InputError: something is missing or does not fit together.
    """
    config = TrainConfig()
    if run is not None:
        if not holds_run(run):
            raise InputError(f"{run} holds no run: give the folder that `upchirp train --output` wrote")
        config = TrainConfig.from_flat(load_config(run / CONFIG), source=str(run / CONFIG))
        weights = weights or next((run / name for name in (WEIGHTS_EMA, WEIGHTS) if (run / name).exists()), None)
    elif model is None:
        raise InputError("nothing to evaluate: give --run, or --model with --weights and --data")
    if weights is None:
        raise InputError("no weights: give --weights, or a --run that is finished")
    chosen = data or config.data
    if not chosen:
        raise InputError("no data: give a folder with train/ and val/, or `generated`")
    size = config.final_size if final_size is None else final_size
    for name, value, least in (("final size", size, 1), ("batch size", batch_size, 1), ("workers", workers, 0)):
        if value < least:
            raise InputError(f"{name} is {value}: it must be {least} or more")
    _, source = open_data(chosen, size)
    options = model_kwargs or (config.model_kwargs if model is None else {})
    check_model_kwargs(options)
    network = create_model(model or config.model, num_classes=len(source.classes), final_size=size, **options)
    load_weights(network, weights, size)
    target = choose_device(device)
    images = EvaluationSet(
        source,
        size,
        crop_pct=crop_pct,
        interpolation=config.augmentation.interpolation,
        workers=workers,
        batch_size=batch_size,
    )
    augmentation = config.augmentation
    (result,) = evaluate(
        [View("model", network.to(target), size)],
        images,
        mean=augmentation.mean,
        std=augmentation.std,
        device=target,
        # As the run evaluated itself; weights from elsewhere are evaluated in float32.
        autocast=autocast_dtype(config.optimization) if run is not None else None,
    )
    return result
