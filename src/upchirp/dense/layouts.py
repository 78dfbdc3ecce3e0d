"""Folders of pictures with boxes, in the layouts of Pascal VOC and of COCO."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from PIL import Image

from upchirp.data.sources.coco import category_of, read_coco
from upchirp.dense.pictures import Marked, Picture
from upchirp.errors import InputError, reason_of

_TOLERANCE = 1.0
"""Pixels by which a box may leave its picture, as rounding and counting from 1 make it; it is clipped."""
_XML_ERRORS = (ElementTree.ParseError, AttributeError, TypeError, ValueError)
_JSON_ERRORS = (LookupError, TypeError, ValueError)


@dataclass(frozen=True)
class PictureSplits:
    """What a folder holds."""

    train: tuple[Picture, ...]
    val: tuple[Picture, ...]
    classes: tuple[str, ...]
    """In the order of their labels, the first is 1."""
    notes: tuple[str, ...] = ()
    """Lines for the user."""


def read_pictures(data: Path, *, val_share: float = 0.2) -> PictureSplits:
    """Read a folder in the layout of Pascal VOC or of COCO.

    VOC: `Annotations/*.xml`, `JPEGImages/`, and in `ImageSets/Main/` lists by name, `train.txt` or `trainval.txt`, and
    `val.txt` or `test.txt`. Without lists, `val_share` of the pictures validate, the same ones each time.
    COCO: `annotations/*train*.json` and `annotations/*val*.json`, with the images in a folder that is called as the
    end of the file's name (`train2017`), in `images/`, or beside `annotations`.

    Boxes without an area are left out, and said so.

    Args:
        data: the folder.
        val_share: share of the pictures of a folder without lists that validate.

    Raises:
        InputError: no folder, neither layout, a file that is missing or damaged, a picture of another size than its
            annotation says, a box outside its picture, or a class that the training pictures lack.
    """
    if not data.is_dir():
        raise InputError(f"{data} is no folder: unpack an archive, and give the folder of Pascal VOC or COCO in it")
    if (data / "Annotations").is_dir():
        train, val = _read_voc(data, val_share)
        classes = tuple(sorted({marked.name for picture in train for marked in picture.objects}))
    elif (data / "annotations").is_dir():
        train, val, classes = _read_coco(data / "annotations")
    else:
        raise InputError(
            f"{data} is neither Pascal VOC (Annotations/*.xml, JPEGImages/) nor COCO (annotations/*train*.json, "
            "annotations/*val*.json)"
        )
    for split, pictures in (("train", train), ("validate", val)):
        if not pictures:
            raise InputError(f"{data} has no pictures to {split} with")
    if not classes:
        raise InputError(f"{data} marks no object in its training pictures")
    for picture in val:
        for marked in picture.objects:
            if marked.name not in classes:
                raise InputError(
                    f"{picture.source} marks a {marked.name}, a class that no training picture has: "
                    f"those are {', '.join(classes)}"
                )
    empty: list[Path] = []
    checked_train, checked_val = (tuple(_checked(picture, empty) for picture in split) for split in (train, val))
    notes = [f"left out are boxes without an area: {len(empty)}, the first in {empty[0]}"] if empty else []
    return PictureSplits(checked_train, checked_val, classes, tuple(notes))


def _checked(picture: Picture, empty: list[Path]) -> Picture:
    """The picture with its boxes clipped; those without an area are left out and noted."""
    try:
        with Image.open(picture.path) as opened:
            size = opened.size
    except OSError as error:
        raise InputError(f"cannot read the picture of {picture.source}: {reason_of(error, picture.source)}") from error
    if size != picture.size:
        said, found = (f"{width} x {height}" for width, height in (picture.size, size))
        raise InputError(f"{picture.path} is {found} pixels but {picture.source} says {said}")
    width, height = size
    kept = []
    for marked in picture.objects:
        x1, y1, x2, y2 = marked.box
        if min(x1, y1) < -_TOLERANCE or x2 > width + _TOLERANCE or y2 > height + _TOLERANCE:
            shown = ", ".join(f"{value:g}" for value in marked.box)
            raise InputError(
                f"{picture.source}: the box ({shown}) of a {marked.name} leaves its picture of {width} x {height} "
                "pixels: correct it"
            )
        clipped = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
        if clipped[0] < clipped[2] and clipped[1] < clipped[3]:
            kept.append(replace(marked, box=clipped))
        else:
            empty.append(picture.source)
    return replace(picture, objects=tuple(kept))


def _read_voc(data: Path, val_share: float) -> tuple[list[Picture], list[Picture]]:
    lists = data / "ImageSets" / "Main"
    splits = [
        next((lists / f"{name}.txt" for name in names if (lists / f"{name}.txt").is_file()), None)
        for names in (("train", "trainval"), ("val", "test"))
    ]
    if None not in splits:
        train, val = ([line.split()[0] for line in path.read_text().splitlines() if line] for path in splits if path)
    else:
        names = sorted(path.stem for path in (data / "Annotations").glob("*.xml"))
        random.Random(0).shuffle(names)
        cut = round(len(names) * val_share)
        train, val = sorted(names[cut:]), sorted(names[:cut])
    return [_voc_picture(data, name) for name in train], [_voc_picture(data, name) for name in val]


def _voc_picture(data: Path, name: str) -> Picture:
    source = data / "Annotations" / f"{name}.xml"
    try:
        root = ElementTree.parse(source).getroot()
        size = int(_text(root, "size/width")), int(_text(root, "size/height"))
        objects = tuple(_voc_object(entry) for entry in root.iter("object"))
        filename = root.findtext("filename") or f"{name}.jpg"
    except OSError as error:
        raise InputError(f"cannot read {source}: {reason_of(error, source)}") from error
    except _XML_ERRORS as error:
        raise InputError(f"{source} is no annotation of Pascal VOC: {error}") from error
    # Its own name first: what a file says of another that was renamed is out of date.
    own = data / "JPEGImages" / f"{name}{Path(filename).suffix or '.jpg'}"
    return Picture(own if own.exists() else data / "JPEGImages" / filename, source, size, objects)


def _voc_object(entry: ElementTree.Element) -> Marked:
    x1, y1, x2, y2 = (float(_text(entry, f"bndbox/{edge}")) for edge in ("xmin", "ymin", "xmax", "ymax"))
    return Marked(_text(entry, "name"), (x1, y1, x2, y2), ignored=entry.findtext("difficult") == "1")


def _text(element: ElementTree.Element, path: str) -> str:
    text = element.findtext(path)
    if text is None:
        raise ValueError(f"it has no {path}")
    return text.strip()


def _read_coco(folder: Path) -> tuple[list[Picture], list[Picture], tuple[str, ...]]:
    files = [_coco_file(folder, split) for split in ("train", "val")]
    contents = [read_coco(path) for path in files]
    names = {entry["id"]: str(entry["name"]) for entry in contents[0]["categories"]}
    train, val = (list(_coco_pictures(path, content)) for path, content in zip(files, contents, strict=True))
    return train, val, tuple(names[key] for key in sorted(names))


def _coco_file(folder: Path, split: str) -> Path:
    found = sorted(folder.glob(f"*{split}*.json"))
    if instances := [path for path in found if path.name.startswith("instances")]:
        found = instances
    if len(found) != 1:
        named = ", ".join(path.name for path in found) or "none"
        raise InputError(f"{folder} should hold one file *{split}*.json: it holds {named}")
    return found[0]


def _coco_pictures(path: Path, content: Mapping[str, Any]) -> Iterator[Picture]:
    root = path.parent.parent
    split = path.stem.rpartition("_")[2]
    folder = next((root / name for name in (split, f"images/{split}", "images") if (root / name).is_dir()), root)
    names = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
    objects: dict[Any, list[Marked]] = {}
    try:
        for entry in content["annotations"]:
            name = category_of(path, entry, names)
            x, y, width, height = map(float, entry["bbox"])
            outline = entry.get("segmentation") or None
            marked = Marked(name, (x, y, x + width, y + height), bool(entry.get("iscrowd", 0)), outline)
            objects.setdefault(entry["image_id"], []).append(marked)
        for image in content["images"]:
            size = int(image["width"]), int(image["height"])
            yield Picture(folder / image["file_name"], path, size, tuple(objects.get(image["id"], ())))
    except InputError:
        raise
    except _JSON_ERRORS as error:
        raise InputError(f"{path} is no annotation of COCO: {error!r}") from error
