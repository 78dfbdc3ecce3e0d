"""The run of one trial: a segment from its parent's state, a segment of fine-tuning, an evaluation."""

import copy
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from upchirp.curriculum import Plan
from upchirp.data import Corrupt, Source
from upchirp.data.unreadable import CorruptImages, UnreadableImages
from upchirp.errors import InputError
from upchirp.files import clear_leftovers, write_text
from upchirp.search.trial import Outcome
from upchirp.search.trial_plan import TrialPlan
from upchirp.training import StepResult, TrainConfig, Trainer
from upchirp.training.assets.models import lower_drop_path, make_model
from upchirp.training.checkpoints import checkpoint
from upchirp.training.engine.task import Task
from upchirp.training.evaluation.of_state import evaluate_state, images_of
from upchirp.training.parallel.device import choose_device, numerics
from upchirp.training.parallel.state import go_on_from
from upchirp.training.probing.micro_batch import choose_micro_batch, micro_batches
from upchirp.training.run.spent import Clock

_PROGRESS = "progress"
_PROGRESS_SECONDS = 0.5


class Stopped(Exception):
    """The search was asked to stop; the trial's state is in a checkpoint."""


@dataclass(frozen=True, kw_only=True)
class TrialJob:
    """All that is needed to train a trial, wherever that happens; it can be pickled."""

    config: TrainConfig
    plan: TrialPlan
    drop_path: float
    """What the model's stochastic-depth rates are multiplied by (Appendix A.1)."""
    folder: Path
    """Where the trial's states are kept."""
    start: Path | None
    """The state to begin with; None for the initial weights."""
    stop: Path
    """A file that asks to stop by being there."""
    threads: int
    """CPU threads, where the CPU trains."""
    train: Source
    val: Source
    """Images to score on."""
    model: nn.Module | None
    """The initial model; None makes the configured one."""
    task: Task | None = None
    """What it is trained to do; None tells labels."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of a trial."""

    outcome: Outcome
    """Its score; accuracy 0 and an infinite loss if it diverged."""
    seconds: float
    """Wall-clock time of its training and fine-tuning, over all interruptions."""
    notes: tuple[str, ...]
    """Lines on what went wrong without stopping it."""


@dataclass(kw_only=True)
class _Counted:
    """What a trial's checkpoint holds beside the state of its training."""

    loss: float = 0.0
    """Sum of the losses that the outcome's loss is the mean of."""
    steps: int = 0
    seconds: float = 0.0


def run_trial(job: TrialJob) -> Result:
    """Train, fine-tune and score, going on from the job's own latest checkpoint if there is one.

    Raises:
        Stopped: the file `stop` appeared; the state was saved.
        InputError: a parent's state that cannot be read, or too many corrupt images.
    """
    device = choose_device(job.config.device)
    with numerics(device, deterministic=job.config.deterministic), _threads(job.threads, device):
        return _Execution(job, device).execute()


class _Execution:
    """One job on one device."""

    def __init__(self, job: TrialJob, device: torch.device) -> None:
        self.job = job
        self.device = device
        self.counted = _Counted()
        self.notes: list[str] = []
        self.corrupt = CorruptImages(self.plan.dataset_size)
        # The raw weights are scored, so no average is kept.
        optimization = replace(job.config.optimization, model_ema=False)
        if job.model is not None:
            model = copy.deepcopy(job.model)
        else:
            model = make_model(job.config, len(job.train.classes), job.task)
        self.trainer = replace(Trainer.of(job.config, device, task=job.task), optimization=optimization)
        model = self.trainer.place(model)
        if job.model is None and optimization.drop_path_scaling:
            lower_drop_path(model, job.drop_path)
        rate = optimization.learning_rate(job.config.batch_size)
        self.state = self.trainer.state(model, bandwidth=self.plan.final_size, learning_rate=rate)
        self.writer = self.state.parallel.writer(self._written)
        self._restore()

    @property
    def plan(self) -> Plan:
        return self.job.plan.run

    def _steps(self) -> Iterator[StepResult]:
        """The steps of the trial's two segments, from where the state is."""
        state, config = self.state, self.job.config
        parts = ((self.plan, self.job.plan.middle), (self.job.plan.tuning, self.job.plan.end))
        for plan, end in parts:
            if plan is None or state.step >= end:
                continue
            loader = self.trainer.loader(
                self.job.train, plan, start_step=state.step, micro_batch=micro_batches(config, plan)
            )
            yield from self.trainer.run(state, plan, loader, until=end)

    def execute(self) -> Result:
        state, config, plan = self.state, self.job.config, self.job.plan
        self.job.folder.mkdir(parents=True, exist_ok=True)
        # The loss that is kept is that of the fine-tuning, or of the last stage where there is none.
        kept_from = plan.middle if plan.end > plan.middle else plan.end - self.plan.stages[-1].steps
        losses: list[torch.Tensor] = []
        finite = True
        clock = Clock()
        reported = -math.inf
        for result in self._steps():
            self._note_corrupt(result.corrupt)
            if result.step.index >= kept_from:
                losses.append(result.loss)
            last = state.step == plan.end
            stopping = self.job.stop.exists()
            saving = state.step == plan.middle or state.step % config.checkpoint_interval == 0 or stopping
            if last or saving or self.device.type == "cpu":
                finite = math.isfinite(result.loss.item())
            if finite and (last or saving):
                finite = state.is_finite()
            if not finite:
                break
            now = time.perf_counter()
            if now - reported > _PROGRESS_SECONDS:
                reported = now
                write_text(self.job.folder / _PROGRESS, str(state.step), durable=False)
            if (saving and not last) or state.step == plan.middle:
                self.counted.seconds += clock.lap()
                self._count(losses)
                with clock.paused():
                    path = checkpoint.step_path(self.job.folder, state.step)
                    self.writer.begin(state, {"counted": vars(self.counted)}, path)
            if stopping and not last:
                raise Stopped
        self.counted.seconds += clock.lap()
        if finite:
            self._count(losses)
            outcome = Outcome(self._accuracy(), self.counted.loss / self.counted.steps, plan.training_cost)
        else:
            self.notes.append(f"it diverged at step {state.step} and is out: its loss or weights are not finite")
            outcome = Outcome(0.0, math.inf, plan.training_cost)
        keep_only(self.job.folder, {plan.middle})
        return Result(outcome=outcome, seconds=self.counted.seconds, notes=tuple(self.notes))

    def _restore(self) -> None:
        """Go on from the trial's own checkpoint, else begin with the parent's state."""
        try:
            loaded = checkpoint.load_latest(self.job.folder)
        except InputError as error:
            self.notes.append(f"{error}: it begins anew")
            loaded = None
        if loaded is not None:
            self.notes += [f"{line}: going back to the one before" for line in loaded.damaged]
            self.counted = go_on_from(loaded, self.state, lambda content: _Counted(**content["counted"]))
        elif self.job.start is not None:
            parent = checkpoint.Loaded(self.job.start, checkpoint.load(self.job.start), ())
            go_on_from(parent, self.state, lambda content: None)

    def _count(self, losses: list[torch.Tensor]) -> None:
        """Add up losses that were left on the device."""
        # One by one, so that an interruption changes no digit of the sum.
        for loss in torch.stack(losses).tolist() if losses else ():
            self.counted.loss += loss
            self.counted.steps += 1
        losses.clear()

    def _written(self, path: Path) -> None:
        keep_only(self.job.folder, {self.job.plan.middle, checkpoint.step_of(path)})

    def _accuracy(self) -> float:
        config = self.job.config
        at_once = choose_micro_batch(config, config.batch_size)
        data = images_of(self.trainer, self.job.val, self.plan.final_size, at_once)
        evaluation = evaluate_state(self.trainer, self.state, data)[0].result
        self.notes += [f"cannot read {image.name} ({image.reason}): left out of the score" for image in data.corrupt]
        return evaluation.score

    def _note_corrupt(self, images: tuple[Corrupt, ...]) -> None:
        self.notes += filter(None, map(self.corrupt.note, images))
        try:
            self.corrupt.check()
        except UnreadableImages as error:
            raise InputError(str(error)) from error


def keep_only(folder: Path, steps: set[int]) -> None:
    """Delete a trial's checkpoints but those after so many steps, and leftovers of interrupted writing."""
    kept = {checkpoint.step_path(folder, step).name for step in steps}
    for path in list(checkpoint.checkpoints(folder)):
        if path.name not in kept:
            checkpoint.delete(path)
    clear_leftovers(folder)


def read_progress(folder: Path) -> int:
    """Steps of the run that a job has done, as it told about every half second; 0 before it did."""
    try:
        return int((folder / _PROGRESS).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


@contextmanager
def _threads(count: int, device: torch.device) -> Iterator[None]:
    """Compute with so many threads if the CPU trains: sums depend on their number, and candidates share the cores."""
    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
