"""Training and validation images from what the user names on the command line."""

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import DataLoader, Dataset

from upchirp.data.label_sets import label_sets_of
from upchirp.data.settings import VAL_SHARE
from upchirp.data.sources.archive import ArchiveFolder, ArchiveSource
from upchirp.data.sources.cifar import is_cifar, open_cifar
from upchirp.data.sources.coco import is_coco, open_coco
from upchirp.data.sources.folder import FolderSource
from upchirp.data.sources.generated import GeneratedSource
from upchirp.data.sources.hugging_face import HuggingFaceSource
from upchirp.data.sources.hugging_face_folder import is_hugging_face, open_hugging_face
from upchirp.data.sources.layout import SplitNames, find_layout
from upchirp.data.sources.listed import ListedSource
from upchirp.data.sources.listing import Counted, ignore, normal, without_images
from upchirp.data.sources.map_style import MapStyleSource
from upchirp.data.sources.shard_folder import has_shards, open_shards
from upchirp.data.sources.source import Source
from upchirp.data.sources.subset import hold_out, known_labels
from upchirp.data.sources.table import open_table
from upchirp.data.sources.tree import DiskFolder, Folder, PassedOver, is_table
from upchirp.errors import InputError, some

# By name, so that the library is not loaded for those who do not use it; a module of one's own may be named `datasets`.
_HUGGING_FACE = ("datasets.arrow_dataset", "datasets.dataset_dict", "datasets.iterable_dataset")

Note = Callable[[str], None]
"""Takes a line that the user should read."""


def warn(message: str) -> None:
    """Pass a line on as a warning to who called what calls this."""
    warnings.warn(message, stacklevel=3)


def open_data(
    data: str | os.PathLike[str],
    final_size: int = 224,
    *,
    val_share: float = VAL_SHARE,
    train_split: str | None = None,
    val_split: str | None = None,
    label_column: str | None = None,
    note: Note = warn,
    counted: Counted = ignore,
) -> tuple[Source, Source]:
    """The training and the validation images.

    Folders of images are taken as people have them: `train/CLASS/*` with `val/`, `valid/`, `validation/`, `dev/` or
    `test/` beside it, the first of these that is there; or `train/` alone, or one folder of classes, of which a share
    validates, always the same images; or the only folder in the one that is named. A zip or a plain tar of any of them
    is read where it lies. A CSV, TSV or TXT file lists paths, labels and perhaps splits (see `open_table`), a JSON file
    is one of COCO's annotations (see `open_coco`).
    CIFAR-10 and -100 are taken as the archive of their authors. The classes
    are those of the training images, and labels follow them.

    Args:
        data: `generated`, or a folder of images or an archive of one, or a table or annotations of them, or a folder of
            tar shards (see `open_shards`) or of a local Hugging Face data set (see `open_hugging_face`).
        final_size: input side of the last stage, pixels, for generated images only: they are stored at twice that
            side, so that crops of them are real.
        val_share: share of each class that validates where there are no validation images; see `hold_out`.
        train_split: name of the training images' folder, Hugging Face split or value in a table's column of splits, if
            it is not found by a usual name.
        val_split: the same for the validation images.
        label_column: the column of labels of a table or a Hugging Face data set, where its name does not tell.
        note: called with each line on what was chosen or passed over; by default it is a warning.
        counted: called now and then with the number of images found in a folder so far.

    Raises:
        InputError: the folder is missing or empty, a class folder has no images, there is one class only, or the
            validation images have classes that the training images lack.

    >>> import tempfile
    >>> from PIL import Image
    >>> photos = Path(tempfile.mkdtemp())
    >>> for name in ("train/cat/1.png", "train/dog/2.png", "val/cat/3.png", "val/dog/4.png"):
    ...     (photos / name).parent.mkdir(parents=True)
    ...     Image.new("RGB", (4, 3)).save(photos / name)
    >>> train, val = open_data(photos)
    >>> len(train), len(val), train.classes
    (2, 2, ('cat', 'dog'))
    >>> train, val = open_data("nowhere", 64)
    Traceback (most recent call last):
    ...
    upchirp.errors.InputError: data folder nowhere is missing: name a folder of images, a zip of one, or 'generated'
    """
    train, val, notes = open_parted(
        data, final_size, val_share, counted, SplitNames(train_split, val_split), label_column
    )
    # From here, where the caller's line is known.
    for line in (*notes, *_absent(val)):
        note(line)
    return train, val


def open_parted(
    data: str | os.PathLike[str],
    final_size: int,
    val_share: float,
    counted: Counted,
    splits: SplitNames,
    label_column: str | None = None,
) -> tuple[Source, Source, list[str]]:
    """`open_data` with the lines on what was chosen or passed over, and without a word on the classes."""
    train, val, _, notes = _open(data, final_size, counted, splits, label_column)
    if val is not None:
        if val_share != VAL_SHARE:
            notes.append(f"{data} has validation images: `val_share` is not used")
        return train, val, notes
    train, val = hold_out(train, val_share)
    notes.append(
        f"{data} has no validation images: {len(val):,} of {len(train) + len(val):,} images, {val_share:g} of each "
        "class and always the same ones, validate and are not trained on (another share by `val_share`)"
    )
    return train, val, notes


def open_more(
    data: str | os.PathLike[str],
    train: Source,
    *,
    label_column: str | None = None,
    note: Note = warn,
    counted: Counted = ignore,
) -> Source:
    """The training images of further data, or all of its images where it has no validation images of its own.

    Args:
        data: as in `open_data`.
        train: the images that they are to be trained on with, whose classes they have.
        label_column: as in `open_data`.
        note: as in `open_data`.
        counted: as in `open_data`.

    Raises:
        InputError: as `open_data` raises it, or for other classes.
    """
    more, _, _, notes = _open(data, 224, counted, SplitNames(None, None), label_column)
    for line in notes:
        note(line)
    if list(map(normal, train.classes)) != list(map(normal, more.classes)):
        raise InputError(
            f"{data} has {len(more.classes)} classes ({some(more.classes)}), which are not the {len(train.classes)} of "
            f"the data that it is added to ({some(train.classes)})"
        )
    return more


def open_evaluation(
    data: str | os.PathLike[str],
    final_size: int = 224,
    *,
    val_share: float | None = None,
    held_out: Callable[[Source], float | None] | None = None,
    train_split: str | None = None,
    val_split: str | None = None,
    label_column: str | None = None,
    note: Note = warn,
    counted: Counted = ignore,
) -> Source:
    """The images to evaluate on: the validation images, or all images of one folder of classes.

    Args:
        data: as in `open_data`.
        final_size: as in `open_data`.
        val_share: of one folder of classes take only what `open_data` would hold out; a line says where it is not used.
        held_out: asked for the same with all images where `val_share` is not given: what a training on them held out,
            or None.
        train_split: as in `open_data`.
        val_split: as in `open_data`.
        label_column: as in `open_data`.
        note: as in `open_data`.
        counted: as in `open_data`.

    Raises:
        InputError: as `open_data` raises it.
    """
    train, val, parted, notes = _open(
        data, final_size, counted, SplitNames(train_split, val_split, alike=val_split is not None), label_column
    )
    for line in notes:
        note(line)
    if val is not None:
        for line in _absent(val):
            note(line)
        if val_share is not None:
            note(f"{data} has validation images: `val_share` is not used")
        return val
    share = held_out(train) if val_share is None and held_out is not None else val_share
    if share is None and not parted:
        note(f"{data} has no splits: all of its {len(train):,} images are evaluated")
        return train
    val = hold_out(train, VAL_SHARE if share is None else share)[1]
    note(f"{data} has no validation images: the {len(val):,} that training holds out are evaluated")
    for line in _absent(val):
        note(line)
    return val


class _Opened(NamedTuple):
    train: Source
    val: Source | None
    parted: bool
    """Whether the data are parted into splits; else they are one folder of classes."""
    notes: list[str]


def _open(
    data: str | os.PathLike[str], final_size: int, counted: Counted, splits: SplitNames, label_column: str | None
) -> _Opened:
    if not isinstance(data, str | os.PathLike):
        raise InputError(f"the data are a {type(data).__name__}: name one folder, archive or table, as text or a path")
    root, named = Path(data).expanduser(), str(data) != "generated"
    if named and not root.exists():
        raise InputError(f"data folder {root} is missing: name a folder of images, a zip of one, or 'generated'")
    if named and is_table(root.name) and not root.is_dir():
        train, val, notes = open_table(root, splits, label_column)
        return _Opened(train, val, val is not None, notes)
    if named and root.is_dir() and not (is_cifar(root) or has_shards(root)) and is_hugging_face(root, splits):
        rows, val_rows = open_hugging_face(root, splits, label=label_column)
        return _Opened(rows, val_rows, True, rows.notes())
    if label_column is not None:
        raise InputError(f"{data} has no columns, and so no column {label_column}: leave out `label_column`")
    if not named:
        splits.refuse("generated images have")
        size = max(32, 2 * final_size)
        return _Opened(GeneratedSource("train", size=size), GeneratedSource("val", size=size), True, [])
    if is_coco(root):
        train, val, notes = open_coco(root, splits)
        return _Opened(train, val, val is not None, notes)
    if is_cifar(root):
        splits.refuse(f"{root} holds")
        return _Opened(*open_cifar(root), True, [])
    if not root.is_dir():
        return _open_folders(ArchiveFolder(root), counted, splits)
    if has_shards(root):
        splits.refuse(f"{root} holds shards, in")
        train_shards, val_shards = open_shards(root)
        return _Opened(train_shards, val_shards, True, [])
    return _open_folders(DiskFolder(root), counted, splits)


def _open_folders(root: Folder, counted: Counted, splits: SplitNames) -> _Opened:
    layout = find_layout(root, splits)
    notes: list[str] = []
    if layout.place is not root and isinstance(root, DiskFolder):
        notes.append(f"the images are in {layout.place}")
    if layout.val_name not in ("val", splits.val, None):
        notes.append(f"validation images are those of {layout.val_name}/")
    train, val = images_of(layout.train, counted=counted), None
    if layout.val is not None:
        val = images_of(layout.val, train.classes, counted)
    return _Opened(train, val, layout.train_name is not None, notes + passed_over_notes(train, val))


def images_of(
    folder: Folder, classes: Sequence[str] | None = None, counted: Counted = ignore, *, loose: bool = False
) -> FolderSource | ArchiveSource:
    """The images of a folder, on the disk or in an archive; see `FolderSource` for the arguments."""
    if isinstance(folder, ArchiveFolder):
        return ArchiveSource(folder, classes, counted, loose=loose)
    return FolderSource(str(folder), classes, counted, loose=loose)


def passed_over_notes(train: ListedSource, val: ListedSource | None) -> list[str]:
    """Notes on what was not taken for an image in either split."""
    passed_over = PassedOver()
    for source in filter(None, (train, val)):
        passed_over.add(source.passed_over)
    return passed_over.notes()


def _absent(val: Source) -> list[str]:
    """A note on classes that no validation image has, as far as labels are known without opening an image.

    Where images have several labels `upchirp.data.labels.unranked` tells of them.
    """
    labels = known_labels(val)
    if labels is None or label_sets_of(val) is not None:
        return []
    present = set(np.unique(labels).tolist())
    absent = [name for number, name in enumerate(val.classes) if number not in present]
    return without_images(absent, len(val.classes), "validation")


def as_source(data: Any) -> Source:
    """Labelled images from what a library user has at hand.

    Args:
        data: a `Source`, one split of a Hugging Face data set, or a map-style data set of `(image, label)`.

    Raises:
        InputError: it is none of these.

    >>> as_source("photos")
    Traceback (most recent call last):
    ...
    upchirp.errors.InputError: the data are 'photos', a name: open them by `upchirp.open_data`, which gives two sets
    >>> from PIL import Image
    >>> len(as_source([(Image.new("RGB", (4, 3)), 0)]))
    1
    """
    if isinstance(data, Source):
        return data
    if isinstance(data, str | os.PathLike):
        name = os.fspath(data)
        raise InputError(f"the data are {name!r}, a name: open them by `upchirp.open_data`, which gives two sets")
    if isinstance(data, DataLoader):
        raise InputError("the data are a DataLoader: give its `dataset`, without transforms")
    if isinstance(data, tuple | list) and any(isinstance(each, Source | Dataset) for each in data):
        raise InputError(f"the data are a {type(data).__name__} of {len(data)} sets: give one of them")
    if any(kind.__module__ in _HUGGING_FACE for kind in type(data).__mro__):
        return HuggingFaceSource(data)
    return MapStyleSource(data)
