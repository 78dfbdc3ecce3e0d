"""What carries out a run, made from its settings, plan and material, or taken from its checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from upchirp.curriculum import Plan
from upchirp.data import Loader
from upchirp.errors import InputError
from upchirp.models import fit_to_bandwidth
from upchirp.training.assets.models import scale_drop_path
from upchirp.training.checkpoints import checkpoint
from upchirp.training.checkpoints.description import Description
from upchirp.training.engine.trainer import Trainer
from upchirp.training.evaluation.images import EvaluationSet
from upchirp.training.evaluation.of_state import images_of
from upchirp.training.events import Report
from upchirp.training.parallel.state import State, go_on_from
from upchirp.training.probing.micro_batch import choose_micro_batch, micro_batches
from upchirp.training.probing.planning import described
from upchirp.training.probing.shared_memory import Demand
from upchirp.training.recipes.evaluations import choose_evaluations, evaluation_follows
from upchirp.training.recipes.run_groups import Keeping
from upchirp.training.run.beginning import Beginning
from upchirp.training.run.material import Material
from upchirp.training.run.memory import RunMemory, memory_of
from upchirp.training.run.plans import Planned
from upchirp.training.run.totals import Totals


@dataclass(frozen=True, kw_only=True, eq=False)
class Setup:
    """What carries out a run."""

    folder: Path
    keeping: Keeping
    evaluations: int
    """How many there are, spread evenly over progress."""
    trainer: Trainer
    """Who trains, on which device; all ranks execute the run, and the first one writes."""
    plan: Plan
    state: State
    """Where to begin; it is trained in place."""
    totals: Totals
    loader: Loader
    """The plan's batches from the state's step on."""
    images: EvaluationSet
    """Validation images at the final size."""
    memory: RunMemory
    description: Description
    """What the weights are of; goes into every file that holds them."""
    described: Mapping[str, Any]
    """The plan with the model's size and what a selection is expected to save, as the run folder holds it."""
    notes: tuple[str, ...]

    @property
    def evaluates(self) -> bool:
        """Whether an evaluation follows the step after which the state is now."""
        return evaluation_follows(self.plan, self.state.step, self.evaluations)

    @property
    def exported(self) -> tuple[str, int]:
        """Which weights the run exports, and the side that they are for."""
        return ("model" if self.state.ema is None else "ema", self.plan.final_size)


def set_up(planned: Planned, trainer: Trainer, material: Material, beginning: Beginning, report: Report) -> Setup:
    """Make what carries out a run, and put its checkpoint into it if there is one.

    All ranks call it together.

    Raises:
        InputError: the checkpoint is of another plan, model or recipe.
    """
    plan, model = planned.plan, planned.model
    config, loaded, ranks = planned.settled.config, beginning.loaded, trainer.parallel.ranks
    memory, notes = memory_of(config, trainer, plan, model, beginning.folder, report)
    if material.own_model:
        # It may have been made for another side.
        fit_to_bandwidth(model, plan.final_size)
    elif config.optimization.drop_path_scaling:
        scale_drop_path(model, plan)
    data = described(plan, model, config.selection, epochs=config.budget)
    state = trainer.state(
        model,
        bandwidth=plan.final_size,
        learning_rate=config.optimization.learning_rate(config.batch_size),
        bandwidths=plan.sizes,
        plan=plan,
    )
    evaluations, told = choose_evaluations(config, plan, len(material.val), average=state.ema is not None)
    notes += [told] if told else []
    totals = Totals()
    if loaded:
        totals = _restore(loaded, plan, state)
        notes += [f"{line}: going back to the one before" for line in loaded.damaged]
        notes.append(f"going on from {loaded.path}")
    trainer, few = _with_room(trainer, plan)
    notes += [few] if few else []
    loader = trainer.loader(
        material.train,
        plan,
        start_step=state.step,
        micro_batch=micro_batches(config, plan, ranks.size),
        select=config.selection,
    )
    if loaded:
        # Checkpoints of before there was selection lack it.
        stored = loaded.content.get("loader", {"step": state.step, "selection": None})
        # Plans were compared, and another seed was asked for.
        loader.load_state_dict({name: value for name, value in stored.items() if name != "order"})
    if config.select and not beginning.resuming:
        notes.append(data["selection"]["expected"]["summary"])
    at_once = choose_micro_batch(config, config.batch_size, ranks.size)
    return Setup(
        folder=beginning.folder,
        keeping=config,
        evaluations=evaluations,
        trainer=trainer,
        plan=plan,
        state=state,
        totals=totals,
        loader=loader,
        images=images_of(trainer, material.val, plan.final_size, at_once),
        memory=memory,
        description=material.description,
        described=data,
        notes=tuple(notes),
    )


def _with_room(trainer: Trainer, plan: Plan) -> tuple[Trainer, str | None]:
    """The trainer with as many of its loader's workers as there is shared memory for, and a line if these are fewer."""
    loading = trainer.loading
    demand = Demand(
        plan=plan,
        low_frequency=loading.low_frequency,
        prepare=loading.way,
        channels=trainer.augmentation.channels,
    )
    workers, few = demand.workers(loading.processes)
    return replace(trainer, loading=replace(loading, workers=workers)), few


def _restore(loaded: checkpoint.Loaded, plan: Plan, state: State) -> Totals:
    """Put a checkpoint into the state; returns what was counted until then."""
    # The stored plan is read before it is compared: an older checkpoint may lack a field that has a default now.
    if Plan.from_dict(loaded.content.get("plan", {})) != plan:
        raise InputError(f"{loaded.path} was trained by another plan: give the settings that its run was started with")
    return go_on_from(loaded, state, Totals.from_dict)
