"""Which images trained weights are evaluated on, and what is told of those that were trained on or cannot be read."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.runs import SMALL, notes, write_folder

from upchirp import TrainConfig, train, validate
from upchirp.data import open_data, open_evaluation, open_unlabelled
from upchirp.models import create_model
from upchirp.training import EvalData, EvalLoading, Event, Origin, evaluate_weights, probe_weights

AT_ONCE = EvalLoading(workers=0)
Evaluated = tuple[int, list[str]]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder of classes, 20 images each, of which a tenth validates."""
    root = write_folder(tmp_path_factory.mktemp("images"), train=20, val=0)
    return (root / "train").rename(root / "photos")


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a copy of them."""
    own = tmp_path_factory.mktemp("run") / "photos"
    shutil.copytree(photos, own)
    return trained(own.parent / "run", data=str(own))


def trained(output: Path, **settings: Any) -> Path:
    small = {**SMALL, "model_kwargs": {"depth": 1}, "epochs": 1, "batch_size": 4, "micro_batch": None, "evaluations": 1}
    train(TrainConfig.from_flat({**small, **settings, "output": str(output)}))
    return output


def evaluated(origin: Origin, data: EvalData = EvalData()) -> Evaluated:
    heard: list[Event] = []
    (found,) = evaluate_weights(origin, data, loading=AT_ONCE, device="cpu", observers=[heard.append])
    return found.evaluation.images, notes(heard)


def of_training(told: list[str]) -> list[str]:
    return [line for line in told if "trained on" in line]


def test_a_run_is_evaluated_on_what_it_held_out_wherever_its_data_lie(run: Path, photos: Path) -> None:
    for data in (EvalData(), EvalData(data=str(photos)), EvalData(val_share=0.1)):
        images, told = evaluated(Origin(run=run), data)
        assert images == 4
        assert not of_training(told)


def test_data_that_changed_since_the_training_are_told(run: Path) -> None:
    added = run.parent / "photos/cat/new.jpg"
    shutil.copy(added.with_name("000.jpg"), added)
    try:
        images, told = evaluated(Origin(run=run))
    finally:
        added.unlink()
    assert images == 4
    (line,) = of_training(told)
    assert line.startswith("the data have changed since the training, which held out 4 images: some of these 4 may")


def test_another_share_than_the_training_held_out_is_told(run: Path) -> None:
    images, told = evaluated(Origin(run=run), EvalData(val_share=0.5))
    assert images == 20
    (line,) = of_training(told)
    assert line.startswith("`val_share` was 0.1 in the training: some of these 20 images may have been trained on")


def test_weights_on_all_the_images_that_they_were_trained_on(run: Path, photos: Path) -> None:
    weights = Origin(weights=run / "model_ema.safetensors")
    images, told = evaluated(weights, EvalData(data=str(photos)))
    assert images == 40
    (line,) = of_training(told)
    assert line.startswith("the weights were trained on all of these images but 4")
    assert "`val_share=0.1` evaluates those alone" in line
    assert evaluated(weights, EvalData(data=str(photos), val_share=0.1))[0] == 4
    assert not of_training(evaluated(weights, EvalData(data=str(photos), val_share=0.1))[1])


def test_weights_know_another_share_that_their_training_held_out(photos: Path, tmp_path: Path) -> None:
    weights = Origin(weights=trained(tmp_path / "run", data=str(photos), val_share=0.25) / "model.safetensors")
    images, told = evaluated(weights, EvalData(data=str(photos)))
    assert images == 40
    (line,) = of_training(told)
    assert line.startswith("the weights were trained on all of these images but 10")
    assert "`val_share=0.25` evaluates those alone" in line


def test_images_that_cannot_be_read_are_told_once(run: Path, photos: Path, tmp_path: Path) -> None:
    broken = tmp_path / "photos"
    shutil.copytree(photos, broken)
    (broken / "dog/003.jpg").write_bytes(b"not an image")
    heard: list[Event] = []
    found = evaluate_weights(
        Origin(weights=run / "model_ema.safetensors"),
        EvalData(data=str(broken)),
        sizes=(32, 64),
        loading=AT_ONCE,
        device="cpu",
        observers=[heard.append],
    )
    assert [result.evaluation.images for result in found] == [39, 39]
    (line,) = [line for line in notes(heard) if "cannot read" in line]
    assert "dog/003.jpg" in line
    assert line.endswith("left out")
    heard.clear()
    probe_weights(Origin(run=run), EvalData(data=str(broken)), loading=AT_ONCE, linear=False, observers=[heard.append])
    assert [line for line in notes(heard) if "cannot read the training image" in line and "dog/003.jpg" in line]
    source = open_evaluation(broken, note=lambda line: None)
    model = create_model("test_vit", num_classes=2, final_size=32, depth=1)
    with pytest.warns(UserWarning, match=r"dog.003\.jpg .*: left out"):
        assert validate(model, source, 32, workers=0).images == 39


def test_classes_without_images_are_told(tmp_path: Path) -> None:
    root = write_folder(tmp_path, train=4, val=0)
    shutil.move(root / "train", root / "photos")
    (root / "photos" / "owl").mkdir()
    shutil.copy(root / "photos/cat/000.jpg", root / "photos/owl/only.jpg")
    table = tmp_path / "labels.csv"
    rows = [
        f"photos/cat/{k:03d}.jpg,cat,{'val' if k else 'train'}\nphotos/dog/{k:03d}.jpg,dog,train\n" for k in range(2)
    ]
    table.write_text("path,label,split\n" + "".join(rows))
    for data, words in ((root / "photos", "1 of 3 classes"), (table, "1 of 2 classes")):
        for opened in (open_data, open_evaluation):
            told: list[str] = []
            opened(data, note=told.append, **({"val_share": 0.5} if data.is_dir() else {}))
            assert [line for line in told if line.startswith(f"{words} have no validation images: ")]
    unlabelled: list[str] = []
    open_unlabelled(table, note=unlabelled.append)
    assert not [line for line in unlabelled if "classes" in line]
