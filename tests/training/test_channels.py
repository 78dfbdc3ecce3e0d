"""Training on images of other channels, from files to predictions."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from tests.runs import Make, differing, interrupted
from torch import nn

from upchirp import InputError, train
from upchirp.data import LooseSource, find_images
from upchirp.exporting import export
from upchirp.models import count_flops, create_model
from upchirp.training import EvalData, EvalLoading, Origin, estimate, evaluate_weights, predict
from upchirp.training.assets.teacher import with_teacher
from upchirp.training.assets.trained import load_trained
from upchirp.training.checkpoints.loading import load_weights
from upchirp.training.checkpoints.weights import read_weights
from upchirp.training.engine.task import Classification
from upchirp.training.folders.run_folder import read_settings
from upchirp.training.jobs.pricing import settings_for_data
from upchirp.training.jobs.probe_job import probe_weights
from upchirp.training.methods.distillation import Distillation
from upchirp.training.recipes.config import TrainConfig

AT_ONCE = EvalLoading(workers=0)

RUN: dict[str, Any] = {"model": "test_resnet", "final_size": 32, "in_chans": 5, "randaug_layers": 2}


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Arrays of five bands of 16 bits, two classes that differ in the last band."""
    root, rng = tmp_path_factory.mktemp("arrays"), np.random.default_rng(0)
    for split, count in (("train", 16), ("val", 6)):
        for label, name in enumerate(("field", "water")):
            (root / split / name).mkdir(parents=True)
            for k in range(count):
                values = rng.integers(1000, 3000, (36, 36, 5))
                values[..., 4] += 3000 * label
                np.save(root / split / name / f"{k}.npy", values.astype(np.uint16))
    return root


@pytest.fixture(scope="module")
def trained(arrays: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.runs import settings

    from upchirp import TrainConfig

    output = tmp_path_factory.mktemp("run") / "run"
    made = settings(**RUN, data=str(arrays), output=str(output), epochs=3, batch_size=16, micro_batch=16, report=True)
    train(TrainConfig.from_flat(made))
    return output


def test_bands_are_trained_and_what_is_written_says_how(trained: Path, arrays: Path) -> None:
    stored = read_settings(trained)
    assert (stored.in_chans, stored.augmentation.pixel_type) == (5, "float32")
    assert stored.augmentation.mean[:4] == pytest.approx((2000,) * 4, rel=0.01)
    assert stored.augmentation.mean[4] == pytest.approx(3500, rel=0.01)
    (own,) = evaluate_weights(Origin(run=trained), loading=AT_ONCE, device="cpu")
    (by_file,) = evaluate_weights(
        Origin(weights=trained / "model_ema.safetensors"),
        EvalData(data=str(arrays)),
        loading=AT_ONCE,
        device="cpu",
        report_file=trained / "e.html",
    )
    # The run itself is evaluated in bfloat16.
    assert own.evaluation.top1 == by_file.evaluation.top1
    assert (trained / "report.html").stat().st_size > 10_000
    model = timm.create_model(f"local-dir:{trained}", pretrained=True).eval()
    assert model.pretrained_cfg["input_size"] == (5, 32, 32)
    assert model.pretrained_cfg["mean"] == pytest.approx(stored.augmentation.mean)
    assert model(torch.zeros(1, 5, 32, 32)).shape == (1, 2)
    source = LooseSource(find_images([arrays / "val"])[0])
    named = [each.guesses[0].name for each in predict(source, Origin(run=trained), loading=AT_ONCE, device="cpu")]
    right = sum(name == source.describe(k).split("/")[-2] for k, name in enumerate(named))
    assert 100 * right / len(named) == pytest.approx(own.evaluation.top1)
    program = trained / "model.pt2"
    exported = load_trained(Origin(run=trained))
    export(exported, "torch", program)
    assert torch.export.load(program).module()(torch.zeros(3, 5, 32, 32)).shape == (3, 2)
    assert "in_chans=5, " in export(exported, "timm", trained / "timm.safetensors")
    with pytest.raises(InputError, match="the models of mmdet take RGB images"):
        export(exported, "mmdet", trained / "mmdet.pth")
    assert probe_weights(Origin(run=trained), linear=False, loading=AT_ONCE, device="cpu")["val_images"] == 12


def test_a_run_that_is_interrupted_ends_as_one_that_is_not(arrays: Path, trained: Path, config: Make) -> None:
    run = config(**RUN, data=str(arrays), epochs=3, batch_size=16, micro_batch=16)
    # Settings without `given`: the mean is not asked for, and is the one that was measured.
    train(interrupted(replace(run, given=None), 3))
    assert run.output is not None
    assert not differing(run.output, trained)


def test_weights_for_rgb_images_are_adapted_as_timm_does(tmp_path: Path) -> None:
    path = tmp_path / "rgb.pth"
    torch.manual_seed(0)
    rgb = create_model("test_resnet", num_classes=4, final_size=32)
    torch.save(rgb.state_dict(), path)
    weights = read_weights(path)
    for channels in (1, 5):
        model = create_model("test_resnet", num_classes=4, final_size=32, in_chans=channels)
        loaded = load_weights(model, weights, 32)
        assert f"adapted to {channels} channel" in loaded.notes(path)[0]
        expected = timm.models.adapt_input_conv(channels, rgb.conv1[0].weight.detach())
        torch.testing.assert_close(model.conv1[0].weight.detach(), expected)
    torch.save(model.state_dict(), path)
    with pytest.raises(InputError, match="is for images of 5 channels, and `in_chans` is 3: give `in_chans=5`"):
        load_weights(rgb, read_weights(path), 32)


def test_fine_tuning_takes_weights_and_what_they_say_or_measures(arrays: Path, trained: Path, config: Make) -> None:
    weights = str(trained / "model.safetensors")
    values = {"data": str(arrays), "weights": weights, "regime": "finetune", "model": "test_resnet", "in_chans": 5}
    known = config(**values)
    assert known.augmentation.mean == read_settings(trained).augmentation.mean
    assert known.augmentation.pixel_type == "float32"
    # Of other channels nothing is known.
    assert config(**{**values, "in_chans": 4}).augmentation.pixel_type == "uint8"


def test_plans_and_printed_settings_look_at_the_images(arrays: Path, config: Make) -> None:
    run = config(**{**RUN, "in_chans": 4}, data=str(arrays))
    for look in (estimate, settings_for_data):
        with pytest.raises(InputError, match="it has 5 channels, not 4: give `in_chans=5`"):
            look(run)
    assert len(settings_for_data(replace(run, in_chans=5)).augmentation.mean) == 5


def test_multiply_adds_are_those_of_the_channels() -> None:
    few, many = (
        count_flops(create_model("test_resnet", final_size=32, **kwargs), 32) for kwargs in ({}, {"in_chans": 12})
    )
    assert many > few


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"in_chans": 0}, "`in_chans` is 0: it must be 1 or more"),
        ({"in_chans": 12, "mean": (0.5, 0.5), "std": (0.5, 0.5)}, "`mean` has 2 values and `in_chans` is 12"),
        ({"in_chans": 12, "prepare": "device"}, "`prepare='device'` is for grey and RGB images"),
        ({"in_chans": 1, "regime": "pretrain", "model": "test_vit"}, "takes RGB images: leave out `in_chans`"),
        ({"model_kwargs": {"in_chans": 1}}, "`model_kwargs` cannot set in_chans: use `in_chans`"),
        ({"mean": (1200.0, 1100.0, 900.0)}, "a value from 0 to 1 for each channel"),
    ],
)
def test_what_cannot_be_is_refused(config: Make, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        config(**changes)


def test_a_model_of_ones_own_takes_as_many_channels(arrays: Path, config: Make) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(InputError, match="takes images of 3 channels, here they have 5"):
        train(config(**{**RUN, "model": ""}, data=str(arrays)), model=model)


def test_a_teacher_sees_what_its_student_sees(arrays: Path, trained: Path) -> None:
    teacher, cpu = trained / "model.safetensors", torch.device("cpu")
    student = replace(read_settings(trained), kd_model=teacher)
    task, _ = with_teacher(Classification(channels=5), student, ("field", "water"), cpu)
    assert isinstance(task, Distillation)
    known = student.augmentation
    answers = task.teacher.answers(torch.zeros(2, 5, 16, 16), mean=known.mean, std=known.std)
    assert answers.shape == (2, 2)
    with pytest.raises(InputError, match=r"takes images of 5 channel.* of float32 values, the student of 3 of uint8"):
        with_teacher(Classification(), TrainConfig(kd_model=teacher), ("field", "water"), cpu)


def test_grey_copies_of_photographs_are_trained(image_folder: Path, config: Make) -> None:
    run = config(model="test_resnet", in_chans=1, final_size=32, epochs=1, micro_batch=32, replay=1)
    result = train(run)
    stored = read_settings(result.output)
    assert len(stored.augmentation.mean) == len(stored.augmentation.std) == 1
    assert stored.augmentation.pixel_type == "uint8"
