"""Each format, loaded by its own library."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file
from timm.models import swin_transformer
from torch import nn

from upchirp import InputError
from upchirp.cli import main
from upchirp.exporting import FORMATS, Format, export
from upchirp.exporting.hub import push, run_facts
from upchirp.models import create_model
from upchirp.models.pvt import checkpoint_filter_fn
from upchirp.training import Origin
from upchirp.training.assets.trained import TrainedModel, load_trained
from upchirp.training.checkpoints.checkpoint import export_weights
from upchirp.training.checkpoints.description import Description


def trained(folder: Path, name: str, size: int, **options: Any) -> TrainedModel:
    """A model with drawn weights, by way of a weights file."""
    torch.manual_seed(0)
    with torch.device("meta"):
        shapes = create_model(name, num_classes=3, final_size=size, **options).state_dict()
    # Quicker than what models draw, and no scale is one, no bias and no mean nothing.
    values = {key: torch.empty(value.shape, dtype=value.dtype) for key, value in shapes.items()}
    for key, value in values.items():
        if not value.is_floating_point():
            value.zero_()
        elif "running_var" in key or (value.ndim == 1 and key.endswith("weight")):
            value.uniform_(0.5, 1.5)
        else:
            value.uniform_(-0.04, 0.04)
    described = Description(model=name, model_kwargs=options, final_size=size)
    export_weights(values, folder / "drawn.safetensors", described.to_dict())
    return load_trained(Origin(weights=folder / "drawn.safetensors"))


@torch.no_grad()
def same(one: nn.Module, other: nn.Module, size: int) -> bool:
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    return torch.allclose(one.eval()(images), other.eval()(images), atol=2e-4)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet18", 32),
        ("convnext_tiny", 32),
        ("swin_tiny_patch4_window7_224", 224),
        ("vit_base_patch32_224", 64),
    ],
)
def test_torchvision_loads_and_computes_the_same(tmp_path: Path, name: str, size: int) -> None:
    made = trained(tmp_path, name, size)
    told = export(made, "torchvision", tmp_path / "model.pth")
    # As it is printed, but that no weights are drawn first.
    construct, load = told.split("; ")
    scope: dict[str, Any] = {"torch": torch, "torchvision": torchvision}
    with torch.device("meta"):
        exec(construct, scope)
    exec(load.replace("weights_only=True)", "weights_only=True), assign=True"), scope)
    assert same(made.model, scope["model"], size)


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("test_resnet", 32, {}),
        ("test_vit", 64, {"depth": 1}),
        ("swin_tiny_patch4_window7_224", 64, {"embed_dim": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 3, 3)}),
    ],
)
def test_timm_loads_and_computes_the_same(tmp_path: Path, name: str, size: int, options: dict[str, Any]) -> None:
    made = trained(tmp_path, name, size, **options)
    told = export(made, "timm", tmp_path / "model.safetensors")
    assert same(made.model, eval(told, {"timm": timm}), size)


def test_a_hub_folder_is_a_model_of_timm_with_a_card(uninterrupted: Path, tmp_path: Path) -> None:
    made = load_trained(Origin(run=uninterrupted))
    told = export(made, "hf", tmp_path / "hub", facts=run_facts(uninterrupted))
    assert told == f"timm.create_model('local-dir:{tmp_path / 'hub'}', pretrained=True)"
    loaded = timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True)
    assert same(made.model, loaded, int(made.described.final_size or 0))
    assert json.loads((tmp_path / "hub/config.json").read_text())["label_names"] == list(made.described.classes)
    card = (tmp_path / "hub/README.md").read_text()
    facts = run_facts(uninterrupted)
    for part in (facts["curriculum"], f"{facts['top1']:.2f} %", f"{facts['images']} training images", "pipeline_tag"):
        assert part in card


def test_mmdetection_gets_the_names_of_swins_authors(tmp_path: Path) -> None:
    made = trained(tmp_path, "swin_tiny_patch4_window7_224", 224)
    assert "convert_weights=True" in export(made, "mmdet", tmp_path / "swin.pth")
    stored = torch.load(tmp_path / "swin.pth", weights_only=True)["state_dict"]
    assert {"layers.0.downsample.reduction.weight", "layers.2.downsample.norm.bias"} <= stored.keys()
    # timm reads its authors' checkpoints, too.
    read = swin_transformer.checkpoint_filter_fn(dict(stored), made.model)
    assert all(
        torch.equal(read[name], tensor) for name, tensor in made.model.state_dict().items() if "head" not in name
    )


def test_mmdetection_gets_the_names_of_pvts_authors(tmp_path: Path) -> None:
    made = trained(tmp_path, "pvt_tiny", 64, depths=(1, 1, 1, 1))
    export(made, "mmdet", tmp_path / "pvt.pth")
    stored = torch.load(tmp_path / "pvt.pth", weights_only=True)["state_dict"]
    assert {"patch_embed1.proj.weight", "pos_embed4", "cls_token", "block4.0.mlp.fc1.bias"} <= stored.keys()
    read = checkpoint_filter_fn(stored, made.model)
    assert all(
        torch.equal(read[name], tensor) for name, tensor in made.model.state_dict().items() if "head" not in name
    )


def test_detectron2_gets_its_own_names_of_a_resnet(tmp_path: Path) -> None:
    made = trained(tmp_path, "resnet50", 32)
    export(made, "detectron2", tmp_path / "r50.pth")
    stored = torch.load(tmp_path / "r50.pth", weights_only=True)
    assert stored["matching_heuristics"] is True
    # As detectron2/modeling/backbone/resnet.py builds them: BasicStem, BottleneckBlock, get_norm("FrozenBN").
    block = [f"conv{k}{part}" for k in (1, 2, 3) for part in (".weight", *(f".norm.{each}" for each in NORM))]
    shortcut = ["shortcut.weight", *(f"shortcut.norm.{each}" for each in NORM)]
    expected = ["stem.conv1.weight", *(f"stem.conv1.norm.{each}" for each in NORM)]
    for stage, blocks in zip(("res2", "res3", "res4", "res5"), (3, 4, 6, 3), strict=True):
        expected += [f"{stage}.0.{name}" for name in shortcut]
        expected += [f"{stage}.{k}.{name}" for k in range(blocks) for name in block]
    assert set(stored["model"]) == set(expected)
    own = made.model.state_dict()
    assert torch.equal(stored["model"]["res3.0.shortcut.norm.running_var"], own["layer2.0.downsample.1.running_var"])
    assert torch.equal(stored["model"]["res5.2.conv3.norm.bias"], own["layer4.2.bn3.bias"])


NORM = ("weight", "bias", "running_mean", "running_var")


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_a_program_takes_any_number_of_images(tmp_path: Path, name: str) -> None:
    made = trained(tmp_path, name, 32)
    export(made, "torch", tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2").module()
    images = torch.randn(5, 3, 32, 32)
    assert torch.allclose(program(images), made.model(images), atol=1e-5)


def test_onnxruntime_computes_the_same(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    made = trained(tmp_path, "test_vit", 32)
    export(made, "onnx", tmp_path / "model.onnx")
    session = runtime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    images = torch.randn(3, 3, 32, 32)
    (logits,) = session.run(["logits"], {"images": images.numpy()})
    assert torch.allclose(torch.from_numpy(logits), made.model(images), atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("torchvision", "test_resnet", "torchvision has no test_resnet: it has convnext_base"),
        ("mmdet", "test_vit", "no names of mmdetection are known for test_vit"),
        ("detectron2", "test_vit", "no names of detectron2 are known for test_vit"),
        # ResNets by their names at timm, with other parts than those of the other libraries.
        (
            "mmdet",
            "resnet10t",
            "for resnet10t: they are for Swin, PVT, and of ResNets for resnet18, resnet34, resnet50",
        ),
        ("detectron2", "resnet10t", "for resnet10t: they are for resnet18, resnet34, resnet50"),
        ("timm", "test_vit", "give `output` the suffix .safetensors"),
        ("torch", "test_vit", "give `output` the suffix .pt2"),
    ],
)
def test_what_a_library_lacks_is_told(tmp_path: Path, kind: Format, name: str, message: str) -> None:
    made = trained(tmp_path, name, 32)
    with pytest.raises(InputError, match=message):
        export(made, kind, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["torchvision", "mmdet", "detectron2"])
def test_a_model_that_computes_something_else_under_the_same_names_is_refused(tmp_path: Path, kind: Format) -> None:
    made = trained(tmp_path, "resnet18", 32, act_layer="silu")
    with pytest.raises(InputError, match=r"this resnet18 with act_layer='silu' computes something else than the plain"):
        export(made, kind, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_from_the_command_line(uninterrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["export", "--run", str(uninterrupted), "--output", str(tmp_path / "a.safetensors")]
    assert main(words) == 0
    assert "timm.create_model('" in capsys.readouterr().out
    assert load_file(tmp_path / "a.safetensors").keys() == load_file(uninterrupted / "model_ema.safetensors").keys()
    # The classes come along: this file is as good as the run's.
    assert load_trained(Origin(weights=tmp_path / "a.safetensors")).described.classes
    assert main(words) == 2
    assert "exists already: choose another --output" in capsys.readouterr().err
    assert main(["export", "--run", str(uninterrupted), "--push", "a/b", "--output", str(tmp_path / "b")]) == 2
    assert "give --format hf" in capsys.readouterr().err
    assert set(FORMATS) == {"timm", "hf", "torchvision", "mmdet", "detectron2", "torch", "onnx"}


def test_a_folder_is_pushed_to_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, Any]] = []

    class Address(str):
        repo_id = "me/model"

    class Hub:
        def create_repo(self, name: str, **options: Any) -> Address:
            calls.append(("create", (name, options)))
            return Address("https://hub/me/model")

        def upload_folder(self, **options: Any) -> None:
            calls.append(("upload", options))
            if options["folder_path"].name == "gone":
                raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    assert push(tmp_path, "me/model") == "https://hub/me/model"
    assert calls == [
        ("create", ("me/model", {"private": False, "exist_ok": True})),
        ("upload", {"repo_id": "me/model", "folder_path": tmp_path}),
    ]
    with pytest.raises(InputError, match="cannot push to me/model: no route to host"):
        push(tmp_path / "gone", "me/model")
