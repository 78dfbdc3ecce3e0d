from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from upchirp import InputError
from upchirp.dense import backbone, feature_maps_of
from upchirp.models import create_model, fit_to_bandwidth
from upchirp.training.checkpoints.checkpoint import export_weights
from upchirp.training.checkpoints.description import Description
from upchirp.training.checkpoints.preprocessing import Preprocessing

FAMILIES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "resnet": ("test_resnet", 64, {}),
    "vit": ("test_vit", 64, {}),
    "swin": (
        "swin_tiny_patch4_window7_224",
        64,
        {"embed_dim": 16, "depths": (2, 1, 1, 1), "num_heads": (1, 2, 2, 2)},
    ),
    "pvt": ("pvt_tiny", 64, {"embed_dims": (8, 16, 40, 64), "depths": (1, 1, 1, 1)}),
    "cswin": ("cswin_tiny_224", 96, {"embed_dim": 8, "depths": (1, 1, 2, 1), "num_heads": (2, 2, 4, 4)}),
}


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def write(path: Path, name: str, size: int, kwargs: dict[str, Any]) -> torch.nn.Module:
    """A model with drawn weights, positions among them, and its file."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, final_size=size, **kwargs).eval()
    with torch.no_grad():
        for key, value in model.named_parameters():
            if "pos_embed" in key or "bias_table" in key:
                value.normal_(std=0.3)
    seen = Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    described = Description(model=name, model_kwargs=kwargs, final_size=size, preprocessing=seen)
    export_weights(model.state_dict(), path, described.to_dict())
    return model


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_the_maps_are_those_of_the_weights_and_other_sizes_do_as_well(family: str, tmp_path: Path) -> None:
    name, size, kwargs = FAMILIES[family]
    model = write(tmp_path / "model.safetensors", name, size, kwargs)
    maps = feature_maps_of(tmp_path / "model.safetensors").eval()
    assert (maps.mean, maps.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    images = noise(1, 3, size, size)
    # The pyramid of a ViT leaves its own map, of stride 16, as it is.
    wanted = model.forward_intermediates(images, intermediates_only=True, output_fmt="NCHW")[-1]
    torch.testing.assert_close(maps(images)[2 if family == "vit" else 3], wanted)
    other = maps(noise(1, 3, 96, 160))
    assert [tuple(map.shape[1:]) for map in other] == [
        (channels, 96 // stride, 160 // stride) for channels, stride in zip(maps.channels, (4, 8, 16, 32), strict=True)
    ]


@torch.no_grad()
def test_positions_are_interpolated_as_in_a_training_at_that_size(tmp_path: Path) -> None:
    name, size, kwargs = FAMILIES["pvt"]
    model = write(tmp_path / "model.safetensors", name, size, kwargs)
    maps = feature_maps_of(tmp_path / "model.safetensors").eval()
    fit_to_bandwidth(model, 96)
    images = noise(1, 3, 96, 96)
    torch.testing.assert_close(maps(images), model.forward_intermediates(images, intermediates_only=True))


@torch.no_grad()
def test_stripes_stay_as_wide_as_in_the_training() -> None:
    name, size, kwargs = FAMILIES["cswin"]
    dynamic = create_model(name, final_size=size, dynamic_img_size=True, **kwargs).eval()
    larger = timm.create_model(name, img_size=192, split_size=(1, 2, 3, 6), **kwargs).eval()
    larger.load_state_dict(dynamic.state_dict())
    images = noise(1, 3, 192, 192)
    torch.testing.assert_close(dynamic(images), larger(images))


def test_a_run_is_enough(uninterrupted: Path) -> None:
    maps = feature_maps_of(uninterrupted)
    assert maps.strides == (4, 8, 16, 32) and len(maps(noise(1, 3, 32, 64))) == 4


@torch.no_grad()
def test_what_a_constructor_hands_on_is_set_as_well() -> None:
    small = {"embed_dim": 16, "num_heads": 2, "depth": 1}
    maps = feature_maps_of(None, model="deit_tiny_distilled_patch16_224", model_kwargs=small, final_size=64)
    assert maps(noise(1, 3, 96, 160))[2].shape == (1, 16, 6, 10)


def test_levels_and_batch_norms(tmp_path: Path) -> None:
    write(tmp_path / "model.safetensors", *FAMILIES["resnet"])
    pyramid = backbone(tmp_path / "model.safetensors", levels=(8, 16, 32, 64, 128), channels=8)
    found = pyramid(noise(1, 3, 128, 256))
    assert {name: tuple(map.shape[2:]) for name, map in found.items()} == {
        "0": (16, 32), "1": (8, 16), "2": (4, 8), "p6": (2, 4), "p7": (1, 2)
    }  # fmt: skip
    assert not any("norm" in name or "bn" in name for name, _ in pyramid.maps.named_parameters())
    new = backbone(None, model="test_resnet", channels=8)
    assert any("bn" in name for name, _ in new.maps.named_parameters())
    # Maps of a network that normalises inside its blocks alone are normalised first.
    assert not list(new.norms.parameters()) and list(backbone(None, model="test_vit", final_size=64).norms.parameters())


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"weights": "nothing.safetensors"}, "there is no such file"),
    ({"weights": "words.pth"}, "holds no weights"),
    ({"weights": "model.safetensors", "model": "test_vit"}, "it belongs to another model, test_resnet"),
    ({"weights": None}, "give `weights`, or `model`"),
    ({"weights": None, "model": "mixer_s16_224"}, "images of one size only"),
    ({"weights": None, "model": "vit_tiny_patch14_reg4_dinov2"}, "timm has no model"),
    ({"weights": None, "model": "test_vit", "model_kwargs": {"patch_size": 14}, "final_size": 56}, "patches of 14"),
    ({"weights": None, "model": "test_convnext", "levels": (2, 4)}, "no map at stride 2: it has them at 4, 8, 16, 32"),
    ({"weights": None, "model": "test_resnet", "levels": (4, 8, 32)}, "choose strides that double"),
]


@pytest.mark.parametrize(("options", "said"), REFUSED)
def test_what_cannot_be_is_refused_in_one_line(
    options: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("words.pth").write_text("no weights")
    if options["weights"] == "model.safetensors":
        write(Path("model.safetensors"), *FAMILIES["resnet"])
    with pytest.raises(InputError) as refusal:
        backbone(**options)
    assert said in str(refusal.value) and "\n" not in str(refusal.value)


def test_images_of_odd_sizes_are_refused() -> None:
    with pytest.raises(InputError, match="resize or pad them to multiples of 32"):
        feature_maps_of(None, model="test_resnet")(torch.zeros(1, 3, 40, 64))
