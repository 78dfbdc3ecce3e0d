"""Settings of how a run is carried out, in groups: loading, computing, what is kept, and where.

What is trained is in `groups`. A run that goes on may do so with other values of `Computation`, `Keeping` and `Place`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from upchirp.curriculum import Operator
from upchirp.data import Mode
from upchirp.data.settings import DEFAULT_TIMEOUT, AskedPrepare, Prepare, check_prepare, loader_processes
from upchirp.errors import InputError
from upchirp.training.recipes.checks import check_least, check_seed
from upchirp.training.recipes.group import Group

TrackerName = Literal["wandb", "trackio", "mlflow"]

_REGIONS_FROM = 8
"""Most workers whose regions one process takes without a doubt."""


@dataclass(frozen=True, kw_only=True)
class Loading(Group):
    """How images are loaded, and which random numbers they and the device get."""

    mode: Mode = "fast"
    """`fast` crops straight to the bandwidth; `faithful` keeps the released code's order of work; `fast_lanczos` is
    `fast` as earlier versions had it, which crop by Lanczos to the final size too."""
    low_frequency: Operator = "lanczos"
    """What reduces images to the bandwidth: `lanczos` in the workers, `crop` exactly on the device, or there `nearest`,
    `bilinear` or `bicubic` without anti-aliasing, for comparison (Table 19 b)."""
    prepare: AskedPrepare = "auto"
    """Who resizes, mirrors and augments images: the workers on the `cpu`, or the `device`, for which workers only read
    and decode; the images are the same but for rounding. `auto` measures on a GPU, and is `cpu` elsewhere. With
    `device-jpeg` a GPU decodes JPEG files too, by the extra upchirp[gpu]; never measured yet."""
    seed: int = 0
    """Seed of everything random."""
    workers: int | None = None
    """Loader processes, by default one for each core, 16 at most; 0 loads in the training process."""
    loader_timeout: float = DEFAULT_TIMEOUT
    """Seconds without a batch from the loader after which a run stops; 0 waits forever."""

    def __post_init__(self) -> None:
        check_least(self, 0, "workers")
        check_prepare(self.way, self.mode, self.low_frequency)
        check_seed(self.seed)
        if not 0 <= self.loader_timeout < float("inf"):
            raise InputError(f"`loader_timeout` is {self.loader_timeout}: it must be seconds, or 0 to wait forever")
        super().__post_init__()

    @property
    def processes(self) -> int:
        """How many loader processes to start."""
        return loader_processes(self.workers)

    @property
    def way(self) -> Prepare:
        """Who prepares images; as long as nothing was chosen it is the CPU."""
        return "cpu" if self.prepare == "auto" else self.prepare

    @property
    def device_could_prepare(self) -> bool:
        """Whether workers do what a device could take from them with profit.

        With many workers the process that takes their regions, which are large, is too slow (benchmarks/results).
        """
        able = (self.prepare, self.low_frequency) == ("cpu", "lanczos") and self.mode != "faithful"
        return able and self.processes <= _REGIONS_FROM


@dataclass(frozen=True, kw_only=True)
class Computation(Group):
    """How a device computes."""

    channels_last: bool = True
    """Keep images and convolutions in channels-last memory order."""
    compile: bool = False
    """Compile the model, one graph for each bandwidth, all before the first step; evaluations stay uncompiled."""
    grad_checkpointing: bool = False
    """Compute activations anew in the backward pass, as timm does, for less memory and more time."""
    sync_bn: bool = False
    """Let batch norms count the images of all CUDA devices, not those of one; never measured yet."""


@dataclass(frozen=True, kw_only=True)
class Keeping(Group):
    """What a run says and keeps, and how often."""

    evaluations: int | None = None
    """Evaluations, spread evenly over progress; the last is at the end. By default 10, or fewer where they would take
    more than a fifth of the training's time."""
    early_stop: int | None = None
    """Stop after so many evaluations in the last stage without a better one, and export the best weights."""
    log_interval: int = 50
    """Steps between log lines."""
    checkpoint_interval: int = 500
    """Steps between checkpoints."""
    checkpoint_keep: int | Literal["all"] = 2
    """How many of the latest checkpoints are kept; `all` keeps every one, to look at later."""
    report: bool = True
    """Write report.html into the run folder at the end."""
    track: TrackerName | None = None
    """Tell another tracker of the run, too, by the extra of its name; TensorBoard's files are written in any case."""

    def __post_init__(self) -> None:
        check_least(self, 1, "evaluations", "log_interval", "checkpoint_interval", "early_stop")
        if self.checkpoint_keep != "all":
            check_least(self, 1, "checkpoint_keep")
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class Place(Group):
    """In which folder a run is kept, and whether it goes on there."""

    output: Path | None = None
    """Run folder; by default a new one under runs/."""
    resume: str | None = None
    """`auto` goes on with the run in the output folder, if there is one; a path starts a new run from that checkpoint,
    or from the latest one in that run folder."""

    def __post_init__(self) -> None:
        if self.resume == "auto" and self.output is None:
            raise InputError("`resume='auto'` needs to know the run: give its folder by `output`")
        super().__post_init__()
