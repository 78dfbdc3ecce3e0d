"""The engine: run a plan from a state to a later step. Resuming, searching and training are chains of this."""

import hashlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from upchirp.curriculum import Step
from upchirp.data import Batch, BatchTransform, Corrupt, PassSummary, mixed_cross_entropy, regroup
from upchirp.training.graphs import GraphPerShape
from upchirp.training.memory import Buffers, MicroBatches, free_memory, ran_out
from upchirp.training.optim import set_learning_rate
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


@dataclass(frozen=True)
class StepResult:
    """What came of one optimizer step."""

    step: Step
    """The step of the plan."""
    loss: torch.Tensor
    """Mean loss over the step's images on this rank: a scalar on the device, not yet waited for.

    With selection it is weighted by the images' weights, so that it estimates the mean of what is left out too.
    """
    seconds: float
    """Wall-clock time of the step, waiting included."""
    wait_seconds: float
    """Time in which the device had nothing to do but wait for the loader."""
    corrupt: tuple[Corrupt, ...]
    """Images that were replaced because they could not be read."""
    passes: tuple[PassSummary, ...]
    """Selected passes over the data that began with the step."""
    reduced_to: int | None = None
    """Images of a micro-batch from this step on, if memory ran out in it and the step was redone."""


Record = Callable[[Batch, torch.Tensor], torch.Tensor]
"""Takes a batch and the loss of each row, (rows,), and returns what is to be trained on; see `Loader.record`."""


def run_segment(
    state: State,
    batches: Iterable[Batch],
    transform: BatchTransform,
    settings: Settings,
    *,
    record: Record = Batch.weigh,
    micro_batches: MicroBatches | None = None,
) -> Iterator[StepResult]:
    """Train `state` on batches, one optimizer step for each result.

    Nothing is decided here: bandwidth, batch size and learning rate come with the batches, randomness from
    (seed, step). Stop iterating to end the segment; the state is whole after every result. `record` sees all losses.

    A step whose gradients do not fit in memory is redone from its start with half the micro-batch, so it ends as if it
    had begun with that one; `micro_batches` keeps it for the steps that follow.

    Raises:
        OutOfMemory: the smallest micro-batch does not fit; the state is that of before the step.
    """
    forward = GraphPerShape(state.model) if settings.compile else state.model
    parameters = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
    state.model.train()
    micro_batches = micro_batches or MicroBatches()
    buffers = Buffers()
    waiting = Waiting(settings.device)
    arriving = waiting.timed(batches)
    started = time.perf_counter()
    for arrived in arriving:
        of_step = _OfStep(arrived, arriving)
        step = of_step.step
        state.fit_to(step.bandwidth)
        buffers.keep(state.model)
        reduced_to: int | None = None
        while True:
            torch.manual_seed(step_seed(settings.seed, step.index))
            portions = regroup(of_step, micro_batches.at(step.bandwidth), settings.device)
            losses = _gradients(forward, state.scaler, portions, transform, settings, record, waiting)
            if losses is not None:
                break
            state.optimizer.zero_grad(set_to_none=True)
            buffers.restore()
            free_memory(settings.device)
            tried = len(of_step.rows if step.bandwidth in micro_batches.sizes else of_step.first_rows)
            group = transform.mix_group(step.batch_size)
            reduced_to = micro_batches.halve(step.bandwidth, rows=tried, group=group)
        if not of_step.complete:
            return
        _update(state, parameters, step, settings.clip_grad)
        waiting.work_queued()
        loss = torch.stack(losses).sum() * (step.batch_size / of_step.weight)
        now = time.perf_counter()
        yield StepResult(step, loss, now - started, of_step.waited, of_step.corrupt, of_step.passes, reduced_to)
        started = time.perf_counter()


def step_seed(seed: int, step: int) -> int:
    """The seed of one step's dropout and drop path."""
    digest = hashlib.blake2b(f"{seed}:{step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class _OfStep:
    """The batches of one step, taken from the loader when they are asked for, and kept until it is done.

    So each iteration begins anew, and a step can be redone.
    """

    def __init__(self, first: tuple[Batch, float], arriving: Iterator[tuple[Batch, float]]) -> None:
        self._batches = [first[0]]
        self._arriving = arriving
        self.step = first[0].step
        self.waited = first[1]

    def __iter__(self) -> Iterator[Batch]:
        for k in itertools.count():
            if k == len(self._batches) and not self._take():
                return
            yield self._batches[k]

    def _take(self) -> bool:
        item = None if self.complete else next(self._arriving, None)
        if item is None:
            return False
        self._batches.append(item[0])
        self.waited += item[1]
        return True

    @property
    def complete(self) -> bool:
        """Whether all batches of the step are here."""
        return self._batches[-1].completes_step

    @property
    def first_rows(self) -> range:
        """Rows of the first batch."""
        return self._batches[0].rows

    @property
    def rows(self) -> range:
        """Rows that are here."""
        return range(self._batches[0].rows.start, self._batches[-1].rows.stop)

    @property
    def weight(self) -> float:
        """What the rows weigh together."""
        return sum(len(each.rows) if each.weights is None else each.weights.sum().item() for each in self._batches)

    @property
    def corrupt(self) -> tuple[Corrupt, ...]:
        """Images of the step that were replaced."""
        return tuple(image for each in self._batches for image in each.corrupt)

    @property
    def passes(self) -> tuple[PassSummary, ...]:
        """Passes that began with the step."""
        return tuple(summary for each in self._batches for summary in each.passes)


def _gradients(
    forward: Any,
    scaler: torch.amp.GradScaler,
    portions: Iterable[Batch],
    transform: BatchTransform,
    settings: Settings,
    record: Record,
    waiting: Waiting,
) -> list[torch.Tensor] | None:
    """Sum up a step's gradient portion by portion; returns the portions' losses, or nothing if memory ran out."""
    losses: list[torch.Tensor] = []
    try:
        for portion in portions:
            losses.append(accumulate(forward, scaler, portion, transform, settings, record))
            waiting.work_queued()
    except RuntimeError as error:
        if not ran_out(error):
            raise
        # Handled by the caller: the error's frames hold the memory that is to be freed.
        return None
    return losses


def accumulate(
    forward: Any,
    scaler: torch.amp.GradScaler,
    batch: Batch,
    transform: BatchTransform,
    settings: Settings,
    record: Record,
) -> torch.Tensor:
    """Add one micro-batch's share of the gradient; returns its share of the step's mean loss."""
    inputs, targets = batch.prepare(transform, settings.device)
    dtype = settings.autocast
    with torch.autocast(settings.device.type, dtype or torch.bfloat16, enabled=dtype is not None):
        logits = forward(inputs)
    losses = record(batch, mixed_cross_entropy(logits, targets, settings.smoothing, reduction="none"))
    loss = losses.mean() * (len(batch.rows) / batch.step.batch_size)
    scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    return loss.detach()


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
