"""The configuration of a training run: one flat set of names on the command line, in YAML and in Python."""

import difflib
from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, field, fields, is_dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from upchirp.conversion import plain, typed
from upchirp.curriculum import Selection
from upchirp.data import Augmentation
from upchirp.data.settings import VAL_SHARE
from upchirp.errors import InputError
from upchirp.training.recipes.checks import check_model_kwargs, check_seed, parse_duration
from upchirp.training.recipes.config_file import CONFIG, load_config
from upchirp.training.recipes.groups import Computation, Keeping, Loading, Replaying, group_of
from upchirp.training.recipes.named import Regime, recipe
from upchirp.training.recipes.recipe import Optimization

Config = TypeVar("Config")


def _filled_by_recipe(config: type[Config]) -> type[Config]:
    """Let the model's recipe give what a constructor is not given."""
    init: Any = config.__init__

    @wraps(init)
    def filling(self: Any, **values: Any) -> None:
        asked = [str(values.get(name, init.__kwdefaults__[name])) for name in ("recipe", "model", "regime")]
        preset = recipe(*asked)
        init(self, **{**{entry.name: getattr(preset, entry.name) for entry in fields(preset)}, **values})

    config.__init__ = filling  # type: ignore[method-assign]
    return config


@_filled_by_recipe
@dataclass(frozen=True, kw_only=True)
class TrainConfig(Loading, Computation, Replaying, Keeping):
    """What to train, on what, for how long, and where to keep it.

    What is not given is as the model's recipe has it: curriculum, budget, batch size, optimization, augmentation. The
    last two are taken whole or not at all; `from_flat` takes single settings of them and lets data decide the rest.

    >>> TrainConfig(model="deit_small_patch16_224").optimization.clip_grad
    5.0
    """

    data: str = ""
    """Folder of images (train/CLASS/* and val/CLASS/*, or CLASS/*) or a zip of one, packed folder, tar shards, Hugging
    Face data set, or `generated`."""
    val_share: float = VAL_SHARE
    """Share of each class that validates where the data has no validation images: the same images in every run."""
    model: str = ""
    """Any timm model by name; with a tag, as in `resnet10t.c3_in1k`, it starts from those weights of timm's."""
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments for the model's constructor."""
    curriculum: str = "efficienttrain_plus_plus"
    """Name of a preset, or a YAML file; by default the recipe's."""
    final_size: int = 224
    """Input side of the last stage and at test time, pixels."""
    epochs: float = 200.0
    """Budget in equivalent epochs; real passes if the curriculum counts samples; by default what suits the data."""
    time_budget: str | None = None
    """Budget in training time instead, such as 90s, 45m or 1h30m, without evaluations; speeds are measured first."""
    cost: Literal["pixels", "flops"] = "pixels"
    """What the plan counts as the cost of a sample."""
    batch_size: int = 4096
    """Images in one optimizer step at the final size, over all micro-batches; by default it follows from the length of
    the run."""
    early_batch: tuple[int, ...] | Literal["auto"] | None = None
    """Larger batches below the final size (Section 5.3): one for each bandwidth, smallest first; `auto` for steps of
    about one cost."""
    max_batch_size: int | None = None
    """Largest batch that early_batch may take; by default the cost alone decides."""
    micro_batch: int | Literal["auto"] | None = None
    """Images in one forward pass; `auto` tries what fits in memory; by default the largest divisor of the batch size up
    to 512 images of the final size, and to as many pixels of smaller ones. If memory runs out it is halved."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """What torchrun's ranks hold: `ddp` the whole model each, `fsdp` parts of it, for models that outgrow a device."""
    output: Path | None = None
    """Run folder; by default a new one under runs/."""
    resume: str | None = None
    """`auto` goes on with the run in the output folder, if there is one; a path starts a new run from that checkpoint,
    or from the latest one in that run folder."""
    recipe: str = "auto"
    """Preset of curriculum, budget, optimization and augmentation; `paper` is the model's own, `auto` takes that for
    data of ImageNet's size and `light` for less."""
    regime: Regime = "imagenet1k"
    """The task, which adapts the recipe: from scratch, pre-training, fine-tuning, or FixRes."""
    weights: Path | None = None
    """Start from these weights, which also tell the model: a file (.safetensors, a checkpoint, a file of timm's), or a
    name, timm/NAME.TAG or hf-hub:OWNER/NAME, which is downloaded once."""
    pretrained: bool = False
    """Start from timm's own weights of the model, those of its default tag; they are downloaded once."""
    keep_head: bool = False
    """Keep the classifier of the weights; by default a new one is made, except for FixRes."""
    optimization: Optimization = field(default_factory=Optimization)
    """Optimizer, learning rate, regularisation, precision."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """Crop, flip, RandAugment, erasing, mixing, label smoothing."""
    select: Literal["infobatch"] | None = None
    """`infobatch` leaves out images of low loss and rescales the others like them (Section 6.4.3)."""
    select_prune: float = 0.5
    """Probability with which a pass leaves out an image whose loss is below the mean."""
    select_until: float = 0.875
    """Progress from which passes are whole again."""
    device: Literal["cpu", "cuda", "mps"] | None = None
    """Where to train; by default the accelerator if there is one."""
    deterministic: bool = False
    """Use deterministic algorithms only, so that a resumed run ends with bit-identical weights."""
    report: bool = True
    """Write report.html into the run folder at the end."""
    given: frozenset[str] | None = field(default=None, compare=False, repr=False, metadata={"flag": False})
    """The flag names that were asked for, where `from_flat` filled in the rest; None means all of them. No setting."""

    def __post_init__(self) -> None:
        for name in (
            "final_size",
            "batch_size",
            "evaluations",
            "log_interval",
            "checkpoint_interval",
            "checkpoint_keep",
        ):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: it must be 1 or more")
        if self.parallel == "fsdp":
            self._check_fsdp()
        if isinstance(self.micro_batch, int) and self.micro_batch < 1:
            raise InputError(f"micro_batch is {self.micro_batch}: it must be 1 or more, or auto")
        if self.resume == "auto" and self.output is None:
            raise InputError("--resume auto needs to know the run: give its folder by --output")
        check_model_kwargs(self.model_kwargs)
        if self.workers is not None and self.workers < 0:
            raise InputError(f"workers is {self.workers}: it must be 0 or more")
        check_seed(self.seed)
        if self.max_batch_size is not None and self.early_batch is None:
            raise InputError("max_batch_size bounds early batches: give --early-batch too, or leave it out")
        if not 0 <= self.loader_timeout < float("inf"):
            raise InputError(f"loader_timeout is {self.loader_timeout}: it must be seconds, or 0 to wait forever")
        if self.replay != "auto" and self.replay < 0:
            raise InputError(f"replay is {self.replay}: give 0 or more replayed batches for each fresh one, or auto")
        if not 0 < self.replay_gib < float("inf"):
            raise InputError(f"replay_gib is {self.replay_gib}: it must be a positive number of GiB")
        if not self.epochs > 0:
            raise InputError(f"epochs is {self.epochs}: it must be more than 0")
        if self.time_budget is not None:
            parse_duration(self.time_budget)
        if not 0 < self.val_share < 1:
            raise InputError(f"val_share is {self.val_share}: it must lie between 0 and 1")
        Selection(prune=self.select_prune, until=self.select_until)  # checks both

    def _check_fsdp(self) -> None:
        for name, asked in {
            "--compile": self.compile,
            "--micro-batch auto": self.micro_batch == "auto",
            "--replay auto": self.replay == "auto",
            "--time-budget": self.time_budget is not None,
            "--amp-dtype float16": self.optimization.amp and self.optimization.amp_dtype == "float16",
            f"--opt {self.optimization.opt}": self.optimization.opt not in ("adamw", "sgd"),
        }.items():
            if asked:
                raise InputError(f"--parallel fsdp does not go with {name}: leave one of them out")

    @property
    def selection(self) -> Selection | None:
        """What passes leave out, if anything."""
        return Selection(prune=self.select_prune, until=self.select_until) if self.select else None

    @property
    def loading(self) -> Loading:
        """How images are loaded."""
        return group_of(Loading, self)

    @property
    def computation(self) -> Computation:
        """How the device computes."""
        return group_of(Computation, self)

    @property
    def replaying(self) -> Replaying:
        """How the replay buffer is used."""
        return group_of(Replaying, self)

    @property
    def keeping(self) -> Keeping:
        """What a run says and keeps, and how often."""
        return group_of(Keeping, self)

    def asked(self) -> dict[str, Any]:
        """The settings that were asked for, under their flag names: `given`, and what was changed since."""
        flat = self.to_flat()
        given = flat.keys() if self.given is None else self.given
        usual = type(self).from_flat({name: flat[name] for name in given}).to_flat()
        return {name: value for name, value in flat.items() if name in given or value != usual[name]}

    def to_flat(self) -> dict[str, Any]:
        """All settings under their flag names, as plain data."""
        flat: dict[str, Any] = {}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if not is_flag(entry):
                continue
            nested = is_dataclass(value) and not isinstance(value, type)
            flat.update(plain(asdict(value)) if nested else {entry.name: plain(value)})
        return flat

    @classmethod
    def from_flat(cls, values: Mapping[str, Any], *, source: str = "config") -> "TrainConfig":
        """Settings by their flag names; what is missing comes from the recipe.

        >>> TrainConfig.from_flat({"model": "deit_tiny_patch16_224", "mixup": 0.2}).optimization.clip_grad
        5.0

        Raises:
            InputError: an unknown name or a value of the wrong type.
        """
        names = flat_names()
        for key in values:
            if key not in names:
                near = difflib.get_close_matches(str(key), names, n=2)
                hint = f": did you mean {' or '.join(near)}?" if near else ""
                raise InputError(f"{source}: unknown key {key!r}{hint}")
        given = frozenset(values)
        values = {**_start(values), **{name: value for name, value in values.items() if name != "weights" or value}}
        if values.get("weights") is not None and "model" not in values:
            named = named_model(values)
            values, given = {**named, **values}, given | named.keys()
        preset = recipe(*(str(values.get(name, getattr(cls, name))) for name in ("recipe", "model", "regime")))
        config = cls(**{entry.name: getattr(preset, entry.name) for entry in fields(preset)})
        return replace(
            config,
            optimization=replace(config.optimization, **typed(Optimization, values, source)),
            augmentation=replace(config.augmentation, **typed(Augmentation, values, source)),
            **typed(cls, values, source),
            given=given,
        )


def _start(values: Mapping[str, Any]) -> dict[str, Any]:
    """Weights that the model's tag or `pretrained` names, and how images are normalised for the weights."""
    if (stored := _resumed(values)) is not None:
        return {name: stored[name] for name in ("weights", "mean", "std") if stored.get(name) is not None}
    model, weights = values.get("model"), values.get("weights")
    if values.get("pretrained") and model is None and weights is None:
        raise InputError("--pretrained loads timm's weights of a model: name it by --model")
    tagged = model is not None and "." in str(model)
    if weights is None and not tagged and not values.get("pretrained"):
        return {}
    # Reading weights takes torch, and torch takes seconds.
    from upchirp.training.checkpoints.description import preprocessing_for, read_description
    from upchirp.training.checkpoints.named_weights import name_of

    start = name_of(str(model)) if weights is None else Path(weights)
    if values.get("pretrained") and (model is None or start != name_of(str(model))):
        raise InputError(
            f"--pretrained and --weights {start.as_posix()} are two things to start from: give one of them"
        )
    return {"weights": start, **preprocessing_for(read_description(start), model).settings}


def _resumed(values: Mapping[str, Any]) -> dict[str, Any] | None:
    """The settings of the run that is to be resumed, if there is one."""
    folder = Path(values.get("output") or "")
    if values.get("resume") != "auto" or not values.get("output") or not (folder / CONFIG).is_file():
        return None
    return load_config(folder / CONFIG)


def named_model(values: Mapping[str, Any]) -> dict[str, Any]:
    """Model and final size as the run to be resumed, or else the weights file, gives them; nothing if none does."""
    if (stored := _resumed(values)) is not None:
        return {name: stored[name] for name in ("model", "model_kwargs", "final_size") if name in stored}
    # Reading weights takes torch, and torch takes seconds.
    from upchirp.training.checkpoints.description import read_description

    return read_description(Path(values["weights"])).settings


def save_config(config: TrainConfig, path: Path) -> None:
    """Write the resolved settings; `upchirp train --config` reads them."""
    path.write_text(yaml.safe_dump(config.to_flat(), sort_keys=False), encoding="utf-8")


def is_flag(entry: Field[Any]) -> bool:
    """Whether a field is a setting, on the command line and in files."""
    return bool(entry.metadata.get("flag", True))


def flat_names() -> set[str]:
    """The flag names of all settings."""
    nested = {"optimization": Optimization, "augmentation": Augmentation}
    own = {entry.name for entry in fields(TrainConfig) if is_flag(entry)} - nested.keys()
    return own.union(*({entry.name for entry in fields(group)} for group in nested.values()))
