"""Settings of what is trained, in groups, each for the part of a training that reads it; see `TrainConfig`.

How a run is carried out, on which machine and with which files, is in `run_groups`.
"""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from upchirp.curriculum import Selection
from upchirp.curriculum.replay import BUFFER_IMAGES, ReplayMode
from upchirp.data.settings import VAL_SHARE
from upchirp.errors import InputError
from upchirp.training.recipes.checks import check_least, check_model_kwargs, parse_duration
from upchirp.training.recipes.group import Group
from upchirp.training.recipes.recipe import Loss, Recipe
from upchirp.training.recipes.regimes import REGIMES, Regime, RegimeFacts

DECODER_HEAD = 32
"""Width of a head of the pre-training's decoder."""


@dataclass(frozen=True, kw_only=True)
class Start(Group):
    """What a training begins with: images, a model, weights."""

    data: str = ""
    """Folder of images (train/CLASS/* and val/CLASS/*, or CLASS/*) or a zip of one, table of them (.csv, .tsv, .txt),
    COCO's annotations (.json), packed folder, tar shards, Hugging Face data set, or `generated`."""
    more_data: tuple[str, ...] = ()
    """Further data of the same classes, as data takes them, whose training images are trained on, too."""
    val_share: float = VAL_SHARE
    """Share of each class that validates where the data has no validation images: the same images in every run."""
    train_split: str | None = None
    """Name of the training images' folder, of the Hugging Face split, or in a table's column of splits; by default the
    usual names are looked for."""
    val_split: str | None = None
    """The same for the validation images."""
    label_column: str | None = None
    """The column of labels of a table or a Hugging Face data set, where its name does not tell."""
    model: str = ""
    """Any timm model by name; with a tag, as in `resnet10t.c3_in1k`, it starts from those weights of timm's."""
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments for the model's constructor."""
    in_chans: int = 3
    """Channels of the images: 3 are RGB, 1 is grey, others are the bands of `.npy` and TIFF files."""
    final_size: int = 224
    """Input side of the last stage and at test time, pixels."""
    weights: Path | None = None
    """Start from these weights, which also tell the model: a file (.safetensors, a checkpoint, a file of timm's), or a
    name, timm/NAME.TAG or hf-hub:OWNER/NAME, which is downloaded once."""
    pretrained: bool = False
    """Start from timm's own weights of the model, those of its default tag; they are downloaded once."""
    head_init_scale: float = 1.0
    """Factor of a new classifier's first weights."""

    def __post_init__(self) -> None:
        check_least(self, 1, "final_size", "in_chans")
        if not 0 <= self.head_init_scale < float("inf"):
            raise InputError(f"`head_init_scale` is {self.head_init_scale}: it must be 0 or more")
        check_model_kwargs(self.model_kwargs)
        if not 0 < self.val_share < 1:
            raise InputError(f"`val_share` is {self.val_share}: it must lie between 0 and 1")
        super().__post_init__()

    @property
    def made_with(self) -> dict[str, Any]:
        """All arguments for the model's constructor that are not its size or its classes."""
        return self.model_kwargs if self.in_chans == 3 else {**self.model_kwargs, "in_chans": self.in_chans}


@dataclass(frozen=True, kw_only=True)
class Choice(Group):
    """What is left to the recipe, and to the data."""

    recipe: str = "auto"
    """Name for values of curriculum, budget, optimization and augmentation; `paper` is the model's own, `auto` takes
    that for data of ImageNet's size and `light` for less."""
    regime: Regime = "imagenet1k"
    """What is trained for, which adapts the recipe: from scratch, pre-training with labels or without (`pretrain`),
    fine-tuning, also of masked autoencoders (`mae`), or FixRes."""
    given: frozenset[str] | None = field(default=None, compare=False, repr=False, metadata={"flag": False})
    """The flag names that were asked for, where `from_flat` filled in the rest; None means all of them. No setting."""

    @property
    def facts(self) -> RegimeFacts:
        """What is particular to the regime."""
        return REGIMES[self.regime]

    def asks_for(self, *names: str) -> bool:
        """Whether one of these settings was asked for."""
        return self.given is None or not self.given.isdisjoint(names)


@dataclass(frozen=True, kw_only=True)
class Pretraining(Group):
    """How a model is pre-trained without labels, in the regime `pretrain`."""

    method: Literal["mae"] = "mae"
    """How to pre-train without labels: `mae` hides most patches, and the model says what they hold."""
    target: Literal["hog", "pixels"] = "hog"
    """What is predicted of a hidden patch: histograms of gradients (Table 15), or normalised pixels."""
    mask_ratio: float = 0.75
    """Share of the patches that is hidden in pre-training."""
    least_visible: int = 1
    """Patches that are seen at least, so that a smaller share is hidden of small images."""
    decoder_depth: int = 8
    """Blocks of the pre-training's decoder."""
    decoder_width: int = 512
    """Width of the decoder's tokens."""

    def __post_init__(self) -> None:
        if not 0 < self.mask_ratio < 1:
            raise InputError(f"`mask_ratio` is {self.mask_ratio}: it must lie between 0 and 1")
        check_least(self, 1, "least_visible", "decoder_depth", "decoder_width")
        if self.decoder_width % DECODER_HEAD:
            raise InputError(f"`decoder_width` is {self.decoder_width}: it must be a multiple of {DECODER_HEAD}")
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class Objective(Group):
    """What is asked of a model that tells classes."""

    loss: Loss | None = None
    """What outputs and labels are compared by: `cross_entropy`, or `bce`, which asks for each class by itself; by
    default the former, and for images with several labels the latter."""
    kd_model: Path | None = None
    """A teacher whose answers are learnt, too: weights for the same classes, a file or a name as `weights` takes it."""
    kd_temperature: float = 4.0
    """What the outputs of student and teacher are divided by before they are compared."""
    kd_alpha: float = 0.5
    """Share of the teacher's answers in the loss."""

    def __post_init__(self) -> None:
        if not 0 < self.kd_temperature < float("inf"):
            raise InputError(f"`kd_temperature` is {self.kd_temperature}: it must be more than 0")
        if not 0 < self.kd_alpha <= 1:
            raise InputError(f"`kd_alpha` is {self.kd_alpha}: it is the teacher's share of the loss, above 0 up to 1")
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class TaskChoice(Pretraining, Objective, Choice):
    """What decides the task of a training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.facts.labelled:
            changed = [entry.name for entry in fields(Pretraining) if getattr(self, entry.name) != entry.default]
            if changed:
                raise InputError(f"`{changed[0]}` belongs to a pre-training without labels: use `upchirp pretrain`")
        elif self.kd_model is not None or self.loss not in (None, "cross_entropy"):
            raise InputError("`kd_model` and `loss` are for labels, and a pre-training has none: leave them out")


@dataclass(frozen=True, kw_only=True)
class Replaying(Group):
    """How the replay buffer is used."""

    replay: int | Literal["auto"] = 0
    """Replayed batches for each fresh one (Section 5.3); `auto` measures what keeps the device busy."""
    replay_mode: ReplayMode = "batch"
    """`batch` replays whole batches; `mixed` replays a part of each batch, as the released code does."""
    replay_stages: tuple[int, ...] | None = None
    """Replayed batches of each bandwidth below the final size instead, smallest first: 3 1 in the released code."""
    replay_images: int = BUFFER_IMAGES
    """Most images that the replay buffer holds over all processes; by default as many as the released code's."""
    replay_gib: float | None = None
    """Memory bound of the replay buffer over all processes, GiB; on CUDA it is the devices' memory. By default a
    quarter of what the devices have, or of what is free on the host."""
    replay_final: bool = False
    """Replay in the stages at the final size too."""

    def __post_init__(self) -> None:
        if self.replay != "auto" and self.replay < 0:
            raise InputError(f"`replay` is {self.replay}: give 0 or more replayed batches for each fresh one, or auto")
        if self.replay_stages is not None:
            if self.replay != 0:
                raise InputError("`replay` and `replay_stages` say the same thing: give one of them")
            if any(number < 0 for number in self.replay_stages):
                raise InputError(f"`replay_stages` are {self.replay_stages}: each is 0 or more replayed batches")
        check_least(self, 1, "replay_images")
        if self.replay_gib is not None and not 0 < self.replay_gib < float("inf"):
            raise InputError(f"`replay_gib` is {self.replay_gib}: it must be a positive number of GiB")
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class Planning(Recipe, Replaying):
    """What decides a plan, and into which parts its steps are cut."""

    time_budget: str | None = None
    """Budget in training time instead, such as 90s, 45m or 1h30m, without evaluations; speeds are measured first."""
    cost: Literal["pixels", "flops"] = "pixels"
    """What the plan counts as the cost of a sample."""
    early_batch: tuple[int, ...] | Literal["auto"] | None = None
    """Larger batches below the final size (Section 5.3): one for each bandwidth, smallest first; `auto` for steps of
    about one cost."""
    max_batch_size: int | None = None
    """Largest batch that early_batch may take; by default the cost alone decides."""
    micro_batch: int | Literal["auto"] | None = None
    """Images in one forward pass; `auto` tries what fits in memory; by default the largest divisor of the batch size up
    to 512 images of the final size, and to as many pixels of smaller ones. If memory runs out it is halved."""

    def __post_init__(self) -> None:
        if isinstance(self.micro_batch, int) and self.micro_batch < 1:
            raise InputError(f"`micro_batch` is {self.micro_batch}: it must be 1 or more, or auto")
        if self.max_batch_size is not None and self.early_batch is None:
            raise InputError("`max_batch_size` bounds early batches: give `early_batch` too, or leave it out")
        if self.time_budget is not None:
            parse_duration(self.time_budget)
        super().__post_init__()

    @property
    def budget(self) -> float | None:
        """The budget in epochs; None if it is a time."""
        return self.epochs if self.time_budget is None else None


@dataclass(frozen=True, kw_only=True)
class Selecting(Group):
    """What passes over the data leave out."""

    select: Literal["infobatch"] | None = None
    """`infobatch` leaves out images of low loss and rescales the others like them (Section 6.4.3)."""
    select_prune: float = 0.5
    """Probability with which a pass leaves out an image whose loss is below the mean."""
    select_until: float = 0.875
    """Progress from which passes are whole again."""

    def __post_init__(self) -> None:
        Selection(prune=self.select_prune, until=self.select_until)  # checks both
        super().__post_init__()

    @property
    def selection(self) -> Selection | None:
        """What passes leave out, if anything."""
        return Selection(prune=self.select_prune, until=self.select_until) if self.select else None
