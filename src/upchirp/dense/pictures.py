"""Pictures with boxes around objects, as torchvision's detectors want them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from upchirp.errors import InputError


@dataclass(frozen=True)
class Marked:
    """An object in a picture."""

    name: str
    """Its class."""
    box: tuple[float, float, float, float]
    """Corners x1, y1, x2, y2, pixels."""
    ignored: bool = False
    """A crowd (COCO) or too difficult (VOC): neither trained on nor counted."""
    outline: Any = field(default=None, repr=False)
    """COCO's `segmentation`: polygons or a run-length code."""


@dataclass(frozen=True)
class Picture:
    """An image file and what it shows."""

    path: Path
    source: Path
    """The file that says so, for messages."""
    size: tuple[int, int]
    """Width and height, pixels."""
    objects: tuple[Marked, ...]


class Pictures(Dataset[tuple[torch.Tensor, dict[str, Any]]]):
    """Pictures as torchvision's detectors and torchmetrics want them.

    An item is the image, float (3, H, W) from 0 to 1, and a dictionary: `boxes` (N, 4), `labels` (N) from 1, `iscrowd`
    (N), and with `masks` also `masks` (N, H, W).

    Args:
        pictures: the pictures.
        classes: names of the classes; the first has label 1.
        masks: whether to give masks.
        train: whether to leave out what is ignored, and to mirror half of the images.

    Raises:
        InputError: an object without an outline where masks are wanted, or what reads outlines is not installed.
    """

    def __init__(
        self, pictures: Sequence[Picture], classes: Sequence[str], *, masks: bool = False, train: bool = False
    ) -> None:
        self.pictures, self.classes = tuple(pictures), tuple(classes)
        self._masks, self._train = masks, train
        self._labels = {name: label for label, name in enumerate(classes, start=1)}
        flip = [v2.RandomHorizontalFlip()] if train else []
        if masks and find_spec("faster_coco_eval") is None:
            raise InputError("masks need more packages: pip install 'upchirp[dense]'")
        self._transform = v2.Compose([*flip, v2.ToDtype(torch.float32, scale=True), v2.ToPureTensor()])
        for picture in self.pictures if masks else ():
            if any(marked.outline is None for marked in picture.objects):
                raise InputError(f"{picture.source} has boxes without masks: choose a detector of boxes alone")

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict[str, Any]]:
        picture = self.pictures[index]
        with Image.open(picture.path) as opened:
            image = tv_tensors.Image(functional.pil_to_tensor(opened.convert("RGB")))
        size = (picture.size[1], picture.size[0])
        objects = [marked for marked in picture.objects if not (self._train and marked.ignored)]
        boxes = torch.tensor([marked.box for marked in objects], dtype=torch.float32).reshape(-1, 4)
        target: dict[str, Any] = {
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),
            "labels": torch.tensor([self._labels[marked.name] for marked in objects], dtype=torch.int64),
            "iscrowd": torch.tensor([marked.ignored for marked in objects], dtype=torch.int64),
        }
        if self._masks:
            masks = [_mask(marked.outline, size) for marked in objects]
            target["masks"] = tv_tensors.Mask(torch.stack(masks) if masks else torch.zeros(0, *size, dtype=torch.uint8))
        transformed: tuple[torch.Tensor, dict[str, Any]] = self._transform(image, target)
        return transformed


def _mask(outline: Any, size: tuple[int, int]) -> torch.Tensor:
    """A mask (H, W) of 0 and 1 from COCO's polygons or run-length code."""
    from faster_coco_eval.core import mask

    height, width = size
    decoded = mask.decode([mask.segmToRle(outline, width, height)])
    return torch.from_numpy(np.ascontiguousarray(decoded[:, :, 0]))
