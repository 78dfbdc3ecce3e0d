"""What a run leaves on disk: its checkpoints, and its weights at the end."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from upchirp.curriculum import Plan
from upchirp.data import Loader
from upchirp.errors import InputError
from upchirp.training.checkpoints import checkpoint
from upchirp.training.checkpoints.description import Description
from upchirp.training.checkpoints.timm_folder import write_timm_config
from upchirp.training.engine.task import Task
from upchirp.training.events import Event, Noted, Saved
from upchirp.training.parallel.ranks import Ranks
from upchirp.training.parallel.state import State
from upchirp.training.recipes.groups import Keeping
from upchirp.training.run import run_folder
from upchirp.training.run.spent import Spent


@dataclass(kw_only=True)
class Totals:
    """What a checkpoint holds beside the engine's state."""

    train_seconds: float = 0.0
    """Training time so far, without evaluations and checkpoints."""
    best_top1: float = -1.0
    """Best of the evaluations in the last stage, percent; -1 before the first."""
    spent: Spent = field(default_factory=Spent)
    """Where the time went so far."""


class Saving:
    """Writes a run's checkpoints and weights into its folder; of several ranks the first one, or all their parts.

    Args:
        keeping: how many checkpoints are kept.
        plan: what is executed.
        state: what is saved.
        totals: saved beside it.
        loader: whose position is saved.
        folder: the run folder.
        description: what the weights are of; goes into every file.
        task: what is trained, which says what of the model is exported.
        ranks: who trains; all of them call every method.
        emit: is told what was written.
    """

    def __init__(
        self,
        keeping: Keeping,
        plan: Plan,
        state: State,
        totals: Totals,
        loader: Loader,
        folder: Path,
        description: Description,
        task: Task,
        ranks: Ranks,
        emit: Callable[[Event], None],
    ) -> None:
        self.keeping = keeping
        self.plan = plan
        self.state = state
        self.totals = totals
        self.loader = loader
        self.folder = folder
        self.description = description
        self.task = task
        self.ranks = ranks
        self.emit = emit
        self.checkpoints = folder / run_folder.CHECKPOINTS
        self._writer = state.parallel.writer()

    def step(self) -> None:
        """Write the checkpoint of the step that the state is at."""
        self._save(checkpoint.step_path(self.checkpoints, self.state.step))

    def best(self) -> None:
        """Write the state as the best one so far."""
        self._save(checkpoint.best_path(self.checkpoints, self.state.step))

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
                exported, weights = self.task.exported(module, weights)
                checkpoint.export_weights(weights, self.folder / name, self.description.to_dict())
        if self.ranks.is_first:
            try:
                write_timm_config(exported, self.description, self.folder / run_folder.TIMM_CONFIG)
            except (AttributeError, LookupError, TypeError, ValueError) as error:
                # The weights are there: a model that timm cannot describe is no reason to fail at the very end.
                reason = " ".join(str(error).split())
                self.emit(Noted(message=f"no {run_folder.TIMM_CONFIG} for timm's local-dir was written: {reason}"))

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
            self._saved(path)

    def last_good(self) -> str:
        """Where to go on from, as the end of a message."""
        kept = list(checkpoint.checkpoints(self.checkpoints))
        return f"the last good checkpoint is {kept[-1]}" if kept else "no checkpoint was written before it"

    def not_finite(self, what: str) -> InputError:
        """The error of a training that diverged."""
        return InputError(
            f"{what} at step {self.state.step}: {self.last_good()}; try a lower `lr_base`, a longer `warmup` or "
            "`clip_grad=1`"
        )

    def _save(self, path: Path) -> None:
        self.state.average_statistics()
        # A rank may hold a part only, and sees no further.
        if any(self.ranks.largest(int(not self.state.is_finite()))):
            raise self.not_finite("weights are not finite")
        content = {
            "plan": self.plan.to_dict(),
            "described": self.description.to_dict(),
            "loader": self.loader.state_dict(),
            "prepare": self.loader.prepare,
            "train_seconds": self.totals.train_seconds,
            "best_top1": self.totals.best_top1,
            "spent": self.totals.spent.seconds(),
        }
        self.finish()
        if written := self._writer.begin(self.state, content, path):
            self._saved(written)

    def _saved(self, path: Path) -> None:
        if self.ranks.is_first:
            checkpoint.prune(self.checkpoints, self.keeping.checkpoint_keep)
            checkpoint.prune_best(self.checkpoints)
        self.emit(Saved(step=checkpoint.step_of(path), path=path))
