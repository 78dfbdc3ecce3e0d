"""Appendix A.2: layer-wise decay over groups of blocks, drop path, and an average that reaches its decay (Table 24)."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.runs import Make, differing, interrupted
from timm.utils import ModelEmaV3
from torch import nn

from upchirp import InputError, Plan, TrainConfig, plan, preset, train
from upchirp.models import create_model
from upchirp.training.folders.run_folder import check_is_same_run, read_settings
from upchirp.training.recipes.config_file import CONFIG, save_config
from upchirp.training.recipes.optimizer import create_ema, layer_groups
from upchirp.training.recipes.recipe import Optimization


def tuning(model: str, **values: Any) -> Optimization:
    return TrainConfig.from_flat({"model": model, "regime": "finetune", **values}).optimization


@pytest.mark.parametrize(
    ("name", "groups", "lowest", "drop_path"),
    [
        # ConvNeXt's 36 blocks in 12 groups of three: 0.8^13. Its own drop path for fine-tuning.
        ("convnext_base", 12, 0.055, 0.2),
        # The released code: 40 blocks in 20 groups of two, 0.9^21.
        ("cswin_base_224", 20, 0.109, 0.2),
        ("deit_small_patch16_224", 12, 0.055, 0.1),
        ("swin_tiny_patch4_window7_224", 12, 0.055, 0.2),
    ],
)
def test_lowest_rates_are_those_of_groups(name: str, groups: int, lowest: float, drop_path: float) -> None:
    optimization = tuning(name)
    with torch.device("meta"):
        model = create_model(name, num_classes=10)
    made = layer_groups(model, optimization)
    scales = sorted({group["lr_scale"] for group in made})
    assert len(scales) == groups + 2 and scales[-1] == 1.0
    assert scales[0] == pytest.approx(lowest, abs=5e-4)
    assert optimization.drop_path == drop_path
    # All parameters, each once.
    assert sorted(id(p) for group in made for p in group["params"]) == sorted(id(p) for p in model.parameters())
    per_block = layer_groups(model, tuning(name, layer_groups=None))
    assert len({group["lr_scale"] for group in per_block}) >= len(scales)


def test_convnext_large_has_a_drop_path_of_its_own() -> None:
    assert tuning("convnext_large").drop_path == 0.3


def test_convnext_groups_three_blocks_of_the_third_stage() -> None:
    """ConvNeXt's `get_num_layer_for_convnext`: stages 1 and 2 are a group each, stage 3 nine of them, stage 4 one."""
    with torch.device("meta"):
        model = create_model("convnext_base", num_classes=10)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    scales = {names[id(p)]: g["lr_scale"] for g in layer_groups(model, tuning("convnext_base")) for p in g["params"]}

    def level(name: str) -> int:
        (found,) = {round(13 + torch.log(torch.tensor(scales[name])).item() / 0.2231436)}
        return found

    expected = {(0, 0): 1, (0, 2): 1, (1, 1): 2, (2, 0): 3, (2, 2): 3, (2, 3): 4, (2, 26): 11, (3, 0): 12, (3, 2): 12}
    for (stage, block), group in expected.items():
        assert level(f"stages.{stage}.blocks.{block}.conv_dw.weight") == group, (stage, block)
    assert level("stem.0.weight") == 0 and level("head.fc.weight") == 13


def decays(run: Plan, decay: float = 0.9999, **values: Any) -> list[float]:
    ema = create_ema(nn.Linear(1, 1), Optimization(model_ema=True, model_ema_decay=decay, **values), plan=run)
    assert isinstance(ema, ModelEmaV3)
    return [ema.get_decay(step) for step in range(0, run.total_steps + 1, max(1, run.total_steps // 100))]


@pytest.mark.parametrize(
    ("curriculum", "epochs", "batch_size", "decay"),
    [
        # Table 24 for EfficientTrain++ and training as usual, CSWin-B's, and A.2's 30 epochs at batch 512.
        ("efficienttrain_plus_plus", 200, 4096, 0.9999),
        ("constant", 300, 4096, 0.9999),
        ("efficienttrain_plus_plus", 200, 2048, 0.9998),
        ("constant", 30, 512, 0.9999),
    ],
)
def test_an_average_of_the_papers_runs_has_its_decay_for_four_fifths_of_them(
    curriculum: str, epochs: float, batch_size: int, decay: float
) -> None:
    found = decays(plan(preset(curriculum), epochs=epochs, batch_size=batch_size), decay)
    assert found[21:] == pytest.approx([decay] * len(found[21:]), abs=2e-6)
    assert found == sorted(found)


def test_an_average_of_a_short_run_forgets_its_beginning_and_other_sizes() -> None:
    usual, rising = (
        plan(preset(name, 64), epochs=4, dataset_size=2000, batch_size=16)
        for name in ("constant", "efficienttrain_plus_plus")
    )
    assert decays(usual)[-1] == pytest.approx(1 - 7 / usual.total_steps, abs=1e-6)
    last = rising.stages[-1]
    assert last.bandwidth == 64 and 0.4 * last.steps < rising.total_steps / 7
    assert decays(rising)[-1] == pytest.approx(1 - 1 / (0.4 * last.steps), abs=1e-6)
    # timm's rule is there for whoever wants it, and for runs of before.
    by_timm = decays(usual, model_ema_warmup=None)[-1]
    assert by_timm == pytest.approx(1 - (1 + usual.total_steps) ** (-2 / 3), abs=1e-4)


def test_a_run_of_before_goes_on_by_what_it_did(tmp_path: Path) -> None:
    """Stored settings lack what came later: blocks were a group each, and averages warmed up by timm's rule."""
    stored = TrainConfig.from_flat({"model": "convnext_base", "regime": "finetune"}).to_flat()
    assert (stored["layer_groups"], stored["model_ema_warmup"]) == (12, 0.2)
    later = ("layer_groups", "model_ema_warmup")
    save_config({name: value for name, value in stored.items() if name not in later}, tmp_path / CONFIG)
    assert read_settings(tmp_path).mode == "fast_lanczos"
    now = read_settings(tmp_path).optimization
    assert (now.layer_groups, now.model_ema_warmup) == (None, None)
    again = TrainConfig.from_flat({"output": str(tmp_path), "resume": "auto"}).with_stored()
    assert (again.optimization.layer_groups, again.optimization.model_ema_warmup) == (None, None)


def test_a_run_whose_settings_wrote_the_optimizers_own_values_out_goes_on(tmp_path: Path) -> None:
    """Before any of timm's optimizers could be named, moments and epsilon were stored though nobody gave them."""
    asked = TrainConfig.from_flat({"data": "images", "recipe": "light"}).to_flat()
    stored = {**asked, "opt_betas": [0.9, 0.999], "opt_eps": 1e-8}
    del stored["opt_kwargs"]
    save_config(stored, tmp_path / CONFIG)
    assert check_is_same_run(tmp_path, asked) == []
    save_config({**stored, "opt_betas": [0.9, 0.95]}, tmp_path / CONFIG)
    with pytest.raises(InputError, match="opt_betas"):
        check_is_same_run(tmp_path, asked)


def test_a_checkpoint_of_before_goes_on_by_its_plan_where_nothing_else_is_asked(config: Make, tmp_path: Path) -> None:
    """Its warm-up was another share, and its replay buffer held other memory; both follow from defaults now."""
    before = interrupted(config(warmup=0.03, replay=1, replay_gib=4), 4)
    latest = sorted((tmp_path / "run" / "checkpoints").glob("step_*.pt"))[-1]
    whole = train(config(warmup=0.03, replay=1, output=str(tmp_path / "whole")))
    other = train(config(replay=1, output=str(tmp_path / "other"), resume=str(latest)))
    assert other.plan.schedule.warmup == 0.03
    assert differing(other.output, whole.output) == []
    with pytest.raises(InputError, match="trained by another plan"):
        train(config(replay=1, warmup=0.2, output=str(tmp_path / "asked"), resume=str(latest)))
    assert before.output == tmp_path / "run"
