"""The settings of a comparison."""

from dataclasses import dataclass, field
from pathlib import Path

from upchirp.errors import InputError
from upchirp.training import TrainConfig
from upchirp.training.recipes.around_training import AroundTraining
from upchirp.training.recipes.checks import check_seed


@dataclass(frozen=True, kw_only=True)
class CompareConfig(AroundTraining):
    """Which curricula to compare with a baseline, at which budgets and seeds."""

    training: TrainConfig = field(default_factory=TrainConfig)
    """What all runs share; `epochs` is the baseline's budget."""
    curricula: tuple[str, ...] = ()
    """The first is the baseline, trained at the whole budget; presets or YAML files; by default `constant` and the
    recipe's."""
    budgets: tuple[float, ...] = (0.5, 0.6667, 1.0)
    """Budgets of the other curricula, as shares of the baseline's."""
    seeds: tuple[int, ...] = (0, 1)
    """One run for each seed."""

    def __post_init__(self) -> None:
        chosen = self.chosen
        if len(chosen) < 2 or len(set(chosen)) < len(chosen):
            raise InputError(f"curricula {', '.join(chosen)}: give a baseline and at least one other, each once")
        if len({Path(name).stem for name in chosen}) < len(chosen):
            raise InputError("two curriculum files have one name: rename one, the runs are kept under their names")
        if len(set(self.budgets)) < len(self.budgets):
            raise InputError(f"budgets {self.budgets}: give each once")
        if self.training.resume not in (None, "auto"):
            raise InputError("a comparison goes on by `resume='auto'`: it has no single checkpoint")
        if not self.budgets or any(not 0 < budget <= 10 for budget in self.budgets):
            raise InputError(f"budgets {self.budgets}: give shares of the baseline's budget, such as 0.5 1.0")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"seeds {self.seeds}: give at least one, each once")
        for seed in self.seeds:
            check_seed(seed)
        if self.training.regime == "pretrain":
            raise InputError(
                "what a pre-training is worth shows after it, not in its own figures: run `upchirp pretrain` for each "
                "curriculum, then `upchirp probe` or `upchirp finetune --regime mae`"
            )
        if self.training.time_budget is not None:
            raise InputError("a comparison shares out epochs: give `epochs` instead of `time_budget`")

    @property
    def chosen(self) -> tuple[str, ...]:
        """The curricula, the baseline first."""
        return self.curricula or ("constant", self.training.curriculum)
