"""Each variant's settings, with what its data and its model decide, before anything is trained."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from torch import nn

from upchirp.compare.config import CompareConfig
from upchirp.compare.variants import Variant
from upchirp.curriculum import Curriculum, Plan
from upchirp.data import Source
from upchirp.data.label_sets import label_sets_of
from upchirp.data.sources import Note, warn
from upchirp.errors import InputError
from upchirp.models import count_flops
from upchirp.training import TrainConfig, check_model, curriculum_for, make_plan, micro_batches, settle
from upchirp.training.assets.data import open_named_data
from upchirp.training.assets.models import without_values
from upchirp.training.engine.task import Classification
from upchirp.training.recipes.config import check_names, flat_names
from upchirp.training.recipes.evaluations import USUAL
from upchirp.training.recipes.group import names_of
from upchirp.training.recipes.groups import Planning, Start
from upchirp.training.recipes.named import usual_epochs
from upchirp.training.recipes.run_groups import Computation, Keeping, Loading

_OF_THE_PLACE = (
    names_of(Start, Loading, Computation, Keeping) - {"weights", "pretrained"}
    | {"parallel", "device", "deterministic", "mean", "std"}
)  # fmt: skip
"""Settings that fine-tuning takes over from what it starts from; how it trains is its own regime's."""


@dataclass(frozen=True)
class Network:
    """A model without memory for weights, which variants share."""

    model: nn.Module
    final_size: int
    """Side that it is made for."""

    @cached_property
    def flops(self) -> int:
        """Multiply-adds of one image at the final size."""
        return count_flops(self.model, self.final_size)


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Data sets and models, each opened and made once."""

    note: Note = warn
    """Called with each line on the data."""
    _opened: dict[Any, tuple[Source, Source]] = field(default_factory=dict)
    _networks: dict[str, Network] = field(default_factory=dict)

    def of(self, start: Start) -> tuple[Source, Source]:
        """Training and validation images.

        Raises:
            InputError: data that cannot be read.
        """
        # The size matters to generated images only.
        size = start.final_size if start.data == "generated" else 0
        splits = (start.val_share, start.train_split, start.val_split)
        key = (start.data, start.more_data, *splits, start.label_column, size)
        if key not in self._opened:
            self._opened[key] = open_named_data(start, self.note)
            kinds = {label_sets_of(val) is None for _, val in self._opened.values()}
            if len(kinds) > 1:
                raise InputError(
                    "variants have images with one label each and images with several: top-1 and mAP cannot be compared"
                )
        return self._opened[key]

    def network(self, start: Start, classes: int) -> Network:
        """The model for so many classes.

        Raises:
            InputError: a model that cannot be made.
        """
        key = repr((start.model, start.made_with, start.final_size, classes))
        if key not in self._networks:
            self._networks[key] = Network(without_values(start, classes, Classification()), start.final_size)
        return self._networks[key]


@dataclass(frozen=True)
class SettledVariant:
    """A variant whose settings are all chosen."""

    variant: Variant
    """What it changes."""
    config: TrainConfig
    """Its settings at the whole budget."""
    sources: tuple[Source, Source]
    """Training and validation images."""
    network: Network
    """Its model."""

    @property
    def model(self) -> nn.Module:
        """Its model, without memory for weights."""
        return self.network.model

    @cached_property
    def curriculum(self) -> Curriculum:
        """Its curriculum."""
        return curriculum_for(self.model, self.config.curriculum, self.config.final_size)

    def plan(self, planning: Planning) -> Plan:
        """The plan under these settings, which may have another budget.

        Raises:
            InputError: a run that cannot be planned.
        """
        made = make_plan(planning, self.curriculum, len(self.sources[0]), model=self.model)
        micro_batches(planning, made)
        return made

    def compute(self, plan: Plan) -> float:
        """Multiply-adds of the forward passes of a plan."""
        return plan.equivalent_epochs * plan.dataset_size * self.network.flops

    @property
    def compute_of_an_epoch(self) -> float:
        """The same of one epoch as this curriculum counts them, whatever whole steps make of it."""
        unrounded = replace(
            self.config,
            epochs=1000.0,
            batch_size=1,
            early_batch=None,
            max_batch_size=None,
            micro_batch=None,
            replay=0,
            replay_stages=None,
        )
        return self.compute(make_plan(unrounded, self.curriculum, len(self.sources[0]), model=self.model)) / 1000


def settle_variants(config: CompareConfig, sources: Sources) -> dict[str, SettledVariant]:
    """Every variant's settings, by its name.

    Batch size, rate and recipe follow from the shared curriculum and the whole budget, so that variants that differ in
    their curriculum alone train by the same; from the variant's own model, recipe and data where it has those.

    Raises:
        InputError: naming the variant, for a setting or a model that there is not.
    """
    settled: dict[str, SettledVariant] = {}
    for variant in config.chosen:
        with naming(config, variant.name):
            settled[variant.name] = _settled(config, variant, settled, sources)
    return settled


@contextmanager
def naming(config: CompareConfig, name: str) -> Iterator[None]:
    """Let what is wrong with a variant name it, where the user did."""
    try:
        yield
    except InputError as error:
        if not config.variants:
            raise
        raise InputError(f"variant {name!r}: {error}") from error


def _settled(
    config: CompareConfig, variant: Variant, before: Mapping[str, SettledVariant], sources: Sources
) -> SettledVariant:
    check_names(variant.settings, flat_names(), "experiment")
    shared = _taken_over(config, variant, before)
    own = {**shared, **variant.settings}
    made = TrainConfig.from_flat(own, source="experiment")
    _check(made)
    train, val = sources.of(made)
    made, told = made.with_channels_of(train)
    if told:
        own |= {name: made.to_flat()[name] for name in ("mean", "std", "pixel_type")}
    network = sources.network(made, len(train.classes))
    basis = made
    if config.training.given is None and variant.after is None:
        basis = replace(made, given=None)
    elif "curriculum" in variant.settings:
        # What follows from the length of the run is to be the same for all curricula.
        usual = {name: value for name, value in own.items() if name != "curriculum"}
        usual |= {"curriculum": shared["curriculum"]} if "curriculum" in shared else {}
        basis = TrainConfig.from_flat(usual, source="experiment")
    chosen = replace(settle(basis, len(train), network.model).config, curriculum=made.curriculum)
    if "epochs" not in own and chosen.epochs == basis.epochs:
        # The recipe's epochs are its own curriculum's: what is shared out is the baseline's budget.
        baseline = config.chosen[0].settings.get("curriculum", chosen.curriculum)
        chosen = replace(chosen, epochs=usual_epochs(baseline, chosen, chosen.regime))
    if made.curriculum == "constant" and "early_batch" not in variant.settings:
        # Training as usual has no early stages.
        chosen = replace(chosen, early_batch=None, max_batch_size=None)
    if chosen.evaluations is None:
        # Curves are what it is for.
        chosen = replace(chosen, evaluations=USUAL)
    return SettledVariant(variant, chosen, (train, val), network)


def _taken_over(config: CompareConfig, variant: Variant, before: Mapping[str, SettledVariant]) -> dict[str, Any]:
    """The settings that a variant has where it gives none: the experiment's, or those of what it is trained on."""
    if variant.after is None:
        return {name: value for name, value in config.training.asked().items() if name not in ("output", "resume")}
    return {name: value for name, value in before[variant.after].config.to_flat().items() if name in _OF_THE_PLACE}


def _check(config: TrainConfig) -> None:
    """Refuse what cannot be compared, before any data are read."""
    if config.time_budget is not None:
        raise InputError("an experiment shares out epochs: give epochs instead of a time_budget")
    if not config.facts.labelled:
        raise InputError(
            "what a pre-training is worth shows after it, not in its own figures: run `upchirp pretrain` for each "
            "curriculum, then `upchirp probe` or `upchirp finetune --regime mae`"
        )
    check_model(config, labelled=config.facts.labelled)
