"""Mistakes that people make in calls of the public functions: each gets one line that says what to give."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.runs import settings
from torch import nn
from torch.utils.data import DataLoader

import upchirp
from upchirp import InputError
from upchirp.data import GeneratedSource
from upchirp.models import create_model

PICTURES = [(Image.new("RGB", (40, 40)), label) for label in (0, 1) for _ in range(16)]
SOURCE = GeneratedSource("train", size=32, num_images=20)
CURRICULUM = upchirp.efficienttrain_plus_plus(64, multiple=16)
PLAN = upchirp.plan(CURRICULUM, epochs=3, dataset_size=len(PICTURES), batch_size=8)
STEP = PLAN.step(0)
MODEL = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
OPTIMIZER = torch.optim.SGD(MODEL.parameters(), lr=1.0)
SIZES: Any = {"epochs": 3, "dataset_size": 100, "batch_size": 16}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": "10"}, "epochs is '10': give a number"),
        ({"epochs": [1]}, "epochs is a list: give a number"),
        ({"dataset_size": PICTURES}, "dataset size is a list: give a whole number, such as its length, 32"),
        ({"batch_size": 16.0}, "batch size is 16.0: give a whole number"),
        ({"learning_rate": "1e-3"}, "learning rate is '1e-3': give a number"),
        ({"curriculum": "linear"}, r"is a name: make it by `upchirp.preset\('linear', final_size\)`"),
        ({"curriculum": 224}, r"the curriculum is 224: give one, such as `upchirp.efficienttrain_plus_plus\(224\)`"),
        ({"curriculum": MODEL}, "the curriculum is a Sequential: give one"),
    ],
)
def test_of_a_plan(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^.*{message}"):
        upchirp.plan(**{"curriculum": CURRICULUM, **SIZES, **changes})


def test_whole_numbers_of_numpy_and_torch_are_taken() -> None:
    found = upchirp.plan(CURRICULUM, epochs=3, dataset_size=np.int64(100), batch_size=torch.tensor(16))
    assert found == upchirp.plan(CURRICULUM, **SIZES)
    assert str(found) == str(upchirp.plan(CURRICULUM, **SIZES))


@pytest.mark.parametrize("size", ["64", (64, 64), 64.0, MODEL])
def test_of_a_final_size(size: Any) -> None:
    for name in ("efficienttrain_plus_plus", "efficienttrain", "efficienttrain_plus_plus_deit", "linear", "constant"):
        with pytest.raises(InputError, match=r"final size is .*: give a whole number"):
            upchirp.preset(name, size)
    with pytest.raises(InputError, match="the name of the curriculum is 64: give it first, then the final size"):
        upchirp.preset(64, "linear")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "plan", "message"),
    [
        ("photos", PLAN, "the data are 'photos', a name: open them by `upchirp.open_data`"),
        (Path("photos"), PLAN, "the data are 'photos', a name"),
        ((SOURCE, SOURCE), PLAN, "the data are a tuple of 2 sets: give one of them"),
        (DataLoader(PICTURES), PLAN, "the data are a DataLoader: give its `dataset`"),  # type: ignore[arg-type]
        (PICTURES, CURRICULUM, "the plan is a Curriculum: make one of it by `upchirp.plan`"),
        (PLAN, PICTURES, "the plan is a list: give the data, then the plan"),
    ],
)
def test_of_a_loader(data: Any, plan: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        upchirp.Loader(data, plan)


def test_of_a_number_of_workers() -> None:
    with pytest.raises(InputError, match="`workers` is '2': give a whole number"):
        upchirp.Loader(PICTURES, PLAN, workers="2")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "given",
    [
        (STEP.bandwidth, MODEL, OPTIMIZER),
        (MODEL, STEP, OPTIMIZER),
        (STEP, OPTIMIZER, MODEL),
        (STEP, MODEL, torch.optim.lr_scheduler.StepLR(OPTIMIZER, 1)),
    ],
)
def test_of_following_a_step(given: Any) -> None:
    with pytest.raises(InputError, match=r"`follow` is given .*: give `batch.step`, the model and its"):
        upchirp.follow(*given)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: upchirp.fit_to_bandwidth(32, MODEL), "the image side is a Sequential: give a whole number of pixels"),
        (lambda: upchirp.fit_to_bandwidth(MODEL, STEP), "the image side is a Step: .*: it is `step.bandwidth`"),
        (lambda: upchirp.fit_to_bandwidth(MODEL, "32"), "the image side is '32': give a whole number"),
        (lambda: upchirp.fit_to_bandwidth("vit", 32), r"the model is 'vit', a name: .* `timm.create_model"),
        (lambda: upchirp.size_multiple("resnet18"), "the model is 'resnet18', a name"),
        (lambda: upchirp.count_flops(MODEL, [64]), "the image side is a list: give a whole number"),
        (lambda: upchirp.count_flops("resnet18", 64), "the model is 'resnet18', a name"),
        (lambda: upchirp.validate(PICTURES, MODEL, 64), "the model is a list, no torch.nn.Module: give the"),
        (lambda: upchirp.validate(MODEL, "photos", 64), "the data are 'photos', a name"),
        (lambda: upchirp.validate(MODEL, [], 64), "there are no images to validate on"),
        (lambda: upchirp.validate(MODEL, PICTURES, 64, batch_size=0), "`batch_size` is 0: it must be 1 or more"),
        (lambda: upchirp.mixed_cross_entropy(torch.zeros(2, 2), torch.zeros(2)), "the targets are a Tensor: give"),
        (lambda: upchirp.open_data(["a", "b"]), "the data are a list: name one folder"),
        (lambda: upchirp.train({"epochs": 3}), "no TrainConfig but a dictionary: make it one by `TrainConfig"),
        (lambda: upchirp.train("a.yaml"), "the configuration is no TrainConfig but 'a.yaml'"),
    ],
)  # fmt: skip
def test_of_what_else_a_loop_calls(call: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_of_arrays_for_tensors() -> None:
    with pytest.raises(ValueError, match=r"must be a tensor, got ndarray: an array becomes one by torch\.from_numpy"):
        upchirp.low_frequency_crop(np.zeros((1, 3, 64, 64), np.float32), 32)  # type: ignore[arg-type]


def test_a_model_of_16_bits_is_validated_in_them(image_folder: Path) -> None:
    val = upchirp.open_data(image_folder, 64)[1]
    model = create_model("test_vit", num_classes=2, final_size=64, depth=1).bfloat16()
    with pytest.raises(InputError, match=r"are torch\.bfloat16 and .*: give `autocast=torch\.bfloat16`"):
        upchirp.validate(model, val, 64, workers=0)
    assert upchirp.validate(model, val, 64, workers=0, autocast=torch.bfloat16).images == 16


def test_of_a_training(image_folder: Path, tmp_path: Path) -> None:
    # A path is taken where text stands for one.
    config = upchirp.TrainConfig.from_flat(settings(data=image_folder, output=tmp_path / "run"))
    assert config.data == str(image_folder)
    train, _ = upchirp.open_data(image_folder, 64)
    half = create_model("test_vit", num_classes=2, final_size=64, depth=1).half()
    calls: list[tuple[dict[str, Any], str]] = [
        ({"data": train}, "`data` is a FolderSource: give a pair, training and validation images"),
        ({"data": str(image_folder)}, "`data` is a str: give a pair"),
        ({"data": (train, [])}, "there are no validation images: give some"),
        ({"data": ("train", "val")}, "the data are 'train', a name"),
        ({"model": "test_vit"}, "the model is 'test_vit', no torch.nn.Module"),
        ({"model": half}, r"has parameters in float16, .*: give `model\.float\(\)`"),
        ({"observers": print}, "`observers` is one observer: give a list of them"),
    ]
    for given, message in calls:
        with pytest.raises(InputError, match=message):
            upchirp.train(config, **given)
