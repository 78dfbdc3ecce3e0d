"""Settings of a job that is made of trainings: its own and theirs, under one set of flag names."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Self

from upchirp.conversion import plain, typed
from upchirp.errors import InputError
from upchirp.training.recipes.config import TrainConfig, check_names, flat_names
from upchirp.training.recipes.config_file import CONFIG, load_stored


@dataclass(frozen=True, kw_only=True)
class AroundTraining:
    """Base of such settings; a name that both have is the job's."""

    DEFAULTS: ClassVar[Mapping[str, Any]] = {}
    """Settings of the training that have another default in the job."""

    training: TrainConfig = field(default_factory=TrainConfig)
    """What its trainings share."""

    def to_flat(self) -> dict[str, Any]:
        """All settings under their flag names, as plain data."""
        own = {name: plain(getattr(self, name)) for name in self._own_names()}
        return {**self.training.to_flat(), **own}

    @classmethod
    def from_flat(cls, values: Mapping[str, Any], *, source: str = "config") -> Self:
        """Settings by their flag names; what is missing comes from the recipe.

        Raises:
            InputError: an unknown name or a value of the wrong type.
        """
        names = cls._own_names()
        check_names(values, flat_names().union(names), source)
        own = {name: value for name, value in values.items() if name in names}
        others = {name: value for name, value in values.items() if name not in names}
        training = TrainConfig.from_flat({**cls.DEFAULTS, **others}, source=source)
        return cls(training=training, **cls._typed(own, source))

    @classmethod
    def stored(cls, folder: Path) -> dict[str, Any]:
        """The settings in the folder of such a job, by their flag names.

        Raises:
            InputError: unreadable, or of another job.
        """
        values = load_stored(folder / CONFIG)
        if not values.keys() & set(cls._own_names()) - flat_names():
            raise InputError(f"{folder} holds a run of another kind: choose another `output`")
        return values

    @classmethod
    def _typed(cls, own: Mapping[str, Any], source: str) -> dict[str, Any]:
        """The job's own settings, checked and converted."""
        return typed(cls, own, source)

    @classmethod
    def _own_names(cls) -> list[str]:
        return [entry.name for entry in fields(cls) if entry.name != "training"]
