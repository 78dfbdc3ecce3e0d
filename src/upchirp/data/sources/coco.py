"""Annotations of COCO: of each image the categories of the objects in it."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from upchirp.data.label_sets import LabelSets, labels_by_name
from upchirp.data.sources.layout import TEST_NAMES, TRAIN_NAMES, USUAL, VAL_NAMES, SplitNames
from upchirp.data.sources.listing import without_images
from upchirp.data.sources.table import TableSource
from upchirp.errors import InputError, reason_of

_TRAIN = re.compile(rf"(?<![a-z])(?:{'|'.join(TRAIN_NAMES)})(?![a-z])", re.IGNORECASE)
_VAL = [name for name in VAL_NAMES if name not in TEST_NAMES]
"""A test file has no annotations."""
_ERRORS = (LookupError, TypeError, ValueError, AttributeError)


@dataclass(frozen=True)
class _Annotated:
    """The images of a file, and the names of each one's categories."""

    path: Path
    classes: tuple[str, ...]
    images: Mapping[Any, str]
    """Their paths by their ids."""
    shown: Mapping[Any, frozenset[str]]
    """The names of what is annotated, by their ids; nothing for an image without annotations."""

    def names(self) -> list[frozenset[str]]:
        """The names for each image."""
        return [self.shown.get(image, frozenset()) for image in self.images]


def is_coco(path: Path) -> bool:
    """Whether a file is read as annotations of COCO, by its suffix."""
    return path.suffix.lower() == ".json" and path.is_file()


def open_coco(path: Path, splits: SplitNames = USUAL) -> tuple[TableSource, TableSource | None, list[str]]:
    """The images of an annotation file as training images, those of the file beside it that validates, and notes.

    An image has the category of each of its annotations, crowds too, as a label; one without annotations has none.
    If each image has exactly one, as in data sets of classification in this format, that is its only label. The classes
    are the file's categories, in the order of their ids.

    Beside `instances_train2017.json` an `instances_val2017.json` validates, and beside `train/` a `valid/` with a file
    of the same name, or another of the usual names. Images lie in a folder that is called as the end of the file's
    name (`train2017`), in it or in `images/`, beside the file or one folder up, or in the file's folder.

    Args:
        path: of the file.
        splits: must be the usual ones.

    Raises:
        InputError: no annotations of COCO, images that are missing, or a category that the file, or that of the
            training images, lacks.
    """
    if asked := splits.train or splits.val:
        raise InputError(
            f"{path} has no splits to find {asked} in: call the files of both instances_train.json and "
            "instances_val.json, and leave it out"
        )
    train = _read(path)
    beside = _beside(path)
    val = None if beside is None else _read(beside)
    if not any(train.shown.values()):
        raise InputError(
            f"no image of {path} has an annotation, so that none has a label: name a file with annotations"
        )
    if val is not None and (unknown := next((name for name in val.classes if name not in train.classes), None)):
        raise InputError(f"{val.path} has the category {unknown}, which {path} lacks: give both the same categories")
    both = [train] if val is None else [train, val]
    several = any(len(names) != 1 for each in both for names in each.names())
    labels, label_sets = labels_by_name([each.names() for each in both], train.classes, several=several)
    sources = [_source(each, own, train.classes, label_sets) for each, own in zip(both, labels, strict=True)]
    return sources[0], sources[1] if len(sources) > 1 else None, _notes(train, val, several=several)


def _notes(train: _Annotated, val: _Annotated | None, *, several: bool) -> list[str]:
    """What is to be said of the labels and the validation images."""
    told = (
        f"images have several labels, those of {len(train.classes)} categories: each class is told by itself"
        if several
        else f"each image has one of {len(train.classes)} categories"
    )
    notes = [f"{train.path}: {told}"]
    if val is not None:
        notes.append(f"validation images are those of {val.path}")
    for each in [train] if val is None else [train, val]:
        if several and (empty := sum(not names for names in each.names())):
            notes.append(f"{empty:,} of {len(each.images):,} images of {each.path} have no annotation, and no label")
    occurring = frozenset().union(*train.shown.values())
    lacking = [name for name in train.classes if name not in occurring]
    return notes + without_images(lacking, len(train.classes), "training")


def read_coco(path: Path, *, outlines: bool = True) -> Mapping[str, Any]:
    """The content of an annotation file: `images`, `annotations` and `categories`.

    Args:
        path: of the file.
        outlines: whether to keep those of objects, which take most of the memory.

    Raises:
        InputError: it cannot be read, or lacks one of these, or names of its categories.
    """
    try:
        content = json.loads(path.read_bytes(), object_hook=None if outlines else _without_outline)
        if not isinstance(content, dict):
            raise ValueError("it holds no images, annotations and categories")
        if missing := {"images", "annotations", "categories"} - content.keys():
            raise ValueError(f"it has no {sorted(missing)[0]}")
        for entry in content["categories"]:
            _ = entry["id"], entry["name"]
    except (OSError, *_ERRORS) as error:
        raise InputError(f"{path} is no annotation of COCO: {reason_of(error, path)}") from error
    own: Mapping[str, Any] = content
    return own


def _without_outline(entry: dict[str, Any]) -> dict[str, Any]:
    entry.pop("segmentation", None)
    return entry


def category_of(path: Path, annotation: Mapping[str, Any], names: Mapping[Any, str]) -> str:
    """The name of an annotation's category.

    Raises:
        InputError: the file lacks it.
        LookupError: the annotation has none.
    """
    if (category := annotation["category_id"]) not in names:
        raise InputError(
            f"{path}: annotation {annotation.get('id')} is of category {category}, which its categories lack"
        )
    return names[category]


def _read(path: Path) -> _Annotated:
    content = read_coco(path, outlines=False)
    shown: dict[Any, set[str]] = {}
    try:
        names = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
        classes = tuple(names[number] for number in sorted(names))
        images = {image["id"]: str(image["file_name"]) for image in content["images"]}
        for annotation in content["annotations"]:
            if (image := annotation["image_id"]) not in images:
                raise InputError(
                    f"{path}: annotation {annotation.get('id')} is of image {image}, which its images lack"
                )
            shown.setdefault(image, set()).add(category_of(path, annotation, names))
    except InputError:
        raise
    except _ERRORS as error:
        raise InputError(f"{path} is no annotation of COCO: {error!r}") from error
    if not images:
        raise InputError(f"{path} has no images")
    for what, ids, entries in (("images", images, content["images"]), ("categories", names, content["categories"])):
        if len(ids) < len(entries):
            raise InputError(f"{path} has two {what} of one id: give each an id of its own")
    if len(set(classes)) < len(classes):
        twice = next(name for name in classes if classes.count(name) > 1)
        raise InputError(f"{path} has two categories of the name {twice}: give each a name of its own")
    return _Annotated(path, classes, images, {image: frozenset(own) for image, own in shown.items()})


def _source(
    annotated: _Annotated, labels: npt.NDArray[np.int32], classes: tuple[str, ...], label_sets: LabelSets | None
) -> TableSource:
    paths = list(annotated.images.values())
    root = _root(annotated.path, paths[0])
    # As text: a Path for each of a million images would take seconds.
    missing = [path for path in paths if not os.path.isfile(os.path.join(root, path))]  # noqa: PTH113, PTH118
    if missing:
        raise InputError(
            f"{annotated.path}: {len(missing):,} of its {len(paths):,} images are missing, the first is "
            f"{root / missing[0]}"
        )
    return TableSource(root, paths, labels, classes, label_sets)


def _root(path: Path, first: str) -> Path:
    """The folder that the images' paths start from, as that of the first one tells."""
    folder = path.resolve().parent
    called = path.stem.rpartition("_")[2]
    inside = sorted(place for place in folder.iterdir() if place.is_dir() and not place.name.startswith("."))
    above = folder.parent
    named = (place / called for place in (folder, folder / "images", above, above / "images"))
    places = (*named, folder, *inside, above / "images", above)
    if (found := next((place for place in places if os.path.isfile(place / first)), None)) is None:  # noqa: PTH113
        raise InputError(
            f"{path}: there is no image {first} in {folder} or a folder in it, nor in {called}/ or images/ of {above}: "
            "put the images there"
        )
    return found


def _beside(path: Path) -> Path | None:
    """The annotations of validation images beside those of training images, by the names of files or folders."""
    found = list(_TRAIN.finditer(path.stem))
    if found:
        start, end = found[-1].span()
        places = [path.with_stem(path.stem[:start] + name + path.stem[end:]) for name in _VAL]
    elif path.resolve().parent.name.lower() in TRAIN_NAMES:
        places = [path.resolve().parent.with_name(name) / path.name for name in _VAL]
    else:
        return None
    return next((place for place in places if place.is_file()), None)
