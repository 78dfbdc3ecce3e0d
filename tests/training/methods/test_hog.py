"""Histograms of oriented gradients against scikit-image's."""

from pathlib import Path

import numpy as np
import torch

from upchirp.training.methods.hog import cell_of, hog

# Made by scikit-image 0.26: each image of 16 x 24 by hog(image, orientations=9, pixels_per_cell=(8, 8),
# cells_per_block=(1, 1), block_norm="L2"). The first cell of the second image is flat.
REFERENCE = np.load(Path(__file__).with_name("hog.npz"))


def test_it_is_that_of_scikit_image() -> None:
    images = torch.from_numpy(REFERENCE["images"])[None]
    histograms = hog(images, 8)
    assert histograms.shape == (1, 2, 9, 2, 3) and histograms.dtype == torch.float32
    expected = torch.from_numpy(REFERENCE["histograms"]).permute(0, 3, 1, 2)
    torch.testing.assert_close(histograms[0], expected, atol=1e-5, rtol=0)
    assert not histograms[0, 1, :, 0, 0].any() or expected[1, :, 0, 0].any()


def test_normalising_images_changes_next_to_nothing() -> None:
    images = torch.from_numpy(REFERENCE["images"])[None].float()
    torch.testing.assert_close(hog((images / 255 - 0.4) / 0.25, 8), hog(images, 8), atol=1e-4, rtol=0)


def test_half_precision_is_computed_in_single() -> None:
    images = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert torch.equal(hog(images, 4), hog(images.float(), 4))


def test_cells_divide_patches() -> None:
    assert all(patch % cell_of(patch) == 0 and cell_of(patch) <= 8 for patch in range(1, 65))
