from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from upchirp import InputError
from upchirp.dense import IGNORED, MaskedImages, read_masks

SIZE = 8, 6


def write(root: Path, split: str, name: str, *, value: int = 1, size: tuple[int, int] = SIZE, mode: str = "L") -> Path:
    for folder in ("images", "masks"):
        (root / folder / split).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE, (255, 0, 0)).save(root / "images" / split / f"{name}.jpg")
    mask = Image.new(mode, size, value if mode != "RGB" else (value,) * 3)
    if mode == "P":
        mask.putpalette([value for index in range(256) for value in (index, 0, 255 - index)])
    if mode != "RGB":
        mask.putpixel((0, 0), IGNORED)
        mask.putpixel((1, 0), 0)
    mask.save(root / "masks" / split / f"{name}.png")
    return root / "masks" / split / f"{name}.png"


@pytest.mark.parametrize("mode", ["L", "P"])
def test_images_come_with_their_classes(mode: str, tmp_path: Path) -> None:
    write(tmp_path, "train", "a", value=3, mode=mode)
    write(tmp_path, "val", "b", value=3, mode=mode)
    splits = read_masks(tmp_path)
    assert splits.num_classes == 4
    image, mask = MaskedImages(splits.train, v2.ToDtype(torch.float32, scale=True))[0]
    assert image.shape == (3, 6, 8) and image.mean((1, 2))[0] > 0.9
    assert mask.dtype == torch.int64 and mask.unique().tolist() == [0, 3, IGNORED]
    assert mask[0, :3].tolist() == [IGNORED, 0, 3]


def other_size(root: Path) -> None:
    write(root, "train", "b", size=(6, 8))


def colours(root: Path) -> None:
    write(root, "train", "b", mode="RGB")


def lost(root: Path) -> None:
    write(root, "train", "b").unlink()


def damaged(root: Path) -> None:
    write(root, "train", "b").write_bytes(b"no picture")


def no_folder(root: Path) -> None:
    (root / "masks/val").rename(root / "masks/other")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (other_size, "b.png is 6 x 8 pixels but its image is 8 x 6: masks have the image's size"),
        (colours, "b.png is of kind RGB: masks hold one number"),
        (lost, "b.jpg has no mask: expected"),
        (damaged, "b.png or its image"),
        (no_folder, "there is no folder"),
        (lambda root: write(root, "val", "b", value=2), "b.png marks class 2, which no training mask has"),
    ],
)
def test_bad_input_is_refused_in_one_line(spoil: Callable[[Path], object], said: str, tmp_path: Path) -> None:
    write(tmp_path, "train", "a")
    write(tmp_path, "val", "a")
    spoil(tmp_path)
    with pytest.raises(InputError) as refusal:
        read_masks(tmp_path)
    assert said in str(refusal.value) and "\n" not in str(refusal.value)
