"""The settings of a comparison."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from upchirp.compare.variants import Variant, beside, check_budgets, check_names, check_variants, picked
from upchirp.errors import InputError
from upchirp.training import TrainConfig
from upchirp.training.recipes.around_training import AroundTraining
from upchirp.training.recipes.checks import check_seed
from upchirp.training.recipes.config_file import CONFIG, load_config

BUDGETS = (0.5, 0.6667, 1.0)
"""Of curricula that are compared with a baseline, unless others are given."""


@dataclass(frozen=True, kw_only=True)
class CompareConfig(AroundTraining):
    """An experiment: what is trained beside each other, at which budgets and seeds.

    `variants` say it in full, as an experiment's file does; `curricula` is short for variants that differ in their
    curriculum alone, the first of which is trained at the whole budget only.
    """

    training: TrainConfig = field(default_factory=TrainConfig)
    """What all runs share; `epochs` is the baseline's whole budget."""
    variants: tuple[Variant, ...] = field(default=(), metadata={"flag": False})
    """Ways of training that differ in any settings, the baseline first."""
    only: tuple[str, ...] = ()
    """Of the experiment's variants those of these names alone, beside the baseline and what they are trained on; by
    default all."""
    curricula: tuple[str, ...] = ()
    """Without an experiment's file: curricula instead of variants, the first of them the baseline, trained at the whole
    budget; presets or YAML files; by default `constant` and the recipe's."""
    budgets: tuple[float, ...] = ()
    """Budgets as shares of the whole one: of the curricula but the first (by default 0.5, 0.6667 and 1), or of all
    variants that give none themselves (by default 1)."""
    equal_cost: bool = False
    """Let each budget cost what the same share of the baseline's costs, whatever a curriculum counts its epochs in."""
    seeds: tuple[int, ...] = (0, 1)
    """One run for each seed."""

    def __post_init__(self) -> None:
        if self.variants and self.curricula:
            raise InputError("the experiment gives variants: leave out `curricula`, or the file")
        check_budgets(self.budgets, "compare")
        if not self.variants:
            self._check_curricula()
        check_variants(self.variants)
        check_names(self.only, self.variants)
        if self.training.resume not in (None, "auto"):
            raise InputError("a comparison goes on by `resume='auto'`: it has no single checkpoint")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"seeds {self.seeds}: give at least one, each once")
        for seed in self.seeds:
            check_seed(seed)
        if self.training.time_budget is not None:
            raise InputError("a comparison shares out epochs: give `epochs` instead of `time_budget`")
        for variant in self.variants:
            if self.equal_cost and "epochs" in variant.settings and variant.after is None:
                raise InputError(
                    f"variant {variant.name!r} sets epochs, but at equal cost the baseline's are shared out: leave "
                    "out one of them"
                )

    @property
    def chosen(self) -> tuple[Variant, ...]:
        """The variants, the baseline first, each with its budgets but those that are trained on another."""
        if self.variants:
            usual = self.budgets or (1.0,)
            return tuple(
                variant if variant.budgets or variant.after is not None else replace(variant, budgets=usual)
                for variant in (picked(self.variants, self.only) if self.only else self.variants)
            )
        baseline, *others = self.curricula or ("constant", self.training.curriculum)
        budgets = self.budgets or BUDGETS
        return (_of_curriculum(baseline, (1.0,)), *(_of_curriculum(each, budgets) for each in others))

    def _check_curricula(self) -> None:
        chosen = self.curricula or ("constant", self.training.curriculum)
        if len(chosen) < 2 or any(chosen.count(each) > 1 for each in chosen):
            raise InputError(
                f"curricula {', '.join(map(str, chosen))}: give a baseline and at least one other, each once"
            )
        names = [_of_curriculum(each, ()).name for each in chosen]
        if len(set(names)) < len(names):
            raise InputError("two curriculum files have one name: rename one, the runs are kept under their names")

    def to_flat(self) -> dict[str, Any]:
        """All settings under their flag names, as plain data."""
        return {**super().to_flat(), "variants": [variant.to_dict() for variant in self.variants]}

    def asked(self) -> dict[str, Any]:
        """What to go on with: the settings that were asked for, from which the others follow anew for each variant."""
        flat = self.to_flat()
        own = {name: flat[name] for name in self._own_names()}
        shared = {name: value for name, value in self.training.asked().items() if name not in ("output", "resume")}
        return {**shared, **own}

    @classmethod
    def stored(cls, folder: Path) -> dict[str, Any]:
        """What was asked for of the comparison in a folder, by the flag names.

        Raises:
            InputError: unreadable, or of another job.
        """
        everything = super().stored(folder)
        asked = load_config(folder / CONFIG)
        # Comparisons of before there were variants stored all that was settled.
        return asked if "variants" in asked else everything

    @classmethod
    def from_flat(cls, values: Mapping[str, Any], *, source: str = "config") -> "CompareConfig":
        """Settings by their flag names; what is missing comes from the recipe.

        Raises:
            InputError: an unknown name or a value of the wrong type, in a variant too.
        """
        values = dict(values)
        if "curriculum" in values:
            values["curriculum"] = beside(values["curriculum"], source)
        return super().from_flat(values, source=source)

    @classmethod
    def _typed(cls, own: Mapping[str, Any], source: str) -> dict[str, Any]:
        listed = own.get("variants") or []
        if not isinstance(listed, list | tuple):
            raise InputError(f"{source}: variants is {listed!r}: expected a list, each with a `name` and settings")
        others = super()._typed({name: value for name, value in own.items() if name != "variants"}, source)
        return {**others, "variants": tuple(Variant.from_dict(each, source=source) for each in listed)}


def _of_curriculum(curriculum: str | Mapping[str, Any], budgets: tuple[float, ...]) -> Variant:
    name = Path(curriculum).stem if isinstance(curriculum, str) else str(curriculum.get("name", "curriculum"))
    return Variant(name=name, settings={"curriculum": curriculum}, budgets=budgets)
