"""What a run keeps of its classes, and what follows from it for its evaluation and for going on."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.runs import write_folder

from upchirp import InputError, TrainConfig, train
from upchirp.cli import main
from upchirp.training import EvalData, EvalLoading, Event, Noted, Origin, evaluate_weights
from upchirp.training.checkpoints import checkpoint
from upchirp.training.checkpoints.description import read_description

AT_ONCE = EvalLoading(workers=0)

CLASSES = ("ant", "bee", "cat")


def rename(root: Path, old: str, new: str) -> None:
    for split in ("train", "val"):
        (root / split / old).rename(root / split / new)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("classes") / "data", train=16, val=8, classes=CLASSES)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A finished run on three classes that differ in colour."""
    settings = {
        "data": str(data), "model": "test_resnet", "final_size": 32, "epochs": 6, "batch_size": 8, "workers": 0,
        "device": "cpu", "recipe": "light", "evaluations": 1, "lr_base": 0.05, "amp": False, "curriculum": "constant",
        "checkpoint_interval": 12, "output": str(tmp_path_factory.mktemp("classes") / "run"),
    }  # fmt: skip
    return train(TrainConfig.from_flat(settings)).output


def copied(data: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(data, tmp_path / "data"))


def test_names_stand_in_every_file(run: Path) -> None:
    files = [run / "model.safetensors", *(run / "checkpoints").glob("*.pt")]
    assert len(files) > 1
    for file in files:
        described = read_description(file).data
        assert described.classes == CLASSES and described.train and described.train.images == 48
        assert described.val and described.val.images == 24
        assert described.to_dict() == json.loads((run / "data.json").read_text())


def test_evaluation_goes_by_names(run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", "--run", str(run), "--workers", "0", "--device", "cpu", "--json"]

    def told(root: Path) -> tuple[dict[str, float], str]:
        assert main([*words, "--data", str(root)]) == 0
        out, err = capsys.readouterr()
        return json.loads(out), "".join(line for line in err.splitlines(True) if line.startswith("note: "))

    before, notes = told(data)
    assert before["top1"] > 90 and not notes
    renamed = copied(data, tmp_path)
    # A permutation: what was ant is called cat, and the other way round, so its images are the other class's.
    for old, new in (("ant", "x"), ("cat", "ant"), ("x", "cat")):
        rename(renamed, old, new)
    assert told(renamed)[0]["top1"] < 50
    for old, new in (("ant", "x"), ("cat", "ant"), ("x", "cat")):
        rename(renamed, old, new)
    # A subset.
    for split in ("train", "val"):
        shutil.rmtree(renamed / split / "ant")
    after, notes = told(renamed)
    assert after["top1"] > 90 and after["images"] == 16
    assert notes == "note: the data has 2 of the weights' 3 classes: a guess of another one is wrong\n"
    rename(renamed, "bee", "wasp")
    assert main([*words, "--data", str(renamed)]) == 2
    assert "1 class of the data is unknown to the weights (wasp), which know ant, bee beside" in (
        capsys.readouterr().err
    )


def test_another_order_of_the_same_names(run: Path, data: Path, tmp_path: Path) -> None:
    """A weights file whose classes stand in another order, as a Hugging Face set may give them."""
    described = read_description(run / "model.safetensors").to_dict()
    order = [2, 0, 1]
    weights = load_file(run / "model.safetensors")
    for name in ("fc.weight", "fc.bias"):
        weights[name] = weights[name][order]
    described["data"]["classes"] = [CLASSES[index] for index in order]
    checkpoint.export_weights(weights, tmp_path / "turned.safetensors", described)
    heard: list[Event] = []
    images = EvalData(data=str(data))
    turned, straight = (
        evaluate_weights(Origin(weights=file), images, loading=AT_ONCE, observers=[heard.append])[0].evaluation
        for file in (tmp_path / "turned.safetensors", run / "model.safetensors")
    )
    assert turned.top1 == straight.top1 and turned.loss == pytest.approx(straight.loss)
    notes = [event.message for event in heard if isinstance(event, Noted)]
    assert notes == ["the data has its classes in another order than the weights: labels are matched by name"]
    # A file without names is taken as it comes.
    save_file(weights, tmp_path / "bare.safetensors")
    (bare,) = evaluate_weights(
        Origin(weights=tmp_path / "bare.safetensors", model="test_resnet"),
        images,
        sizes=[32],
        loading=AT_ONCE,
        device="cpu",
    )
    assert bare.evaluation.top1 < 50


def test_a_run_goes_on_with_its_own_data_only(run: Path, data: Path, tmp_path: Path) -> None:
    unfinished, moved = Path(shutil.copytree(run, tmp_path / "run")), copied(data, tmp_path)
    (unfinished / "model.safetensors").unlink()
    for latest in sorted((unfinished / "checkpoints").glob("*0036*")):
        latest.unlink()
    config = (run / "config.yaml").read_text().replace(str(data), str(moved))
    (unfinished / "config.yaml").write_text(config)
    settings = TrainConfig.from_flat(
        {"data": str(moved), "model": "test_resnet", "final_size": 32, "epochs": 6, "batch_size": 8, "workers": 0,
         "device": "cpu", "recipe": "light", "evaluations": 1, "lr_base": 0.05, "amp": False, "curriculum": "constant",
         "checkpoint_interval": 12, "output": str(unfinished), "resume": "auto"}
    )  # fmt: skip
    rename(moved, "cat", "a")
    files = sorted(path for path in unfinished.rglob("*") if path.is_file())
    with pytest.raises(InputError, match=r"run was trained on other classes: cat is missing, a is new: give the data"):
        train(settings)
    assert sorted(path for path in unfinished.rglob("*") if path.is_file()) == files
    rename(moved, "a", "cat")
    assert train(settings).output == unfinished
    for name, value in load_file(unfinished / "model.safetensors").items():
        torch.testing.assert_close(value, load_file(run / "model.safetensors")[name])


def test_a_kept_head_is_for_the_same_names(
    run: Path, data: Path, tmp_path: Path, config: Callable[..., TrainConfig]
) -> None:
    renamed = copied(data, tmp_path)
    rename(renamed, "bee", "wasp")
    settings = config(
        data=str(renamed),
        weights=str(run / "model.safetensors"),
        regime="fixres",
        model="test_resnet",
        mixup=0.0,
        drop=0.0,
    )
    with pytest.raises(InputError, match=r"is for other classes than the data has \(class 1 is bee there and cat here"):
        train(settings)
