"""The loop around the engine: logging, evaluations, checkpoints, and what stops a run."""

import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

import torch

from upchirp.curriculum import Step
from upchirp.data import Corrupt
from upchirp.data.unreadable import CorruptImages
from upchirp.errors import DataFault, InputError
from upchirp.training.engine.memory import OutOfMemory
from upchirp.training.engine.step import StepResult
from upchirp.training.events import Event, Finished, Noted, Observer, Reduced, Selected, Started, Stepped, Working
from upchirp.training.folders.interruption import Interrupted, collected_signals
from upchirp.training.probing.compiling import compile_ahead
from upchirp.training.run.adviser import Adviser
from upchirp.training.run.evaluations import Evaluations
from upchirp.training.run.saving import Saving
from upchirp.training.run.setup import Setup
from upchirp.training.run.spent import Clock
from upchirp.training.run.window import Window


@dataclass(kw_only=True, eq=False)
class Run:
    """One run in its folder: executes a plan and keeps what comes of it."""

    setup: Setup
    observers: Sequence[Observer]
    """Called with every event, on the rank that they are given to."""
    go_on: str
    """How to go on with the run, as the end of messages."""
    adviser: Adviser

    def __post_init__(self) -> None:
        setup = self.setup
        self.trainer, self.plan, self.state, self.totals = setup.trainer, setup.plan, setup.state, setup.totals
        self.device, self.ranks = setup.trainer.device, setup.trainer.parallel.ranks
        self.saving = Saving(setup, self.emit)
        self.evaluations = Evaluations(setup, self.saving, self.emit)
        self.window = Window(self.device, self.ranks, self.totals.train_seconds)
        self.corrupt = CorruptImages(self.plan.dataset_size)
        self.clock = Clock()

    def emit(self, event: Event) -> None:
        """Tell all observers."""
        if isinstance(event, Noted) and event.message not in self.totals.notes:
            self.totals.notes.append(event.message)
        for observer in self.observers:
            observer(event)

    def execute(self) -> float:
        """Train to the end of the plan and export the weights; returns their top-1 at the final size.

        Raises:
            InputError: too many corrupt images, a loss or weights that are not finite, or too little memory.
            Interrupted: a signal came; a checkpoint was written.
        """
        keeping, state, plan = self.setup.keeping, self.state, self.plan
        self.emit(Started(plan=plan, step=state.step, output=self.setup.folder))
        self.emit(Working(what="starting the loader and waiting for the first batch"))
        top1 = math.nan
        several = self.ranks.size > 1
        # Closed with the run, so that its loader workers end whoever still holds an error that came out of it.
        with collected_signals(patient=several) as received, closing(self._results()) as results:
            self.clock = Clock()
            # A checkpoint is written before the evaluation of its step, which is done again: it may have been cut off.
            if self.setup.evaluates:
                top1 = self._evaluate()
            for result in () if self.evaluations.give_up else results:
                self._take_note(result)
                last = state.step == plan.total_steps
                signum = self._after(result, received)
                # Before the evaluation, which may fail; a signal that has come leaves it to the run that goes on.
                if last or signum or state.step % keeping.checkpoint_interval == 0:
                    self._save()
                if last:
                    self.saving.writer.finish()
                elif signum:
                    raise self._interrupted(signum)
                if self.setup.evaluates:
                    top1 = self._evaluate()
                    (signum,) = self.ranks.largest(received[0] if received else 0)
                    if signum and not last:
                        self._save()
                        raise self._interrupted(signum)
                    if self.evaluations.give_up:
                        break
            trained = state.step
            if keeping.early_stop is not None:
                top1 = self.evaluations.take_best()
            self._leave(trained, top1)
            (signum,) = self.ranks.largest(received[0] if received else 0)
            if signum:
                raise self._interrupted(signum)
        return top1

    def _after(self, result: StepResult, received: Sequence[int]) -> int:
        """Log a step if a line is due, and tell of what happened in it; returns the signal that any rank got, or 0."""
        ends_stage = self.plan.stage_at(self.state.step) != result.step.stage
        log_due = ends_stage or self.window.steps >= self.setup.keeping.log_interval
        # All ranks act after the same step, whichever of them got a signal, met a damaged image or ran out of memory:
        # one that acts alone would wait for the others for ever.
        signum, corrupt, reduced, writing, diverged = self.ranks.largest(
            received[0] if received else 0,
            len(result.corrupt),
            int(result.reduced_to is not None),
            int(self.saving.writer.busy),
            # On a CPU it costs nothing to look.
            int(self.device.type == "cpu" and not self.window.is_finite()),
        )
        if log_due or diverged:
            self._check_loss()
        if log_due:
            self._log(result.step)
        if corrupt:
            self._note_corrupt(result.corrupt)
        if reduced:
            self._note_reduced(result.step)
        if self.saving.writer.pending and not writing:
            self.saving.writer.finish()
        return signum

    def _leave(self, trained: int, top1: float) -> None:
        """Write what the run leaves, and tell that it is done after so many steps of training."""
        with self.totals.spent.on("saving"):
            self.saving.writer.finish()
            self.saving.export()
        if self.ranks.is_first:
            self.evaluations.write()
        if self.setup.loader.selected is not None:
            self.emit(Noted(message=self.setup.loader.selected.summary(self.plan.total_fresh_samples)))
        self.emit(
            Finished(
                step=trained,
                top1=top1,
                best_top1=self.totals.best_top1,
                train_seconds=self.totals.train_seconds,
                spent=self.totals.spent.seconds(),
                figure=self.trainer.task.best,
            )
        )

    def _interrupted(self, signum: int) -> Interrupted:
        self.saving.writer.finish()
        return Interrupted(signum, self.setup.folder, self.state.step, self.go_on)

    def _results(self) -> Generator[StepResult, None, None]:
        """The steps of the plan."""
        trainer, sizes = self.trainer, self.setup.memory.micro_batches
        if trainer.computation.compile:
            self.emit(Working(what="compiling a graph for each bandwidth"))
            self.emit(Noted(message=compile_ahead(trainer, self.state, self.setup.loader.sampler, sizes)))
            self.totals.spent.compiling += self._lap()
            # Compiling is training time, but would distort the first log line.
            self.window = Window(self.device, self.ranks, self.totals.train_seconds)
        try:
            yield from trainer.run(self.state, self.plan, self.setup.loader, micro_batches=sizes)
        except DataFault as error:
            # The other ranks wait for this one to end its step, so no checkpoint can be written together.
            if self.ranks.size > 1 or not self.state.step:
                raise
            with self._saved_if_faulty():
                raise error
        except OutOfMemory as error:
            # Perhaps only this rank knows what fits: what it stores, the next start of the run reads.
            self.setup.memory.store()
            raise InputError(f"{error}; {self.saving.last_good()}; {self.go_on}") from error
        except torch.OutOfMemoryError as error:
            # The optimizer may have changed a part of the weights, so the step cannot be redone.
            raise InputError(
                f"out of memory in step {self.state.step + 1} outside the forward and backward passes: take a smaller "
                f"model, or `model_ema=False`; {self.saving.last_good()}"
            ) from error

    def _lap(self) -> float:
        """Count the time since the last lap as training time."""
        seconds = self.clock.lap()
        self.totals.train_seconds += seconds
        return seconds

    @contextmanager
    def _off_the_clock(self) -> Iterator[None]:
        """Wait for the device, then stop counting training time."""
        self._check_loss()
        with self.clock.paused():
            yield

    def _take_note(self, result: StepResult) -> None:
        seconds = self._lap()
        self.totals.spent.step(stage=result.step.stage, seconds=seconds, waited=result.wait_seconds)
        self.window.add(result)
        self.adviser.wait.add(
            stage=result.step.stage, train_seconds=self.totals.train_seconds, wait_seconds=result.wait_seconds
        )
        self.emit(Stepped(step=result.step, seconds=seconds, wait_seconds=result.wait_seconds))
        for summary in result.passes:
            self.emit(Selected(step=result.step, summary=summary))

    def _note_reduced(self, step: Step) -> None:
        self.setup.memory.agree()
        rows = self.setup.memory.micro_batches.sizes[step.bandwidth]
        self.emit(Reduced(step=step, micro_batch=rows))
        message = (
            f"out of memory at {step.bandwidth} px in step {step.index + 1}: it was redone with {rows} images at once, "
            f"and the run goes on with them; the batch stays {step.batch_size}"
        )
        self.emit(Noted(message=message))

    def _note_corrupt(self, images: tuple[Corrupt, ...]) -> None:
        for image in (image for part in self.ranks.gather(images) for image in part):
            if message := self.corrupt.note(image):
                self.emit(Noted(message=message))
        with self._saved_if_faulty():
            self.corrupt.check()

    @contextmanager
    def _saved_if_faulty(self) -> Iterator[None]:
        """When the data turn out to be faulty, keep what was trained until they are mended."""
        try:
            yield
        except DataFault as error:
            self._save()
            self.saving.writer.finish()
            raise InputError(f"{error}, then {self.go_on}") from error

    def _check_loss(self) -> None:
        """Stop on a loss that is not finite, before anything of it is saved; on a device this waits for it."""
        loss = self.window.mean_loss()
        self.totals.spent.rest(self._lap())
        if not math.isfinite(loss):
            raise self.saving.not_finite(f"the loss is {loss}")

    def _log(self, step: Step) -> None:
        self.window.over_ranks()
        self.emit(self.window.summary(step, self.totals.train_seconds))
        if advice := self.adviser.advise(step, self.totals.train_seconds):
            self.emit(Noted(message=advice))
        self.window = Window(self.device, self.ranks, self.totals.train_seconds)

    def _evaluate(self) -> float:
        """Evaluate; returns the top-1 of what is exported."""
        with self._saved_if_faulty(), self._off_the_clock():
            return self.evaluations.evaluate()

    def _save(self) -> None:
        with self._off_the_clock(), self.totals.spent.on("saving"):
            self.saving.save()
