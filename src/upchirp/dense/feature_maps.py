"""Feature maps of a trained backbone, at any input size."""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from timm.models._features import FeatureGetterNet
from timm.utils.model import freeze_batch_norm_2d
from torch import nn

from upchirp.dense.simple_pyramid import SimplePyramid
from upchirp.errors import InputError
from upchirp.models import create_model
from upchirp.models.meta import meta_copy
from upchirp.training.assets.trained import read_trained
from upchirp.training.checkpoints.loading import load_weights
from upchirp.training.checkpoints.named_weights import name_of
from upchirp.training.checkpoints.weights import Weights
from upchirp.training.recipes.config import TrainConfig
from upchirp.training.recipes.eval_groups import Origin

_ANY_SIZE = {"dynamic_img_size": True, "strict_img_size": False}
"""What constructors call it to take images of any size; a model has one of them, or none."""
_TRIED = 96, 160
"""Height and width that a copy without values is tried at; no model is made for them."""
_REFUSALS = (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError)


class FeatureMaps(nn.Module):
    """A backbone that gives its maps, (N, C, H / stride, W / stride) each, in place of classes.

    Args:
        network: a model of timm's, or one with its `feature_info` and `forward_intermediates`. Its classifier is
            dropped.
        strides: pixels per cell of the maps wanted, ascending.
        mean: mean of the red, green and blue values that the network is used to, 0 to 1.
        std: their standard deviation.
        notes: lines for the user on what was loaded.

    Raises:
        InputError: the network has no map at one of the strides, or takes images of its own size only.
    """

    def __init__(
        self,
        network: nn.Module,
        strides: Sequence[int],
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        notes: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.strides, self.mean, self.std, self.notes = tuple(strides), mean, std, tuple(notes)
        infos: Any = network.feature_info
        reductions = [int(info["reduction"]) for info in infos]
        if len(set(reductions)) == 1:
            last = len(infos) - 1
            self.pyramid: SimplePyramid | None = SimplePyramid(infos[last]["num_chs"], reductions[last], strides)
            self.channels, indices = self.pyramid.channels, [last]
        else:
            # The last of each stride has seen most.
            at = {reduction: index for index, reduction in enumerate(reductions)}
            if missing := [stride for stride in strides if stride not in at]:
                there = ", ".join(map(str, sorted(at)))
                raise InputError(
                    f"{type(network).__name__} has no map at stride {missing[0]}: it has them at {there} pixels"
                )
            self.pyramid = None
            indices = [at[stride] for stride in strides]
            self.channels = tuple(int(infos[index]["num_chs"]) for index in indices)
        self.network = FeatureGetterNet(network, out_indices=tuple(indices))
        self.multiple = max(strides)
        _check_any_size(self, type(network).__name__)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Normalised images (N, 3, H, W), sides multiples of the largest stride, to one map per stride.

        Raises:
            InputError: other sides.
        """
        height, width = images.shape[-2:]
        if height % self.multiple or width % self.multiple:
            raise InputError(f"images are {height} x {width}: resize or pad them to multiples of {self.multiple}")
        maps: list[torch.Tensor] = self.network(images)
        return maps if self.pyramid is None else self.pyramid(maps[-1])


def feature_maps_of(
    weights: str | Path | None,
    *,
    model: str | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    final_size: int | None = None,
    strides: Sequence[int] = (4, 8, 16, 32),
    drop_path: float = 0.0,
    freeze_norm: bool = False,
) -> FeatureMaps:
    """The maps of trained weights, from images of any size that `strides` divide.

    Windows and stripes are as wide as in the training, and maps that they don't divide are padded; positions are
    interpolated for each batch. A network with one stride throughout, as a ViT, gets the simple pyramid of ViTDet,
    whose layers are new.

    Args:
        weights: a run folder, an exported `model.safetensors` or another weights file, `timm/NAME.TAG`,
            `hf-hub:OWNER/NAME`, or the name of a timm model for its default weights; None for new ones.
        model: timm's name of the model, where the weights don't say it.
        model_kwargs: arguments for its constructor.
        final_size: the side that windows and positions are for, pixels; by default that of the weights.
        strides: pixels per cell of the maps wanted, ascending.
        drop_path: stochastic depth rate of the last block.
        freeze_norm: whether batch norms keep the statistics and the scales that they come with, as batches of a few
            images ask for. New weights have none worth keeping: theirs are trained.

    Raises:
        InputError: weights that cannot be read or fit no model, or a model without such maps.

    >>> maps = feature_maps_of(None, model="resnet10t")
    >>> [tuple(map.shape) for map in maps(torch.zeros(1, 3, 64, 96))]
    [(1, 64, 16, 24), (1, 128, 8, 12), (1, 256, 4, 6), (1, 512, 2, 3)]
    """
    origin = _read(weights, model, model_kwargs, final_size)
    config, size = origin.config, origin.size
    if config.in_chans != 3:
        raise InputError(
            f"detection and segmentation take RGB images, and the weights are for {config.in_chans} channels"
        )
    arguments: dict[str, Any] = {"num_classes": 1, "final_size": size, "drop_path": drop_path, **config.made_with}
    network, notes = create_model(config.model, **arguments), []
    if not hasattr(network, "forward_intermediates"):
        raise InputError(f"timm gives no feature maps of {config.model}: choose another model")
    if origin.weights is not None:
        notes = load_weights(network, origin.weights, size, new_head=True).notes(origin.weights.path)
    if loose := {name: value for name, value in _ANY_SIZE.items() if name in _arguments(type(network))}:
        # Only afterwards: to a model of any size, weights of another size would be of an unknown one.
        trained = network.state_dict()
        network = create_model(config.model, **arguments, **loose)
        network.load_state_dict(trained)
    maps = FeatureMaps(network, strides, mean=origin.mean, std=origin.std, notes=notes)
    if freeze_norm and origin.weights is not None:
        maps.network = freeze_batch_norm_2d(maps.network)  # type: ignore[no-untyped-call]
    return maps


def _arguments(network: type) -> set[str]:
    """Names of what a constructor takes, those among them that it hands on to the class before it."""
    own = inspect.signature(network).parameters
    names = {name for name, parameter in own.items() if parameter.kind is not parameter.VAR_KEYWORD}
    return names if len(names) == len(own) else names | _arguments(network.__mro__[1])


class _Read(NamedTuple):
    """What the backbone begins from."""

    config: TrainConfig
    weights: Weights | None
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def _read(
    weights: str | Path | None, model: str | None, model_kwargs: Mapping[str, Any] | None, final_size: int | None
) -> _Read:
    kwargs = dict(model_kwargs or {})
    if weights is None:
        if model is None:
            raise InputError("no weights: give `weights`, or `model` for a backbone with new ones")
        values = {"model": model, "model_kwargs": kwargs, **({} if final_size is None else {"final_size": final_size})}
        config = TrainConfig.from_flat(values)
        return _Read(config, None, config.final_size, config.augmentation.mean, config.augmentation.std)
    path, text = Path(weights), str(weights)
    run = path if path.is_dir() else None
    if run is None and not path.exists() and timm.is_model(text.partition(".")[0]):
        path = name_of(text)
    trained = read_trained(Origin(run=run, weights=None if run else path, model=model, model_kwargs=kwargs))
    seen = trained.seen
    return _Read(trained.config, trained.weights, final_size or trained.size, seen.mean, seen.std)


def _check_any_size(maps: FeatureMaps, name: str) -> None:
    height, width = _TRIED
    images = torch.zeros(1, 3, height, width, device="meta")
    # A bare copy of it has no values and no hooks, so it is quick and leaves nothing behind.
    twin = meta_copy(maps)
    refused = InputError(f"{name} takes images of one size only: choose a model that timm runs at any size")
    try:
        with torch.no_grad(), torch.device("meta"):
            found = [map.shape[-2:] for map in twin(images)]
    except _REFUSALS as error:
        raise refused from error
    if found != [(height // stride, width // stride) for stride in maps.strides]:
        raise refused
