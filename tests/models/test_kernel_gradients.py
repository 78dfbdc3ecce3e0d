import pytest
import torch
from torch import nn

from upchirp.models import create_model, dead_kernel_shares

CONVNEXT = {"depths": (1, 1, 1, 2), "dims": (4, 4, 4, 4), "num_classes": 2}


@pytest.mark.parametrize(
    ("size", "expected"),
    # The last stage's maps are size/32 wide. On 3 x 3 maps, 5 of a 7 x 7 kernel's rows and columns ever meet a pixel.
    [(96, [(7, 7)] * 2), (128, []), (160, [])],
)
def test_convnext_at_96(size: int, expected: list) -> None:
    model = create_model("convnext_atto", **CONVNEXT)
    found = dead_kernel_shares(model, size, 224)
    assert [dead.kernel for dead in found] == expected
    for dead in found:
        assert dead.share == pytest.approx(1 - (5 / 7) ** 2)
        assert dead.name.startswith("stages.3.blocks")


def test_smaller_maps_lose_more_and_the_worst_comes_first() -> None:
    found = dead_kernel_shares(create_model("convnext_atto", **CONVNEXT), 32, 224)
    # 1 x 1 maps in the last stage, 2 x 2 before it.
    assert found[0].share == pytest.approx(1 - (1 / 7) ** 2)
    assert [dead.share for dead in found] == sorted((dead.share for dead in found), reverse=True)


class Shortcut(nn.Module):
    """A kernel with a rim that only ever meets padding, at every size, and a scale that starts at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, stride=3)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.after = nn.Conv2d(4, 4, 3, padding=1)
        self.scale = nn.Parameter(torch.zeros(4, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.first(images)
        return (self.pool(maps) + self.scale * self.after(self.pool(maps))).flatten(1)


def test_what_is_dead_at_the_final_size_too_or_at_initialisation_only_does_not_count() -> None:
    assert dead_kernel_shares(Shortcut(), 9, 27) == []


def test_the_model_and_the_random_state_are_left_alone() -> None:
    model = create_model("convnext_atto", **CONVNEXT).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rng = torch.get_rng_state()
    dead_kernel_shares(model, 96, 224)
    assert model.training and all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), rng)


def test_frozen_and_resized_models_are_checked_too() -> None:
    vit = create_model("vit_tiny_patch16_224", depth=1, embed_dim=24, num_classes=2).requires_grad_(False)
    assert dead_kernel_shares(vit, 96, 224) == []
    assert not any(parameter.requires_grad for parameter in vit.parameters())
