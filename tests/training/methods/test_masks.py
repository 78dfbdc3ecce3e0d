"""Masks follow from seeds alone, and positions are MAE's."""

import pytest
import timm
import torch

from upchirp.training.methods.masks import patch_order, positions
from upchirp.training.methods.targets import in_patches, out_of_patches, patch_targets, target_width


def test_a_mask_follows_from_its_seed_alone() -> None:
    seeds = torch.randint(-(2**62), 2**62, (64,), generator=torch.Generator().manual_seed(0))
    whole = patch_order(seeds, 36)
    assert torch.equal(whole[40:], patch_order(seeds[40:], 36))
    assert torch.equal(whole.sort(dim=1).values, torch.arange(36).expand(64, -1))
    assert len({tuple(order) for order in whole.tolist()}) == 64


def test_all_patches_are_hidden_equally_often() -> None:
    """Of consecutive seeds too, as those of an evaluation are; 4 standard deviations of a fair draw."""
    first = patch_order(torch.arange(16_000), 16)[:, :4]
    share = torch.bincount(first.flatten(), minlength=16) / 16_000
    assert (share - 0.25).abs().max() < 4 * (0.25 * 0.75 / 16_000) ** 0.5


def test_both_halves_of_a_seed_count() -> None:
    orders = patch_order(torch.tensor([5, 5 + (1 << 40), 6]), 64).tolist()
    assert orders[0] != orders[1] and orders[0] != orders[2]


def test_positions_are_those_of_the_published_code() -> None:
    """timm builds the same table, rows and columns the other way round."""
    table = timm.layers.build_sincos2d_pos_embed([3, 3], dim=24, interleave_sin_cos=False)
    ours = positions(3, 24)
    assert ours.shape == (9, 24)
    # The column's waves come first in MAE (get_2d_sincos_pos_embed: "here w goes first").
    assert torch.equal(ours[:3, :12], ours[3:6, :12]) and not torch.equal(ours[:3, 12:], ours[3:6, 12:])
    assert sorted(ours[4].tolist()) == pytest.approx(sorted(table[4].tolist()), abs=1e-6)


def test_patches_are_cut_and_put_together() -> None:
    images = torch.randn(2, 3, 24, 24)
    patches = in_patches(images, 3)
    assert torch.equal(patches[0, 4], images[0, :, 8:16, 8:16].permute(1, 2, 0).flatten())
    assert torch.equal(out_of_patches(patches, 3), images)


@pytest.mark.parametrize(("target", "patch"), [("pixels", 8), ("hog", 8), ("hog", 16), ("hog", 4)])
def test_targets_are_of_the_patches(target: str, patch: int) -> None:
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    targets = patch_targets(images, target, patch)  # type: ignore[arg-type]
    assert targets.shape == (2, (32 // patch) ** 2, target_width(target, patch))  # type: ignore[arg-type]
    # The last patch's own numbers change with it, and the first patch's do not.
    images[:, :, -patch // 2 :, -patch // 2 :] += 3 * torch.randn(2, 3, patch // 2, patch // 2)
    changed = patch_targets(images, target, patch)  # type: ignore[arg-type]
    assert torch.equal(changed[:, 0], targets[:, 0]) and not torch.equal(changed[:, -1], targets[:, -1])


def test_pixels_are_normalised_patch_by_patch() -> None:
    targets = patch_targets(5 + 3 * torch.randn(2, 3, 16, 16), "pixels", 8)
    torch.testing.assert_close(targets.mean(dim=-1), torch.zeros(2, 4), atol=1e-4, rtol=0)
    torch.testing.assert_close(targets.std(dim=-1), torch.ones(2, 4), atol=1e-4, rtol=0)
