"""The parameters that a training tunes, for all of it or for a while."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from timm.models import group_parameters
from torch import nn

from upchirp.errors import InputError
from upchirp.models import classifier_names, in_classifier
from upchirp.training.recipes.recipe import Frozen, Optimization, Tuned

_BATCH_NORM = nn.modules.batchnorm._BatchNorm
_NORMS = (_BATCH_NORM, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def freeze_for(model: nn.Module, optimization: Optimization) -> None:
    """Let gradients flow to the parameters that a recipe tunes, in the whole of a run.

    Raises:
        InputError: it names what the model does not have or does not say, or leaves nothing to train.
    """
    freeze(model, optimization.tune)
    if optimization.freeze is not None:
        freeze_parts(model, optimization.freeze)
    if optimization.head_only:
        classifier_names(model)


def freeze(model: nn.Module, tuned: Tuned) -> None:
    """Let gradients flow to the tuned parameters only; `all` leaves the model as it is.

    `head_and_norms` tunes the classifier and the layers that normalise, whose statistics a larger input shifts: what
    FixRes tunes (Touvron et al., 2019; compared with in Table 11).

    >>> from upchirp.models import create_model
    >>> model = create_model("resnet10t", num_classes=10)
    >>> freeze(model, "head_and_norms")
    >>> model.fc.weight.requires_grad, model.bn1.weight.requires_grad, model.layer1[0].conv1.weight.requires_grad
    (True, True, False)

    Raises:
        InputError: a model that does not say which layer is its classifier.
    """
    if tuned == "all":
        return
    head = classifier_names(model)
    normalises = {name for name, module in model.named_modules() if _is_norm(module)}
    for name, parameter in model.named_parameters():
        tune = name.rpartition(".")[0] in normalises or in_classifier(name, head)
        parameter.requires_grad_(tune)


def freeze_parts(model: nn.Module, frozen: Frozen) -> None:
    """Keep gradients from some of the parts of a model.

    Args:
        model: timm's, or one with a `group_matcher` as timm's models have it if parts are counted.
        frozen: names of modules or parameters, or how many of the first groups of layers: the stem is one, and each
            stage, or each block of a model without stages, is another.

    >>> from upchirp.models import create_model
    >>> model = create_model("resnet10t", num_classes=10)
    >>> freeze_parts(model, 3)
    >>> sorted({name.partition(".")[0] for name, each in model.named_parameters() if not each.requires_grad})
    ['bn1', 'conv1', 'layer1', 'layer2']

    Raises:
        InputError: the model has no such part, does not say which groups it has, or nothing would be left to train.
    """
    names = _first_groups(model, frozen) if isinstance(frozen, int) else _of_parts(model, frozen)
    for name, parameter in model.named_parameters():
        if name in names:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError("`freeze` leaves nothing to train: name less of the model")


def hold_all_but_head(model: nn.Module, optimizer: torch.optim.Optimizer, *, hold: bool) -> None:
    """Let gradients flow to the classifier alone, or again to all parameters that an optimizer has."""
    tuned = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    head = classifier_names(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(id(parameter) in tuned and (not hold or in_classifier(name, head)))


def train_mode(model: nn.Module) -> None:
    """Put a model into training mode, in which frozen batch norms keep the statistics that they have.

    >>> model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2))
    >>> _ = model[0].requires_grad_(False)
    >>> train_mode(model)
    >>> model[0].training, model[1].training
    (False, True)
    """
    model.train()
    for module in model.modules():
        if isinstance(module, _BATCH_NORM) and module.affine and not module.weight.requires_grad:
            module.eval()


def _first_groups(model: nn.Module, count: int) -> set[str]:
    matcher: Any = getattr(model, "group_matcher", None)
    if matcher is None:
        raise InputError(f"{type(model).__name__} does not say which groups of layers it has: name them by `freeze`")
    levels: Mapping[str, int] = group_parameters(model, matcher(coarse=True), reverse=True)
    # Groups of a model's own may leave out numbers.
    order = sorted(set(levels.values()))
    if count >= len(order):
        raise InputError(f"`freeze` is {count}: the model has {len(order) - 1} groups of layers before its head")
    return {name for name, level in levels.items() if level < order[count]}


def _of_parts(model: nn.Module, parts: Iterable[str]) -> set[str]:
    names = [name for name, _ in model.named_parameters()]
    found: set[str] = set()
    for part in parts:
        of_part = {name for name in names if name == part or name.startswith(f"{part}.")}
        if not of_part:
            modules = [name for name, module in model.named_modules() if any(True for _ in module.parameters())]
            near = difflib.get_close_matches(part, [*modules, *names], n=2)
            tops = dict.fromkeys(name.partition(".")[0] for name in names)
            hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(tops)}"
            raise InputError(f"`freeze` names {part!r}, which the model does not have: {hint}")
        found |= of_part
    return found


def _is_norm(module: nn.Module) -> bool:
    # timm has norms of its own that derive from none of torch's; what contains other layers is more than a norm.
    simple = not any(True for child in module.children() for _ in child.parameters())
    return isinstance(module, _NORMS) or (simple and "norm" in type(module).__name__.lower())
