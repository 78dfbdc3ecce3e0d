"""Images whose labels play no part, from whatever lies in a folder."""

import os
from contextlib import suppress
from pathlib import Path

from upchirp.data.settings import VAL_SHARE
from upchirp.data.sources.archive import ArchiveFolder
from upchirp.data.sources.cifar import is_cifar
from upchirp.data.sources.hugging_face_folder import is_hugging_face, open_hugging_face
from upchirp.data.sources.layout import SplitNames, named_folder
from upchirp.data.sources.listing import Counted, ignore
from upchirp.data.sources.open import Note, images_of, open_parted, passed_over_notes, warn
from upchirp.data.sources.relabelled import UnlabelledSource
from upchirp.data.sources.shard_folder import has_shards, open_shards
from upchirp.data.sources.source import Source
from upchirp.data.sources.subset import hold_out, split
from upchirp.data.sources.tree import DiskFolder, Folder
from upchirp.errors import InputError, some

_SPLIT_SEED = 0


def open_unlabelled(
    data: str | os.PathLike[str],
    final_size: int = 224,
    *,
    val_share: float = VAL_SHARE,
    train_split: str | None = None,
    val_split: str | None = None,
    note: Note = warn,
    counted: Counted = ignore,
) -> tuple[UnlabelledSource, UnlabelledSource]:
    """Images to train on without labels, and others to measure the loss on.

    A folder, or an archive of one, is taken with all images in it, flat, nested or in class folders; if it holds
    `train/`, with those in there, and `val/` or another of `open_data`'s names measures the loss. Of packed folders,
    shards, tables and Hugging Face data sets the training images are taken. Where no others validate a share does,
    always the same images; of classes it is the one that `open_data` would hold out.

    Args:
        data: as in `open_data`, and any folder of images.
        final_size: input side of the last stage, pixels, for generated images only.
        val_share: share of the images that measures the loss where there are no validation images.
        train_split: as in `open_data`.
        val_split: as in `open_data`.
        note: called with each line on what was chosen or passed over; by default it is a warning.
        counted: called now and then with the number of images found in a folder so far.

    Returns:
        The images without labels; those that they have are in `whole`.

    Raises:
        InputError: the folder is missing, holds no image, or is of a kind that cannot be read.
    """
    train, val, notes = _open(data, final_size, val_share, counted, SplitNames(train_split, val_split))
    if val is None:
        train, val = _held_out(train, val_share)
        notes.append(f"{data} has no validation images: {len(val):,} of {len(train) + len(val):,} images measure the "
                     "loss and are not trained on (another share by `val_share`)")  # fmt: skip
    for line in notes:
        note(line)
    return UnlabelledSource(train), UnlabelledSource(val)


def _open(
    data: str | os.PathLike[str], final_size: int, val_share: float, counted: Counted, splits: SplitNames
) -> tuple[Source, Source | None, list[str]]:
    root, notes = Path(data).expanduser(), list[str]()
    own_labels = str(data) == "generated" or is_cifar(root)
    if not own_labels and root.is_dir() and has_shards(root):
        splits.refuse(f"{root} holds shards, in")
        return *open_shards(root), notes
    if not own_labels and root.is_dir() and is_hugging_face(root, splits):
        return *open_hugging_face(root, splits, labelled=False), notes
    if not own_labels and (folder := _folder(root)) is not None:
        return _open_folder(folder, counted, splits)
    return open_parted(data, final_size, val_share, counted, splits)


def _open_folder(folder: Folder, counted: Counted, splits: SplitNames) -> tuple[Source, Source | None, list[str]]:
    # Splits may lie in the only folder of the one that is named.
    place, names = folder, folder.folders()
    while len(names) == 1 and not named_folder(place, names, splits.train_names()):
        place = place.inside(names[0])
        names = place.folders()
    if named_folder(place, names, splits.train_names()):
        folder = place
    names = folder.folders()
    for asked in filter(None, (splits.train, splits.val)):
        if named_folder(folder, names, (asked,)) is None:
            raise InputError(f"{folder} has no split {asked} (found {some([f'{name}/' for name in names])})")
    inside = named_folder(folder, names, splits.train_names())
    other = inside and named_folder(folder, names, splits.val_names())
    source = images_of(folder.inside(inside) if inside else folder, counted=counted, loose=True)
    held = images_of(folder.inside(other), counted=counted, loose=True) if other else None
    return source, held, passed_over_notes(source, held)


def _folder(root: Path) -> Folder | None:
    """The folder, or that in an archive; none if the data are of another kind, or missing."""
    if root.is_dir():
        return DiskFolder(root)
    if root.is_file() and root.suffix.lower() in (".zip", ".tar"):
        return ArchiveFolder(root)
    return None


def _held_out(source: Source, share: float) -> tuple[Source, Source]:
    with suppress(InputError):
        rest, part = hold_out(source, share)
        if abs(len(part) - share * len(source)) <= share * len(source) / 2:
            return rest, part
    # Folders of a few images each are no classes: each of them would give one, or none.
    rest, part = split(UnlabelledSource(source), share, _SPLIT_SEED)
    return rest, part
