"""Weights from every kind of file into a model, and what is refused."""

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
from upchirp.training import evaluate_weights, load_weights, read_weights
from upchirp.training.description import read_description
from upchirp.training.weights import HEAD_INIT_SCALE

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
    wrapped = {
        "plain": weights,
        "state_dict": {"state_dict": {f"module.{name}": tensor for name, tensor in weights.items()}, "epoch": 3},
        "ema": {
            "state_dict": {name: torch.zeros_like(tensor) for name, tensor in weights.items()},
            "state_dict_ema": weights,
        },
        "compiled": {"model": {f"_orig_mod.{name}": tensor for name, tensor in weights.items()}},
    }[wrap]
    torch.save(wrapped, path.with_suffix(".pth"))
    return path.with_suffix(".pth")


@pytest.mark.parametrize("wrap", ["safetensors", "plain", "state_dict", "ema", "compiled"])
def test_files_of_every_kind(tmp_path: Path, wrap: str) -> None:
    model = small("resnet10t", 64)
    other = small("resnet10t", 64, seed=1)
    load_weights(other, read_weights(written(model, tmp_path / "weights", wrap)), 64)
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(other(images), model(images), rtol=0, atol=0)


@pytest.mark.parametrize("name", [*SMALL, "test_vit"])
def test_the_side_is_read_off_the_weights_and_resized(tmp_path: Path, name: str) -> None:
    model = small(name, 96)
    path = written(model, tmp_path / "weights", "safetensors")
    larger = small(name, 224, seed=1)
    size = load_weights(larger, read_weights(path), 224)
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
        ("vit_tiny_patch16_224", 96, 4, r"lacks blocks\.0\.attn\.proj\.bias and \d+ more: it belongs to another model"),
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
    with pytest.raises(InputError, match="holds no weights"):
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
    results = evaluate_weights(weights=checkpoint, data=settings.data, sizes=(32, 64), workers=0, device="cpu")
    assert [result.size for result in results] == [32, 64]


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
    assert load_weights(own, read_weights(path), 64) == 96
    assert own.pos_embed.shape == (1, 17, 24)


def test_a_checkpoint_under_another_name(config: Any, tmp_path: Path) -> None:
    output = train(config(epochs=1, mixup=0.0)).output
    copy_of = tmp_path / "copied.pt"
    copy_of.write_bytes(next((output / "checkpoints").glob("step_*.pt")).read_bytes())
    assert read_weights(copy_of).description.model == "test_vit"
