"""The choice of an optimizer: whether there is such a one, what it is like, and whether it fits the model."""

import difflib
from collections.abc import Iterable, Iterator, Set
from typing import Any, Literal

import torch
from timm.optim import create_optimizer_v2, get_optimizer_info, list_optimizers
from torch import nn

from upchirp.errors import InputError, one_line
from upchirp.models import fit_to_tried, follows_shape, resized_parameters
from upchirp.models.meta import meta_copy, unwrap
from upchirp.training.recipes.optimizer import arguments, create_optimizer
from upchirp.training.recipes.recipe import OWN, Optimization

_SGD = {"sgd", "momentum", "nesterov", "nesterovw", "sgdp", "sgdw", "sgdc", "csgdp", "csgdw", "csgdc"}


def optimizer_names() -> list[str]:
    """The optimizers of timm that train here.

    Left out are those of apex and bitsandbytes, and what needs second derivatives.

    >>> {"adamw", "lion", "muon"} <= set(optimizer_names()), "adahessian" in optimizer_names()
    (True, False)
    """
    names = map(str, list_optimizers(exclude_filters=["bnb*", "fused*"]))
    return [name for name in names if not get_optimizer_info(name).second_order]


def kind_of(opt: str) -> Literal["adam", "lamb", "sgd"] | None:
    """Whose learning rates suit an optimizer of timm's; None if that is not known.

    Lion, for one, takes rates several times smaller than AdamW, and Muon larger ones.

    >>> [kind_of(opt) for opt in ("nadamw", "lambc", "nesterov", "lion", "adamuon", "adamax")]
    ['adam', 'lamb', 'sgd', None, None, None]
    """
    if opt in _SGD:
        return "sgd"
    if "lamb" in opt:
        return "lamb"
    return "adam" if "adam" in opt and "muon" not in opt and opt != "adamax" else None


def check_optimizer(optimization: Optimization) -> None:
    """Refuse an optimizer that there is not, or that does not take its arguments."""
    opt, names = optimization.opt, optimizer_names()
    if opt not in names:
        if opt in list_optimizers():
            why = "those of apex and bitsandbytes and what needs second derivatives are left out"
        else:
            near = difflib.get_close_matches(opt, names, n=3)
            why = f"did you mean {' or '.join(near)}?" if near else "`timm.optim.list_optimizers()` lists them"
        raise InputError(f"`opt` is {opt!r}, which is none of timm's optimizers that train here: {why}")
    for name in optimization.opt_kwargs:
        if name in _OWN_SETTINGS:
            raise InputError(f"`opt_kwargs` cannot set {name}: {_OWN_SETTINGS[name]}")
    info, betas = get_optimizer_info(opt), optimization.opt_betas
    if betas is not None and info.has_betas and len(betas) != info.num_betas:
        raise InputError(f"`opt_betas` are {betas}: {opt} has {info.num_betas}")
    try:
        create_optimizer_v2(nn.Linear(2, 2), opt=opt, lr=1.0, weight_decay=0.1, **arguments(optimization))
    except (TypeError, ValueError, AssertionError, ImportError, KeyError) as error:
        raise InputError(f"`opt={opt!r}` does not take its arguments: {one_line(error)}") from error


_OWN_SETTINGS = {
    "lr": "use `lr`",
    "weight_decay": "use `weight_decay`",
    "betas": "use `opt_betas`",
    "eps": "use `opt_eps`",
    "momentum": "use `momentum`",
    "layer_decay": "use `layer_decay`",
    **dict.fromkeys(("model_or_params", "params", "opt", "param_group_fn"), "it is decided here"),
    **dict.fromkeys(("fused", "foreach"), "it follows from the optimizer and the device"),
}


def check_states(model: nn.Module, optimization: Optimization, sizes: Iterable[int]) -> None:
    """Refuse an optimizer whose states cannot follow a model's parameters through some input sizes.

    States of a parameter's own shape are resized as it is (`fit_to_bandwidth`), plain numbers stay. The optimizer is
    tried on the parameters concerned, in a copy of the model without any others' values.

    >>> from upchirp.models import create_model
    >>> vit = create_model("vit_tiny_patch16_224", depth=1, embed_dim=24)
    >>> check_states(vit, Optimization(opt="lion"), [96, 224])
    >>> check_states(vit, Optimization(opt="adafactor"), [96, 224])
    Traceback (most recent call last):
    ...
    upchirp.errors.InputError: `opt='adafactor'` keeps a state 'exp_avg_sq_col' that cannot follow pos_embed, ...
    """
    resized = resized_parameters(model, sizes) if optimization.opt not in OWN else set()
    tuned = {name for name in resized if model.get_parameter(name).requires_grad}
    if not tuned:
        return
    at_first: dict[str, set[str]] = {}
    for size in sorted(set(sizes)):
        for name, values, states in _tried(model, optimization, size, tuned):
            # Some factorise large tensors only.
            others = at_first.setdefault(name, set(states)) ^ set(states)
            if wrong := others or {key for key, state in states.items() if not follows_shape(state, values)}:
                raise InputError(
                    f"`opt={optimization.opt!r}` keeps a state {min(wrong)!r} that cannot follow {name}, which "
                    "bandwidths resize: take an optimizer whose states have the parameters' shapes, such as AdamW or "
                    "Lion, or `curriculum='constant'`"
                )


def _tried(
    model: nn.Module, optimization: Optimization, size: int, names: Set[str]
) -> Iterator[tuple[str, torch.Tensor, dict[str, Any]]]:
    """Some parameters of a model at a size, by name, and the states that an optimizer keeps of each after a step."""
    twin = meta_copy(unwrap(model))
    fit_to_tried(twin, size)
    tried = {}
    for name in names:
        tried[name] = nn.Parameter(torch.zeros(twin.get_parameter(name).shape))
        tried[name].grad = torch.ones_like(tried[name])
        module, _, own = name.rpartition(".")
        setattr(twin.get_submodule(module), own, tried[name])
    optimizer = create_optimizer(twin, optimization, learning_rate=1e-6)
    # Compiling would take longer than the step.
    with torch.random.fork_rng(devices=[]), torch.compiler.set_stance("force_eager"):
        optimizer.step()
    for name, values in tried.items():
        yield name, values, optimizer.state.get(values, {})
