"""What weights say of how images are prepared for them, and who listens: eval, finetune, timm; weights by name."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

import upchirp.models  # noqa: F401  registers pvt_tiny with timm
from upchirp import InputError, TrainConfig, train
from upchirp.cli import main
from upchirp.data import EvalTransform, normalize, open_data
from upchirp.models import create_model
from upchirp.training import EvalData, Origin, evaluate_weights, read_weights
from upchirp.training.checkpoints import named_weights
from upchirp.training.checkpoints.description import read_description
from upchirp.training.checkpoints.loading import HEAD_INIT_SCALE

MEAN, STD = (0.0, 0.0, 0.0), (0.1, 0.1, 0.1)
SMALL = {"data": "", "epochs": 1, "batch_size": 16, "workers": 0, "device": "cpu", "recipe": "light", "evaluations": 1}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, image_folder: Path) -> Path:
    """A run with a normalisation and a filter of its own, with an average."""
    settings = {
        **SMALL, "data": str(image_folder), "model": "test_vit", "model_kwargs": {"depth": 1}, "final_size": 64,
        "epochs": 2, "mean": MEAN, "std": STD, "interpolation": "bilinear", "lr_base": 0.01, "amp": False,
        "model_ema": True, "model_ema_decay": 0.9, "output": str(tmp_path_factory.mktemp("mean") / "run"),
    }  # fmt: skip
    return train(TrainConfig.from_flat(settings)).output


def evaluated(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, float]:
    assert main(["eval", *words, "--workers", "0", "--device", "cpu", "--json"]) == 0
    return dict(json.loads(capsys.readouterr().out))


def test_weights_evaluate_like_their_run(
    run: Path, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = evaluated(["--run", str(run)], capsys)
    data = ["--data", str(image_folder)]
    file = ["--weights", str(run / "model_ema.safetensors"), *data]
    assert evaluated(file, capsys) == whole
    checkpoint = next((run / "checkpoints").glob("step_*.pt"))
    assert evaluated(["--weights", str(checkpoint), *data], capsys) == whole
    usual = evaluated([*file, "--mean", "0.485", "0.456", "0.406", "--std", "0.229", "0.224", "0.225"], capsys)
    assert usual["loss"] != pytest.approx(whole["loss"], rel=1e-3)
    assert evaluated([*file, "--interpolation", "lanczos"], capsys)["loss"] != whole["loss"]
    assert evaluated([*file, "--crop-pct", "1.0"], capsys)["loss"] != whole["loss"]
    # A file that says nothing, with timm's configuration beside it.
    save_file(load_file(run / "model_ema.safetensors"), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((run / "config.json").read_bytes())
    assert evaluated(["--weights", str(tmp_path / "model.safetensors"), *data], capsys) == whole


def test_fine_tuning_normalises_as_the_weights_do(run: Path, tmp_path: Path) -> None:
    weights = {"weights": str(run / "model.safetensors"), "regime": "finetune"}
    followed = TrainConfig.from_flat(weights)
    assert (followed.augmentation.mean, followed.augmentation.std) == (MEAN, STD)
    assert "mean" not in (followed.given or ())
    own = TrainConfig.from_flat({**weights, "mean": [0.5, 0.5, 0.5]})
    assert (own.augmentation.mean, own.augmentation.std) == ((0.5, 0.5, 0.5), STD)
    # timm's own configuration of a tag, for a file that says nothing.
    save_file({"x": torch.zeros(1)}, tmp_path / "bare.safetensors")
    tagged = {"weights": str(tmp_path / "bare.safetensors"), "model": "vit_tiny_patch16_224.augreg_in21k"}
    assert TrainConfig.from_flat(tagged).augmentation.mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("file", ["model.safetensors", "model_ema.safetensors"])
def test_timm_loads_the_run_folder(run: Path, image_folder: Path, file: str) -> None:
    config = json.loads((run / "config.json").read_text())
    assert (config["architecture"], config["num_classes"], config["label_names"]) == ("test_vit", 2, ["cat", "dog"])
    assert "tag" not in config["pretrained_cfg"] and "url" not in config["pretrained_cfg"]
    checkpoint = {} if file == "model.safetensors" else {"checkpoint_path": str(run / file)}
    model = timm.create_model(f"local-dir:{run}", pretrained=True, **checkpoint).eval()
    data = timm.data.resolve_model_data_config(model)
    expected = {
        "input_size": (3, 64, 64), "interpolation": "bilinear", "mean": MEAN, "std": STD,
        "crop_pct": 0.875, "crop_mode": "center",
    }  # fmt: skip
    assert {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()} == expected
    own = create_model("test_vit", num_classes=2, final_size=64, depth=1).eval()
    own.load_state_dict(load_file(run / file))
    _, source = open_data(image_folder)
    picture, _ = source.load(0)
    ours = torch.from_numpy(EvalTransform(64, 0.875, "bilinear")(picture)).permute(2, 0, 1)[None]
    theirs = timm.data.create_transform(**data, is_training=False)(picture.whole())[None]
    with torch.no_grad():
        torch.testing.assert_close(model(theirs), own(normalize(ours, MEAN, STD)))


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [("swin_tiny_patch4_window7_224", {"embed_dim": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 3, 3)}),
     ("pvt_tiny", {"embed_dims": (8, 16, 40, 64), "depths": (1, 1, 1, 1)}), ("test_resnet", {})],
)  # fmt: skip
def test_timm_makes_other_models_anew(tmp_path: Path, name: str, kwargs: dict[str, Any]) -> None:
    from upchirp.training.checkpoints.description import Description
    from upchirp.training.checkpoints.preprocessing import Preprocessing
    from upchirp.training.checkpoints.timm_folder import write_timm_config

    model = create_model(name, num_classes=3, final_size=96, **kwargs).eval()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    preprocessing = Preprocessing(input_size=96, mean=MEAN, std=STD, interpolation="bicubic", crop_pct=0.875)
    described = Description(model=name, model_kwargs=kwargs, final_size=96, preprocessing=preprocessing)
    write_timm_config(model, described, tmp_path / "config.json")
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    images = torch.randn(1, 3, 96, 96)
    torch.testing.assert_close(again(images), model(images), rtol=0, atol=0)
    assert read_description(tmp_path / "model.safetensors").final_size == 96
    # A module of the user's own is nothing that timm can make.
    write_timm_config(model, Description(), tmp_path / "none.json")
    assert not (tmp_path / "none.json").exists()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """A stand-in for the hub with the weights of `test_vit.r160_in1k`; what was asked for."""
    asked: list[tuple[str, str]] = []
    model = create_model("test_vit", num_classes=1000, final_size=160)
    (tmp_path / "hub").mkdir()
    save_file(model.state_dict(), tmp_path / "hub/model.safetensors")
    inner = {"input_size": [3, 160, 160], "mean": [0.25, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "num_classes": 1000}
    (tmp_path / "hub/config.json").write_text(json.dumps({"architecture": "test_vit", "pretrained_cfg": inner}))

    def download(repository: str, name: str, **_: object) -> str:
        asked.append((repository, name))
        return str(tmp_path / "hub" / name)

    monkeypatch.setattr(named_weights, "_is_offline", lambda: False)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return asked


def test_training_starts_from_named_weights(hub: list[tuple[str, str]], tmp_path: Path, image_folder: Path) -> None:
    settings = {**SMALL, "data": str(image_folder), "final_size": 32, "regime": "finetune", "lr_base": 1e-9}
    settings |= {"output": str(tmp_path / "run"), "weight_decay": 0.0}
    for words in (
        {"model": "test_vit", "pretrained": True},
        {"weights": "timm/test_vit.r160_in1k"},
        {"model": "test_vit.r160_in1k"},
    ):
        config = TrainConfig.from_flat({**settings, **words})
        assert str(config.weights) == "timm/test_vit.r160_in1k" and config.augmentation.mean == (0.5, 0.5, 0.5)
    assert not hub, "nothing is fetched before the run begins"
    train(config)
    assert hub == [("timm/test_vit.r160_in1k", "model.safetensors")]
    before, after = load_file(tmp_path / "hub/model.safetensors"), load_file(tmp_path / "run/model.safetensors")
    torch.testing.assert_close(after["blocks.0.mlp.fc1.weight"], before["blocks.0.mlp.fc1.weight"])
    assert after["head.weight"].shape[0] == 2
    assert after["head.weight"].std() < 5 * HEAD_INIT_SCALE * before["head.weight"].std()
    described = read_description(tmp_path / "run/model.safetensors")
    assert described.preprocessing.mean == (0.5, 0.5, 0.5)


def test_a_repository_of_the_hub(hub: list[tuple[str, str]]) -> None:
    config = TrainConfig.from_flat({"weights": "hf-hub:someone/vit", "regime": "finetune"})
    assert (config.model, config.final_size, config.augmentation.mean) == ("test_vit", 160, (0.25, 0.5, 0.5))
    assert read_weights(Path("hf-hub:someone/vit")).parts[""]["head.weight"].shape == (1000, 64)
    assert hub == [("someone/vit", "config.json")] * 2 + [("someone/vit", "model.safetensors")] + hub[3:]


def test_a_tag_is_evaluated(hub: list[tuple[str, str]], image_folder: Path) -> None:
    with pytest.raises(InputError, match=r"timm/test_vit\.r160_in1k is for 1000 classes but the data has 2"):
        evaluate_weights(Origin(model="test_vit.r160_in1k"), EvalData(data=str(image_folder)))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "test_vit", "--pretrained"], r"cannot fetch timm/test_vit.r160_in1k \(there is no way .*models--"
         r"timm--test_vit.r160_in1k; copy that folder .* give the file itself, model.safetensors, by --weights FILE"),
        (["--model", "test_vit.zzz"], "timm has no weights 'zzz' of test_vit: it has r160_in1k"),
        (["--model", "pvt_tiny", "--pretrained"], "timm has no pretrained weights of pvt_tiny: give a file by"),
        (["--weights", "timm/nothing"], "timm has no model 'nothing', and so no weights of it"),
        (["--pretrained"], "name it by --model"),
        (["--model", "test_vit", "--pretrained", "--weights", "x.pth"], "--weights x.pth are two things to start from"),
    ],
)  # fmt: skip
def test_what_cannot_be_had_gets_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, image_folder: Path, tmp_path: Path,
    config: Callable[..., TrainConfig], words: list[str], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(named_weights, "_is_offline", lambda: True)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    assert main(["finetune", *words, "--data", str(image_folder), "--final-size", "64", "--workers", "0"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert re.search(message, lines[0]), lines[0]
    assert list(tmp_path.iterdir()) == []
