"""The engine: run a plan from a state to a later step. Resuming, searching and training are chains of this."""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import torch

from upchirp.curriculum import Step
from upchirp.data import Batch, BatchTransform, Corrupt, PassSummary, mixed_cross_entropy, regroup
from upchirp.models import autocast
from upchirp.training.engine.graphs import GraphPerShape
from upchirp.training.engine.memory import Buffers, MicroBatches, OutOfMemory, OutOfMemoryInSum, free_memory, ran_out
from upchirp.training.engine.step_batches import StepBatches
from upchirp.training.engine.waiting import Waiting
from upchirp.training.parallel.parallel import Passes
from upchirp.training.parallel.ranks import Ranks
from upchirp.training.parallel.state import State
from upchirp.training.recipes.optimizer import set_learning_rate


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
    (seed, step, rank). Stop iterating to end the segment; the state is whole after every result, and the same on all
    ranks. `record` sees all losses of this rank's rows.

    A step whose gradients do not fit in memory is redone from its start with half the micro-batch, so it ends as if it
    had begun with that one; `micro_batches` keeps it for the steps that follow. A rank does so by itself: the others
    wait for its gradients.

    Raises:
        OutOfMemory: the smallest micro-batch does not fit, and the state is that of before the step; or memory ran out
            while gradients were summed over ranks, which no rank can undo alone.
    """
    passes = state.parallel.passes(state.model, GraphPerShape(state.model) if settings.compile else None)
    parameters = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
    state.model.train()
    micro_batches = micro_batches or MicroBatches()
    buffers = Buffers()
    waiting = Waiting(settings.device)
    gradients = _Gradients(state, passes, transform, settings, record, buffers, waiting)
    arriving = waiting.timed(batches)
    started = time.perf_counter()
    for arrived in arriving:
        of_step = StepBatches(arrived, arriving)
        step = of_step.step
        state.fit_to(step.bandwidth)
        passes.fit_to(step.bandwidth)
        buffers.keep(state.model)
        reduced_to: int | None = None
        while (losses := gradients.of(of_step, micro_batches)) is None:
            gradients.undo()
            free_memory(settings.device)
            reduced_to = _halve(micro_batches, of_step, transform)
        if not of_step.complete:
            return
        passes.average_statistics()
        _update(state, parameters, step, settings)
        waiting.work_queued()
        loss = _mean_loss(torch.stack(losses).sum() * step.batch_size, of_step.weight, state.parallel.ranks)
        now = time.perf_counter()
        yield StepResult(step, loss, now - started, of_step.waited, of_step.corrupt, of_step.passes, reduced_to)
        started = time.perf_counter()


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """The seed of one step's dropout and drop path on one rank."""
    digest = hashlib.blake2b(f"{seed}:{step}:{rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@dataclass
class _Gradients:
    """Sums up the gradients of steps, micro-batch by micro-batch."""

    state: State
    passes: Passes
    transform: BatchTransform
    settings: Settings
    record: Record
    buffers: Buffers
    waiting: Waiting
    rehearsed: dict[int, int] = field(default_factory=dict)
    """By bandwidth, how many rows are known to fit while no other rank waits for them."""
    first_step: int | None = None

    def of(self, batches: StepBatches, micro_batches: MicroBatches) -> list[torch.Tensor] | None:
        """Add up one step's gradient; returns the losses of its parts, or nothing if memory ran out."""
        step, losses = batches.step, list[torch.Tensor]()
        self.first_step = step.index if self.first_step is None else self.first_step
        self._seed(step)
        try:
            for part in regroup(batches, micro_batches.at(step.bandwidth), self.settings.device):
                if part.completes_step and not losses:
                    self._rehearse(part)
                losses.append(self._accumulate(part))
                self.waiting.work_queued()
        except OutOfMemoryInSum as error:
            half = _halve(micro_batches, batches, self.transform)
            raise OutOfMemory(
                f"out of memory at {step.bandwidth} px in step {step.index + 1} while ranks summed gradients, so it "
                f"cannot be redone: the run goes on with {half} images at once there"
            ) from error
        except RuntimeError as error:
            if not ran_out(error):
                raise
            if not self.state.parallel.may_redo:
                raise OutOfMemory(
                    f"out of memory at {step.bandwidth} px in step {step.index + 1}, which ranks that share a model "
                    "cannot redo: take a smaller --micro-batch"
                ) from error
            # Handled by the caller: the error's frames hold the memory that is to be freed.
            return None
        return losses

    def undo(self) -> None:
        """Go back to where the step began."""
        self.state.optimizer.zero_grad(set_to_none=True)
        self.buffers.restore()

    def _seed(self, step: Step) -> None:
        torch.manual_seed(step_seed(self.settings.seed, step.index, self.state.parallel.ranks.rank))

    def _rehearse(self, part: Batch) -> None:
        """Compute a step's only part without the other ranks first: what fits now, fits while they wait for it."""
        if not self.passes.sums or len(part.rows) <= self.rehearsed.get(part.step.bandwidth, 0):
            return
        self._accumulate(replace(part, completes_step=False))
        self.undo()
        self._seed(part.step)
        # After the first update there are the optimizer's moments too.
        if part.step.index != self.first_step:
            self.rehearsed[part.step.bandwidth] = len(part.rows)

    def _accumulate(self, part: Batch) -> torch.Tensor:
        return accumulate(self.passes, self.state.scaler, part, self.transform, self.settings, self.record)


def accumulate(
    passes: Passes,
    scaler: torch.amp.GradScaler,
    batch: Batch,
    transform: BatchTransform,
    settings: Settings,
    record: Record,
) -> torch.Tensor:
    """Add one micro-batch's share of the gradient; returns its share of the step's mean loss.

    Raises:
        OutOfMemoryInSum: in the backward pass of a step's last micro-batch, if there are other ranks.
    """
    inputs, targets = batch.prepare(transform, settings.device)
    with passes.part(last=batch.completes_step) as factor:
        with autocast(settings.device, settings.autocast):
            logits = passes(inputs)
        losses = record(batch, mixed_cross_entropy(logits, targets, settings.smoothing, reduction="none"))
        loss = losses.mean() * (len(batch.rows) / batch.step.batch_size)
        try:
            scaler.scale(loss * factor).backward()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            if batch.completes_step and passes.sums and ran_out(error):
                raise OutOfMemoryInSum from error
            raise
    return loss.detach()


def _halve(micro_batches: MicroBatches, batches: StepBatches, transform: BatchTransform) -> int:
    """Take half the micro-batch from a step on; returns how many images that are."""
    step = batches.step
    tried = batches.rows if step.bandwidth in micro_batches.sizes else batches.first_rows
    return micro_batches.halve(step.bandwidth, rows=len(tried), group=transform.mix_group(step.batch_size))


def _mean_loss(summed: torch.Tensor, weight: float, ranks: Ranks) -> torch.Tensor:
    """The mean of what each rank has the sum of, and of how many rows."""
    both = ranks.add(torch.stack([summed, torch.full_like(summed, weight)]))
    return both[0] / both[1]


def _update(state: State, parameters: list[torch.Tensor], step: Step, settings: Settings) -> None:
    set_learning_rate(state.optimizer, step.learning_rate)
    clip_grad = settings.clip_grad
    if clip_grad is not None:
        state.parallel.clip(state, parameters, clip_grad)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad(set_to_none=True)
    state.step = step.index + 1
    if state.ema is not None:
        state.ema.update(state.model, step=state.step)
