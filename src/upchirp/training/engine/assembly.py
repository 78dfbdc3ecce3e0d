"""The parts of a run, as its configuration says."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from upchirp.curriculum import Plan, Selection
from upchirp.data import BatchTransform, Corrupt, Loader, Source
from upchirp.training.engine.segment import Settings
from upchirp.training.engine.state import State
from upchirp.training.parallel.ranks import Ranks
from upchirp.training.parallel.sharded import split_groups
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
    shard: Callable[[nn.Module], None] | None = None,
) -> State:
    """A fresh state around a model that is on its device and takes inputs of side `bandwidth`.

    `shard` shares the parameters of a module out over the ranks, in place.
    """
    ema = create_ema(model, optimization, sharded=shard is not None)
    if shard is not None:
        for module in [model] if ema is None else [model, ema.module]:
            shard(module)
    optimizer = create_optimizer(model, optimization, learning_rate=learning_rate, sharded=shard is not None)
    if shard is not None:
        split_groups(optimizer)
    return State(
        model=model,
        optimizer=optimizer,
        ema=ema,
        sharded=shard is not None,
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


def make_settings(config: TrainConfig, device: torch.device, ranks: Ranks | None = None) -> Settings:
    """How the engine computes; by default on this rank alone."""
    return Settings(
        device=device,
        seed=config.seed,
        smoothing=config.augmentation.smoothing,
        clip_grad=config.optimization.clip_grad,
        autocast=autocast_dtype(config.optimization),
        compile=config.compile,
        ranks=ranks or Ranks(),
        deterministic=config.deterministic,
    )


def autocast_dtype(optimization: Optimization) -> torch.dtype | None:
    """The number format of mixed precision, if it is on."""
    if not optimization.amp:
        return None
    return torch.bfloat16 if optimization.amp_dtype == "bfloat16" else torch.float16
