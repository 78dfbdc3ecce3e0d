"""One optimizer step: its gradients, added up and begun again where memory runs out, and the update along them."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from upchirp.curriculum import Step
from upchirp.data import Batch, BatchTransform, Corrupt, PassSummary
from upchirp.models import autocast
from upchirp.randomness import row_seeds, step_seed
from upchirp.training.engine.memory import Buffers, MicroBatches, OutOfMemory, OutOfMemoryInSum, free_memory, ran_out
from upchirp.training.engine.step_batches import StepBatches, regroup
from upchirp.training.engine.task import Task
from upchirp.training.parallel.parallel import Passes
from upchirp.training.parallel.state import State, average_statistics
from upchirp.training.recipes.optimizer import set_learning_rate
from upchirp.training.recipes.recipe import Optimization
from upchirp.training.recipes.tuning import hold_all_but_head, train_mode

Record = Callable[[Batch, torch.Tensor], torch.Tensor]
"""Takes a batch and the loss of each row, (rows,), and returns what is to be trained on; see `Loader.record`."""


@dataclass(frozen=True)
class StepResult:
    """What came of one optimizer step."""

    step: Step
    """The step of the plan."""
    summed_loss: torch.Tensor
    """Sum of the losses of this rank's images, and of the weights of these, (2,) on the device, not yet waited for.

    The weights are 1 without selection; with it the mean estimates that of what is left out too.
    """
    wait_seconds: float
    """Time in which the device had nothing to do but wait for the loader."""
    corrupt: tuple[Corrupt, ...]
    """This rank's images that were replaced because they could not be read."""
    passes: tuple[PassSummary, ...]
    """Selected passes over the data that began with the step."""
    reduced_to: int | None = None
    """Images of a micro-batch from this step on, if memory ran out in it and the step was redone."""
    prepared: int = 0
    """This rank's images that were newly prepared."""
    sent_bytes: int = 0
    """Bytes that its loader gave to the device for them."""

    @property
    def loss(self) -> torch.Tensor:
        """Mean loss over this rank's images: a scalar on the device."""
        return self.summed_loss[0] / self.summed_loss[1]


@dataclass(frozen=True, kw_only=True)
class Computing:
    """How a step computes; what it computes is in the batches and the state."""

    device: torch.device
    transform: BatchTransform
    seed: int
    """Seeds dropout and drop path, anew at every step."""
    task: Task
    autocast: torch.dtype | None
    """Number format of mixed precision; none computes in float32."""


@dataclass(eq=False)
class Steps:
    """Takes one optimizer step after another on a state."""

    state: State
    passes: Passes
    computing: Computing
    optimization: Optimization
    """What clips gradients, and how long all but the head is held."""
    record: Record
    micro_batches: MicroBatches
    """How many images are computed at once; where memory runs out it is brought down."""

    def __post_init__(self) -> None:
        self._parameters = [each for group in self.state.optimizer.param_groups for each in group["params"]]
        self._buffers = Buffers()
        # Whether all but the head is held; unknown before the first step.
        self._holds: bool | None = None
        self._first_step: int | None = None
        # By bandwidth, how many rows are known to fit while no other rank waits for them.
        self._rehearsed: dict[int, int] = {}
        train_mode(self.state.model)

    def take(self, batches: StepBatches) -> StepResult | None:
        """Take a step; nothing comes of it if its batches end before it is whole."""
        step = batches.step
        self._first_step = step.index if self._first_step is None else self._first_step
        self._fit_to(step)
        self._buffers.keep(self.state.model)
        self.micro_batches.sizes.setdefault(step.bandwidth, len(batches.rows))
        reduced_to: int | None = None
        while (losses := self._gradients(batches)) is None:
            self._reset()
            free_memory(self.computing.device)
            reduced_to = self._halve(batches)
        if not batches.complete:
            return None
        self._update(step)
        batches.work_queued()
        summed = torch.stack(losses).sum() * step.batch_size
        taken = batches.taken
        return StepResult(
            step,
            torch.stack([summed, torch.full_like(summed, batches.weight)]),
            batches.waited,
            corrupt=tuple(image for each in taken for image in each.corrupt),
            passes=tuple(summary for each in taken for summary in each.passes),
            reduced_to=reduced_to,
            prepared=sum(each.prepared for each in taken),
            sent_bytes=sum(each.sent_bytes for each in taken),
        )

    def _fit_to(self, step: Step) -> None:
        """Bring the model to the step's bandwidth, and let those parameters learn that are to learn by now."""
        state = self.state
        state.fit_to(step.bandwidth)
        if head_only := self.optimization.head_only:
            holds = step.progress < head_only
            if holds != self._holds:
                self._holds = holds
                hold_all_but_head(state.model, state.optimizer, hold=holds)
                train_mode(state.model)
        self.passes.fit_to(step.bandwidth)

    def _gradients(self, batches: StepBatches) -> list[torch.Tensor] | None:
        """Add up the step's gradient; returns the losses of its micro-batches, or nothing if memory ran out."""
        step, losses = batches.step, list[torch.Tensor]()
        self._seed(step)
        try:
            for micro_batch in regroup(batches, self.micro_batches.sizes[step.bandwidth], self.computing.device):
                if micro_batch.completes_step and not losses:
                    self._rehearse(micro_batch)
                losses.append(self._accumulate(micro_batch))
                batches.work_queued()
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
                    f"out of memory at {step.bandwidth} px in step {step.index + 1}, which ranks that wait for each "
                    "other cannot redo: take a smaller `micro_batch`"
                ) from error
            # Handled by the caller: the error's frames hold the memory that is to be freed.
            return None
        return losses

    def _accumulate(self, micro_batch: Batch) -> torch.Tensor:
        return accumulate(self.passes, self.state.scaler, micro_batch, self.computing, self.record)

    def _rehearse(self, micro_batch: Batch) -> None:
        """Compute a step's only micro-batch without the other ranks first: what fits now, fits while they wait."""
        if not self.passes.sums or len(micro_batch.rows) <= self._rehearsed.get(micro_batch.step.bandwidth, 0):
            return
        self._accumulate(replace(micro_batch, completes_step=False))
        self._reset()
        self._seed(micro_batch.step)
        # After the first update there are the optimizer's moments too.
        if micro_batch.step.index != self._first_step:
            self._rehearsed[micro_batch.step.bandwidth] = len(micro_batch.rows)

    def _reset(self) -> None:
        """Go back to where the step began."""
        self.state.optimizer.zero_grad(set_to_none=True)
        self._buffers.restore()

    def _halve(self, batches: StepBatches) -> int:
        """Compute half as many images at once from now on; returns how many."""
        step = batches.step
        group = self.computing.transform.mix_group(step.batch_size)
        return self.micro_batches.halve(step.bandwidth, rows=len(batches.rows), group=group)

    def _seed(self, step: Step) -> None:
        torch.manual_seed(step_seed(self.computing.seed, step.index, self.state.parallel.ranks.rank))

    def _update(self, step: Step) -> None:
        """Move the weights along the gradients that were added up, and their average after them."""
        state = self.state
        if state.parallel.deterministic:
            average_statistics([state.model], state.parallel.ranks)
        set_learning_rate(state.optimizer, step.learning_rate)
        if learned := [p.grad for p in state.transforms.parameters() if p.grad is not None]:
            # The model's own are averaged in its backward pass.
            state.parallel.ranks.average(learned)
        if self.optimization.clip_grad is not None:
            state.parallel.clip(state, self._parameters, self.optimization.clip_grad)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.optimizer.zero_grad(set_to_none=True)
        state.step = step.index + 1
        if state.ema is not None:
            state.ema.update(state.model, step=state.step)


def accumulate(
    passes: Passes, scaler: torch.amp.GradScaler, batch: Batch, computing: Computing, record: Record
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
