"""What a curriculum is: a pure function from progress to bandwidth and magnitude."""

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from upchirp.errors import InputError

Axis = Literal["compute", "samples"]


class Setting(NamedTuple):
    """What the model is shown at one point of a run."""

    bandwidth: int
    """Side in pixels of the low-frequency input."""
    magnitude: float
    """RandAugment magnitude."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A range of progress with one bandwidth; it starts where the phase before it ends."""

    end: float
    """Progress at which the phase ends, in (0, 1]."""
    bandwidth: int
    """Side in pixels of the low-frequency input."""


@dataclass(frozen=True, kw_only=True)
class Curriculum:
    """A bandwidth for every progress, and a magnitude that rises linearly with it.

    >>> curriculum = Curriculum(
    ...     name="mine", axis="compute", phases=(Phase(end=0.5, bandwidth=96), Phase(end=1.0, bandwidth=224))
    ... )
    >>> curriculum.at(0.25)
    Setting(bandwidth=96, magnitude=2.25)
    >>> curriculum.final_size
    224

    Raises:
        InputError: phases out of order, not ending at 1, or with a bandwidth below 1; an unknown axis; a
            magnitude outside 0 to 10.
    """

    name: str
    """Shown in tables, logs and reports."""
    axis: Axis
    """What progress measures: `compute` spent (EfficientTrain++) or `samples` seen (EfficientTrain)."""
    phases: tuple[Phase, ...]
    """The bandwidths in order of progress."""
    magnitude: tuple[float, float] = (0.0, 9.0)
    """RandAugment magnitude at progress 0 and 1."""

    def __post_init__(self) -> None:
        where = f"curriculum {self.name!r}"
        if self.axis not in get_args(Axis):
            raise InputError(f"{where}: axis is {self.axis!r}: choose one of {', '.join(get_args(Axis))}")
        if not self.phases:
            raise InputError(f"{where} has no phases: give at least one, ending at progress 1")
        ends = [phase.end for phase in self.phases]
        if not all(math.isfinite(end) for end in ends) or any(b <= a for a, b in zip([0.0, *ends], ends, strict=False)):
            raise InputError(f"{where}: phases end at {ends}: the ends must rise from above 0 to 1")
        if ends[-1] != 1.0:
            raise InputError(f"{where}: the last phase ends at {ends[-1]}: it must end at 1")
        for phase in self.phases:
            if phase.bandwidth < 1:
                raise InputError(f"{where}: bandwidth {phase.bandwidth}: it must be 1 pixel or more")
        if not all(0 <= m <= 10 for m in self.magnitude):
            raise InputError(f"{where}: magnitude {self.magnitude}: both ends must lie in 0 to 10")

    @property
    def final_size(self) -> int:
        """Bandwidth of the last phase: the input side at test time."""
        return self.phases[-1].bandwidth

    @property
    def bandwidths(self) -> tuple[int, ...]:
        """The distinct bandwidths, in rising order."""
        return tuple(sorted({phase.bandwidth for phase in self.phases}))

    def at(self, progress: float) -> Setting:
        """Bandwidth and magnitude at a progress in [0, 1).

        Raises:
            InputError: `progress` outside [0, 1).
        """
        if not 0 <= progress < 1:
            raise InputError(f"progress is {progress}: it must lie in [0, 1)")
        index = bisect_right([phase.end for phase in self.phases], progress)
        return Setting(self.phases[index].bandwidth, self.magnitude_at(progress))

    def magnitude_at(self, progress: float) -> float:
        """Magnitude at a progress in [0, 1], linear from the first to the last (Tables 5 and 6)."""
        first, last = self.magnitude
        return first + (last - first) * progress

    def to_dict(self) -> dict[str, Any]:
        """Plain data, the form of a curriculum file.

        >>> from upchirp.curriculum import constant
        >>> constant(64).to_dict()["phases"]
        [{'end': 1.0, 'bandwidth': 64}]
        """
        return {
            "name": self.name,
            "axis": self.axis,
            "magnitude": list(self.magnitude),
            "phases": [{"end": phase.end, "bandwidth": phase.bandwidth} for phase in self.phases],
        }

    @classmethod
    def from_dict(cls, data: Any, *, source: str = "curriculum") -> "Curriculum":
        """The inverse of `to_dict`; `source` names the origin in messages.

        Raises:
            InputError: missing or unknown keys, values of the wrong type, or an invalid curriculum.
        """
        _check_keys(data, required={"phases"}, optional={"name", "axis", "magnitude"}, source=source)
        phases = data["phases"]
        if not isinstance(phases, list) or not phases:
            raise InputError(f"{source}: phases must be a list of {{end, bandwidth}}")
        for phase in phases:
            _check_keys(phase, required={"end", "bandwidth"}, optional=set(), source=f"{source}: phase")
            if isinstance(phase["bandwidth"], bool) or not isinstance(phase["bandwidth"], int):
                raise InputError(f"{source}: bandwidth {phase['bandwidth']!r} must be a whole number of pixels")
        try:
            first, last = data.get("magnitude", (0.0, 9.0))
            magnitude = (float(first), float(last))
            parsed = tuple(Phase(end=float(phase["end"]), bandwidth=phase["bandwidth"]) for phase in phases)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{source}: {error}: magnitude is [first, last] and every end a number from 0 to 1"
            ) from error
        name = str(data.get("name", source))
        return cls(name=name, axis=data.get("axis", "compute"), phases=parsed, magnitude=magnitude)


def _check_keys(data: Any, *, required: set[str], optional: set[str], source: str) -> None:
    if not isinstance(data, Mapping):
        raise InputError(f"{source}: expected keys and values, found {type(data).__name__}")
    if missing := sorted(required - data.keys()):
        raise InputError(f"{source}: {', '.join(missing)} missing")
    if unknown := sorted(str(key) for key in data.keys() - required - optional):
        allowed = ", ".join(sorted(required | optional))
        raise InputError(f"{source}: unknown key {', '.join(unknown)}: the keys are {allowed}")
