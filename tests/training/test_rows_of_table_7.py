"""Each row of Table 7, made small: trained across the bandwidths by its recipe, exported, and loaded by plain timm."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.models import metaformer
from torch import nn
from torch.nn import functional

import upchirp.models  # noqa: F401  registers PVT and CSWin with timm
from upchirp.models import create_model
from upchirp.training import recipe
from upchirp.training.checkpoints.checkpoint import export_weights
from upchirp.training.engine.trainer import Trainer

SIZES = (96, 160, 224)
STEPS = 2


def convnext(*dims: int) -> dict[str, Any]:
    return {"depths": (1, 1, 1, 1), "dims": dims}


def swin(dim: int) -> dict[str, Any]:
    return {"embed_dim": dim, "depths": (1, 2, 1, 1), "num_heads": (1, 2, 2, 4)}


def pvt(depth: int) -> dict[str, Any]:
    return {"embed_dims": (8, 16, 20, 32), "depths": (1, 1, depth, 1)}


def cswin(depth: int) -> dict[str, Any]:
    return {"embed_dim": 8, "depths": (1, 1, depth, 1), "num_heads": (2, 2, 2, 4)}


ROWS: dict[str, dict[str, Any]] = {
    "resnet50": {"layers": (1, 1, 1, 1), "channels": (8, 8, 8, 8)},
    "convnext_tiny": convnext(8, 8, 8, 8),
    "convnext_small": convnext(8, 8, 8, 16),
    "convnext_base": convnext(8, 8, 16, 16),
    "deit_tiny_patch16_224": {"embed_dim": 24, "depth": 2, "num_heads": 3},
    "deit_small_patch16_224": {"embed_dim": 48, "depth": 2, "num_heads": 3},
    "pvt_tiny": pvt(1),
    "pvt_small": pvt(2),
    "pvt_medium": pvt(3),
    "pvt_large": pvt(4),
    "swin_tiny_patch4_window7_224": swin(8),
    "swin_small_patch4_window7_224": swin(12),
    "swin_base_patch4_window7_224": swin(16),
    "cswin_tiny_224": cswin(1),
    "cswin_small_224": cswin(2),
    "cswin_base_224": cswin(3),
    "caformer_s18": {},
    "caformer_s36": {},
    "caformer_m36": {},
}


@pytest.fixture(autouse=True)
def _small_caformers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Depths and widths of CAFormers are no arguments."""
    make = metaformer._create_metaformer

    def small(name: str, *, dims: tuple[int, ...], **options: Any) -> nn.Module:
        narrow = [8, 16, 32, 64 if dims[-1] == 512 else 96]
        return make(name, **{**options, "dims": narrow, "depths": [1, 1, 1, 1]})

    monkeypatch.setattr(metaformer, "_create_metaformer", small)


def test_the_rows_are_all_19() -> None:
    assert len(ROWS) == 19


@pytest.mark.parametrize("name", ROWS)
def test_row(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    kwargs = {"num_classes": 4, **ROWS[name]}
    model = create_model(name, final_size=SIZES[-1], **kwargs)
    parameters = {id(parameter) for parameter in model.parameters()}
    trainer = Trainer(optimization=recipe("auto", name).optimization)
    state = trainer.state(model, bandwidth=SIZES[-1], learning_rate=1)
    for group in state.optimizer.param_groups:
        group["lr"] = 5e-3
    labels = torch.arange(4)
    generator = torch.Generator().manual_seed(1)
    # Each class has a colour of its own, so that a few steps can learn them at any size.
    colours = 2 * torch.eye(4, 3)[:, :, None, None]
    losses = []
    for size in SIZES:
        state.fit_to(size)
        images = colours + 0.1 * torch.randn(4, 3, size, size, generator=generator)
        for _ in range(STEPS):
            loss = functional.cross_entropy(model(images), labels)
            state.optimizer.zero_grad()
            loss.backward()
            if not losses:
                assert all(parameter.grad is not None for parameter in model.parameters())
            state.optimizer.step()
            if state.ema is not None:
                state.ema.update(model)
            losses.append(loss.item())
        assert {id(p) for group in state.optimizer.param_groups for p in group["params"]} == parameters
        assert {id(parameter) for parameter in model.parameters()} == parameters
        for parameter in model.parameters():
            moments = [v for v in state.optimizer.state[parameter].values() if torch.is_tensor(v) and v.ndim]
            assert moments and all(moment.shape == parameter.shape for moment in moments)
    assert losses[-1] < 0.9 * losses[0], losses
    exported = model if state.ema is None else state.ema.module
    export_weights(exported.state_dict(), tmp_path / "model.safetensors", {})
    plain = timm.create_model(name, **kwargs)
    plain.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=True)
    images = torch.randn(2, 3, 224, 224, generator=generator)
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(images), exported.eval()(images), rtol=0, atol=0)
