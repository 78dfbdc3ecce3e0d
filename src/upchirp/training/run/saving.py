"""Files of a run: states to go on from, and its weights at the end."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from upchirp.errors import InputError, one_line
from upchirp.training.checkpoints import checkpoint
from upchirp.training.checkpoints.timm_folder import write_timm_config
from upchirp.training.events import Event, Noted, Saved
from upchirp.training.folders import run_folder
from upchirp.training.parallel.state import go_on_from
from upchirp.training.run.setup import Setup


@dataclass(eq=False)
class Saving:
    """Writes a run's checkpoints and weights into its folder; of several ranks the first one, or all their parts.

    All ranks call every method.
    """

    setup: Setup
    emit: Callable[[Event], None]

    def __post_init__(self) -> None:
        self.state, self.ranks = self.setup.state, self.setup.trainer.parallel.ranks
        self.folder = self.setup.folder / run_folder.CHECKPOINTS
        self.writer = self.state.parallel.writer(self._written)

    def best(self) -> None:
        """Write the state as the best one so far."""
        self.save(checkpoint.best_path(self.folder, self.state.step))

    def back_to_best(self) -> None:
        """Put the best state back, if it is another one; all ranks call it together."""
        self.writer.finish()
        loaded = self.ranks.from_first(lambda: checkpoint.load_best(self.folder))
        if loaded is not None and checkpoint.step_of(loaded.path) != self.state.step:
            go_on_from(loaded, self.state, lambda content: None)

    def export(self) -> None:
        """Write the weights, and their average if there is one, as plain timm loads them, and a timm configuration."""
        self.state.average_statistics()
        # A curriculum may end below the final size (Table 3).
        self.state.fit_to(self.setup.plan.final_size)
        modules = {run_folder.WEIGHTS: self.state.model}
        if self.state.ema is not None:
            modules[run_folder.WEIGHTS_EMA] = self.state.ema.module
        for name, module in modules.items():
            weights = self.state.parallel.whole(module.state_dict())
            if self.ranks.is_first:
                exported, weights = self.setup.trainer.task.exported(module, weights)
                checkpoint.export_weights(weights, self.setup.folder / name, self.setup.description.to_dict())
        if self.ranks.is_first:
            try:
                write_timm_config(exported, self.setup.description, self.setup.folder / run_folder.TIMM_CONFIG)
            except (AttributeError, LookupError, TypeError, ValueError) as error:
                # The weights are there: a model that timm cannot describe is no reason to fail at the very end.
                self.emit(
                    Noted(message=f"no {run_folder.TIMM_CONFIG} for timm's local-dir was written: {one_line(error)}")
                )

    def last_good(self) -> str:
        """Where to go on from, as the end of a message."""
        kept = list(checkpoint.checkpoints(self.folder))
        return f"the last good checkpoint is {kept[-1]}" if kept else "no checkpoint was written before it"

    def not_finite(self, what: str) -> InputError:
        """The error of a training that diverged."""
        return InputError(
            f"{what} at step {self.state.step}: {self.last_good()}; try a lower `lr_base`, a longer `warmup` or "
            "`clip_grad=1`"
        )

    def save(self, path: Path | None = None) -> None:
        """Write the state, by default as the checkpoint of its step."""
        if not self.state.is_finite():
            raise self.not_finite("weights are not finite")
        content = {
            "plan": self.setup.plan.to_dict(),
            "described": self.setup.description.to_dict(),
            "loader": self.setup.loader.state_dict(),
            "prepare": self.setup.loader.prepare,
            "amp_dtype": self.setup.trainer.optimization.amp_dtype,
            **self.setup.totals.to_dict(),
        }
        self.writer.begin(self.state, content, path or checkpoint.step_path(self.folder, self.state.step))

    def _written(self, path: Path) -> None:
        if self.ranks.is_first:
            checkpoint.prune(self.folder, self.setup.keeping.checkpoint_keep)
            if path == checkpoint.best_path(path.parent, checkpoint.step_of(path)):
                checkpoint.prune_best(path)
        self.emit(Saved(step=checkpoint.step_of(path), path=path))
