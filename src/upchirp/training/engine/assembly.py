"""The parts of a run, as its configuration says."""

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import nn

from upchirp.curriculum import Plan, Selection
from upchirp.data import BatchTransform, Corrupt, Loader, Source
from upchirp.training.engine.segment import Settings
from upchirp.training.parallel.parallel import Parallel
from upchirp.training.parallel.ranks import Ranks
from upchirp.training.parallel.state import State
from upchirp.training.parallel.whole import Alone
from upchirp.training.recipes.config import TrainConfig
from upchirp.training.recipes.optimizer import create_ema, create_optimizer
from upchirp.training.recipes.recipe import Optimization


def make_state(
    model: nn.Module,
    optimization: Optimization,
    device: torch.device,
    *,
    bandwidth: int,
    learning_rate: float,
    parallel: Parallel | None = None,
    bandwidths: Collection[int] = (),
) -> State:
    """A fresh state around a model that is on its device and takes inputs of side `bandwidth`.

    Args:
        model: what is trained.
        optimization: by which optimizer, with or without an average.
        device: where the model is.
        bandwidth: the side that it takes now.
        learning_rate: the highest.
        parallel: how ranks hold it; by default this process alone.
        bandwidths: all sides that it is to take.
    """
    parallel = parallel or Alone()
    ema = create_ema(model, optimization, fused=parallel.fused)
    parallel.share_out([model] if ema is None else [model, ema.module], bandwidths, device)
    optimizer = create_optimizer(model, optimization, learning_rate=learning_rate, fused=parallel.fused)
    parallel.arrange(optimizer)
    return State(
        model=model,
        optimizer=optimizer,
        ema=ema,
        parallel=parallel,
        scaler=torch.amp.GradScaler(device.type, enabled=optimization.amp and optimization.amp_dtype == "float16"),
        bandwidth=bandwidth,
    )


def make_loader(
    config: TrainConfig,
    source: Source,
    plan: Plan,
    device: torch.device,
    *,
    start_step: int = 0,
    micro_batch: int | Mapping[int, int] | None = None,
    select: Selection | None = None,
    ranks: Ranks | None = None,
) -> Loader:
    """A rank's batches of a plan from a step on; trials leave selection out, as it changes no step's cost."""
    ranks = ranks or Ranks()
    return Loader(
        source,
        plan,
        augmentation=config.augmentation,
        mode=config.mode,
        low_frequency=config.low_frequency,
        seed=config.seed,
        workers=config.loader_workers,
        start_step=start_step,
        micro_batch=micro_batch,
        rank=ranks.rank,
        world_size=ranks.size,
        pin_memory=device.type == "cuda",
        share_cores=device.type == "cpu",
        select=select,
        merge=ranks.latest if ranks.size > 1 else None,
        timeout=config.loader_timeout,
        # The run counts them, over all ranks.
        on_corrupt=_left_to_the_run,
    )


def _left_to_the_run(images: Sequence[Corrupt]) -> None:
    """The batches hold them."""


def make_transform(config: TrainConfig) -> BatchTransform:
    """What the device does with a batch."""
    return BatchTransform(
        config.augmentation,
        seed=config.seed,
        low_frequency=config.low_frequency,
        channels_last=config.channels_last,
    )


def make_settings(config: TrainConfig, device: torch.device) -> Settings:
    """How the engine computes."""
    return Settings(
        device=device,
        seed=config.seed,
        smoothing=config.augmentation.smoothing,
        clip_grad=config.optimization.clip_grad,
        autocast=autocast_dtype(config.optimization),
        compile=config.compile,
    )


def autocast_dtype(optimization: Optimization) -> torch.dtype | None:
    """The number format of mixed precision, if it is on."""
    if not optimization.amp:
        return None
    return torch.bfloat16 if optimization.amp_dtype == "bfloat16" else torch.float16
