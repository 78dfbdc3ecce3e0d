"""The places of training and validation images in what people have: splits, or one folder of classes."""

import re
from dataclasses import dataclass
from pathlib import Path

from upchirp.data.sources.archive_index import is_archive
from upchirp.data.sources.tree import Folder, annotations_in, is_image, is_table
from upchirp.errors import InputError, some

TRAIN_NAMES = ("train", "training")
VAL_NAMES = ("val", "valid", "validation", "dev", "test", "testing")
"""What folders of validation images are called, the first that is there counts."""
TEST_NAMES = ("test", "testing")
_SPLIT_WORD = re.compile(rf"(?:^|[\W_])({'|'.join((*TRAIN_NAMES, *VAL_NAMES))})(?:$|[\W_])", re.IGNORECASE)
_LAYOUT = "expected train/CLASS/*.jpg and val/CLASS/*.jpg, or CLASS/*.jpg"


@dataclass(frozen=True)
class Layout:
    """The folders of class folders."""

    place: Folder
    """The folder that the splits lie in; the only folder in the one that was named, perhaps."""
    train: Folder
    """The training images; `place` if it is one folder of classes."""
    val: Folder | None
    """The validation images, if they are apart."""
    train_name: str | None
    """What the folder of training images is called, if it is not `place`."""
    val_name: str | None
    """What the folder of validation images is called."""


@dataclass(frozen=True)
class SplitNames:
    """What the splits are called, where they are not found by their usual names."""

    train: str | None = None
    """The training images' split."""
    val: str | None = None
    """The validation images' split."""
    alike: bool = False
    """Whether it may be that of the training images, which an evaluation may be asked for."""

    def train_names(self, usual: tuple[str, ...] = TRAIN_NAMES) -> tuple[str, ...]:
        """The names to look for, the first that is there counts."""
        return usual if self.train is None else (self.train,)

    def val_names(self, usual: tuple[str, ...] = VAL_NAMES) -> tuple[str, ...]:
        """The names to look for, the first that is there counts."""
        return usual if self.val is None else (self.val,)

    def refuse(self, data: str) -> None:
        """Raise if names are asked for of data that have splits of their own.

        Raises:
            InputError: saying so.
        """
        if self.train or self.val:
            raise InputError(f"{data} the splits train and val: leave out `train_split` and `val_split`")


USUAL = SplitNames()


def find_layout(root: Folder, splits: SplitNames = USUAL) -> Layout:
    """Find the splits, or the classes, in a folder or in the only folder that it holds.

    Raises:
        InputError: saying what was found instead.
    """
    place = root
    while True:
        names = place.folders()
        train = named_folder(place, names, splits.train_names())
        val = named_folder(place, names, splits.val_names())
        for asked, found in ((splits.train, train), (splits.val, val)):
            if asked is not None and found is None and (len(names) != 1 or train or val):
                raise InputError(f"{place} has no split {asked} (found {_found(place, names)})")
        if train or val:
            if train == val and not splits.alike:
                raise InputError(f"{train}/ in {place} cannot both train and validate: name two splits")
            return _splits(place, train, val, names, splits)
        files = place.files()
        if len(names) != 1 or any(map(is_image, files)) or _tables(files) or not place.inside(names[0]).folders():
            break
        place = place.inside(names[0])
    if asked := splits.train or splits.val:
        raise InputError(f"{place} has no split {asked} (found {_found(place, names)})")
    _check_classes(root, place, names)
    return Layout(place, place, None, None, None)


def named_folder(place: Folder, names: list[str], wanted: tuple[str, ...]) -> str | None:
    """The folder with the first of some names, whatever their case.

    Raises:
        InputError: there are two of one name.
    """
    for want in wanted:
        found = [name for name in names if name.lower() == want.lower()]
        if len(found) > 1:
            raise InputError(f"{place} has {' and '.join(found)}: keep one of them")
        if found:
            return found[0]
    return None


def _splits(place: Folder, train: str | None, val: str | None, names: list[str], asked: SplitNames) -> Layout:
    if train is None:
        raise InputError(f"no train/ in data folder {place} (found {_found(place, names)}): {_LAYOUT}")
    # The unlabelled images of a competition lie like that.
    if val and not asked.val and val.lower() in TEST_NAMES and not place.inside(val).folders():
        val = None
    return Layout(place, place.inside(train), place.inside(val) if val else None, train, val)


def _check_classes(root: Folder, place: Folder, names: list[str]) -> None:
    """Raise unless the folders of `place` may be classes."""
    files = place.files()
    if not names and not files:
        raise InputError(f"data folder {root} is empty: {_LAYOUT} in it")
    if (archives := [name for name in files if is_archive(Path(name))]) and len(names) <= 1:
        raise InputError(f"data folder {place} holds archives ({some(archives)}): give one of them by `data`")
    loose = [name for name in files if is_image(name)]
    if (tables := _tables(files)) and len(names) <= 1:
        raise InputError(f"data folder {place} holds tables ({some(tables)}): give the one with the labels by `data`")
    for folder in (place, *(place.inside(name) for name in names if name.lower() == "annotations")):
        if (found := annotations_in(folder)) and (folder is not place or len(names) <= 1):
            raise InputError(f"data folder {folder} holds annotations ({some(found)}): give one of them by `data`")
    if not names:
        what = f"{len(loose)} images, but no class folders" if loose else "neither splits nor class folders"
        raise InputError(f"data folder {place} has {what} (found {_found(place, names)}): {_LAYOUT}")
    if alike := [name for name in names if _SPLIT_WORD.search(name)]:
        raise InputError(
            f"data folder {place} has no train/, but {some(alike)}: rename the folders of training and validation "
            "images to train/ and val/"
        )
    for name in names:
        inner = place.inside(name)
        if train := named_folder(inner, inner.folders(), TRAIN_NAMES):
            raise InputError(f"data folder {place} holds {name}/{train}/: give {inner} by `data`")
    if len(names) == 1:
        raise InputError(f"data folder {place} has one class folder only ({names[0]}): {_LAYOUT}, two classes or more")


def _tables(files: list[str]) -> list[str]:
    """Those that list images, most probably; texts are more often something else."""
    return [name for name in files if is_table(name) and not name.lower().endswith(".txt")]


def _found(place: Folder, names: list[str]) -> str:
    return some([*(f"{name}/" for name in names), *place.files()])
