"""The engine: run a plan from a state to a later step. Resuming, searching and training are chains of this."""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from upchirp.curriculum import Step
from upchirp.data import Batch, BatchTransform, Corrupt, PassSummary, mixed_cross_entropy
from upchirp.training.distributed import Ranks
from upchirp.training.optim import set_learning_rate
from upchirp.training.replicas import Replicas
from upchirp.training.state import State
from upchirp.training.waiting import Waiting


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the engine computes; what it computes is in the plan and the state."""

    device: torch.device
    """Where the model is."""
    seed: int = 0
    """Seeds dropout and drop path, anew at every step."""
    smoothing: float = 0.0
    """Label smoothing."""
    clip_grad: float | None = None
    """Largest gradient norm."""
    autocast: torch.dtype | None = None
    """Number format of mixed precision; none computes in float32."""
    compile: bool = False
    """Compile the model, one graph for each bandwidth."""
    ranks: Ranks = field(default_factory=Ranks)
    """Who trains copies of the model, each on its rows of a batch."""
    deterministic: bool = False
    """Sum gradients over the ranks in the same order wherever a segment begins."""


@dataclass(frozen=True)
class StepResult:
    """What came of one optimizer step."""

    step: Step
    """The step of the plan."""
    loss: torch.Tensor
    """Mean loss over the step's images on all ranks: a scalar on the device, not yet waited for.

    With selection it is weighted by the images' weights, so that it estimates the mean of what is left out too.
    """
    seconds: float
    """Wall-clock time of the step, waiting included."""
    wait_seconds: float
    """Time in which the device had nothing to do but wait for the loader."""
    corrupt: tuple[Corrupt, ...]
    """This rank's images that were replaced because they could not be read."""
    passes: tuple[PassSummary, ...]
    """Selected passes over the data that began with the step."""


Record = Callable[[Batch, torch.Tensor], torch.Tensor]
"""Takes a batch and the loss of each row, (rows,), and returns what is to be trained on; see `Loader.record`."""


def run_segment(
    state: State,
    batches: Iterable[Batch],
    transform: BatchTransform,
    settings: Settings,
    *,
    record: Record = Batch.weigh,
) -> Iterator[StepResult]:
    """Train `state` on batches, one optimizer step for each result.

    Nothing is decided here: bandwidth, batch size and learning rate come with the batches, randomness from
    (seed, step, rank). Stop iterating to end the segment; the state is whole after every result, and the same on all
    ranks. `record` sees all losses of this rank's rows.
    """
    forward = compiled(state.model) if settings.compile else state.model
    replicas = Replicas(state.model, forward, settings.ranks, deterministic=settings.deterministic)
    parameters = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
    state.model.train()
    started = time.perf_counter()
    waited = 0.0
    losses: list[torch.Tensor] = []
    corrupt: list[Corrupt] = []
    passes: list[PassSummary] = []
    weight = 0.0
    waiting = Waiting(settings.device)
    for batch, wait in waiting.timed(batches):
        waited += wait
        corrupt += batch.corrupt
        passes += batch.passes
        step = batch.step
        if not losses:
            state.fit_to(step.bandwidth)
            replicas.fit_to(step.bandwidth)
            torch.manual_seed(step_seed(settings.seed, step.index, settings.ranks.rank))
        losses.append(_accumulate(replicas, state.scaler, batch, transform, settings, record))
        weight += len(batch.rows) if batch.weights is None else batch.weights.sum().item()
        if batch.completes_step:
            replicas.average_statistics()
            _update(state, parameters, step, settings.clip_grad)
        waiting.work_queued()
        if not batch.completes_step:
            continue
        loss = _mean_loss(torch.stack(losses).sum() * step.batch_size, weight, settings.ranks)
        now = time.perf_counter()
        yield StepResult(step, loss, now - started, waited, tuple(corrupt), tuple(passes))
        started, waited, weight, losses, corrupt, passes = time.perf_counter(), 0.0, 0.0, [], [], []


def compiled(model: nn.Module, bandwidths: int = 16) -> Any:
    """The model compiled with static shapes; `bandwidths` is how many graphs it may need."""
    config: Any = torch._dynamo.config
    name = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"
    setattr(config, name, max(getattr(config, name), bandwidths))
    return torch.compile(model, dynamic=False)


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """The seed of one step's dropout and drop path on one rank."""
    digest = hashlib.blake2b(f"{seed}:{step}:{rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _accumulate(
    replicas: Replicas,
    scaler: torch.amp.GradScaler,
    batch: Batch,
    transform: BatchTransform,
    settings: Settings,
    record: Record,
) -> torch.Tensor:
    """Add one micro-batch's share of the gradient; returns its share of the step's mean loss."""
    inputs, targets = batch.prepare(transform, settings.device)
    dtype = settings.autocast
    with replicas.part(last=batch.completes_step) as factor:
        with torch.autocast(settings.device.type, dtype or torch.bfloat16, enabled=dtype is not None):
            logits = replicas(inputs)
        losses = record(batch, mixed_cross_entropy(logits, targets, settings.smoothing, reduction="none"))
        loss = losses.mean() * (len(batch.rows) / batch.step.batch_size)
        scaler.scale(loss * factor).backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def _mean_loss(summed: torch.Tensor, weight: float, ranks: Ranks) -> torch.Tensor:
    """The mean of what each rank has the sum of, and of how many rows."""
    both = ranks.add(torch.stack([summed, torch.full_like(summed, weight)]))
    return both[0] / both[1]


def _update(state: State, parameters: list[torch.Tensor], step: Step, clip_grad: float | None) -> None:
    set_learning_rate(state.optimizer, step.learning_rate)
    if clip_grad is not None:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(parameters, clip_grad)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad(set_to_none=True)
    state.step = step.index + 1
    if state.ema is not None:
        state.ema.update(state.model, step=state.step)
