"""Weights from every kind of file into a model, and what is refused."""

import argparse
import copy
import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from upchirp import InputError, TrainConfig, train
from upchirp.models import create_model, fit_stored, in_classifier, size_of_weights
from upchirp.training import EvalData, EvalLoading, Origin, evaluate_weights, load_weights, read_weights
from upchirp.training.checkpoints.description import read_description
from upchirp.training.checkpoints.loading import HEAD_INIT_SCALE

AT_ONCE = EvalLoading(workers=0)

VIT = {"embed_dim": 24, "depth": 1, "num_heads": 3}
SWIN = {"embed_dim": 12, "depths": (1, 2, 1, 1), "num_heads": (1, 2, 3, 3)}
SMALL: dict[str, dict[str, Any]] = {
    "resnet10t": {"channels": (8, 8, 16, 16)},
    "vit_tiny_patch16_224": VIT,
    "swin_tiny_patch4_window7_224": SWIN,
    "pvt_tiny": {"embed_dims": (8, 16, 40, 64), "depths": (1, 1, 1, 1)},
    "cswin_tiny_224": {"embed_dim": 8, "depths": (1, 1, 1, 1)},
}


def small(name: str, size: int, classes: int = 4, seed: int = 0, **kwargs: Any) -> nn.Module:
    torch.manual_seed(seed)
    model = create_model(name, num_classes=classes, final_size=size, **SMALL.get(name, {}), **kwargs)
    for parameter in model.parameters():
        # Everything differs from its initial value, so that a tensor that was not loaded shows.
        nn.init.normal_(parameter, std=0.1)
    return model.eval()


def written(model: nn.Module, path: Path, wrap: str) -> Path:
    weights = model.state_dict()
    if wrap == "safetensors":
        save_file(weights, path.with_suffix(".safetensors"))
        return path.with_suffix(".safetensors")
    torch.save(weights, path.with_suffix(".pth"))
    return path.with_suffix(".pth")


def under(prefix: str, weights: dict[str, Any]) -> dict[str, Any]:
    return {prefix + name: value for name, value in weights.items()}


def of_trainers(model: nn.Module) -> dict[str, Any]:
    """What trainers write of a model; where there are an average and what it is an average of, the average is right."""
    weights = model.state_dict()
    zeros = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    averaged = torch.optim.swa_utils.AveragedModel(model).state_dict()
    return {
        "plain": weights,
        "timm": {"state_dict": under("module.", zeros), "state_dict_ema": weights, "epoch": 3},
        "compiled": {"model": under("_orig_mod.", weights)},
        "AveragedModel": averaged,
        "torchvision, --model-ema": {"model": zeros, "model_ema": averaged, "args": argparse.Namespace(epochs=3)},
        "PyTorch's tutorial": {"epoch": 3, "model_state_dict": weights, "loss": torch.tensor(1.0)},
        "Lightning": {"state_dict": under("net.", weights), "optimizer_states": [{"state": {0: {"step": 1}}}]},
        "Lightning, compiled, with weights in the loss": {
            "state_dict": under("model._orig_mod.", weights) | {"loss.weight": torch.ones(5)}
        },
        "Lightning, with an average": {"state_dict": under("model.", zeros) | under("ema_model.module.", weights)},
        "named otherwise": {"run": {"student": zeros, "ema": under("a.b.", weights)}},
        "with a loss": weights | {"loss.weight": torch.ones(5)},
    }


def test_files_of_every_kind(tmp_path: Path) -> None:
    model, fresh = small("vit_tiny_patch16_224", 64), small("vit_tiny_patch16_224", 64, seed=1)
    images = torch.randn(1, 3, 64, 64)
    expected = model(images)
    files = {"safetensors": written(model, tmp_path / "weights", "safetensors")}
    for number, (name, content) in enumerate(of_trainers(model).items()):
        files[name] = tmp_path / f"{number}.pth"
        torch.save(content, files[name])
    for name, file in files.items():
        other = copy.deepcopy(fresh)
        loaded = load_weights(other, read_weights(file), 64)
        assert torch.equal(other(images), expected), name
        left_out = [line for line in loaded.notes(Path("w")) if "n_averaged" not in line]
        assert left_out == (["left out is what is none of the model's: loss.weight of w"] if "loss" in name else []), (
            name
        )


def test_backbones_of_self_supervision(tmp_path: Path) -> None:
    model = small("test_vit", 64)
    weights = {name: value for name, value in model.state_dict().items() if not name.startswith("head.")}
    projection = {"head.mlp.0.weight": torch.zeros(3, 3), "head.last_layer.weight_g": torch.ones(3)}
    zeros = {name: torch.zeros_like(value) for name, value in weights.items()}
    torch.save(
        {"student": under("module.backbone.", zeros), "teacher": under("backbone.", weights) | projection},
        tmp_path / "dino.pth",
    )
    file = read_weights(tmp_path / "dino.pth")
    with pytest.raises(InputError, match=r"holds no classifier \(head.bias\): `upchirp finetune` makes a new one"):
        load_weights(small("test_vit", 64, seed=1), file, 64)
    other = small("test_vit", 64, seed=1)
    loaded = load_weights(other, file, 64, new_head=True)
    assert all(torch.equal(other.state_dict()[name], value) for name, value in weights.items())
    assert loaded.left_out == tuple(sorted(projection))
    # Two encoders of equal right.
    torch.save(under("one.", weights) | under("two.", weights), tmp_path / "two.pth")
    with pytest.raises(InputError, match=r"two.pth: it holds the model twice, as one\.\* and two\.\*: save the one"):
        load_weights(other, read_weights(tmp_path / "two.pth"), 64, new_head=True)


def test_a_whole_model_is_refused_with_the_reason(tmp_path: Path) -> None:
    torch.save(small("test_vit", 64), tmp_path / "model.pth")
    with pytest.raises(InputError, match=r"Python objects \(.*VisionTransformer.*run code.*model.state_dict\(\), FILE"):
        read_weights(tmp_path / "model.pth")


def test_a_deeper_model_is_another_model(tmp_path: Path) -> None:
    torch.save(small("test_vit", 64).state_dict(), tmp_path / "deep.pth")
    with pytest.raises(InputError, match=r"holds blocks\.1.* unknown to the model: it belongs to another model"):
        load_weights(
            create_model("test_vit", num_classes=4, final_size=64, depth=1), read_weights(tmp_path / "deep.pth"), 64
        )


def test_weights_that_are_not_finite(tmp_path: Path, image_folder: Path) -> None:
    model, data = small("test_vit", 64, classes=2), EvalData(data=str(image_folder))
    with torch.no_grad():
        model.norm.weight[3] = float("nan")
    file = written(model, tmp_path / "nan", "safetensors")
    with pytest.raises(InputError, match=r"nan.safetensors: norm.weight is not finite: its training diverged"):
        evaluate_weights(Origin(weights=file, model="test_vit"), data, sizes=[64], loading=AT_ONCE, device="cpu")
    with torch.no_grad():
        model.norm.weight.fill_(3e38)
    file = written(model, tmp_path / "huge", "safetensors")
    notes: list[Any] = []
    (result,) = evaluate_weights(
        Origin(weights=file, model="test_vit"),
        data,
        sizes=[64],
        loading=AT_ONCE,
        device="cpu",
        observers=[notes.append],
    )
    assert result.evaluation.loss != result.evaluation.loss
    assert "the loss at 64 px is not finite" in notes[-1].message


@pytest.mark.parametrize("name", [*SMALL, "test_vit"])
def test_the_side_is_read_off_the_weights_and_resized(tmp_path: Path, name: str) -> None:
    model = small(name, 96)
    path = written(model, tmp_path / "weights", "safetensors")
    larger = small(name, 224, seed=1)
    size, *_ = load_weights(larger, read_weights(path), 224)
    # Nothing that ResNet and CSWin store depends on the side.
    assert size == (224 if name in ("resnet10t", "cswin_tiny_224") else 96)
    expected = copy.deepcopy(model)
    # test_vit interpolates its positions in each forward, and stores them for one side all the same.
    fit_stored(expected, 224)
    for key, value in larger.state_dict().items():
        assert torch.equal(value, expected.state_dict()[key]), key
    images = torch.randn(1, 3, 224, 224)
    torch.testing.assert_close(larger(images), expected(images), rtol=0, atol=0)


def test_a_new_head_starts_small_and_the_rest_is_loaded(tmp_path: Path) -> None:
    model = small("vit_tiny_patch16_224", 96, classes=7)
    path = written(model, tmp_path / "weights", "safetensors")
    other = small("vit_tiny_patch16_224", 96, classes=3, seed=1)
    head = other.head.weight.detach().clone()
    load_weights(other, read_weights(path), 96, new_head=True)
    torch.testing.assert_close(other.head.weight, head * HEAD_INIT_SCALE)
    for key, value in model.state_dict().items():
        if not in_classifier(key, ("head",)):
            assert torch.equal(value, other.state_dict()[key]), key


def test_names_that_timm_translates(tmp_path: Path) -> None:
    """ConvNeXt's authors call the blocks `stages.0.0.dwconv`; timm has a filter for that."""
    model = create_model("convnext_atto", num_classes=4, depths=(1, 1, 1, 1), dims=(4, 4, 4, 4), final_size=64)
    renamed = {}
    for key, value in model.state_dict().items():
        new = key.replace("stem.", "downsample_layers.0.").replace(".blocks.", ".")
        for number in (1, 2, 3):
            new = new.replace(f"stages.{number}.downsample.", f"downsample_layers.{number}.")
        for ours, theirs in (
            ("conv_dw", "dwconv"), ("mlp.fc1", "pwconv1"), ("mlp.fc2", "pwconv2"), ("head.fc", "head"),
            ("head.norm", "norm"),
        ):  # fmt: skip
            new = new.replace(ours, theirs)
        renamed[new] = value
    torch.save({"model": renamed}, tmp_path / "official.pth")
    other = create_model("convnext_atto", num_classes=4, depths=(1, 1, 1, 1), dims=(4, 4, 4, 4), final_size=64)
    load_weights(other, read_weights(tmp_path / "official.pth"), 64)
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(other.eval()(images), model.eval()(images))


@pytest.mark.parametrize(
    ("name", "size", "classes", "message"),
    [
        (
            "vit_tiny_patch16_224",
            96,
            4,
            r"holds none of the model's names \(.*\.\.\. in place of .*: it belongs to another model",
        ),
        ("resnet10t", 64, 9, "is for 4 classes but the data has 9"),
    ],
)
def test_other_weights_get_one_line_and_change_nothing(
    tmp_path: Path, name: str, size: int, classes: int, message: str
) -> None:
    path = written(small("resnet10t", 64), tmp_path / "weights", "safetensors")
    model = small(name, size, classes=classes)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(InputError, match=message) as caught:
        load_weights(model, read_weights(path), size)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_weights_of_the_same_kind_in_another_width(tmp_path: Path) -> None:
    path = written(small("vit_tiny_patch16_224", 96), tmp_path / "weights", "safetensors")
    wider = create_model("vit_tiny_patch16_224", num_classes=4, final_size=96, **{**VIT, "embed_dim": 48})
    with pytest.raises(InputError, match=r"but the model needs .* others differ: it belongs to another model"):
        load_weights(wider, read_weights(path), 96)


def test_files_that_hold_no_weights(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        read_weights(tmp_path / "none.pth")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot read the weights"):
        read_weights(tmp_path / "broken.safetensors")
    (tmp_path / "broken.pth").write_bytes(b"nothing")
    with pytest.raises(InputError, match="holds no weights"):
        read_weights(tmp_path / "broken.pth")
    (tmp_path / "empty.pt").touch()
    torch.save({"epoch": 3}, tmp_path / "epoch.pth")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    torch.save({1: torch.zeros(1)}, tmp_path / "numbers.pth")
    for name in ("empty.pt", "epoch.pth", "list.pth", "numbers.pth"):
        with pytest.raises(InputError, match="holds no weights: expected tensors by name"):
            read_weights(tmp_path / name)


class Runs:
    """Would run on loading, if loading ran anything."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("ran"),))


def test_nothing_in_a_file_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Runs()}, "evil.pth")
    with pytest.raises(InputError, match=r"evil.pth holds Python objects \(.*\), such as a whole model, and loading"):
        read_weights(Path("evil.pth"))
    assert not Path("ran").exists()


def test_side_of_weights_stops_where_the_side_is_not_the_matter() -> None:
    model = create_model("vit_tiny_patch16_224", final_size=96, **VIT)
    assert size_of_weights(model, {"cls_token": torch.Size((1, 1, 25))}, 96) is None
    assert size_of_weights(model, {"pos_embed": torch.Size((1, 1 + 8 * 8, 24))}, 96) == 128
    assert size_of_weights(model, {"pos_embed": torch.Size((1, 8 * 9, 24))}, 96) is None


def test_a_run_says_what_its_weights_are_of(config: Any, tmp_path: Path) -> None:
    settings = config(model="resnet10t", model_kwargs={"channels": [8, 8, 16, 16]}, epochs=1, mixup=0.0, drop=0.0)
    output = train(settings).output
    expected = {"model": "resnet10t", "model_kwargs": {"channels": [8, 8, 16, 16]}, "final_size": 64}
    for name in ("model.safetensors", "model_ema.safetensors"):
        assert read_description(output / name).settings == expected
    checkpoint = next((output / "checkpoints").glob("step_*.pt"))
    assert read_description(checkpoint).settings == expected
    # Plain timm loads it.
    plain = timm.create_model("resnet10t", num_classes=2, channels=[8, 8, 16, 16])
    plain.load_state_dict(load_file(output / "model.safetensors"), strict=True)
    assert TrainConfig.from_flat({"weights": str(checkpoint)}).model == "resnet10t"
    results = evaluate_weights(
        Origin(weights=checkpoint), EvalData(data=settings.data), sizes=(32, 64), loading=AT_ONCE, device="cpu"
    )
    assert [result.size for result in results] == [32, 64]


def test_a_classifier_that_is_not_asked_for_is_not_told_of(tmp_path: Path) -> None:
    file = written(small("test_vit", 64), tmp_path / "weights", "safetensors")
    bare = create_model("test_vit", num_classes=0, final_size=64)
    assert load_weights(bare, read_weights(file), 64, new_head=True).left_out == ()


def test_each_size_is_evaluated_from_the_stored_weights(tmp_path: Path, image_folder: Path) -> None:
    """Positions that were resized for one size, and from that for the next, would be blurred."""
    file = written(small("test_vit", 64, classes=2), tmp_path / "weights", "safetensors")

    def losses(*sizes: int) -> dict[int, float]:
        results = evaluate_weights(
            Origin(weights=file, model="test_vit"),
            EvalData(data=str(image_folder)),
            sizes=sizes,
            loading=AT_ONCE,
            device="cpu",
        )
        return {result.size: result.evaluation.loss for result in results}

    assert losses(16, 64) == {**losses(16), **losses(64)}


def test_a_folder_exported_by_timm_names_its_model(tmp_path: Path) -> None:
    path = written(small("resnet10t", 64), tmp_path / "model", "safetensors")
    assert read_description(path).settings == {}
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet10t"}))
    assert read_description(path).settings == {"model": "resnet10t"}


def test_what_files_hold_beyond_or_short_of_the_model(tmp_path: Path) -> None:
    """Old BatchNorm files lack counters, older Swin files hold buffers that the model works out, Lightning prefixes."""
    model = small("resnet10t", 64)
    weights = {f"model.{key}": value for key, value in model.state_dict().items() if "num_batches" not in key}
    torch.save({"state_dict": weights}, tmp_path / "lightning.ckpt")
    other = small("resnet10t", 64, seed=1)
    load_weights(other, read_weights(tmp_path / "lightning.ckpt"), 64)
    assert torch.equal(other.conv1[0].weight, model.conv1[0].weight)
    swin = small("swin_tiny_patch4_window7_224", 96)
    buffers = {key: value for key, value in swin.named_buffers() if key.endswith("relative_position_index")}
    assert buffers
    torch.save({**swin.state_dict(), **buffers}, tmp_path / "swin.pth")
    load_weights(small("swin_tiny_patch4_window7_224", 96, seed=1), read_weights(tmp_path / "swin.pth"), 96)


def test_a_model_of_ones_own_made_for_another_side(tmp_path: Path) -> None:
    path = written(small("vit_tiny_patch16_224", 96), tmp_path / "weights", "safetensors")
    own = timm.create_model("vit_tiny_patch16_224", num_classes=4, img_size=96, **VIT)
    assert load_weights(own, read_weights(path), 64).size == 96
    assert own.pos_embed.shape == (1, 17, 24)


def test_a_checkpoint_under_another_name(config: Any, tmp_path: Path) -> None:
    output = train(config(epochs=1, mixup=0.0)).output
    copy_of = tmp_path / "copied.pt"
    copy_of.write_bytes(next((output / "checkpoints").glob("step_*.pt")).read_bytes())
    assert read_weights(copy_of).description.model == "test_vit"
