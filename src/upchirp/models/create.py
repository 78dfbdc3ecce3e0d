"""Models from timm, at any size they can take."""

import difflib
import re
from collections.abc import Mapping
from typing import Any

import timm
import torch
from timm.layers import BlurPool2d
from torch import nn

from upchirp.errors import InputError, one_line
from upchirp.models.meta import shapes_only
from upchirp.models.resizing.families import build_arguments
from upchirp.models.resizing.sizes import check_sizes, failure_at, size_multiple

_UNEXPECTED = re.compile(r"unexpected keyword argument(?:\(s\))?\W+(\w+)")
_BUILD_ERRORS = (ArithmeticError, AssertionError, LookupError, RuntimeError, ValueError)


def create_model(
    name: str,
    *,
    num_classes: int = 1000,
    final_size: int = 224,
    drop_path: float = 0.0,
    drop: float = 0.0,
    pretrained: bool = False,
    **kwargs: Any,
) -> nn.Module:
    """Build timm's model `name` for images of side `final_size`.

    A model whose parameters depend on the input size is built at it, Swin with windows of B/32; one that
    takes any size is built as usual. Under `torch.device("meta")` the result has shapes and no values. For
    one seed the weights are those that timm itself would draw with the same arguments.

    Args:
        name: a name that timm knows, with or without a pretrained tag.
        num_classes: outputs of the classifier.
        final_size: input side of the last stage, pixels.
        drop_path: stochastic depth rate of the last block; 0 also where the model's own default is higher.
        drop: dropout rate before the classifier.
        pretrained: whether to start from timm's weights (downloads them).
        kwargs: passed to timm, for instance `depth=6`.

    Raises:
        InputError: an unknown name (the nearest are offered), an argument that the model does not take, or a
            size that its patches or windows don't divide (the nearest that work are offered).

    >>> sum(p.numel() for p in create_model("resnet10t", num_classes=40, final_size=64).parameters())
    4943008
    >>> create_model("resnet5000")
    Traceback (most recent call last):
    ...
    upchirp.errors.InputError: timm has no model 'resnet5000': did you mean resnet50, resnet50t, resnet50s?
    """
    check_name(name)
    if "img_size" in kwargs:
        raise InputError("img_size is the final size here: set final_size instead")
    if final_size < 1:
        raise InputError(f"final size is {final_size}: choose 1 pixel or more")
    rates = {"drop_rate": drop, "drop_path_rate": drop_path}
    for rate in rates:
        if not 0.0 <= rates[rate] < 1.0:
            raise InputError(f"{rate} is {rates[rate]}: choose a rate from 0 up to, not including, 1")
    arguments = {"num_classes": num_classes, **rates, **_with_classes(kwargs)}

    # What `torch.get_default_device` knows of a `with` depends on torch's version.
    without_values = torch.empty(0).is_meta
    arguments, of_size, twin = _sized(name, final_size, arguments, {rate for rate in rates if rates[rate] == 0.0})
    if failure_at(twin, final_size) is not None:
        check_sizes(twin, [final_size])
    if without_values and not pretrained:
        return twin
    model: nn.Module = timm.create_model(name, pretrained=pretrained, **of_size, **arguments)
    return model


def size_arguments(name: str, final_size: int, **kwargs: Any) -> dict[str, Any]:
    """What timm's constructor is told of the input side so that its model takes weights of that side.

    Args:
        name: a name that timm knows.
        final_size: input side of the weights, pixels.
        kwargs: the other arguments.

    >>> size_arguments("swin_tiny_patch4_window7_224", 256), size_arguments("resnet18", 256)
    ({'img_size': 256, 'window_size': 8}, {})
    """
    return _sized(name, final_size, _with_classes(kwargs), set())[1]


def _sized(
    name: str, final_size: int, arguments: dict[str, Any], optional: set[str]
) -> tuple[dict[str, Any], dict[str, Any], nn.Module]:
    """The arguments that the model takes, those that its side asks for beside them, and its shapes."""
    # Worked out without values, at the default size first: only there are windows as published.
    with shapes_only():
        arguments, twin = _build_shapes(name, arguments, optional)
        _check_division(name, twin, final_size)
        of_size = {key: value for key, value in build_arguments(twin, final_size).items() if key not in arguments}
        sized = {**of_size, **arguments}
        try:
            return arguments, of_size, timm.create_model(name, **sized)
        except TypeError as error:
            if _unexpected(error, sized) != "img_size":
                raise _refusal(name, sized, error) from error
            return arguments, {}, twin
        except _BUILD_ERRORS as error:
            raise _refusal(name, sized, error) from error


class BlurPoolOfZeros(BlurPool2d):
    """timm's `blurpc`: a blur that sees zeros outside, so that maps may be as small as one cell."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"pad_mode": "constant", **kwargs})


_DOWN_SAMPLING = {
    "avg": nn.AvgPool2d,
    "avgpool": nn.AvgPool2d,
    "blur": BlurPool2d,
    "blurpool": BlurPool2d,
    "blurpc": BlurPoolOfZeros,
}
"""Down-sampling without aliases by timm's names; its ResNets take the classes alone, and all other models take both."""


def _with_classes(options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments for a constructor, with what names a class replaced by it."""
    name = options.get("aa_layer")
    if not isinstance(name, str):
        return dict(options)
    if name not in _DOWN_SAMPLING:
        raise InputError(f"aa_layer is {name!r}: choose one of {', '.join(_DOWN_SAMPLING)}")
    return {**options, "aa_layer": _DOWN_SAMPLING[name]}


def check_name(name: str) -> None:
    """Raise if timm knows no model of that name, with or without a pretrained tag.

    Raises:
        InputError: offering the nearest names.
    """
    if not timm.is_model(name.partition(".")[0]):
        raise InputError(f"timm has no model {name!r}: {_neighbours(name)}")


def _build_shapes(name: str, arguments: dict[str, Any], optional: set[str]) -> tuple[dict[str, Any], nn.Module]:
    """Build on the meta device, leaving out `optional` arguments that the model does not take."""
    arguments = dict(arguments)
    while True:
        try:
            return arguments, timm.create_model(name, **arguments)
        except TypeError as error:
            unexpected = _unexpected(error, arguments)
            if unexpected is None:
                raise _refusal(name, arguments, error) from error
            if unexpected not in optional:
                raise InputError(
                    f"{name} does not take {unexpected} (given {arguments[unexpected]!r}): leave it out"
                ) from error
            del arguments[unexpected]
        except _BUILD_ERRORS as error:
            raise _refusal(name, arguments, error) from error


def _unexpected(error: TypeError, arguments: dict[str, Any]) -> str | None:
    """The argument that a constructor says it does not know."""
    found = _UNEXPECTED.search(str(error))
    return found[1] if found and found[1] in arguments else None


def _refusal(name: str, arguments: dict[str, Any], error: Exception) -> InputError:
    spelled = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    return InputError(f"timm cannot build {name} from {spelled}: {one_line(error)}")


def _check_division(name: str, twin: nn.Module, final_size: int) -> None:
    multiple = size_multiple(twin)
    if final_size % multiple:
        below = final_size - final_size % multiple
        nearest = " and ".join(str(side) for side in (below, below + multiple) if side)
        raise InputError(
            f"{name} cannot take images of side {final_size} (its strides, patches or windows divide "
            f"multiples of {multiple} only): the nearest that work are {nearest}"
        )


def _neighbours(name: str) -> str:
    wanted, known = name.partition(".")[0], timm.list_models()
    longer = sorted((model for model in known if model.startswith(wanted)), key=len) if wanted else []
    near = dict.fromkeys([*longer, *difflib.get_close_matches(wanted, known, n=3)])
    if near:
        return f"did you mean {', '.join(list(near)[:3])}?"
    return "timm.list_models() lists the names"
