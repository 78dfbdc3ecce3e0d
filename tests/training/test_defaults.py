"""What a training chooses where nothing was asked for."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from upchirp import InputError, TrainConfig, constant, plan, train
from upchirp.compare import CompareConfig, compare
from upchirp.data import GeneratedSource
from upchirp.training import Event, Noted, Stepped, load_config, settle
from upchirp.training.assets.data import enlarged_note
from upchirp.training.folders.run_folder import read_plan
from upchirp.training.jobs.pricing import estimate, settings_for_data
from upchirp.training.probing.plan_notes import new_head_note
from upchirp.training.recipes.defaults import FEW_STEPS, Settled, choose_batch_size, choose_recipe, steps_note

CONV = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
GROUPED = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(1, 8))
ATTENTION = timm.create_model("test_vit")


class Enough(Exception):
    """What was to be seen of a run was seen."""


def test_short_runs_get_the_light_recipe_and_large_data_the_papers() -> None:
    asked = {"model": "swin_tiny_patch4_window7_224", "epochs": 20}
    few = choose_recipe(TrainConfig.from_flat(asked), 6_500).config
    many = choose_recipe(TrainConfig.from_flat({"model": "swin_tiny_patch4_window7_224"}), 1_281_167).config
    assert (few.recipe, few.augmentation.mixup, few.optimization.drop_path) == ("light", 0.0, 0.0)
    # Table 24 and Section 5.1.
    assert (many.recipe, many.batch_size, many.epochs) == ("paper", 4096, 200.0)
    assert (many.augmentation.mixup, many.optimization.drop_path, many.optimization.clip_grad) == (0.8, 0.2, 5.0)


def test_long_runs_on_few_images_get_the_papers_augmentation_but_no_batch_of_4096() -> None:
    def chosen(**asked: object) -> TrainConfig:
        config = TrainConfig.from_flat({"model": "swin_tiny_patch4_window7_224", **asked})
        return settle(config, 1_000, ATTENTION).config

    long, short = chosen(epochs=100), chosen(epochs=50)
    assert chosen() == long
    assert (long.recipe, long.augmentation.mixup, long.optimization.clip_grad) == ("paper", 0.8, 5.0)
    assert short.recipe == "light"
    # As measured on Imagenette: benchmarks/results/defaults.json.
    assert long.batch_size == chosen(epochs=100, recipe="light").batch_size <= 128
    assert long.optimization.lr == chosen(epochs=100, recipe="light").optimization.lr
    assert chosen(epochs=100, recipe="paper") == long
    assert chosen(epochs=100, recipe="paper", batch_size=512).optimization.lr is None
    assert chosen(regime="finetune", epochs=100).recipe == "light"
    assert chosen(epochs=100, batch_size=33).recipe == "light"


@pytest.mark.parametrize("recipe", ["swin_tiny", "default"])
def test_a_recipe_that_was_asked_for_is_left_alone(recipe: str) -> None:
    config = TrainConfig.from_flat({"model": "swin_tiny_patch4_window7_224", "recipe": recipe})
    assert settle(config, 6_500, timm.create_model("test_vit")).config == config


def test_what_was_asked_for_stays() -> None:
    asked = {"model": "resnet18", "batch_size": 24, "lr": 0.01, "epochs": 7, "mixup": 0.4, "drop_path": 0.3}
    config = settle(TrainConfig.from_flat(asked), 1_000, CONV).config
    flat = config.to_flat()
    assert {name: flat[name] for name in asked} == asked
    assert config.recipe == "light"


def test_what_was_replaced_in_python_counts_as_asked_for(tmp_path: Path) -> None:
    config = TrainConfig.from_flat({"model": "resnet18"})
    config = replace(config, epochs=3.0, output=tmp_path, augmentation=replace(config.augmentation, reprob=0.7))
    made = settle(config, 1_000, CONV).config
    assert (made.epochs, made.output, made.augmentation.reprob) == (3.0, tmp_path, 0.7)
    assert made.augmentation.mixup == 0.0


def test_a_config_made_in_full_is_left_alone() -> None:
    config = TrainConfig(model="resnet18", batch_size=4096)
    assert settle(config, 1_000, CONV).config == config


@given(samples=st.integers(1, 10**9), ranks=st.sampled_from([1, 2, 3, 8, 64]), mixup=st.sampled_from([0.0, 0.8]))
def test_the_batch_makes_enough_steps_and_is_shared_by_all_ranks(samples: int, ranks: int, mixup: float) -> None:
    config = choose_recipe(TrainConfig.from_flat({"model": "resnet18", "mixup": mixup}), 5_000).config
    size = choose_batch_size(Settled(config), samples, CONV, ranks=ranks).config.batch_size
    assert (size % ranks == 0 and size % 8 == 0) or not mixup
    # Of two settings the run takes the one with more steps, as far as a batch goes that is worth computing.
    assert samples / size >= FEW_STEPS or size <= 16 or size <= 8 * ranks


def test_the_rate_follows_batch_network_and_optimizer() -> None:
    def rate(model: nn.Module, **asked: object) -> float:
        made = settle(TrainConfig.from_flat({"model": "resnet18", "epochs": 9, **asked}), 1_000, model).config
        return made.optimization.learning_rate(made.batch_size)

    assert rate(CONV, batch_size=64) == pytest.approx(2 * rate(CONV, batch_size=16))
    # As the paper's at 4,096 (Table 24).
    assert rate(CONV, batch_size=4096) == 4e-3
    assert 5 * rate(ATTENTION, batch_size=64) < rate(GROUPED, batch_size=64) < rate(CONV, batch_size=64)
    # Goyal et al., arXiv 1706.02677: 0.1 for a batch of 256.
    assert rate(CONV, batch_size=64, opt="sgd") == pytest.approx(0.025)


def test_fine_tuning_on_few_images_has_rates_and_decays_of_its_own() -> None:
    def settled(images: int, model: nn.Module = CONV, **asked: object) -> TrainConfig:
        return settle(TrainConfig.from_flat({"model": "resnet18", "regime": "finetune", **asked}), images, model).config

    few = settled(200)
    assert (few.curriculum, few.optimization.model_ema) == ("constant", False)
    assert settled(200, layer_decay=0.5).optimization.layer_decay == 0.5
    rates = [settled(200, model, batch_size=64).optimization.learning_rate(64) for model in (CONV, ATTENTION)]
    assert rates[0] > rates[1] > 5e-5
    # Appendix A.2, for ImageNet-1K.
    assert settled(1_281_167).optimization.learning_rate(512) == 5e-5


def test_too_few_steps_are_told_with_their_cause() -> None:
    def note(batch_size: int, epochs: float) -> str | None:
        return steps_note(plan(constant(96), epochs=epochs, dataset_size=6_500, batch_size=batch_size))

    assert "4096 is a large batch for 65,536 images, try `batch_size=64`" in str(note(4096, 10))
    assert "give more `epochs`" in str(note(8, 0.01))
    assert note(64, 10) is None


def test_a_run_says_what_it_chose_keeps_it_and_goes_on_with_it(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Noted):
            said.append(event.message)

    asked = {
        "data": str(image_folder), "model": "test_resnet", "final_size": 64, "epochs": 3, "workers": 0,
        "device": "cpu", "evaluations": 1, "output": str(tmp_path / "run"), "resume": "auto",
    }  # fmt: skip
    result = train(TrainConfig.from_flat(asked), observers=[listen])
    text = "\n".join(said)
    assert "recipe light: 64 images" in text
    assert "batch size 16" in text
    assert "learning rate" in text
    assert "give more `epochs`" in text
    assert result.plan.stages[-1].batch_size == 16
    stored = load_config(tmp_path / "run" / "config.yaml")
    assert (stored["recipe"], stored["batch_size"], stored["mixup"]) == ("light", 16, 0.0)
    assert stored["lr"] == read_plan(tmp_path / "run").stages[-1].learning_rate
    # What is printed beforehand is what ran, but for what the machine decides.
    printed = settings_for_data(TrainConfig.from_flat(asked)).to_flat()
    assert (printed["prepare"], printed["amp_dtype"]) == ("auto", "auto")
    chosen = {"output": None, "prepare": "cpu", "amp_dtype": stored["amp_dtype"]}
    assert {**printed, **chosen} == {**stored, "output": None}
    # Another recipe than was chosen is another run; the very same command is the same.
    assert train(TrainConfig.from_flat(asked)).top1 == result.top1
    with pytest.raises(InputError, match="other settings: recipe light"):
        train(TrainConfig.from_flat({**asked, "recipe": "paper"}))


def test_a_time_budget_that_lasts_takes_the_recipe_of_long_runs(image_folder: Path, tmp_path: Path) -> None:
    said: list[str] = []

    def listen(event: Event) -> None:
        said.extend([event.message] if isinstance(event, Noted) else [])
        if isinstance(event, Stepped) and event.step.index:
            raise Enough

    asked = {
        "data": str(image_folder), "model": "test_vit", "model_kwargs": {"depth": 1}, "final_size": 64,
        "time_budget": "10m", "workers": 0, "checkpoint_interval": 1, "device": "cpu", "output": str(tmp_path / "run"),
    }  # fmt: skip
    with pytest.raises(Enough):
        train(TrainConfig.from_flat(asked), observers=[listen])
    assert any("recipe paper" in line and "long enough" in line for line in said)
    planned = read_plan(tmp_path / "run")
    assert f"batch size {planned.stages[-1].batch_size}: makes {planned.total_steps:,} steps" in said
    stored = load_config(tmp_path / "run" / "config.yaml")
    assert (stored["recipe"], stored["mixup"], stored["time_budget"]) == ("paper", 0.8, "10m")
    # From a checkpoint of it, in another folder, likewise.
    (latest,) = (tmp_path / "run" / "checkpoints").glob("step_*.pt")
    other = {**asked, "resume": str(latest), "output": str(tmp_path / "other")}
    with pytest.raises(Enough):
        train(TrainConfig.from_flat(other), observers=[listen])
    assert load_config(tmp_path / "other" / "config.yaml")["mixup"] == 0.8
    # A second is not enough for it.
    priced = estimate(TrainConfig.from_flat({**asked, "time_budget": "1s"}), measure=True)
    assert any("recipe light" in line for line in priced["chosen"])


@pytest.mark.parametrize("asked", [{}, {"early_batch": "auto"}, {"recipe": "light"}])
def test_the_steps_that_are_told_are_those_of_the_plan(asked: dict[str, Any]) -> None:
    priced = estimate(TrainConfig.from_flat({"model": "test_resnet", **asked}), dataset_size=9_469, num_classes=10)
    steps = sum(stage["steps"] for stage in priced["stages"])
    size = priced["stages"][-1]["batch_size"]
    assert [line for line in priced["chosen"] if "steps" in line] == [f"batch size {size}: makes {steps:,} steps"]


def test_epochs_beside_a_time_budget_are_said_to_be_left_out() -> None:
    asked = {"model": "resnet18", "time_budget": "5m"}
    assert not any("not used" in reason for reason in choose_recipe(TrainConfig.from_flat(asked), 900).reasons)
    both = choose_recipe(TrainConfig.from_flat({**asked, "epochs": 2}), 900)
    assert "`time_budget` decides how long it takes: `epochs` 2 is not used" in both.reasons


@pytest.mark.parametrize(("asked", "told"), [({}, True), ({"final_size": 224}, False), ({"pretrained": True}, False)])
def test_images_that_would_be_enlarged_for_nothing_are_told_with_what_that_costs(
    asked: dict[str, Any], told: bool
) -> None:
    small = GeneratedSource("train", size=50, num_images=4, num_classes=2)
    config = TrainConfig.from_flat({"model": "resnet18", **asked})
    lines = enlarged_note(config, small)
    assert bool(lines) is told
    # 50 px are no multiple of 32; (224 / 64) ** 2 = 12.25.
    assert not told or ("50 px" in lines[0] and "`final_size=64`" in lines[0] and "12 times" in lines[0])
    large = GeneratedSource("train", size=150, num_images=4, num_classes=2)
    assert not enlarged_note(config, large)


def test_plan_and_training_tell_of_images_that_would_be_enlarged(image_folder: Path, tmp_path: Path) -> None:
    asked = {"data": str(image_folder), "model": "test_resnet", "output": str(tmp_path / "run"), "epochs": 1}
    assert any(line.startswith("final size 224") for line in estimate(TrainConfig.from_flat(asked))["chosen"])
    notes: list[str] = []

    def observe(event: Event) -> None:
        if isinstance(event, Noted):
            notes.append(event.message)
        if isinstance(event, Stepped):
            raise Enough

    with pytest.raises(Enough):
        train(TrainConfig.from_flat({**asked, "workers": 0}), observers=[observe])
    assert any(line.startswith("final size 224") for line in notes)


def test_a_plan_tells_beforehand_of_too_few_steps_and_of_a_head_that_hardly_moves() -> None:
    start = {"model": "test_resnet", "weights": "timm/test_resnet.r160_in1k"}
    asked = start | {"recipe": "light", "epochs": 2, "lr": 1e-5}
    told = estimate(TrainConfig.from_flat(asked | {"batch_size": 512}), dataset_size=2_000, num_classes=10)["chosen"]
    assert [line for line in told if "steps, too few" in line and "batch_size=" in line]
    assert [line for line in told if line.startswith("the new head moves by about")]


def test_no_model_is_no_default(image_folder: Path, config: Callable[..., TrainConfig]) -> None:
    with pytest.raises(InputError, match="no model: name any of timm's by `model`"):
        train(TrainConfig.from_flat({"data": str(image_folder)}))


def test_a_model_that_there_is_not_is_told_before_data_are_looked_for(tmp_path: Path) -> None:
    asked = TrainConfig.from_flat(
        {"model": "resnet81", "data": str(tmp_path / "nowhere"), "output": str(tmp_path / "run")}
    )
    with pytest.raises(InputError, match="timm has no model 'resnet81': did you mean"):
        train(asked)
    with pytest.raises(InputError, match="timm has no model 'resnet81': did you mean"):
        compare(CompareConfig(training=asked, curricula=("constant", "linear")))


def test_advice_on_a_new_head_that_was_followed_is_not_given_again() -> None:
    def note(lr: float) -> str | None:
        run = plan(constant(96), epochs=6, dataset_size=200, batch_size=8, learning_rate=lr)
        return new_head_note(run, replace(TrainConfig().optimization, lr=lr))

    advised = re.search(r"try `lr=(\S+)`,", str(note(5e-5)))
    assert advised is not None
    assert "`lr" not in str(note(float(advised[1])))
    assert note(3e-3) is None
