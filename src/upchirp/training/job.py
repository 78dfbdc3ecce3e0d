"""A training from configuration to exported weights: the engine, with evaluations and checkpoints between steps."""

import math
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

from upchirp.curriculum import Plan
from upchirp.data import BatchTransform, Corrupt, Loader, MapStyleSource, Source, mix_group, open_data
from upchirp.errors import InputError
from upchirp.models import check_sizes, create_model
from upchirp.training import checkpoint, run_folder
from upchirp.training.config import TrainConfig
from upchirp.training.device import choose_device, numerics
from upchirp.training.engine import StepResult, run_segment
from upchirp.training.evaluate import EvaluationSet, at_size, evaluate
from upchirp.training.events import (
    Evaluated,
    Event,
    Finished,
    Logged,
    Noted,
    Observer,
    Saved,
    Started,
    Stepped,
)
from upchirp.training.planning import (
    curriculum_for,
    drop_path_for,
    engine_settings,
    make_plan,
    measure_seconds,
    new_state,
    price,
)
from upchirp.training.state import State

_MICRO_BATCH = 512


class Interrupted(Exception):
    """The run was asked to stop; its state is in a checkpoint.

    `signum` is the signal that asked, `folder` the run to go on with.
    """

    def __init__(self, signum: int, folder: Path, step: int) -> None:
        super().__init__(f"stopped after step {step}; go on with: --resume auto --output {folder}")
        self.signum = signum
        self.folder = folder
        self.step = step


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a finished run achieved."""

    output: Path
    """The run folder."""
    plan: Plan
    """What was executed."""
    top1: float
    """Percent right at the final size: of the weights' average if the recipe keeps one, else of the weights."""
    best_top1: float
    """The best of the evaluations in the last stage."""
    train_seconds: float
    """Training time, without evaluations and checkpoints."""


@dataclass(kw_only=True)
class _Progress:
    """What a checkpoint holds beside the engine's state."""

    train_seconds: float = 0.0
    best_top1: float = -1.0
    corrupt: set[int] = field(default_factory=set)


def train(
    config: TrainConfig,
    *,
    model: nn.Module | None = None,
    data: tuple[Any, Any] | None = None,
    observers: Sequence[Observer] = (),
) -> TrainResult:
    """Train by the configuration; go on from a checkpoint if it says so.

    Args:
        config: what to do.
        model: any module that maps (N, 3, H, W) to (N, classes); by default `config.model` is created.
        data: (train, validation) as `Source` or map-style data sets of `(image, label)`; by default `config.data`
            is opened.
        observers: called with every event; see `upchirp.training.events`.

    Raises:
        InputError: bad input, found before training where that is possible. A damaged data set or a non-finite loss
            stops the run with its last good checkpoint kept.
        Interrupted: SIGINT or SIGTERM came; a checkpoint was written.
    """
    train_source, val_source = _sources(config, data)
    device = choose_device(config.device)
    curriculum, model = _model(config, model, train_source)
    micro_batch = _micro_batch(config, device)
    folder = config.output or Path("runs") / f"{config.model}-{datetime.now():%Y%m%d-%H%M%S}"
    resuming = config.resume == "auto" and run_folder.holds_run(folder)
    if resuming:
        run_folder.check_is_same_run(folder, config)
    else:
        run_folder.check_is_free(folder)

    with numerics(device, deterministic=config.deterministic):
        model = model.to(device)
        if config.channels_last:
            model = model.to(memory_format=torch.channels_last)
        if resuming:
            plan = run_folder.read_plan(folder)
            if plan.dataset_size != len(train_source):
                raise InputError(
                    f"{folder} was planned for {plan.dataset_size} training images, now there are {len(train_source)}"
                )
        else:
            plan = make_plan(
                config,
                curriculum,
                len(train_source),
                model=model,
                seconds=lambda curve: measure_seconds(config, curve, model, train_source, device, micro_batch),
            )
        state = new_state(
            model,
            config.optimization,
            device,
            bandwidth=plan.final_size,
            learning_rate=config.optimization.learning_rate(config.batch_size),
        )
        notes: list[str] = []
        progress = _Progress()
        if loaded := _checkpoint(config, folder, plan, resuming):
            notes = [f"{line}: going back to the one before" for line in loaded.damaged]
            notes.append(f"going on from {loaded.path}")
            progress = _restore(state, loaded.content)
        if not resuming:
            run_folder.create(folder, config, price(plan, model, config.epochs))
        evaluation = EvaluationSet(
            val_source,
            plan.final_size,
            interpolation=config.augmentation.interpolation,
            workers=config.workers,
            batch_size=min(256, micro_batch),
        )
        batches = Loader(
            train_source,
            plan,
            augmentation=config.augmentation,
            mode=config.mode,
            low_frequency=config.low_frequency,
            seed=config.seed,
            workers=config.workers,
            start_step=state.step,
            micro_batch=micro_batch,
            pin_memory=device.type == "cuda",
            share_cores=device.type == "cpu",
        )
        log = run_folder.RunLog(folder, state.step)
        try:
            run = _Run(config, plan, state, progress, folder, device, evaluation, (log, *observers))
            for note in notes:
                run.emit(Noted(message=note))
            return run.execute(batches)
        finally:
            log.close()


class _Run:
    """The loop around the engine: what happens between steps."""

    def __init__(
        self,
        config: TrainConfig,
        plan: Plan,
        state: State,
        progress: _Progress,
        folder: Path,
        device: torch.device,
        evaluation: EvaluationSet,
        observers: Sequence[Observer],
    ) -> None:
        self.config = config
        self.plan = plan
        self.state = state
        self.progress = progress
        self.folder = folder
        self.device = device
        self.evaluation = evaluation
        self.observers = observers
        self.window = _Window(device)

    def emit(self, event: Event) -> None:
        for observer in self.observers:
            observer(event)

    def execute(self, batches: Loader) -> TrainResult:
        config, state, plan = self.config, self.state, self.plan
        self.emit(Started(plan=plan, step=state.step, output=self.folder))
        transform = BatchTransform(
            config.augmentation,
            seed=config.seed,
            low_frequency=config.low_frequency,
            channels_last=config.channels_last,
        )
        top1 = math.nan
        with _signals() as received:
            for result in run_segment(state, batches, transform, engine_settings(config, self.device)):
                self._take_note(result)
                last = state.step == plan.total_steps
                if last or self.window.steps >= config.log_interval or self.device.type == "cpu":
                    self._check_loss(emit=last or self.window.steps >= config.log_interval)
                if last or self._evaluation_due(result):
                    top1 = self._evaluate(result)
                if last or received or state.step % config.checkpoint_interval == 0:
                    self._save()
                if received and not last:
                    raise Interrupted(received[0], self.folder, state.step)
        if math.isnan(top1):
            top1 = self._evaluate(None)
        checkpoint.export_weights(state.model.state_dict(), self.folder / run_folder.WEIGHTS)
        if state.ema is not None:
            checkpoint.export_weights(state.ema.module.state_dict(), self.folder / run_folder.WEIGHTS_EMA)
        best, seconds = self.progress.best_top1, self.progress.train_seconds
        self.emit(Finished(step=state.step, top1=top1, best_top1=best, train_seconds=seconds))
        return TrainResult(output=self.folder, plan=plan, top1=top1, best_top1=best, train_seconds=seconds)

    def _take_note(self, result: StepResult) -> None:
        self.progress.train_seconds += result.seconds
        self.window.add(result)
        self.emit(Stepped(step=result.step, seconds=result.seconds, wait_seconds=result.wait_seconds))
        for image in result.corrupt:
            self._note_corrupt(image)

    def _note_corrupt(self, image: Corrupt) -> None:
        known = self.progress.corrupt
        if image.index in known:
            return
        known.add(image.index)
        self.emit(
            Noted(message=f"cannot read {image.name} ({image.reason}): replaced by another ({len(known)} so far)")
        )
        if 100 * len(known) > self.plan.dataset_size:
            self._save()
            raise InputError(
                f"more than 1 % of the {self.plan.dataset_size} training images cannot be read, the last one is "
                f"{image.name} ({image.reason}): repair or remove them, then go on with --resume auto"
            )

    def _check_loss(self, *, emit: bool) -> None:
        """Stop on a loss that is not finite, before anything of it is saved."""
        loss = self.window.mean_loss()
        if not math.isfinite(loss):
            kept = list(checkpoint.checkpoints(self.folder / run_folder.CHECKPOINTS))
            where = f"the last good checkpoint is {kept[-1]}" if kept else "no checkpoint was written before it"
            raise InputError(
                f"the loss is {loss} at step {self.state.step}: {where}; "
                "try a lower --lr-base, a longer --warmup or --clip-grad 1"
            )
        if emit and self.window.last is not None:
            self.emit(self.window.summary(loss, self.progress.train_seconds))
            self.window = _Window(self.device)

    def _evaluation_due(self, result: StepResult) -> bool:
        step = result.step
        following = self.plan.step(step.index + 1).progress
        return int(following * self.config.evaluations) > int(step.progress * self.config.evaluations)

    def _evaluate(self, result: StepResult | None) -> float:
        """Evaluate at the final size, and at the current bandwidth; returns the top-1 of what is exported."""
        state, final = self.state, self.plan.final_size
        top1 = self._evaluate_one(state.model, "model", final)
        if state.ema is not None:
            top1 = self._evaluate_one(state.ema.module, "ema", final)
        if state.bandwidth < final:
            self._evaluate_one(state.model, "model", state.bandwidth)
        for image in self.evaluation.corrupt:
            self.emit(Noted(message=f"cannot read the validation image {image.name} ({image.reason}): left out"))
        self.evaluation.corrupt = []
        in_last_stage = result is None or result.step.stage == len(self.plan.stages) - 1
        if in_last_stage and top1 > self.progress.best_top1:
            self.progress.best_top1 = top1
            self._save(checkpoint.BEST)
        return top1

    def _evaluate_one(self, model: nn.Module, weights: Any, size: int) -> float:
        augmentation, optimization = self.config.augmentation, self.config.optimization
        done = evaluate(
            at_size(model, self.state.bandwidth, size),
            self.evaluation,
            mean=augmentation.mean,
            std=augmentation.std,
            device=self.device,
            bandwidth=size,
            autocast=getattr(torch, optimization.amp_dtype) if optimization.amp else None,
        )
        finished = self.state.step == self.plan.total_steps
        self.emit(
            Evaluated(
                step=self.state.step,
                progress=1.0 if finished else self.plan.step(self.state.step).progress,
                bandwidth=size,
                weights=weights,
                result=done,
                train_seconds=self.progress.train_seconds,
            )
        )
        return done.top1

    def _save(self, name: str | None = None) -> None:
        self._check_loss(emit=False)
        folder = self.folder / run_folder.CHECKPOINTS
        path = folder / name if name else checkpoint.step_path(folder, self.state.step)
        content = {
            "state": self.state.state_dict(),
            "plan": self.plan.to_dict(),
            "train_seconds": self.progress.train_seconds,
            "best_top1": self.progress.best_top1,
            "corrupt": sorted(self.progress.corrupt),
        }
        checkpoint.save(content, path)
        if name is None:
            checkpoint.prune(folder, self.config.checkpoint_keep)
        self.emit(Saved(step=self.state.step, path=path))


class _Window:
    """Means over the steps since the last log line, with the loss left on the device."""

    def __init__(self, device: torch.device) -> None:
        self.loss = torch.zeros((), device=device)
        self.steps = 0
        self.images = 0
        self.seconds = 0.0
        self.wait_seconds = 0.0
        self.last: StepResult | None = None

    def add(self, result: StepResult) -> None:
        self.loss = self.loss + result.loss
        self.steps += 1
        self.images += result.step.batch_size
        self.seconds += result.seconds
        self.wait_seconds += result.wait_seconds
        self.last = result

    def mean_loss(self) -> float:
        return self.loss.item() / max(self.steps, 1)

    def summary(self, loss: float, train_seconds: float) -> Logged:
        assert self.last is not None
        seconds = max(self.seconds, 1e-9)
        return Logged(
            step=self.last.step,
            loss=loss,
            images_per_second=self.images / seconds,
            wait_share=self.wait_seconds / seconds,
            train_seconds=train_seconds,
        )


def _sources(config: TrainConfig, data: tuple[Any, Any] | None) -> tuple[Source, Source]:
    if data is None:
        if not config.data:
            raise InputError("no data: give a folder with train/ and val/, or `generated`")
        return open_data(config.data, config.final_size)
    first, second = (item if isinstance(item, Source) else MapStyleSource(item) for item in data)
    return first, second


def _model(config: TrainConfig, model: nn.Module | None, source: Source) -> tuple[Any, nn.Module]:
    """The curriculum in sizes the model takes, and the model, initialised from the seed."""
    if model is not None:
        return curriculum_for(model, config.curriculum, config.final_size), model
    if not source.classes:
        raise InputError("the data set has no `classes`: add the attribute, or pass a model")
    options: dict[str, Any] = {
        "num_classes": len(source.classes),
        "final_size": config.final_size,
        **config.model_kwargs,
    }
    optimization = config.optimization
    torch.manual_seed(config.seed)
    model = create_model(config.model, drop_path=0.0, drop=optimization.drop, **options)
    curriculum = curriculum_for(model, config.curriculum, config.final_size)
    if optimization.drop_path:
        rate = drop_path_for(optimization, curriculum, config.epochs)
        torch.manual_seed(config.seed)
        model = create_model(config.model, drop_path=rate, drop=optimization.drop, **options)
    check_sizes(model, curriculum.bandwidths)
    return curriculum, model


def _micro_batch(config: TrainConfig, device: torch.device) -> int:
    """The asked-for micro-batch, or the largest divisor of the batch up to a size that most devices hold."""
    group = mix_group(config.augmentation, config.batch_size)
    if config.micro_batch is not None:
        if config.batch_size % config.micro_batch or config.micro_batch % group:
            raise InputError(
                f"micro-batch {config.micro_batch} does not fit batch size {config.batch_size}: "
                f"choose a divisor of it that is a multiple of {group}"
            )
        return config.micro_batch
    sizes = (size for size in range(min(_MICRO_BATCH, config.batch_size), 0, -1) if config.batch_size % size == 0)
    return next((size for size in sizes if size % group == 0), config.batch_size)


def _checkpoint(config: TrainConfig, folder: Path, plan: Plan, resuming: bool) -> checkpoint.Loaded | None:
    if resuming:
        return checkpoint.load_latest(folder / run_folder.CHECKPOINTS)
    if config.resume in (None, "auto"):
        return None
    path = Path(str(config.resume))
    content = checkpoint.load(path)
    if content.get("plan") != plan.to_dict():
        raise InputError(f"{path} was trained by another plan: give the settings that its run was started with")
    return checkpoint.Loaded(path, content, ())


def _restore(state: State, content: dict[str, Any]) -> _Progress:
    state.load_state_dict(content["state"])
    return _Progress(
        train_seconds=content["train_seconds"],
        best_top1=content["best_top1"],
        corrupt=set(content["corrupt"]),
    )


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying of them; a second one ends the process as usual."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    previous: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def note(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        signal.signal(signum, previous[signum])

    for signum in (int(signal.SIGINT), int(signal.SIGTERM)):
        previous[signum] = signal.signal(signum, note)
    try:
        yield received
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
