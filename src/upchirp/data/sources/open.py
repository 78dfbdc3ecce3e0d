"""Training and validation images from what the user names on the command line."""

import os
from pathlib import Path
from typing import Any

from upchirp.data.sources.folder import FolderSource
from upchirp.data.sources.generated import GeneratedSource
from upchirp.data.sources.hugging_face import HuggingFaceSource
from upchirp.data.sources.hugging_face_folder import is_hugging_face, open_hugging_face
from upchirp.data.sources.map_style import MapStyleSource
from upchirp.data.sources.shard_folder import has_shards, open_shards
from upchirp.data.sources.source import Source
from upchirp.errors import InputError

# By name, so that the library is not loaded for those who do not use it; a module of one's own may be named `datasets`.
_HUGGING_FACE = ("datasets.arrow_dataset", "datasets.dataset_dict", "datasets.iterable_dataset")
_LAYOUT = "expected train/CLASS/*.jpg and val/CLASS/*.jpg"


def open_data(data: str | os.PathLike[str], final_size: int = 224) -> tuple[Source, Source]:
    """The training and the validation images.

    Args:
        data: `generated`, or a folder that holds `train/CLASS/*` and `val/CLASS/*`, tar shards (see
            `open_shards`) or a local Hugging Face data set (see `open_hugging_face`).
        final_size: input side of the last stage, pixels, for generated images only: they are stored at twice that
            side, so that crops of them are real.

    Raises:
        InputError: the folder is missing or empty, a split is missing, a class folder has no images, or the
            two splits have different classes.

    >>> train, val = open_data("nowhere", 64)
    Traceback (most recent call last):
    ...
    upchirp.errors.InputError: data folder nowhere is missing: name one with train/ and val/, or 'generated'
    """
    if str(data) == "generated":
        size = max(32, 2 * final_size)
        return GeneratedSource("train", size=size), GeneratedSource("val", size=size)
    root = Path(data).expanduser()
    if not root.exists():
        raise InputError(f"data folder {root} is missing: name one with train/ and val/, or 'generated'")
    if not root.is_dir():
        raise InputError(f"{root} is a file, not a folder: {_LAYOUT} in a folder (unpack an archive first)")
    if has_shards(root):
        return open_shards(root)
    if is_hugging_face(root):
        return open_hugging_face(root)
    return _open_class_folders(root)


def as_source(data: Any) -> Source:
    """Labelled images from what a library user has at hand.

    Args:
        data: a `Source`, one split of a Hugging Face data set, or a map-style data set of `(image, label)`.

    Raises:
        InputError: it is none of these.

    >>> from PIL import Image
    >>> len(as_source([(Image.new("RGB", (4, 3)), 0)]))
    1
    """
    if isinstance(data, Source):
        return data
    if any(kind.__module__ in _HUGGING_FACE for kind in type(data).__mro__):
        return HuggingFaceSource(data)
    return MapStyleSource(data)


def _open_class_folders(root: Path) -> tuple[Source, Source]:
    missing = [f"{split}/" for split in ("train", "val") if not (root / split).is_dir()]
    if missing:
        found = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in root.iterdir())
        if not found:
            raise InputError(f"data folder {root} is empty: {_LAYOUT} in it")
        listed = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
        raise InputError(f"no {' and no '.join(missing)} in data folder {root} (found {listed}): {_LAYOUT}")
    train, val = FolderSource(root / "train"), FolderSource(root / "val")
    if train.classes != val.classes:
        sides = (
            _only_in("train", set(train.classes) - set(val.classes)),
            _only_in("val", set(val.classes) - set(train.classes)),
        )
        raise InputError(
            f"train and val in {root} have different classes: {'; '.join(filter(None, sides))}: "
            "both need the same class folders"
        )
    return train, val


def _only_in(split: str, names: set[str]) -> str:
    if not names:
        return ""
    listed = ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} only in {split} ({listed})"
