"""The plan of a trial: exact steps for what an algorithm asks for."""

from dataclasses import dataclass, replace

from torch import nn

from upchirp.curriculum import CostTable, Curriculum, Phase, Plan, constant, pixels, preset
from upchirp.errors import InputError
from upchirp.models import check_sizes, flops_table, size_multiple
from upchirp.search.config import SearchConfig
from upchirp.search.cost import Price, Rates
from upchirp.search.sequential import rungs
from upchirp.search.trial import Trial
from upchirp.training import make_plan
from upchirp.training.recipes.optimizer_choice import check_states

PRESETS = ("efficienttrain_plus_plus", "efficienttrain", "linear", "constant")
"""Schedules that the report sets beside what was found."""


@dataclass(frozen=True, kw_only=True)
class TrialPlan:
    """What to execute for a trial: its own part of a run, then its fine-tuning."""

    run: Plan
    """The run that the trial is a part of, from step `begin` to `middle`."""
    tuning: Plan | None
    """The same run up to `middle`, then the fine-tuning."""
    begin: int
    """Steps done before the trial."""
    middle: int
    """Steps done when the fine-tuning begins: where the state is taken from which the search goes on."""

    @property
    def end(self) -> int:
        """Steps done after the fine-tuning."""
        return self.middle if self.tuning is None else self.tuning.total_steps

    @property
    def training_cost(self) -> float:
        """Equivalent epochs without fine-tuning."""
        return self.spent(self.middle)

    def spent(self, step: int) -> float:
        """Equivalent epochs of the trial until so many steps of the run are done."""
        cost = self.run.spent(min(step, self.middle), since=self.begin)
        return cost if self.tuning is None else cost + self.tuning.spent(step, since=self.middle)


class Planner:
    """Makes the plans of trials, all from one set of settings.

    Raises:
        InputError: candidates that the model cannot take, or a budget too small for one step of each stage and of the
            fine-tuning.
    """

    def __init__(self, config: SearchConfig, model: nn.Module, images: int) -> None:
        self.config = config
        self.images = images
        self.final_size = config.training.final_size
        self.multiple = size_multiple(model)
        self.candidates = config.bandwidths(self.multiple)
        self._training = replace(config.training, epochs=config.epochs)
        self._model = model
        self.presets = {name: preset(name, self.final_size, multiple=self.multiple) for name in PRESETS}
        check_sizes(model, {*self.candidates, self.final_size})
        check_states(model, config.training.optimization, [*self.candidates, self.final_size])
        # The presets' too: the report sets what they cost beside what was found.
        beside = {side for curriculum in self.presets.values() for side in curriculum.bandwidths}
        sides = sorted({*self.candidates, self.final_size, *beside})
        self._flops = CostTable("flops", flops_table(model, sides)) if self._training.cost == "flops" else None
        cost = self._flops or pixels
        self.rates = Rates(
            stages=config.stages,
            epochs=config.epochs,
            tuning=config.tuning,
            axis=config.axis,
            relative={side: cost(side) / cost(self.final_size) for side in sides},
        )
        for side in self.candidates:
            self._check(side)

    @property
    def price(self) -> Price:
        """What the search costs, in equivalent epochs."""
        return self._priced(self.rates)

    def price_in_seconds(self, table: CostTable) -> Price:
        """What the search costs in seconds, by those of training on one image at each bandwidth."""
        sides = (*self.candidates, self.final_size)
        passes = {side: self.images * table(side) for side in sides}
        return self._priced(replace(self.rates, pass_seconds=passes))

    def _priced(self, rates: Rates) -> Price:
        if self.config.algorithm == "greedy":
            known = self.config.baseline_accuracy is not None
            return rates.greedy(self.candidates, self.final_size, baseline_known=known)
        return rates.sequential(self.candidates, halving=self.config.halving)

    def curriculum(self, bandwidths: tuple[int, ...], end: float, *, name: str = "trial") -> Curriculum:
        """The schedule of a trial that ends at a progress in stages, at the final size from there on."""
        stages = self.config.stages
        phases = [Phase(end=min(k + 1.0, end) / stages, bandwidth=side) for k, side in enumerate(bandwidths) if k < end]
        if end < stages:
            phases.append(Phase(end=1.0, bandwidth=self.final_size))
        curriculum = Curriculum(name=name, axis=self.config.axis, phases=tuple(phases))
        plain = self.config.algorithm == "greedy" and self.config.baseline_magnitude == "full"
        if plain and set(bandwidths) == {self.final_size}:
            # Line 2 of Algorithm 1: a_0 is the accuracy of training as usual.
            return replace(curriculum, magnitude=constant(self.final_size).magnitude)
        return curriculum

    def of(self, trial: Trial) -> TrialPlan:
        """The plan of a trial: the learning rates of its stage, then those that follow for its fine-tuning (line 6)."""
        run = self._plan(trial.bandwidths, float(len(trial.bandwidths)))
        begin, middle = _steps_until(run, trial.begin), _steps_until(run, trial.end)
        if middle == begin:
            raise InputError(
                f"the part of a stage from {trial.begin:g} to {trial.end:g} is too short for a step of batch size "
                f"{run.stages[-1].batch_size}: raise `epochs`, lower `batch_size`, or leave out `halving`"
            )
        tuning = self._tuning(trial, run, middle) if trial.tuning else None
        return TrialPlan(run=run, tuning=tuning, begin=begin, middle=middle)

    def _tuning(self, trial: Trial, run: Plan, middle: int) -> Plan:
        """The run of a trial up to its middle, then its fine-tuning."""
        parts = len(trial.bandwidths)
        last = self._plan(trial.bandwidths, trial.end).stages[parts]
        epochs = self.rates.tuning * trial.tuning
        steps = min(round(epochs * self.images / (last.batch_size * last.cost_per_sample)), last.steps)
        if steps < 1:
            raise InputError(
                f"{epochs:g} epochs of fine-tuning are too few for one step of batch size {last.batch_size} on "
                f"{self.images} images: raise `epochs` or `tuning_epochs`, or lower `batch_size`"
            )
        share = steps / last.steps
        tuning = replace(
            last,
            steps=steps,
            progress=_first_part(last.progress, share),
            magnitude=last.magnitude and _first_part(last.magnitude, share),
        )
        *before, stage = run.stages[:parts]
        done = middle - sum(stage.steps for stage in before)
        return replace(run, stages=(*before, replace(stage, steps=done), tuning))

    def _plan(self, bandwidths: tuple[int, ...], end: float) -> Plan:
        curriculum = self.curriculum(bandwidths, end)
        return make_plan(self._training, curriculum, self.images, model=self._model, flops=self._flops)

    def _check(self, side: int) -> None:
        """Make every kind of plan of a candidate once, so that a small budget shows before anything runs."""
        stages = self.config.stages
        if self.config.algorithm == "greedy":
            self._plan((side,) * (stages - 1) + (self.final_size,), float(stages))
            return
        for share in rungs(len(self.candidates)) if self.config.halving else [1.0]:
            self.of(Trial((side,), 0, share, tuning=share))
        self.of(Trial((side,) * (stages - 1), stages - 2, stages - 1, tuning=1))


def _steps_until(run: Plan, progress: float) -> int:
    """Steps of a run that are done at a progress in stages."""
    whole = int(progress)
    inside = round((progress - whole) * run.stages[whole].steps) if progress > whole else 0
    return sum(stage.steps for stage in run.stages[:whole]) + inside


def _first_part(span: tuple[float, float], share: float) -> tuple[float, float]:
    first, last = span
    return first, first + (last - first) * share
