"""Settings that are asked for in vain are told."""

from typing import Any

import pytest

from upchirp import TrainConfig
from upchirp.training.jobs.pricing import estimate
from upchirp.training.recipes.unused import unused_settings


@pytest.mark.parametrize(
    ("asked", "idle"),
    [
        ({"opt": "sgd", "opt_betas": (0.8, 0.9), "opt_eps": 1e-6, "momentum": 0.5}, {"opt_betas", "opt_eps"}),
        ({"opt": "lamb", "opt_betas": (0.8, 0.9), "opt_eps": 1e-7, "momentum": 0.5}, {"momentum"}),
        ({"sched": "wsd", "sched_decay": 0.5}, set()),
        ({"sched": "linear", "sched_decay": 0.5}, {"sched_decay"}),
        ({"warmup": 0.1, "warmup_passes": 3.0}, {"warmup_passes"}),
        ({"warmup_passes": 3.0}, set()),
        ({"lr": 1e-3, "lr_base": 2e-3, "lr_base_size": 256}, {"lr_base", "lr_base_size"}),
        ({"lr_base": 2e-3, "lr_base_size": 256}, set()),
        ({"model_ema_decay": 0.9}, {"model_ema_decay"}),
        ({"model_ema_decay": 0.9, "model_ema": True}, set()),
        ({"replay_gib": 1.0, "replay_final": True}, {"replay_gib", "replay_final"}),
        ({"replay_gib": 1.0, "replay_final": True, "replay_stages": (1, 0)}, {"replay_final"}),
        ({"select_prune": 0.3}, {"select_prune"}),
        ({"kd_temperature": 2.0, "layer_groups": 4}, {"kd_temperature", "layer_groups"}),
        ({"mixup": 0.0, "mixup_switch_prob": 0.2, "mixup_prob": 0.3}, {"mixup_switch_prob"}),
        ({"mixup": 0.0, "cutmix": 0.0, "mixup_prob": 0.3}, {"mixup_prob"}),
        ({"crop": "center", "scale": (0.5, 1.0), "randaug_layers": 0, "randaug_std": 0.1}, {"scale", "randaug_std"}),
        ({"regime": "pretrain", "smoothing": 0.2, "mixup": 0.5}, {"smoothing"}),
        # As a file of all settings has them.
        (TrainConfig(model="swin_tiny_patch4_window7_224").to_flat(), set()),
    ],
)
def test_what_has_no_effect_is_named(asked: dict[str, Any], idle: set[str]) -> None:
    lines = unused_settings(TrainConfig.from_flat(asked).to_flat(), asked)
    assert {line.split("`")[1] for line in lines} == idle
    assert all("` is not used: " in line for line in lines)


def test_a_plan_tells_them() -> None:
    config = TrainConfig.from_flat(
        {"model": "resnet10t", "final_size": 64, "epochs": 2, "amp": False, "sched_decay": 0.3}
    )
    told = estimate(config, dataset_size=1000, num_classes=2)["chosen"]
    assert [line for line in told if "not used" in line] == ["`sched_decay` is not used: it belongs to `sched='wsd'`"]
