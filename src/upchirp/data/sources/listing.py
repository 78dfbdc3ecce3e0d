"""The images of class folders: their names and labels, a few bytes each."""

import os
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from upchirp.data.sources.tree import ARRAYS, Folder, PassedOver, annotations_in, image_suffixes, only_images
from upchirp.errors import InputError, some

Counted = Callable[[int], None]
"""Takes a number of images."""


def ignore(images: int) -> None:
    """Take no notice of a number of images."""


@dataclass(frozen=True)
class Listing:
    """All images of a folder of class folders.

    The names lie in one block of bytes, so that forked workers share it: reading Python objects would copy them, page
    by page, into every worker.
    """

    classes: tuple[str, ...]
    """The names of the classes, label 0 first."""
    folders: tuple[str, ...]
    """The folder of each class; those of classes without images are never read."""
    labels: npt.NDArray[np.int32]
    """(images,)."""
    ends: npt.NDArray[np.int64]
    """Where each image's name ends in `names`: (images,)."""
    names: bytes
    """The images' paths inside their class folders, one after another."""
    passed_over: PassedOver
    """What was not taken."""

    @classmethod
    def of(
        cls,
        classes: Sequence[str],
        folders: Sequence[str],
        labels: npt.ArrayLike,
        paths: Sequence[bytes],
        passed_over: PassedOver,
    ) -> "Listing":
        """The listing of images whose paths inside their class folders are these."""
        ends = np.cumsum([len(path) for path in paths], dtype=np.int64)
        names = b"".join(paths)
        return cls(tuple(classes), tuple(folders), np.asarray(labels, np.int32), ends, names, passed_over)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.ends)

    def path(self, index: int) -> str:
        """The path of an image from the folder of class folders."""
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        start = int(self.ends[index - 1]) if index else 0
        inner = os.fsdecode(self.names[start : int(self.ends[index])])
        folder: str = self.folders[self.labels[index]]
        # Joined as text: building a Path would take a tenth of what a small image takes to load.
        return folder + os.sep + inner if folder else inner

    def fingerprint_bytes(self) -> bytes:
        """The names of the images, the same on every machine and in every archive: what tells these from others."""
        return normal(os.fsdecode(self.names).replace(os.sep, "/")).encode("utf-8", "surrogateescape")


def list_images(
    root: Folder, classes: Sequence[str] | None = None, counted: Counted = ignore, *, loose: bool = False
) -> Listing:
    """List the images of a folder of class folders, in the order of torchvision's `ImageFolder`.

    Args:
        root: the folder.
        classes: the classes that labels follow, some of which may have no images here; by default the names of the
            folders, sorted. Names are matched whatever the Unicode normal form that a system stores them in.
        counted: called after each class with the number of images found until then.
        loose: take whatever images there are: the folders that hold some are the classes, and those that lie in none
            make one without a name.

    Raises:
        InputError: there are no images, or no class folders, two of one name, some without images, or others than
            `classes`.
    """
    if loose:
        return _all_images(root, counted)
    names = root.folders()
    if not names:
        if annotations := annotations_in(root):
            raise InputError(f"{root} has no class folders, but annotations ({some(annotations)}): give them by `data`")
        raise InputError(f"{root} has no class folders: expected one folder of images per class in it")
    folders = _class_folders(root, names, classes)
    present = [label for label, name in enumerate(folders) if name in names]
    walked, passed_over = _walked(root, [folders[label] for label in present])
    paths: list[bytes] = []
    counts: list[int] = []
    for found in walked[:-1]:
        own = _paths(found)
        paths += own
        counts.append(len(own))
        counted(len(paths))
    empty = [folders[label] for label, count in zip(present, counts, strict=True) if not count]
    if empty and (classes is None or not paths):
        hint = "; ".join([*passed_over.notes(), "add images or remove the folder"])
        raise InputError(f"{len(empty)} class folder(s) in {root} without images: {some(empty)}; {hint}")
    return Listing.of(classes or names, folders, np.repeat(present, counts), paths, passed_over)


def _class_folders(root: Folder, names: Sequence[str], classes: Sequence[str] | None) -> list[str]:
    """The folder of each class, as a system stores its name; a class without images has none."""
    by_name: dict[str, str] = {}
    for name in names:
        if (other := by_name.setdefault(normal(name), name)) != name:
            raise InputError(
                f"{root} has two class folders of the same name, {name}, stored in different Unicode normal forms "
                f"({len(other)} and {len(name)} characters): put their images into one"
            )
    if classes is None:
        return list(names)
    labelled = {normal(name) for name in classes}
    if unknown := [name for key, name in by_name.items() if key not in labelled]:
        missing = [name for name in classes if normal(name) not in by_name]
        unused = f", and has none of {some(missing)}" if missing else ""
        raise InputError(
            f"{root} has {len(unknown)} class folder(s) that are no class of the training set ({some(unknown)})"
            f"{unused}: rename or remove them"
        )
    return [by_name.get(normal(name), name) for name in classes]


def _paths(found: Sequence[tuple[str, list[str]]]) -> list[bytes]:
    """The paths of the images of a class, inside its folder."""
    return [os.fsencode((inner + os.sep if inner else "") + name) for inner, files in found for name in files]


def _walked(
    root: Folder, names: Sequence[str], files: Sequence[str] = ()
) -> tuple[list[list[tuple[str, list[str]]]], PassedOver]:
    """The images in some folders, and last those among files beside them; arrays, if there are no images but those."""
    for known in (image_suffixes(), ARRAYS):
        passed_over = PassedOver()
        found = [*root.walk(names, passed_over, known), [("", only_images(files, passed_over, known))]]
        if any(images for parts in found for _, images in parts) or not ARRAYS & passed_over.suffixes.keys():
            break
    return found, passed_over


def _all_images(root: Folder, counted: Counted) -> Listing:
    names = root.folders()
    walked, passed_over = _walked(root, names, root.files())
    paths = {name: own for name, found in zip([*names, ""], walked, strict=True) if (own := _paths(found))}
    flat = [path for own in paths.values() for path in own]
    counted(len(flat))
    if not flat:
        hint = "; ".join([*passed_over.notes(), "name a folder that holds some"])
        raise InputError(f"there is no image in {root}: {hint}")
    labels = np.repeat(np.arange(len(paths)), [len(own) for own in paths.values()])
    return Listing.of([*paths], [*paths], labels, flat, passed_over)


def normal(name: str) -> str:
    r"""A name in the one normal form in which names are compared: systems store accents in two ways.

    >>> normal("Cafe\u0301") == "Caf\u00e9"
    True
    """
    return unicodedata.normalize("NFC", name)


def without_images(absent: Sequence[str], classes: int, split: str) -> list[str]:
    """A note on classes that a split has no images of, if there are any.

    >>> without_images(["cat"], 10, "validation"), without_images([], 10, "training")
    (['1 of 10 classes have no validation images: cat'], [])
    """
    return [f"{len(absent)} of {classes} classes have no {split} images: {some(absent)}"] if absent else []
