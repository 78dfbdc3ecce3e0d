"""Files of a training: states to go on from, and of a run its weights at the end."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from upchirp.curriculum import Plan
from upchirp.data import Loader
from upchirp.errors import InputError, one_line
from upchirp.training.checkpoints import checkpoint
from upchirp.training.checkpoints.description import Description
from upchirp.training.checkpoints.timm_folder import write_timm_config
from upchirp.training.engine.trainer import Trainer
from upchirp.training.events import Event, Noted, Saved
from upchirp.training.parallel.state import State
from upchirp.training.recipes.run_groups import Keeping
from upchirp.training.run import run_folder
from upchirp.training.run.spent import Spent

Counted = TypeVar("Counted")


@dataclass(kw_only=True)
class Totals:
    """What a run's checkpoint holds beside the state of its training."""

    train_seconds: float = 0.0
    """Training time so far, without evaluations and checkpoints."""
    best_top1: float = -math.inf
    """Best of the evaluations in the last stage, percent; below everything before the first."""
    stale: int = 0
    """Evaluations in the last stage since the best."""
    evaluated: int = 0
    """Step of the latest of them: a run that goes on from there evaluates it again."""
    spent: Spent = field(default_factory=Spent)
    """Where the time went so far."""

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "Totals":
        """What a checkpoint holds of it; those of earlier versions lack what was not counted then."""
        return cls(
            train_seconds=float(stored["train_seconds"]),
            best_top1=float(stored["best_top1"]),
            stale=int(stored.get("stale", 0)),
            evaluated=int(stored.get("evaluated", 0)),
            spent=Spent(**stored.get("spent", {})),
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for a checkpoint."""
        return {**vars(self), "spent": self.spent.seconds()}


class States:
    """Writes states of a training into a folder, one at a time; of several ranks the first one, or all their parts.

    All ranks call its methods together.

    Args:
        state: what is trained.
        folder: where its states are kept.
        written: told of each one that is there.
    """

    def __init__(self, state: State, folder: Path, written: Callable[[Path], None]) -> None:
        self.state = state
        self.folder = folder
        self._written = written
        self._writer = state.parallel.writer()

    def is_finite(self) -> bool:
        """Whether all weights are finite, on every rank."""
        self.state.average_statistics()
        # A rank may hold a part only, and sees no further.
        return not any(self.state.parallel.ranks.largest(int(not self.state.is_finite())))

    def save(self, content: dict[str, Any], path: Path | None = None) -> None:
        """Write the state and what belongs to it; by default as the checkpoint of its step."""
        self.finish()
        path = path or checkpoint.step_path(self.folder, self.state.step)
        if written := self._writer.begin(self.state, content, path):
            self._written(written)

    @property
    def busy(self) -> bool:
        """Whether this rank still writes a checkpoint while training goes on."""
        return self._writer.busy

    @property
    def pending(self) -> bool:
        """Whether a checkpoint that was begun is not finished yet, on any rank."""
        return self._writer.pending

    def finish(self) -> None:
        """Wait for a checkpoint that is being written while training goes on, if there is one."""
        if path := self._writer.finish():
            self._written(path)


def go_on_from(loaded: checkpoint.Loaded, state: State, counted: Callable[[Mapping[str, Any]], Counted]) -> Counted:
    """Put a checkpoint into a state of the same model and recipe; returns what was counted until then.

    Args:
        loaded: the checkpoint.
        state: takes it over.
        counted: reads what is stored beside the state.

    Raises:
        InputError: it belongs to another model or recipe, or is none of a training.
    """
    try:
        state.parallel.restore(state, loaded)
        return counted(loaded.content)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{loaded.path} holds no training state of upchirp: {error!r}") from error


@dataclass(eq=False)
class Saving:
    """Writes a run's checkpoints and weights into its folder; of several ranks the first one, or all their parts.

    All ranks call every method.
    """

    keeping: Keeping
    """How many checkpoints are kept."""
    trainer: Trainer
    """Who trains, which says what of the model is exported."""
    plan: Plan
    """What is executed."""
    state: State
    """What is saved."""
    totals: Totals
    """Saved beside it."""
    loader: Loader
    """Whose position is saved."""
    folder: Path
    """The run folder."""
    description: Description
    """What the weights are of; goes into every file."""
    emit: Callable[[Event], None]
    """Is told what was written."""

    def __post_init__(self) -> None:
        self.ranks = self.trainer.parallel.ranks
        self.states = States(self.state, self.folder / run_folder.CHECKPOINTS, self._written)

    def step(self) -> None:
        """Write the checkpoint of the step that the state is at."""
        self._save()

    def best(self) -> None:
        """Write the state as the best one so far."""
        self._save(checkpoint.best_path(self.states.folder, self.state.step))

    def back_to_best(self) -> None:
        """Put the best state back, if it is another one; all ranks call it together."""
        self.states.finish()
        loaded = self.ranks.from_first(lambda: checkpoint.load_best(self.states.folder))
        if loaded is not None and checkpoint.step_of(loaded.path) != self.state.step:
            go_on_from(loaded, self.state, lambda content: None)

    def export(self) -> None:
        """Write the weights, and their average if there is one, as plain timm loads them, and a timm configuration."""
        self.state.average_statistics()
        # A curriculum may end below the final size (Table 3).
        self.state.fit_to(self.plan.final_size)
        modules = {run_folder.WEIGHTS: self.state.model}
        if self.state.ema is not None:
            modules[run_folder.WEIGHTS_EMA] = self.state.ema.module
        for name, module in modules.items():
            weights = self.state.parallel.whole(module.state_dict())
            if self.ranks.is_first:
                exported, weights = self.trainer.task.exported(module, weights)
                checkpoint.export_weights(weights, self.folder / name, self.description.to_dict())
        if self.ranks.is_first:
            try:
                write_timm_config(exported, self.description, self.folder / run_folder.TIMM_CONFIG)
            except (AttributeError, LookupError, TypeError, ValueError) as error:
                # The weights are there: a model that timm cannot describe is no reason to fail at the very end.
                self.emit(
                    Noted(message=f"no {run_folder.TIMM_CONFIG} for timm's local-dir was written: {one_line(error)}")
                )

    def last_good(self) -> str:
        """Where to go on from, as the end of a message."""
        kept = list(checkpoint.checkpoints(self.states.folder))
        return f"the last good checkpoint is {kept[-1]}" if kept else "no checkpoint was written before it"

    def not_finite(self, what: str) -> InputError:
        """The error of a training that diverged."""
        return InputError(
            f"{what} at step {self.state.step}: {self.last_good()}; try a lower `lr_base`, a longer `warmup` or "
            "`clip_grad=1`"
        )

    def _save(self, path: Path | None = None) -> None:
        if not self.states.is_finite():
            raise self.not_finite("weights are not finite")
        content = {
            "plan": self.plan.to_dict(),
            "described": self.description.to_dict(),
            "loader": self.loader.state_dict(),
            "prepare": self.loader.prepare,
            **self.totals.to_dict(),
        }
        self.states.save(content, path)

    def _written(self, path: Path) -> None:
        if self.ranks.is_first:
            checkpoint.prune(self.states.folder, self.keeping.checkpoint_keep)
            if path == checkpoint.best_path(path.parent, checkpoint.step_of(path)):
                checkpoint.prune_best(path)
        self.emit(Saved(step=checkpoint.step_of(path), path=path))
