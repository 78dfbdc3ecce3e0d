"""Folders of images with a mask of classes for each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from upchirp.errors import InputError, reason_of

IGNORED = 255
"""The value of pixels that are of no class: neither trained on nor counted."""
_IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
_MASKS = (".png", ".bmp", ".tif", ".tiff")
_ONE_NUMBER = ("L", "P")


class MaskedFile(NamedTuple):
    """An image file and its mask."""

    image: Path
    mask: Path


class MaskedImages(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Images (3, H, W) with their masks, int64 (H, W), after `transform`.

    Args:
        files: the files.
        transform: takes and returns an image, uint8, and a mask, as those of `torchvision.transforms.v2` do.
    """

    def __init__(self, files: Sequence[MaskedFile], transform: Callable[..., Any]) -> None:
        self.files, self._transform = tuple(files), transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        file = self.files[index]
        with Image.open(file.image) as opened:
            image = tv_tensors.Image(functional.pil_to_tensor(opened.convert("RGB")))
        with Image.open(file.mask) as opened:
            mask = tv_tensors.Mask(functional.pil_to_tensor(opened)[0])
        image, mask = self._transform(image, mask)
        return image.as_subclass(torch.Tensor), mask.as_subclass(torch.Tensor).long()


@dataclass(frozen=True)
class MaskSplits:
    """What a folder holds."""

    train: tuple[MaskedFile, ...]
    val: tuple[MaskedFile, ...]
    num_classes: int
    """One more than the largest value of the training masks, `IGNORED` aside."""


def read_masks(data: Path) -> MaskSplits:
    """Read a folder of `images/train`, `images/val`, `masks/train` and `masks/val`, with files of the same names.

    A mask holds the number of a class at each pixel, in grey or as a palette, or `IGNORED`. All are looked at once.

    Raises:
        InputError: a folder or a mask that is missing, a mask of another size or kind, or a class that the training
            masks lack.
    """
    train, val = (_files(data, split) for split in ("train", "val"))
    known = {value for file in train for value in _values(file)}
    if not known:
        raise InputError(f"{data / 'masks/train'} marks no pixel with a class")
    for file in val:
        if unknown := sorted(_values(file) - known):
            raise InputError(f"{file.mask} marks class {unknown[0]}, which no training mask has: correct one of them")
    return MaskSplits(train, val, max(known) + 1)


def _files(data: Path, split: str) -> tuple[MaskedFile, ...]:
    images_in, masks_in = data / "images" / split, data / "masks" / split
    for folder in (images_in, masks_in):
        if not folder.is_dir():
            raise InputError(f"there is no folder {folder}: expected images/ and masks/ with train/ and val/ in each")
    masks = {path.stem: path for path in sorted(masks_in.iterdir()) if path.suffix.lower() in _MASKS}
    images = [path for path in sorted(images_in.iterdir()) if path.suffix.lower() in _IMAGES]
    if not images:
        raise InputError(f"{images_in} holds no images")
    for path in images:
        if path.stem not in masks:
            raise InputError(f"{path} has no mask: expected {masks_in / path.stem}.png")
    return tuple(MaskedFile(path, masks[path.stem]) for path in images)


def _values(file: MaskedFile) -> set[int]:
    """The classes in a mask that fits its image."""
    try:
        with Image.open(file.image) as image, Image.open(file.mask) as mask:
            if mask.size != image.size:
                own, other = (f"{width} x {height}" for width, height in (mask.size, image.size))
                raise InputError(f"{file.mask} is {own} pixels but its image is {other}: masks have the image's size")
            if mask.mode not in _ONE_NUMBER:
                raise InputError(f"{file.mask} is of kind {mask.mode}: masks hold one number, 0 to 255, at each pixel")
            counts = mask.histogram()
    except OSError as error:
        raise InputError(f"cannot read {file.mask} or its image: {reason_of(error, file.mask)}") from error
    return {value for value, count in enumerate(counts) if count and value != IGNORED}
