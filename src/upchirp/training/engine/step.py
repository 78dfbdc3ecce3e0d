"""One optimizer step: the gradients of its micro-batches, added up, and the update."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch

from upchirp.curriculum import Step
from upchirp.data import Batch, BatchTransform
from upchirp.models import autocast
from upchirp.randomness import row_seeds, step_seed
from upchirp.training.engine.memory import Buffers, OutOfMemory, OutOfMemoryInSum, free_memory, ran_out
from upchirp.training.engine.micro_batches import MicroBatches, StepBatches, regroup
from upchirp.training.engine.task import Task
from upchirp.training.engine.waiting import Waiting
from upchirp.training.parallel.parallel import Passes
from upchirp.training.parallel.state import State
from upchirp.training.recipes.optimizer import set_learning_rate

Record = Callable[[Batch, torch.Tensor], torch.Tensor]
"""Takes a batch and the loss of each row, (rows,), and returns what is to be trained on; see `Loader.record`."""


@dataclass(frozen=True, kw_only=True)
class Computing:
    """How a step computes; what it computes is in the batches and the state."""

    device: torch.device
    """Where the model is."""
    transform: BatchTransform
    """What the device does with a batch."""
    seed: int
    """Seeds dropout and drop path, anew at every step."""
    task: Task
    """What the model is asked."""
    autocast: torch.dtype | None
    """Number format of mixed precision; none computes in float32."""


@dataclass
class Gradients:
    """Sums up the gradients of steps, micro-batch by micro-batch."""

    state: State
    passes: Passes
    computing: Computing
    record: Record
    micro_batches: MicroBatches
    buffers: Buffers
    waiting: Waiting
    rehearsed: dict[int, int] = field(default_factory=dict)
    """By bandwidth, how many rows are known to fit while no other rank waits for them."""
    first_step: int | None = None

    def of(self, batches: StepBatches) -> list[torch.Tensor] | None:
        """Add up one step's gradient; returns the losses of its micro-batches, or nothing if memory ran out."""
        step, losses = batches.step, list[torch.Tensor]()
        self.first_step = step.index if self.first_step is None else self.first_step
        self._seed(step)
        try:
            for micro_batch in regroup(batches, self.micro_batches.sizes[step.bandwidth], self.computing.device):
                if micro_batch.completes_step and not losses:
                    self._rehearse(micro_batch)
                losses.append(self._accumulate(micro_batch))
                self.waiting.work_queued()
        except OutOfMemoryInSum as error:
            half = self._halve(batches)
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
                    "cannot redo: take a smaller `micro_batch`"
                ) from error
            # Handled by the caller: the error's frames hold the memory that is to be freed.
            return None
        return losses

    def undo(self, batches: StepBatches) -> int:
        """Go back to where a step began, and take half the micro-batch from then on; returns how many images it has."""
        self._reset()
        free_memory(self.computing.device)
        return self._halve(batches)

    def _reset(self) -> None:
        self.state.optimizer.zero_grad(set_to_none=True)
        self.buffers.restore()

    def _halve(self, batches: StepBatches) -> int:
        step = batches.step
        group = self.computing.transform.mix_group(step.batch_size)
        return self.micro_batches.halve(step.bandwidth, rows=len(batches.rows), group=group)

    def _seed(self, step: Step) -> None:
        torch.manual_seed(step_seed(self.computing.seed, step.index, self.state.parallel.ranks.rank))

    def _rehearse(self, micro_batch: Batch) -> None:
        """Compute a step's only micro-batch without the other ranks first: what fits now, fits while they wait."""
        if not self.passes.sums or len(micro_batch.rows) <= self.rehearsed.get(micro_batch.step.bandwidth, 0):
            return
        self._accumulate(replace(micro_batch, completes_step=False))
        self._reset()
        self._seed(micro_batch.step)
        # After the first update there are the optimizer's moments too.
        if micro_batch.step.index != self.first_step:
            self.rehearsed[micro_batch.step.bandwidth] = len(micro_batch.rows)

    def _accumulate(self, micro_batch: Batch) -> torch.Tensor:
        return accumulate(self.passes, self.state.scaler, micro_batch, self.computing, self.record)


def accumulate(
    passes: Passes,
    scaler: torch.amp.GradScaler,
    batch: Batch,
    computing: Computing,
    record: Record,
) -> torch.Tensor:
    """Add one micro-batch's share of the gradient; returns its share of the step's mean loss.

    Raises:
        OutOfMemoryInSum: in the backward pass of a step's last micro-batch, if there are other ranks.
    """
    seeds = row_seeds(computing.seed, batch.step.index, batch.rows)
    shown, asked = computing.task.ask(*batch.prepare(computing.transform, computing.device), seeds)
    with passes.micro_batch(last=batch.completes_step) as factor:
        with autocast(computing.device, computing.autocast):
            outputs = passes(shown)
        losses = record(batch, computing.task.loss(outputs, asked))
        loss = losses.mean() * (len(batch.rows) / batch.step.batch_size)
        try:
            scaler.scale(loss * factor).backward()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            if batch.completes_step and passes.sums and ran_out(error):
                raise OutOfMemoryInSum from error
            raise
    return loss.detach()


def update(state: State, parameters: list[torch.Tensor], step: Step, clip_grad: float | None) -> None:
    """Take an optimizer step along the gradients that were added up; the state is whole afterwards."""
    set_learning_rate(state.optimizer, step.learning_rate)
    if learned := [p.grad for p in state.transforms.parameters() if p.grad is not None]:
        # The model's own are averaged in its backward pass.
        state.parallel.ranks.average(learned)
    if clip_grad is not None:
        state.parallel.clip(state, parameters, clip_grad)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad(set_to_none=True)
    state.step = step.index + 1
    if state.ema is not None:
        state.ema.update(state.model, step=state.step)
