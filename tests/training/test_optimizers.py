"""Any of timm's optimizers: which train here, with which arguments, and which follow a model's bandwidth."""

import pytest
import torch
from tests.runs import Make, notes
from torch import nn

from upchirp import InputError, TrainConfig, train
from upchirp.models import create_model, fit_to_bandwidth
from upchirp.training import Optimization, create_optimizer
from upchirp.training.recipes.defaults import choose_recipe
from upchirp.training.recipes.optimizer_choice import check_states, optimizer_names
from upchirp.training.recipes.recipe import OWN

STATIC = {"depth": 1, "dynamic_img_size": False}
"""Makes a model whose positions bandwidths resize."""
FACTORED = {name for name in optimizer_names() if "kron" in name or "adafactor" in name}
"""Optimizers whose states of positions have other shapes than these, or have where there are many positions."""

pytestmark = pytest.mark.filterwarnings("ignore:It is highly recommended to have 'opt_einsum'")


@pytest.fixture(scope="module")
def vit() -> nn.Module:
    return create_model("test_vit", num_classes=3, final_size=64, **STATIC)


@pytest.mark.parametrize("opt", [name for name in optimizer_names() if name not in FACTORED])
def test_states_follow_positions(opt: str, vit: nn.Module) -> None:
    fit_to_bandwidth(vit, 64)
    optimization = Optimization(opt=opt)
    check_states(vit, optimization, [32, 64])
    optimizer = create_optimizer(vit, optimization, learning_rate=1e-3)
    vit.zero_grad()
    vit.pos_embed.grad = torch.randn(vit.pos_embed.shape, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    fit_to_bandwidth(vit, 32, optimizer)
    state = [value for value in optimizer.state[vit.pos_embed].values() if isinstance(value, torch.Tensor)]
    assert all(value.shape == vit.pos_embed.shape or value.numel() == 1 for value in state)
    vit.pos_embed.grad = torch.ones_like(vit.pos_embed)
    optimizer.step()
    assert vit.pos_embed.isfinite().all()


def test_states_of_another_shape_are_refused_where_positions_change(vit: nn.Module) -> None:
    fit_to_bandwidth(vit, 64)
    with pytest.raises(InputError, match="`opt='kron'` keeps a state 'Q' that cannot follow pos_embed"):
        check_states(vit, Optimization(opt="kron"), [32, 64])
    # 5 positions are kept whole, and 17 by their rows and columns.
    with pytest.raises(InputError, match=r"`opt='adafactor'` keeps a state 'exp_avg_sq.*' that cannot"):
        check_states(vit, Optimization(opt="adafactor"), [32, 64])
    check_states(vit, Optimization(opt="adafactor"), [64])
    check_states(create_model("test_resnet", num_classes=3), Optimization(opt="kron"), [96, 224])


def test_they_are_refused_before_training(config: Make) -> None:
    run = config(opt="adafactor", lr=1e-3, model_kwargs=STATIC)
    with pytest.raises(InputError, match=r"keeps a state 'exp_avg_sq.*' that cannot follow pos_embed"):
        train(run)
    assert run.output is not None and not (run.output / "metrics.jsonl").exists()


def test_a_run_learns_by_another_optimizer(config: Make) -> None:
    events: list = []
    result = train(
        config(opt="lion", lr=3e-4, model_kwargs=STATIC, opt_betas=[0.9, 0.98], opt_kwargs={"caution": True}),
        observers=[events.append],
    )
    assert result.top1 > 60
    assert not [note for note in notes(events) if "learning rate" in note]


def test_arguments_reach_the_optimizer(vit: nn.Module) -> None:
    own = Optimization(opt="lion", opt_betas=(0.8, 0.9), opt_kwargs={"caution": True}, layer_decay=0.5)
    optimizer = create_optimizer(vit, own, learning_rate=1e-3)
    assert {(group["betas"], group["caution"]) for group in optimizer.param_groups} == {((0.8, 0.9), True)}
    assert len({group["lr_scale"] for group in optimizer.param_groups}) > 2
    plain = create_optimizer(vit, Optimization(opt="lion"), learning_rate=1e-3)
    assert plain.defaults["betas"] == (0.9, 0.99)


def test_layer_decay_keeps_what_muon_leaves_to_its_other_kind(vit: nn.Module) -> None:
    own = Optimization(opt="muon", layer_decay=0.5, opt_kwargs={"fallback_list": ["*qkv*"]})
    groups = create_optimizer(vit, own, learning_rate=1e-3).param_groups
    fallback = {id(parameter) for group in groups if group.get("use_fallback") for parameter in group["params"]}
    assert id(vit.blocks[0].attn.qkv.weight) in fallback


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"opt": "adamwa"}, "`opt` is 'adamwa'.* did you mean adamw"),
        ({"opt": "lbfgs"}, "none of timm's optimizers that train here"),
        ({"opt": "fusedadamw"}, "apex and bitsandbytes"),
        ({"opt": "adahessian"}, "second derivatives are left out"),
        ({"opt": "lookahead_adamw"}, "none of timm's optimizers"),
        ({"opt": "adan", "opt_betas": (0.9, 0.99)}, "adan has 3"),
        ({"opt_kwargs": {"nestorov": True}}, "`opt='adamw'` does not take its arguments: .*nestorov"),
        ({"opt_kwargs": {"lr": 1.0}}, "`opt_kwargs` cannot set lr: use `lr`"),
        ({"opt_kwargs": {"fused": True}}, "cannot set fused"),
    ],
)
def test_wrong_choices(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Optimization(**changes)


def test_a_rate_is_asked_for_where_none_is_known() -> None:
    asked = {"model": "resnet18", "opt": "lion"}
    with pytest.raises(InputError, match="no learning rate is known for `opt='lion'`: give one by `lr`"):
        choose_recipe(TrainConfig.from_flat(asked), 100)
    choose_recipe(TrainConfig.from_flat({**asked, "lr": 1e-4}), 100)
    choose_recipe(TrainConfig.from_flat({**asked, "opt": "nadamw"}), 100)
    assert set(OWN) <= set(optimizer_names())
