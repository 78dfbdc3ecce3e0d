"""Whole runs, small: what they write, how they resume, and how they end when something is wrong."""

import json
import os
import shutil
import stat
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.runs import WEIGHTS, Make, differing, interrupted, logged, losses, notes, weights
from timm.layers import DropPath
from torch import nn

from upchirp import InputError, plan, preset, train
from upchirp.training import (
    Evaluated,
    Event,
    Started,
    Stepped,
    load_checkpoint,
    read_metrics,
)
from upchirp.training.assets.models import scale_drop_path
from upchirp.training.checkpoints import checkpoint as checkpoints
from upchirp.training.parallel.ranks import Ranks


def test_a_run_folder_holds_what_it_should(uninterrupted: Path) -> None:
    names = {path.name for path in uninterrupted.iterdir()}
    assert names == {
        "config.yaml", "config.json", "plan.json", "data.json", "metrics.jsonl", "checkpoints", "tensorboard",
        "model.safetensors", "model_ema.safetensors", "predictions.npz",
    }  # fmt: skip
    plan = json.loads((uninterrupted / "plan.json").read_text())
    assert [stage["bandwidth"] for stage in plan["stages"]] == [32, 48, 64]
    assert plan["params"] > 0
    assert list((uninterrupted / "checkpoints").glob("best_*.pt"))
    board = EventAccumulator(str(uninterrupted / "tensorboard")).Reload()
    evaluations = [line for line in read_metrics(uninterrupted) if line["kind"] == "evaluation"]
    exported = [line for line in evaluations if (line["weights"], line["bandwidth"]) == ("ema", 64)]
    assert [(point.step, point.value) for point in board.Scalars("top1")] == [
        (line["step"], pytest.approx(line["top1"])) for line in exported
    ]
    mask = os.umask(0)
    os.umask(mask)
    for path in uninterrupted.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o777 if path.is_dir() else 0o666) & ~mask, path


def test_metrics_are_complete(uninterrupted: Path) -> None:
    records = read_metrics(uninterrupted)
    plan = json.loads((uninterrupted / "plan.json").read_text())
    total = sum(stage["steps"] for stage in plan["stages"])
    assert records[-1]["kind"] == "end"
    assert records[-1]["step"] == total
    first = logged(uninterrupted)[0]
    assert {"loss", "learning_rate", "bandwidth", "magnitude", "images_per_second", "wait_share"} <= first.keys()
    evaluated = {(record["weights"], record["bandwidth"]) for record in records if record["kind"] == "evaluation"}
    assert ("model", 64) in evaluated
    assert ("ema", 64) in evaluated
    assert any(side < 64 for _, side in evaluated), "no evaluation at the current bandwidth"


def test_exported_weights_load_strictly_in_plain_timm(uninterrupted: Path) -> None:
    for name in WEIGHTS:
        model = timm.create_model("test_vit", num_classes=2, img_size=64, depth=2)
        model.load_state_dict(load_file(uninterrupted / name), strict=True)


@pytest.mark.parametrize("where", ["inside a stage", "at a stage boundary", "at the first step"])
def test_an_interrupted_run_ends_with_the_same_weights(config: Make, uninterrupted: Path, where: str) -> None:
    stages = json.loads((uninterrupted / "plan.json").read_text())["stages"]
    step = {
        "inside a stage": stages[0]["steps"] + 1,
        "at a stage boundary": stages[0]["steps"],
        "at the first step": 1,
    }
    run = interrupted(config(), step[where])
    seen: list[Event] = []
    train(run, observers=[seen.append])
    assert next(event.step for event in seen if isinstance(event, Started)) == step[where]
    assert not differing(run.output, uninterrupted)


def test_another_number_of_workers_changes_nothing(config: Make, uninterrupted: Path) -> None:
    run = interrupted(config(), 5)
    train(replace(run, workers=2))
    assert not differing(run.output, uninterrupted)


def test_resuming_twice_and_logging_each_step_once(config: Make, uninterrupted: Path) -> None:
    run = interrupted(interrupted(config(checkpoint_interval=4), 3), 7)
    train(run)
    assert not differing(run.output, uninterrupted)
    steps = [record["step"] for record in logged(run.output)]
    assert steps == sorted(set(steps))


def test_resuming_a_finished_run_trains_nothing(config: Make, uninterrupted: Path, tmp_path: Path) -> None:
    shutil.copytree(uninterrupted, tmp_path / "run")
    seen: list[Event] = []
    result = train(config(resume="auto"), observers=[seen.append])
    assert not any(isinstance(event, Stepped) for event in seen)
    assert result.top1 == read_metrics(uninterrupted)[-1]["top1"]
    assert read_metrics(tmp_path / "run") == read_metrics(uninterrupted)


def test_a_run_that_lost_its_exported_weights_exports_them_again(
    config: Make, uninterrupted: Path, tmp_path: Path
) -> None:
    shutil.copytree(uninterrupted, tmp_path / "run")
    (tmp_path / "run/model.safetensors").unlink()
    train(config(resume="auto"))
    assert not differing(tmp_path / "run", uninterrupted)


def test_resume_from_a_path_starts_another_folder(config: Make, uninterrupted: Path, tmp_path: Path) -> None:
    run = interrupted(config(), 6)
    latest = list(checkpoints.checkpoints(run.output / "checkpoints"))[-1]
    other = config(output=str(tmp_path / "other"), resume=str(latest))
    train(other)
    assert not differing(other.output, uninterrupted)


def test_the_seed_matters(config: Make, uninterrupted: Path) -> None:
    run = config(seed=1)
    train(run)
    assert differing(run.output, uninterrupted)


def test_the_best_checkpoint_is_of_the_last_stage_at_the_final_size(config: Make) -> None:
    run = config(evaluations=6)
    seen: list[Event] = []
    result = train(run, observers=[seen.append])
    last = result.plan.stages[-1]
    begin = result.plan.total_steps - last.steps
    scores = [
        event.result.top1
        for event in seen
        if isinstance(event, Evaluated) and event.weights == "ema" and event.bandwidth == 64 and event.step > begin
    ]
    assert result.best_top1 == max(scores)
    (best,) = (run.output / "checkpoints").glob("best_*.pt")
    content = load_checkpoint(best)
    assert content["state"]["bandwidth"] == 64
    assert content["best_top1"] == result.best_top1


@pytest.mark.parametrize(
    "changes",
    [
        {"low_frequency": "crop", "opt": "lamb"},
        {"mode": "faithful", "mixup": 0.0, "model_ema": False, "amp_dtype": "float16"},
        {"opt": "sgd", "model": "test_resnet", "curriculum": "constant", "micro_batch": None, "channels_last": False},
        {"curriculum": "linear", "model": "test_convnext", "clip_grad": 1.0, "drop_path": 0.2, "cost": "flops"},
        {"amp": False, "drop_path": 0.2, "drop_path_scaling": False},
    ],
    ids=str,
)
def test_settings_work_together(config: Make, changes: dict) -> None:
    result = train(config(epochs=1, log_interval=1, **changes))
    found = list(losses(result.output).values())
    assert len(found) == result.plan.total_steps
    assert all(0 < loss < 5 for loss in found)
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    ("curriculum", "epochs", "share"),
    # Appendix A.1: 200 equivalent epochs are the standard case, 300 for baselines; a larger budget raises nothing.
    [
        ("efficienttrain_plus_plus", 100, 0.5),
        ("constant", 100, 1 / 3),
        ("efficienttrain", 150, 0.5),
        ("linear", 400, 1.0),
    ],
)
def test_drop_path_falls_with_the_budget(curriculum: str, epochs: float, share: float) -> None:
    model = timm.create_model("test_vit", drop_path_rate=0.2)
    before = [module.drop_prob for module in model.modules() if isinstance(module, DropPath)]
    scale_drop_path(model, plan(preset(curriculum), epochs=epochs))
    after = [module.drop_prob for module in model.modules() if isinstance(module, DropPath)]
    assert after
    assert after == pytest.approx([share * rate for rate in before], rel=1e-3)


def test_a_run_learns(config: Make) -> None:
    result = train(config(batch_size=16, lr=3e-3, amp=False, model_ema=False))
    assert result.top1 >= 90


def test_gradient_accumulation_equals_one_large_batch(config: Make) -> None:
    """Without dropout and batch norm the micro-batch changes only the order of floating-point sums."""
    runs = [
        config(micro_batch=size, drop=0.0, amp=False, model_ema=False, output=str(config().output) + str(size))
        for size in (8, 32)
    ]
    first, second = (train(run) and weights(run.output) for run in runs)
    for key in first:
        torch.testing.assert_close(first[key], second[key], rtol=1e-3, atol=1e-4)


def test_any_module_and_any_map_style_dataset(config: Make) -> None:
    class Colours(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 40

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            label = index % 2
            image = torch.full((3, 50, 70), 30, dtype=torch.uint8)
            image[label] += 150
            return image, label

    model = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    result = train(config(data="", model_ema=False), model=model, data=(Colours(), Colours()))
    assert result.plan.dataset_size == 40


def test_a_finished_or_running_folder_is_not_overwritten(config: Make, uninterrupted: Path) -> None:
    with pytest.raises(InputError, match="holds another run"):
        train(config(output=str(uninterrupted)))


def test_a_folder_with_other_files_is_not_touched(config: Make) -> None:
    run = config()
    run.output.mkdir()
    (run.output / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="not an empty folder"):
        train(run)
    assert [path.name for path in run.output.iterdir()] == ["thesis.tex"]


def test_resuming_with_other_settings_names_them(config: Make, uninterrupted: Path) -> None:
    with pytest.raises(InputError, match=r"batch_size 32 \(now 64\)"):
        train(config(output=str(uninterrupted), batch_size=64, resume="auto"))


def test_bad_input_leaves_no_folder_behind(config: Make) -> None:
    for changes in (
        {"model": "resnet5O"},
        {"epochs": 0.001},
        {"curriculum": "nope"},
        {"data": "missing"},
        {"micro_batch": 5},
    ):
        run = config(**changes)
        with pytest.raises(InputError):
            train(run)
        assert not run.output.exists()


def test_a_model_that_cannot_take_a_bandwidth_says_so_before_training(config: Make) -> None:
    fixed = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 2))
    run = config()
    with pytest.raises(InputError, match=r"32|28"):
        train(run, model=fixed)
    assert not run.output.exists()


@pytest.fixture
def damaged_folder(image_folder: Path, tmp_path: Path) -> Path:
    root = tmp_path / "damaged"
    shutil.copytree(image_folder, root)
    return root


def test_nothing_but_corrupt_images_stops_at_once(config: Make, damaged_folder: Path) -> None:
    for path in (damaged_folder / "train").rglob("*.jpg"):
        path.write_bytes(b"not an image")
    for workers in (0, 1):
        with pytest.raises(InputError, match=r"20 images in a row cannot be read") as caught:
            train(config(data=str(damaged_folder), workers=workers, output=str(config().output) + str(workers)))
        assert "\n" not in str(caught.value)


class SpoilsItsGradient(nn.Module):
    """Its loss stays finite while a gradient is not: clipping then makes every weight NaN."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)
        self.left = steps

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.left -= self.training
        logits = self.head(images.mean((2, 3)))
        if self.training and self.left == 0:
            logits.register_hook(lambda gradient: gradient * float("inf"))
        return logits


def test_weights_that_are_not_finite_are_never_saved(config: Make) -> None:
    run = config(checkpoint_interval=2, micro_batch=None, model_ema=False, clip_grad=1.0)
    with pytest.raises(InputError, match=r"step_000000004.pt"):
        train(run, model=SpoilsItsGradient(6))
    kept = list(checkpoints.checkpoints(run.output / "checkpoints"))
    assert [path.name for path in kept][-1] == "step_000000004.pt"
    assert torch.isfinite(load_checkpoint(kept[-1])["state"]["model"]["head.weight"]).all()


def test_a_signal_in_the_last_step_ends_the_run_whole_and_is_passed_on(config: Make, uninterrupted: Path) -> None:
    total = sum(stage["steps"] for stage in json.loads((uninterrupted / "plan.json").read_text())["stages"])
    run = interrupted(config(), total)
    assert not differing(run.output, uninterrupted)


def test_resume_with_another_micro_batch_is_allowed_and_said(config: Make) -> None:
    run = interrupted(config(), 2)
    seen: list[Event] = []
    train(replace(run, micro_batch=8), observers=[seen.append])
    assert any("micro_batch was 16 and is 8" in note for note in notes(seen))


def test_a_time_budget_is_planned_in_measured_seconds_and_resumes_from_a_path(config: Make, tmp_path: Path) -> None:
    changes = {"time_budget": "1s", "replay": 2, "batch_size": 8, "micro_batch": 8, "evaluations": 1}
    run = interrupted(config(**changes), 3)
    latest = list(checkpoints.checkpoints(run.output / "checkpoints"))[-1]
    other = train(config(**changes, output=str(tmp_path / "other"), resume=str(latest)))
    assert other.plan.cost == "seconds"
    assert other.plan.total_steps > 3
    assert [stage.replay.batches for stage in other.plan.stages] == [2, 2, 0]
    assert other.plan.to_dict() == load_checkpoint(latest)["plan"]


def test_one_corrupt_image_alone_in_its_batch_of_the_evaluation(config: Make, damaged_folder: Path) -> None:
    """129 validation images, 32 in a batch: the last one is alone in its batch, and under 1 % of them."""
    for index in range(112):
        shutil.copy(damaged_folder / "val/dog/000.jpg", damaged_folder / f"val/dog/more{index:03d}.jpg")
    (damaged_folder / "val/dog/zzz.jpg").write_bytes(b"not an image")
    assert len(list((damaged_folder / "val").rglob("*.jpg"))) == 129
    seen: list[Event] = []
    train(config(data=str(damaged_folder), epochs=2, micro_batch=None), observers=[seen.append])
    assert any("zzz.jpg" in note for note in notes(seen))


def test_saved_config_is_resolved(config: Make, uninterrupted: Path) -> None:
    stored = yaml.safe_load((uninterrupted / "config.yaml").read_text())
    assert stored["warmup"] == 0.05
    assert stored["mixup"] == 0.2


class Mislabelled:
    """Samples whose labels leave the classes once so many were asked for, which nothing tells before."""

    classes = ("dark", "bright")

    def __init__(self, after: int) -> None:
        self.left = after

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        self.left -= 1
        return Image.new("L", (48, 40), 200 * (index % 2)), index % 2 if self.left >= 0 else 2


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_label_outside_of_the_classes_keeps_what_was_trained(config: Make, split: str) -> None:
    run = config(evaluations=2)
    # Sixteen are looked at before training.
    sets = (Mislabelled(150), Mislabelled(1000)) if split == "train" else (Mislabelled(1000), Mislabelled(40))
    with pytest.raises(InputError, match=r"of Mislabelled has label 2, and labels must be 0 to 1.*then go on by"):
        train(run, data=sets)
    assert list((run.output / "checkpoints").iterdir())


def test_one_class_is_refused(config: Make, tmp_path: Path) -> None:
    shutil.copytree(Path(config().data) / "train" / "cat", tmp_path / "one" / "train" / "cat")
    with pytest.raises(InputError, match=r"one class only \(cat\)"):
        train(config(data=str(tmp_path / "one")))


def test_ranks_talk_once_in_a_step_and_more_for_a_log_line_only(config, monkeypatch) -> None:
    told: list[str] = []
    for name in ("largest", "add", "average", "gather", "latest", "from_first"):
        method = getattr(Ranks, name)

        def counted(self, *words, name=name, method=method):
            # A mean of nothing is no message.
            if name != "average" or words[0]:
                told.append(name)
            return method(self, *words)

        monkeypatch.setattr(Ranks, name, counted)
    steps: dict[int, list[str]] = {}

    def observe(event) -> None:
        if isinstance(event, Stepped):
            steps[event.step.index] = told[:]
            told.clear()

    train(config(curriculum="constant", epochs=6, log_interval=4, evaluations=1), observers=[observe])
    # Beside a step stands what was said since the event of the step before; the fourth step has a log line.
    assert [steps[index] for index in (1, 2, 3, 5, 6)] == [["largest"]] * 5
    assert len(steps[4]) <= 3
