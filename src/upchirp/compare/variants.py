"""Variants: what an experiment trains beside each other, and what each of them changes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from upchirp.conversion import plain, typed
from upchirp.errors import InputError

_NAME = re.compile(r"[^\W_][\w.+= -]*")
_OF_ALL = {
    "output": "the folder is the experiment's",
    "resume": "all runs go on together",
    "seed": "seeds are shared, so give `seeds`",
    "seeds": "seeds are shared, so give them once for all",
    "time_budget": "an experiment shares out epochs",
}
"""What no variant may set, and why."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way of training, at one budget or several.

    >>> Variant(name="replay", settings={"replay": 1}, budgets=(0.5, 1.0)).to_dict()
    {'name': 'replay', 'budgets': [0.5, 1.0], 'replay': 1}

    Raises:
        InputError: a name that no folder can have, a budget that makes no sense, or a setting that all runs share.
    """

    name: str
    """Its name in tables, figures and folders."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of training over the shared ones, under their flag names."""
    budgets: tuple[float, ...] = ()
    """Shares of the shared budget, or of its own where `settings` give one; by default the experiment's."""
    after: str | None = None
    """A variant before it whose trained weights it starts from, at each of that one's budgets: FixRes on top of it."""

    def __post_init__(self) -> None:
        where = f"variant {self.name!r}"
        if not _NAME.fullmatch(self.name):
            raise InputError(
                f"{where}: a name begins with a letter or digit and goes on with those, spaces and . + - = _"
            )
        check_budgets(self.budgets, where)
        for name in self.settings.keys() & _OF_ALL.keys():
            raise InputError(f"{where} sets {name}, which it cannot: {_OF_ALL[name]}")
        if self.after is not None and self.budgets:
            raise InputError(f"{where} is trained on {self.after!r} at each of its budgets: leave its own budgets out")
        if self.after is not None and "weights" in self.settings:
            raise InputError(f"{where} starts from the weights of {self.after!r}: leave out its weights")

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as in an experiment's file."""
        data: dict[str, Any] = {"name": self.name}
        if self.budgets:
            data["budgets"] = list(self.budgets)
        if self.after is not None:
            data["after"] = self.after
        return {**data, **plain(self.settings)}

    @classmethod
    def from_dict(cls, data: Any, *, source: str = "experiment") -> "Variant":
        """The inverse of `to_dict`. A curriculum file that is not where it says is looked for beside the experiment's.

        Raises:
            InputError: no name, or values of the wrong type.
        """
        if not isinstance(data, Mapping) or data.get("name") in (None, ""):
            raise InputError(f"{source}: each of variants has a `name` and the settings that it changes")
        name = data["name"]
        if not isinstance(name, str):
            raise InputError(
                f"{source}: the name of a variant is {name!r}, as YAML reads numbers, yes, no, on and off without "
                "quotes: write it in quotes"
            )
        own = typed(cls, {key: data[key] for key in ("budgets", "after") if key in data}, f"{source}: variant {name!r}")
        settings = {str(key): value for key, value in data.items() if key not in ("name", "budgets", "after")}
        if isinstance(curriculum := settings.get("curriculum"), Mapping):
            settings["curriculum"] = {"name": name, **curriculum}
        elif curriculum is not None:
            settings["curriculum"] = beside(curriculum, source)
        return cls(name=name, settings=settings, **own)


def beside(curriculum: Any, source: str) -> Any:
    """A curriculum file as it is given, or beside the file that names it if only there it is; others as they are."""
    if not isinstance(curriculum, str) or Path(curriculum).suffix.lower() not in {".yaml", ".yml"}:
        return curriculum
    near = Path(source).parent / curriculum
    return str(near) if not Path(curriculum).exists() and near.exists() else curriculum


def check_budgets(budgets: Sequence[float], where: str) -> None:
    """Refuse budgets that make no sense.

    Raises:
        InputError: naming them.
    """
    if len(set(budgets)) < len(budgets):
        raise InputError(f"{where}: budgets {list(budgets)}: give each once")
    if any(not 0 < budget <= 10 for budget in budgets):
        raise InputError(f"{where}: budgets {list(budgets)}: give shares of the whole budget, such as 0.5 1.0")


def check_variants(variants: Sequence[Variant]) -> None:
    """Refuse variants that have one name, or are trained on one that does not come before them.

    Raises:
        InputError: naming them.
    """
    names = [variant.name for variant in variants]
    if doubled := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"two variants have the name {doubled!r}: rename one, the runs are kept under their names")
    for place, variant in enumerate(variants):
        if variant.after is not None and variant.after not in names[:place]:
            raise InputError(
                f"variant {variant.name!r} is trained on {variant.after!r}: give the name of a variant before it"
            )


def check_names(names: Sequence[str], variants: Sequence[Variant]) -> None:
    """Refuse names that no variant has.

    Raises:
        InputError: naming the first, and those there are.
    """
    known = [variant.name for variant in variants]
    if unknown := next((name for name in names if name not in known), None):
        there = f"choose from {', '.join(known)}" if known else "only an experiment's file has variants to choose from"
        raise InputError(f"no variant has the name {unknown!r}: {there}")


def picked(variants: Sequence[Variant], names: Sequence[str]) -> list[Variant]:
    """The variants of these names in their order, with the baseline and what they are trained on.

    >>> usual, longer, tuned = Variant(name="usual"), Variant(name="longer"), Variant(name="tuned", after="longer")
    >>> [variant.name for variant in picked([usual, longer, tuned], ["tuned"])]
    ['usual', 'longer', 'tuned']
    """
    wanted = {variants[0].name, *names}
    # What a variant is trained on comes before it.
    for variant in reversed(variants):
        if variant.name in wanted and variant.after is not None:
            wanted.add(variant.after)
    return [variant for variant in variants if variant.name in wanted]
