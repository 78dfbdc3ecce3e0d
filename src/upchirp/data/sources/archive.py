"""Images in one folder per class, in a zip or tar archive that is read where it lies."""

import os
import struct
import zlib
from collections.abc import Hashable, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np

from upchirp.data.sources.archive_index import MOST_BYTES, ArchiveIndex, index_archive
from upchirp.data.sources.listed import ListedSource
from upchirp.data.sources.listing import Counted, ignore, list_images
from upchirp.data.sources.random_access import OpenFile, OwnCache
from upchirp.data.sources.tree import PassedOver, is_junk, only_images

# A zip repeats a file's name before its bytes, with other extra fields than in the directory.
_HEADER = struct.Struct("<4s22xHH")
_MAGIC = b"PK\x03\x04"
_USUAL_HEADER = 512

_MEMBER = np.dtype([("offset", "<i8"), ("stored", "<i8"), ("size", "<i8"), ("crc", "<u4"), ("deflated", "?")])


class ArchiveFolder:
    """An archive, or a folder in it. See `Folder`.

    Args:
        path: of the archive.
    """

    def __init__(self, path: Path) -> None:
        self.archive = path
        self.index = index_archive(path)
        self.inner = ""
        """Its path in the archive."""
        self._tree = _tree_of(self.index)

    def __str__(self) -> str:
        return str(self.archive / self.inner)

    def folders(self) -> list[str]:
        """The names of the folders in it, sorted."""
        return sorted(name for name, inside in self._tree.items() if inside is not None)

    def files(self) -> list[str]:
        """The names of the files right in it, sorted."""
        return sorted(name for name, inside in self._tree.items() if inside is None)

    def inside(self, name: str) -> "ArchiveFolder":
        """A folder in it."""
        folder = copy(self)
        folder.inner = f"{self.inner}/{name}" if self.inner else name
        folder._tree = self._tree[name]
        return folder

    def walk(
        self, names: Sequence[str], passed_over: PassedOver, known: frozenset[str]
    ) -> list[list[tuple[str, list[str]]]]:
        """The images below each of some folders in it; see `Folder.walk`."""
        return [sorted(_walk(self._tree[name], passed_over, known)) for name in names]


def _tree_of(index: ArchiveIndex) -> dict[str, Any]:
    """What lies in each folder by its name, of a file nothing; without junk, and folders of the name of a file."""
    tree: dict[str, Any] = {}
    places: dict[str, dict[str, Any] | None] = {"": tree}
    for path in index.members:
        folder, _, file = path.rpartition("/")
        if folder not in places:
            place: dict[str, Any] | None = tree
            for name in folder.split("/"):
                place = None if place is None or is_junk(name) else place.setdefault(name, {})
            places[folder] = place
        if (place := places[folder]) is not None and not is_junk(file):
            place.setdefault(file, None)
    return tree


def _walk(tree: dict[str, Any], passed_over: PassedOver, known: frozenset[str]) -> list[tuple[str, list[str]]]:
    found = []
    pending = [("", tree)]
    while pending:
        inner, place = pending.pop()
        pending += [
            (f"{inner}/{name}" if inner else name, inside) for name, inside in place.items() if inside is not None
        ]
        if images := only_images([name for name, inside in place.items() if inside is None], passed_over, known):
            found.append((inner, images))
    return found


class ArchiveSource(ListedSource):
    """The images of a folder of class folders in a zip or a plain tar archive, read where they lie.

    Classes, order and labels are those of `FolderSource` on the unpacked archive. Nothing is written to the disk. Each
    image is one read at its place, and is checked against the archive's CRC-32 if it has one, so any number of
    workers, forked or spawned, read at random.

    Args:
        folder: the archive, or the folder in it that holds one folder per class.
        classes: as in `FolderSource`.
        counted: as in `FolderSource`.
        loose: as in `FolderSource`.

    Raises:
        InputError: as `FolderSource` raises it.

    >>> import io, tempfile, zipfile
    >>> from PIL import Image
    >>> buffer = io.BytesIO()
    >>> Image.new("RGB", (4, 3)).save(buffer, "PNG")
    >>> path = Path(tempfile.mkdtemp()) / "pets.zip"
    >>> with zipfile.ZipFile(path, "w") as archive:
    ...     for name in ("cat/1.png", "dog/1.png"):
    ...         archive.writestr(name, buffer.getvalue())
    >>> source = ArchiveSource(ArchiveFolder(path))
    >>> source.classes, len(source), source.load(1)[1], source.describe(1).endswith("pets.zip/dog/1.png")
    (('cat', 'dog'), 2, 1, True)
    """

    def __init__(
        self,
        folder: ArchiveFolder,
        classes: Sequence[str] | None = None,
        counted: Counted = ignore,
        *,
        loose: bool = False,
    ) -> None:
        self._archive, self._is_zip = str(folder.archive), folder.index.is_zip
        super().__init__(str(folder), list_images(folder, classes, counted, loose=loose))
        prefix = f"{folder.inner}/" if folder.inner else ""
        paths = (self._listing.path(index).replace(os.sep, "/") for index in range(len(self)))
        self._members = np.array([tuple(folder.index.members[prefix + path]) for path in paths], dtype=_MEMBER)
        self._open = OwnCache(OpenFile, 1)

    def encoded(self, index: int) -> tuple[bytes, int]:
        """The file of the image, and its label.

        Raises:
            OSError: the archive cannot be read, or is damaged there.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        offset, stored, size, crc, deflated = self._members[index].item()
        if max(size, stored) > MOST_BYTES:
            raise OSError(f"it claims to have {size:,} bytes")
        data = self._stored(offset, stored)
        if deflated:
            try:
                # No more than it claims to have, whatever it would grow to.
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, max(size, 1))
            except zlib.error as error:
                raise OSError(f"its compressed bytes are damaged ({error})") from error
        if len(data) != size:
            raise OSError(f"the archive is cut off or damaged: {len(data)} of {size} bytes")
        if self._is_zip and zlib.crc32(data) != crc:
            raise OSError(f"it is damaged: the CRC-32 of its {size} bytes is not the one in the archive")
        return data, int(self.labels[index])

    def stored(self, index: int) -> tuple[Hashable, int]:
        """What tells the member from all others, whatever path leads to the archive, and its length in bytes.

        Raises:
            OSError: the archive is not there.
        """
        found = os.stat(self._archive)  # noqa: PTH116
        offset, _, size, _, _ = self._members[index].item()
        return (found.st_dev, found.st_ino, offset), size

    def _stored(self, offset: int, length: int) -> bytes:
        """A member's bytes as the archive holds them."""
        file = self._open(self._archive)
        if not self._is_zip:
            return file.read(offset, length)
        # In one read, as a rule: the length of the header shows only when it is read.
        data = file.read(offset, _USUAL_HEADER + length)
        if len(data) < _HEADER.size or data[:4] != _MAGIC:
            raise OSError("the archive is damaged: its directory leads to no file there")
        _, name_bytes, extra_bytes = _HEADER.unpack_from(data)
        begin = _HEADER.size + name_bytes + extra_bytes
        if begin > _USUAL_HEADER:
            return file.read(offset + begin, length)
        return data[begin : begin + length]
