"""Curricula: pure functions from progress to bandwidth and magnitude."""

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from upchirp.errors import InputError

Axis = Literal["compute", "samples"]
Operator = Literal["lanczos", "crop", "nearest", "bilinear", "bicubic"]
"""What reduces images to a bandwidth: `lanczos` in the workers (Section 5.2), or on the device, from the final size,
the exact `crop` of the spectrum (Equation 1) or an interpolation without anti-aliasing (Table 19 b)."""


class Setting(NamedTuple):
    """What the model is shown at one point of a run."""

    bandwidth: int
    """Side in pixels of the low-frequency input; of other data how much is shown, such as columns of a table."""
    magnitude: float
    """RandAugment magnitude."""
    radius: float | None = None
    """Frequencies further out are taken away from the input, in periods per image; None takes none away."""
    operator: Operator | None = None
    """What reduces images to the bandwidth; None leaves it to the run."""
    transform: str | None = None
    """Name of what is done with the finished batch; see `upchirp.data.Transform`."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A range of progress with one bandwidth; it starts where the phase before it ends.

    >>> Phase(end=0.5, bandwidth=224, radius=40.0, magnitude=5.0)
    Phase(end=0.5, bandwidth=224, radius=40.0, magnitude=5.0, operator=None, transform=None)

    Raises:
        InputError: a bandwidth below 1, a negative radius, an unknown operator, or a magnitude outside 0 to 10.
    """

    end: float
    """Progress at which the phase ends, in (0, 1]."""
    bandwidth: int
    """Side in pixels of the low-frequency input; of other data how much is shown, such as columns of a table."""
    radius: float | None = None
    """Low-pass filter of this radius at the phase's own bandwidth (Section 4.1, Figure 2), in periods per image."""
    magnitude: float | tuple[float, float] | None = None
    """RandAugment magnitude of the phase (Table 4), or its first and last one; by default the curriculum's goes on."""
    operator: Operator | None = None
    """What reduces images to the bandwidth (Table 19 b); by default what the run says for all phases."""
    transform: str | None = None
    """What is done with the finished batch (T_t of Section 3): the name of one of the transforms that `upchirp.train`
    is given; by default the curriculum's."""

    def __post_init__(self) -> None:
        if self.bandwidth < 1:
            raise InputError(f"bandwidth {self.bandwidth}: it must be 1 or more")
        if self.radius is not None and not 0 <= self.radius < math.inf:
            raise InputError(f"radius {self.radius}: it must be 0 or more periods per image")
        if self.operator is not None and self.operator not in get_args(Operator):
            raise InputError(f"operator {self.operator!r} is unknown: choose one of {', '.join(get_args(Operator))}")
        if not all(0 <= m <= 10 for m in self.magnitudes or ()):
            raise InputError(f"magnitude {self.magnitude}: it must lie in 0 to 10")

    @property
    def magnitudes(self) -> tuple[float, float] | None:
        """The phase's own magnitude at its start and its end."""
        if isinstance(self.magnitude, int | float):
            return (float(self.magnitude), float(self.magnitude))
        return self.magnitude

    def to_dict(self) -> dict[str, Any]:
        """Plain data: what is not left to others."""
        own = {name: getattr(self, name) for name in ("radius", "magnitude", "operator", "transform")}
        set_ones = {name: list(v) if isinstance(v, tuple) else v for name, v in own.items() if v is not None}
        return {"end": self.end, "bandwidth": self.bandwidth, **set_ones}


@dataclass(frozen=True, kw_only=True)
class Curriculum:
    """A bandwidth for every progress, and a magnitude that rises linearly with it.

    A phase may also filter its images, keep a magnitude of its own and reduce by another operator.

    >>> curriculum = Curriculum(
    ...     name="mine", axis="compute", phases=(Phase(end=0.5, bandwidth=96), Phase(end=1.0, bandwidth=224))
    ... )
    >>> curriculum.at(0.25)
    Setting(bandwidth=96, magnitude=2.25, radius=None, operator=None, transform=None)
    >>> curriculum.final_size
    224

    Raises:
        InputError: phases out of order, or not ending at 1; an unknown axis; a magnitude outside 0 to 10; a size at
            test time that is below a bandwidth.
    """

    name: str
    """Shown in tables, logs and reports."""
    axis: Axis
    """What progress measures: `compute` spent (EfficientTrain++) or `samples` seen (EfficientTrain)."""
    phases: tuple[Phase, ...]
    """The bandwidths in order of progress."""
    magnitude: tuple[float, float] = (0.0, 9.0)
    """RandAugment magnitude at progress 0 and 1."""
    test_size: int | None = None
    """Input side at test time, pixels, if the last bandwidth is below it (Table 3); by default that bandwidth."""
    transform: str | None = None
    """Transform of the finished batch in phases that name none."""

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
        if not all(0 <= m <= 10 for m in self.magnitude):
            raise InputError(f"{where}: magnitude {self.magnitude}: both ends must lie in 0 to 10")
        if self.test_size is not None and self.test_size < max(self.bandwidths):
            raise InputError(f"{where}: bandwidth {max(self.bandwidths)} is above the final size, {self.test_size}")

    @property
    def final_size(self) -> int:
        """The input side at test time, pixels: the bandwidth of the last phase unless that ends below it."""
        return self.test_size or self.phases[-1].bandwidth

    @property
    def bandwidths(self) -> tuple[int, ...]:
        """The distinct bandwidths, in rising order."""
        return tuple(sorted({phase.bandwidth for phase in self.phases}))

    @property
    def sizes(self) -> tuple[int, ...]:
        """The distinct sides that a model takes in training and at test time, in rising order."""
        return tuple(sorted({*self.bandwidths, self.final_size}))

    def phase_at(self, side: int) -> Phase:
        """The first phase of a bandwidth; for a final size that no phase trains at, one that does nothing else."""
        return next((phase for phase in self.phases if phase.bandwidth == side), Phase(end=1.0, bandwidth=side))

    def at(self, progress: float) -> Setting:
        """What the model is shown at a progress in [0, 1).

        Raises:
            InputError: `progress` outside [0, 1).
        """
        if not 0 <= progress < 1:
            raise InputError(f"progress is {progress}: it must lie in [0, 1)")
        index = bisect_right([phase.end for phase in self.phases], progress)
        phase, start = self.phases[index], self.phases[index - 1].end if index else 0.0
        magnitude = self.magnitude_at(progress)
        if own := phase.magnitudes:
            magnitude = own[0] + (own[1] - own[0]) * (progress - start) / (phase.end - start)
        return Setting(phase.bandwidth, magnitude, phase.radius, phase.operator, phase.transform or self.transform)

    def magnitude_at(self, progress: float) -> float:
        """Magnitude at a progress in [0, 1], linear from the first to the last, where no phase has its own."""
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
            **({} if self.test_size is None else {"final_size": self.test_size}),
            **({} if self.transform is None else {"transform": self.transform}),
            "phases": [phase.to_dict() for phase in self.phases],
        }

    @classmethod
    def from_dict(cls, data: Any, *, source: str = "curriculum") -> "Curriculum":
        """The inverse of `to_dict`; `source` names the origin in messages.

        Raises:
            InputError: missing or unknown keys, values of the wrong type, or an invalid curriculum.
        """
        _check_keys(
            data, required={"phases"}, optional={"name", "axis", "magnitude", "final_size", "transform"}, source=source
        )
        phases = data["phases"]
        if not isinstance(phases, list) or not phases:
            raise InputError(f"{source}: phases must be a list of {{end, bandwidth}}")
        try:
            first, last = data.get("magnitude", (0.0, 9.0))
            magnitude = (float(first), float(last))
        except (TypeError, ValueError) as error:
            raise InputError(f"{source}: {error}: magnitude is [first, last]") from error
        name = data.get("name", source)
        if not isinstance(name, str):
            raise InputError(
                f"{source}: name is {name!r}, as YAML reads numbers, yes, no, on and off without quotes: write it in "
                "quotes"
            )
        test_size = None if data.get("final_size") is None else _side(data["final_size"], "final_size", source)
        return cls(
            name=name,
            axis=data.get("axis", "compute"),
            phases=tuple(_phase(phase, f"{source}: phase {number}") for number, phase in enumerate(phases, 1)),
            magnitude=magnitude,
            test_size=test_size,
            transform=_name(data.get("transform"), source),
        )


def _phase(data: Any, source: str) -> Phase:
    _check_keys(
        data, required={"end", "bandwidth"}, optional={"radius", "magnitude", "operator", "transform"}, source=source
    )
    magnitude, radius = data.get("magnitude"), data.get("radius")
    try:
        if isinstance(magnitude, list | tuple):
            first, last = magnitude
            magnitude = (float(first), float(last))
        return Phase(
            end=float(data["end"]),
            bandwidth=_side(data["bandwidth"], "bandwidth", source),
            radius=None if radius is None else float(radius),
            magnitude=magnitude if magnitude is None or isinstance(magnitude, tuple) else float(magnitude),
            operator=data.get("operator"),
            transform=_name(data.get("transform"), source),
        )
    except InputError as error:
        told = str(error)
        raise InputError(told if told.startswith(source) else f"{source}: {told}") from error
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{source}: {error}: end is a number from 0 to 1, radius a number, and magnitude a number or [first, last]"
        ) from error


def _name(value: Any, source: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise InputError(f"{source}: transform {value!r} must be the name of one")
    return value


def _side(value: Any, name: str, source: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{source}: {name} {value!r} must be a whole number of pixels")
    return value


def _check_keys(data: Any, *, required: set[str], optional: set[str], source: str) -> None:
    if not isinstance(data, Mapping):
        raise InputError(f"{source}: expected keys and values, found {type(data).__name__}")
    if missing := sorted(required - data.keys()):
        raise InputError(f"{source}: {', '.join(missing)} missing")
    if unknown := sorted(str(key) for key in data.keys() - required - optional):
        allowed = ", ".join(sorted(required | optional))
        raise InputError(f"{source}: unknown key {', '.join(unknown)}: the keys are {allowed}")
