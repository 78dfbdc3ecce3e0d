"""Folders that hold images: what counts as an image, and what lies where, on the disk or in an archive."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Protocol

from PIL import Image

from upchirp.errors import InputError

# Programs (which Pillow hands to Ghostscript), video, and what Pillow knows by name only.
_NOT_TAKEN = {"EPS", "PDF", "WMF", "MPEG", "FLI", "BUFR", "GRIB", "HDF5"}
_JUNK = {
    "@eadir", "__macosx", "thumbs.db", "desktop.ini", "#recycle", "$recycle.bin", "system volume information",
    "lost+found",
}  # fmt: skip
_SHOWN = 6


class Folder(Protocol):
    """A folder, on the disk or in an archive; what systems leave in folders for themselves is not seen."""

    def __str__(self) -> str:
        """Its path, for messages."""

    def folders(self) -> list[str]:
        """The names of the folders in it, sorted."""

    def files(self) -> list[str]:
        """The names of the files right in it, sorted."""

    def inside(self, name: str) -> "Folder":
        """A folder in it."""

    def walk(
        self, names: Sequence[str], passed_over: "PassedOver", known: frozenset[str]
    ) -> list[list[tuple[str, list[str]]]]:
        """The images below each of some folders in it: the path of each folder inside, and its images, all sorted.

        What counts as an image has one of the known suffixes.
        """


@dataclass
class PassedOver:
    """What was not taken for an image."""

    suffixes: Counter[str] = field(default_factory=Counter)
    """How many files there are of each suffix, in lower case with its dot."""
    links: list[str] = field(default_factory=list)
    """Links to folders whose images are counted elsewhere."""

    def add(self, other: "PassedOver") -> None:
        """Count another split's too."""
        self.suffixes += other.suffixes
        self.links += other.links

    def notes(self) -> list[str]:
        """Lines for the user; none if everything was taken.

        >>> PassedOver(Counter({".heic": 20, "": 1})).notes()
        ['passed over 21 files that Pillow reads no images from: 20 .heic, 1 without a suffix']
        """
        notes = []
        if self.suffixes:
            ranked = sorted(self.suffixes.items(), key=lambda item: (-item[1], item[0]))
            listed = [f"{count:,} {suffix or 'without a suffix'}" for suffix, count in ranked]
            more = ", ..." if len(listed) > _SHOWN else ""
            files = f"{self.suffixes.total():,} files" if self.suffixes.total() > 1 else "1 file"
            notes.append(f"passed over {files} that Pillow reads no images from: {', '.join(listed[:_SHOWN])}{more}")
        if self.links:
            notes.append(
                f"passed over {len(self.links)} linked folder(s) whose images are counted where they lie: "
                f"{self.links[0]}" + (", ..." if len(self.links) > 1 else "")
            )
        return notes


@cache
def image_suffixes() -> frozenset[str]:
    """The suffixes, in lower case with their dot, of the image files that the installed Pillow reads.

    >>> sorted({".jpg", ".JPG", ".gif", ".eps", ".mpg", ".txt"} & image_suffixes())
    ['.gif', '.jpg']
    """
    Image.init()
    known = Image.registered_extensions().items()
    # What is a JPEG as well is opened by the JPEG plug-in.
    readable = {*Image.OPEN, "MPO"} - _NOT_TAKEN
    return frozenset(suffix for suffix, kind in known if kind in readable)


ARRAYS = frozenset((".npy",))
"""Suffixes of arrays, which are taken for images where no others lie: beside images they are features, or masks."""


def is_junk(name: str) -> bool:
    """Whether a system put a file or folder there for itself: hidden ones, thumbnails, resource forks.

    >>> [is_junk(name) for name in ("@eaDir", "__MACOSX", "._cat.jpg", "Thumbs.db", "cat.jpg")]
    [True, True, True, True, False]
    """
    return name.startswith(".") or name.lower() in _JUNK


def annotations_in(folder: Folder) -> list[str]:
    """The files in a folder that may be annotations of its images, by their suffix."""
    return [name for name in folder.files() if suffix_of(name) == ".json"]


def is_image(name: str) -> bool:
    """Whether a file may count as an image, by its suffix."""
    return suffix_of(name) in image_suffixes() | ARRAYS


def is_table(name: str) -> bool:
    """Whether a file is read as a table of labels, by its suffix."""
    return suffix_of(name) in (".csv", ".tsv", ".txt")


def suffix_of(name: str) -> str:
    """The last suffix of a file's name in lower case with its dot, or nothing."""
    return "." + name.rpartition(".")[2].lower() if "." in name else ""


def only_images(files: Iterable[str], passed_over: PassedOver, known: frozenset[str]) -> list[str]:
    """The files with known suffixes, sorted; the others are counted."""
    images = []
    for name in files:
        suffix = suffix_of(name)
        if suffix in known:
            images.append(name)
        else:
            passed_over.suffixes[suffix] += 1
    return sorted(images)


class DiskFolder:
    """A folder on the disk. Links are followed; of a folder that is reached twice the images are counted once.

    Links to single files are all followed: subsets and classes of equal size are made of them.

    Args:
        path: of the folder.

    Raises:
        InputError: (of every method) a folder cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)

    def __str__(self) -> str:
        return self._path

    def folders(self) -> list[str]:
        """The names of the folders in it, sorted."""
        return sorted(entry.name for entry in _entries(self._path) if _is_folder(entry))

    def files(self) -> list[str]:
        """The names of the files right in it, sorted."""
        return sorted(entry.name for entry in _entries(self._path) if not _is_folder(entry))

    def inside(self, name: str) -> "DiskFolder":
        """A folder in it."""
        return DiskFolder(Path(self._path) / name)

    def walk(
        self, names: Sequence[str], passed_over: PassedOver, known: frozenset[str]
    ) -> list[list[tuple[str, list[str]]]]:
        """The images below each of some folders in it; see `Folder.walk`."""
        found: list[list[tuple[str, list[str]]]] = [[] for _ in names]
        # What lies above is reached by links only: to follow them would be to count the other classes as well.
        walk = _Walk({*_above(self._path), _key(self._path)}, passed_over, known)
        # Real folders first, so that of two ways to a folder the shorter one counts.
        links: list[tuple[int, str, str]] = []
        for number, name in enumerate(names):
            top = os.path.join(self._path, name)  # noqa: PTH118
            if Path(top).is_symlink():
                links.append((number, "", top))
            else:
                links += ((number, *link) for link in walk.take("", top, found[number]))
        while links:
            following: list[tuple[int, str, str]] = []
            for number, inner, place in links:
                walk.seen |= _above(place)
                following += ((number, *link) for link in walk.take(inner, place, found[number]))
            links = following
        return [sorted(folders) for folders in found]


class _Walk:
    """Takes the images of folders, and of a folder that is reached twice only once.

    Args:
        seen: what folders that count as reached are known by.
        passed_over: takes what is not taken.
        known: suffixes of images.
    """

    def __init__(self, seen: set[tuple[int, int]], passed_over: PassedOver, known: frozenset[str]) -> None:
        self.seen = seen
        self._passed_over = passed_over
        self._known = known

    def take(self, inner: str, place: str, found: list[tuple[str, list[str]]]) -> list[tuple[str, str]]:
        """Take the images of a folder and of the real folders in it; returns the links to folders in them."""
        links = []
        pending = [(inner, place)]
        while pending:
            inner, place = pending.pop()
            if (key := _key(place)) in self.seen:
                self._passed_over.links.append(place)
                continue
            self.seen.add(key)
            files = []
            for entry in _entries(place):
                within = f"{inner}{os.sep}{entry.name}" if inner else entry.name
                if entry.is_dir(follow_symlinks=False):
                    pending.append((within, entry.path))
                elif _is_folder(entry):
                    links.append((within, entry.path))
                elif entry.is_symlink() or entry.is_file(follow_symlinks=False):
                    files.append(entry.name)
            if images := only_images(files, self._passed_over, self._known):
                found.append((inner, images))
        return sorted(links)


def _entries(place: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(place) as entries:
            return [entry for entry in entries if not is_junk(entry.name)]
    except OSError as error:
        raise InputError(f"cannot read the folder {place}: {error.strerror or error}") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # A link that leads nowhere, or round in circles.
        return False


def _key(place: str) -> tuple[int, int]:
    """What a folder is known by, however it is reached."""
    try:
        status = os.stat(place)  # noqa: PTH116
    except OSError as error:
        raise InputError(f"cannot read the folder {place}: {error.strerror or error}") from error
    return status.st_dev, status.st_ino


def _above(place: str) -> set[tuple[int, int]]:
    """The folders that a folder lies in."""
    return {_key(str(parent)) for parent in Path(os.path.realpath(place)).parents}
