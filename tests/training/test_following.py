import pytest
import torch
from timm.utils import ModelEmaV3

import upchirp
from upchirp.models import create_model
from upchirp.training import Optimization, create_optimizer, set_learning_rate


def test_a_loop_of_one_s_own_follows_a_plan() -> None:
    model = create_model("vit_tiny_patch16_224", depth=2, embed_dim=24, num_classes=2, final_size=64)
    ema = ModelEmaV3(model)
    optimizer = create_optimizer(model, Optimization(layer_decay=0.5), learning_rate=1.0)
    curriculum = upchirp.efficienttrain_plus_plus(64, multiple=upchirp.size_multiple(model))
    plan = upchirp.plan(curriculum, epochs=3, dataset_size=32, batch_size=8, learning_rate=1e-2)
    resized = []
    for step in plan.steps():
        if upchirp.follow(step, model, optimizer, ema):
            resized.append(step.bandwidth)
        rates = {group["lr"] / group["lr_scale"] for group in optimizer.param_groups}
        assert max(rates) - min(rates) < 1e-12 < step.learning_rate - min(rates) + 2e-12
        assert len({group["lr"] for group in optimizer.param_groups}) > 2
        assert model.pos_embed.shape == ema.module.pos_embed.shape
        model(torch.zeros(2, 3, step.bandwidth, step.bandwidth)).sum().backward()
        optimizer.step()
    # It was made for the final size.
    assert tuple(resized) == plan.bandwidths
    assert optimizer.state[model.pos_embed]["exp_avg"].shape == model.pos_embed.shape


def test_groups_with_rates_of_their_own_are_told_that_the_plans_takes_their_place() -> None:
    body, head = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    model = torch.nn.Sequential(body, head)
    groups = [{"params": body.parameters()}, {"params": head.parameters(), "lr": 1e-2}]
    optimizer = torch.optim.SGD(groups, lr=1e-3)
    with pytest.warns(UserWarning, match=r"rates of their own \(0.001, 0.01\), and the plan's takes the place of all"):
        set_learning_rate(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.5]
    # Once, as a loop may scale them itself after each step.
    optimizer.param_groups[1]["lr"] *= 10
    set_learning_rate(optimizer, 0.5)
    shares = [{"params": model[0].parameters()}, {"params": model[1].parameters(), "lr_scale": 10, "lr": 1e-2}]
    optimizer = torch.optim.SGD(shares, lr=1e-3)
    set_learning_rate(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 5]
