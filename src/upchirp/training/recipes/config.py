"""The configuration of a training run: one flat set of names on the command line, in YAML and in Python."""

from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import Field, asdict, dataclass, fields, is_dataclass, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from upchirp.conversion import plain, typed
from upchirp.data import Augmentation, Channels
from upchirp.data.settings import check_device_channels
from upchirp.errors import InputError
from upchirp.training.parallel.device_name import check_device
from upchirp.training.recipes.config_file import CONFIG, load_stored
from upchirp.training.recipes.groups import Planning, Selecting, Start, TaskChoice
from upchirp.training.recipes.named import recipe, usual_epochs
from upchirp.training.recipes.other_names import meant
from upchirp.training.recipes.recipe import Optimization, Recipe
from upchirp.training.recipes.regimes import REGIMES
from upchirp.training.recipes.run_groups import Computation, Keeping, Loading, Place

if TYPE_CHECKING:
    from upchirp.data import Source

Config = TypeVar("Config")


_DECIDING = ("recipe", "model", "regime")
"""Names of the settings that a recipe follows from."""


def _recipe_of(values: Mapping[str, Any]) -> Recipe:
    """The recipe, with the budget that is usual for the curriculum if one is asked for."""
    name, model, regime = (str(values[name]) for name in _DECIDING)
    chosen = recipe(name, model, regime)
    if not values.get("curriculum"):
        return chosen
    return replace(chosen, epochs=usual_epochs(values["curriculum"], chosen, regime))


def _filled_by_recipe(config: type[Config]) -> type[Config]:
    """Let the model's recipe give what a constructor is not given."""
    init: Any = config.__init__

    @wraps(init)
    def filling(self: Any, **values: Any) -> None:
        deciding = {name: init.__kwdefaults__[name] for name in _DECIDING} | values
        chosen = _recipe_of(deciding)
        if usual := REGIMES[deciding["regime"]].model_kwargs:
            values["model_kwargs"] = {**usual, **values.get("model_kwargs", {})}
        init(self, **{**{entry.name: getattr(chosen, entry.name) for entry in fields(chosen)}, **values})

    config.__init__ = filling  # type: ignore[method-assign]
    return config


@_filled_by_recipe
@dataclass(frozen=True, kw_only=True)
class TrainConfig(Place, Keeping, Computation, Loading, Selecting, Planning, TaskChoice, Start):
    """What to train, on what, for how long, and where to keep it: all groups of settings under one set of names.

    What the constructor is not given of curriculum, budget, batch size, optimization and augmentation is as the model's
    recipe has it, where optimization and augmentation are given whole or not at all. `from_flat`, as the command line,
    takes single settings of them, and lets the data decide the rest.

    A configuration is one of each group of settings, so functions that need a single group take it as it is.

    >>> TrainConfig(model="deit_small_patch16_224").optimization.clip_grad
    5.0
    """

    parallel: Literal["ddp", "fsdp"] = "ddp"
    """What torchrun's ranks hold: `ddp` the whole model each, `fsdp` parts of it, for models that outgrow a device."""
    device: str | None = None
    """Where to train: cpu, cuda, cuda:1 for the second of several, or mps; by default the accelerator if there is
    one."""
    deterministic: bool = False
    """Use deterministic algorithms only, so that a resumed run ends with bit-identical weights."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_device(self.device)
        if not self.facts.labelled and self.in_chans != 3:
            raise InputError("a pre-training without labels takes RGB images: leave out `in_chans`")
        self._check_channels()
        if self.parallel != "fsdp":
            return
        for name, asked in {
            "`compile`": self.compile,
            "`sync_bn`": self.sync_bn,
            "`micro_batch='auto'`": self.micro_batch == "auto",
            "`replay='auto'`": self.replay == "auto",
            "`time_budget`": self.time_budget is not None,
            "`amp_dtype='float16'`": self.optimization.amp and self.optimization.amp_dtype == "float16",
            "`head_only`": self.optimization.head_only > 0,
            f"`opt={self.optimization.opt!r}`": self.optimization.opt not in ("adamw", "sgd"),
        }.items():
            if asked:
                raise InputError(f"`parallel='fsdp'` does not go with {name}: leave one of them out")

    def _check_channels(self) -> None:
        """Refuse a mean of other channels than the images', unless it is the usual one, which is replaced then."""
        mean = self.augmentation.mean
        if len(mean) != self.in_chans and mean != Augmentation().mean:
            raise InputError(
                f"`mean` has {len(mean)} value{'s' if len(mean) > 1 else ''} and `in_chans` is {self.in_chans}: give "
                "one for each channel, or leave out `mean` and `std`, and they are measured"
            )
        check_device_channels(self.way, Channels(self.in_chans, self.augmentation.pixel_type))

    def with_channels_of(self, source: "Source") -> tuple["TrainConfig", list[str]]:
        """With what the channels of images ask for, and lines on that for the user; see `for_channels`.

        Args:
            source: the training images.

        Raises:
            InputError: the images have other channels than the settings say, or values of another type.
        """
        # Flags are parsed without what reads images.
        from upchirp.data import for_channels

        asked = self.asks_for("mean", "std")
        augmentation, told = for_channels(self.augmentation, source, self.in_chans, asked=asked)
        return replace(self, augmentation=augmentation), told

    def asked(self) -> dict[str, Any]:
        """The settings that were asked for, under their flag names: `given`, and what was changed since."""
        flat = self.to_flat()
        given = flat.keys() if self.given is None else self.given
        usual = type(self).from_flat({name: flat[name] for name in given}).to_flat()
        return {name: value for name, value in flat.items() if name in given or value != usual[name]}

    def with_stored(self) -> "TrainConfig":
        """The settings of the run in the output folder if it is to be gone on with, and over them what is asked for.

        Asked for is what `given` names, and what was changed since. Without `given` all of it was.

        Raises:
            InputError: the folder's settings cannot be read, or do not go with what was asked for.
        """
        if self.given is None or (stored := _resumed(vars(self))) is None:
            return self
        asked = self.asked()
        if asked.get("recipe") == "auto":
            # Stored is what that chose.
            del asked["recipe"]
        # A folder may have been moved since its settings were written.
        values = {**stored, **asked, "output": str(self.output), "resume": self.resume}
        return replace(TrainConfig.from_flat(values, source=f"{self.output}/{CONFIG}"), given=self.given)

    def as_chosen(self, before: Mapping[str, Any]) -> "TrainConfig":
        """With what is left open as it was chosen before.

        >>> config = TrainConfig.from_flat({"model": "resnet50", "prepare": "auto", "amp_dtype": "float16"})
        >>> config = config.as_chosen({"prepare": "device", "amp_dtype": "bfloat16"})
        >>> config.prepare, config.optimization.amp_dtype
        ('device', 'float16')
        """
        now: dict[str, Any] = {"prepare": self.prepare, "amp_dtype": self.optimization.amp_dtype}
        chosen = {name: before.get(name, value) if value == "auto" else value for name, value in now.items()}
        optimization = replace(self.optimization, amp_dtype=chosen["amp_dtype"])
        return replace(self, prepare=chosen["prepare"], optimization=optimization)

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
        check_names(values, flat_names(), source)
        given = frozenset(values)
        values = {**_start(values), **{name: value for name, value in values.items() if name != "weights" or value}}
        if values.get("weights") is not None and "model" not in values:
            named = named_model(values)
            values, given = {**named, **values}, given | named.keys()
        values = _without_others_channels(values, given)
        chosen = _recipe_of({name: getattr(cls, name) for name in _DECIDING} | dict(values))
        if values.get("warmup_passes") is not None and "warmup" not in values:
            # What is asked for goes before a share that the recipe has.
            values = {**values, "warmup": None}
        config = cls(**{entry.name: getattr(chosen, entry.name) for entry in fields(chosen)})
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
        return {name: stored[name] for name in ("weights", "mean", "std", "pixel_type") if stored.get(name) is not None}
    model, weights = values.get("model"), values.get("weights")
    if values.get("pretrained") and model is None and weights is None:
        raise InputError("`pretrained` loads timm's weights of a model: name it by `model`")
    tagged = model is not None and "." in str(model)
    if weights is None and not tagged and not values.get("pretrained"):
        return {}
    # Reading weights takes torch, and torch takes seconds.
    from upchirp.training.checkpoints.description import preprocessing_for, read_description
    from upchirp.training.checkpoints.named_weights import name_of

    start = name_of(str(model)) if weights is None else Path(weights)
    if values.get("pretrained") and (model is None or start != name_of(str(model))):
        raise InputError(
            f"`pretrained` and `weights={start.as_posix()!r}` are two things to start from: give one of them"
        )
    return {"weights": start, **preprocessing_for(read_description(start), model).settings}


def _without_others_channels(values: Mapping[str, Any], given: Set[str]) -> Mapping[str, Any]:
    """Settings without the mean and the standard deviation of weights that are for other channels than the images'."""
    mean = values.get("mean")
    if mean is None or "mean" in given or len(mean) == values.get("in_chans", 3):
        return values
    return {name: value for name, value in values.items() if name not in ("mean", "std", "pixel_type")}


def _resumed(values: Mapping[str, Any]) -> dict[str, Any] | None:
    """The settings of the run that is to be resumed, if there is one."""
    folder = Path(values.get("output") or "")
    if values.get("resume") != "auto" or not values.get("output") or not (folder / CONFIG).is_file():
        return None
    return load_stored(folder / CONFIG)


def named_model(values: Mapping[str, Any]) -> dict[str, Any]:
    """Model and final size as the run to be resumed, or else the weights file, gives them; nothing if none does."""
    if (stored := _resumed(values)) is not None:
        return {name: stored[name] for name in ("model", "model_kwargs", "in_chans", "final_size") if name in stored}
    # Reading weights takes torch, and torch takes seconds.
    from upchirp.training.checkpoints.description import read_description

    return read_description(Path(values["weights"])).settings


def is_flag(entry: Field[Any]) -> bool:
    """Whether a field is a setting, on the command line and in files."""
    return bool(entry.metadata.get("flag", True))


def check_names(given: Iterable[Any], names: Collection[str], source: str) -> None:
    """Refuse names of no setting, and say what they may mean.

    Raises:
        InputError: the first one.
    """
    for key in given:
        if key not in names:
            near = meant(str(key), names)
            hint = f": did you mean {' or '.join(near)}?" if near else ""
            raise InputError(f"{source}: unknown key {key!r}{hint}")


def flat_names() -> set[str]:
    """The flag names of all settings."""
    nested = {"optimization": Optimization, "augmentation": Augmentation}
    own = {entry.name for entry in fields(TrainConfig) if is_flag(entry)} - nested.keys()
    return own.union(*({entry.name for entry in fields(group)} for group in nested.values()))
