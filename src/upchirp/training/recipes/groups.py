"""Settings in groups, each for the part of a training that reads it; a `TrainConfig` has them all under flat names."""

from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar

from upchirp.curriculum.replay import ReplayMode
from upchirp.data import LowFrequency, Mode
from upchirp.data.settings import DEFAULT_TIMEOUT, usable_cores

Group = TypeVar("Group")


@dataclass(frozen=True, kw_only=True)
class Loading:
    """How images are loaded, and which random numbers they and the device get."""

    mode: Mode = "fast"
    """`fast` crops straight to the bandwidth; `faithful` keeps the released code's order of work."""
    low_frequency: LowFrequency = "lanczos"
    """`lanczos` reduces to the bandwidth in the workers; `crop` crops the spectrum exactly on the device."""
    seed: int = 0
    """Seed of everything random."""
    workers: int | None = None
    """Loader processes, by default one for each core, 16 at most; 0 loads in the training process."""
    loader_timeout: float = DEFAULT_TIMEOUT
    """Seconds without a batch from the loader after which a run stops; 0 waits forever."""

    @property
    def processes(self) -> int:
        """How many loader processes to start."""
        return min(16, usable_cores()) if self.workers is None else self.workers


@dataclass(frozen=True, kw_only=True)
class Computation:
    """How a device computes."""

    channels_last: bool = True
    """Keep images and convolutions in channels-last memory order."""
    compile: bool = False
    """Compile the model, one graph for each bandwidth, all before the first step; evaluations stay uncompiled."""


@dataclass(frozen=True, kw_only=True)
class Replaying:
    """How the replay buffer is used."""

    replay: int | Literal["auto"] = 0
    """Replayed batches for each fresh one (Section 5.3); `auto` measures what keeps the device busy."""
    replay_mode: ReplayMode = "batch"
    """`batch` replays whole batches; `mixed` replays a part of each batch, as the released code does."""
    replay_gib: float = 4.0
    """Memory bound of the replay buffer over all processes, GiB."""
    replay_final: bool = False
    """Replay in the stages at the final size too."""


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """What a run says and keeps, and how often."""

    evaluations: int = 10
    """Evaluations, spread evenly over progress; the last is at the end."""
    log_interval: int = 50
    """Steps between log lines."""
    checkpoint_interval: int = 500
    """Steps between checkpoints."""
    checkpoint_keep: int = 2
    """How many of the latest checkpoints are kept."""


def group_of(kind: type[Group], settings: Any) -> Group:
    """A group of settings, from an object that has them under the same names."""
    return kind(**{entry.name: getattr(settings, entry.name) for entry in fields(kind)})  # type: ignore[arg-type]
