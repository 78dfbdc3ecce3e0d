"""Images in tar shards, each read where it lies."""

import tarfile
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from upchirp.data.images.decoding import Picture, open_picture
from upchirp.data.images.pyramid import PyramidPicture
from upchirp.data.label_sets import LabelSets
from upchirp.data.sources.random_access import OpenFile, OwnCache
from upchirp.data.tars.index import Level, TarIndex, index_path, load_names
from upchirp.errors import InputError

_OPEN_FILES = 64


class ShardSource:
    """The images of tar shards, in the order in which they lie there.

    Nothing is unpacked: an image is one read at its offset, and of an image that is stored at several sizes only the
    version that is wanted is read. What `upchirp pack` wrote is checked as it is read (CRC-32). A process keeps up to
    64 shards open; a pickled source holds no open files.
    The order is the shards' own: `upchirp pack` shuffles, so it is not the order of the folder that was packed.

    Args:
        shards: the tar files.
        indexes: one for each of them, all with the same sizes; see `scan` and `load_index`.
        classes: names of the classes, label 0 first.
        label_sets: what labels stand for, where images have several.

    Raises:
        InputError: there are no shards, or they hold different sizes.

    >>> import io, tarfile, tempfile
    >>> from PIL import Image
    >>> from upchirp.data.tars.scan import scan
    >>> tar = Path(tempfile.mkdtemp()) / "train-0.tar"
    >>> buffer = io.BytesIO()
    >>> Image.new("RGB", (40, 30)).save(buffer, "JPEG")
    >>> with tarfile.open(tar, "w") as archive:
    ...     for name, data in (("a/0.jpg", buffer.getvalue()), ("a/0.cls", b"1")):
    ...         member = tarfile.TarInfo(name)
    ...         member.size = len(data)
    ...         archive.addfile(member, io.BytesIO(data))
    >>> source = ShardSource([tar], [scan(tar)], classes=("cat", "dog"))
    >>> picture, label = source.load(0)
    >>> picture.size, source.classes[label], source.describe(0).endswith("train-0.tar: a/0.jpg")
    ((40, 30), 'dog', True)
    """

    classes: tuple[str, ...]

    def __init__(
        self,
        shards: Sequence[Path],
        indexes: Sequence[TarIndex],
        classes: Sequence[str] = (),
        label_sets: LabelSets | None = None,
    ) -> None:
        if not shards:
            raise InputError("no shards: name at least one tar file")
        self.sizes = indexes[0].sizes
        """Shorter sides of the smaller versions, pixels."""
        if other := next(
            (path for path, index in zip(shards, indexes, strict=True) if index.sizes != self.sizes), None
        ):
            raise InputError(f"{other} and {shards[0]} hold images of different sizes: pack them with the same `sizes`")
        self.classes = tuple(classes)
        self.label_sets = label_sets
        """What labels stand for; nothing where each image has one class."""
        self._shards = tuple(str(shard) for shard in shards)
        self._ends = np.cumsum([len(index) for index in indexes], dtype=np.int64)
        self.labels = np.concatenate([index.labels for index in indexes])
        """The label of each image: (images,)."""
        self._levels = np.concatenate([index.levels for index in indexes])
        self._open = OwnCache(OpenFile, _OPEN_FILES)
        self._names = OwnCache(load_names, 1)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.labels)

    def levels(self, index: int) -> list[Level]:
        """The stored versions of an image, the original first; those of length 0 are absent."""
        return [Level(*level) for level in self._levels[index].tolist()]

    def describe(self, index: int) -> str:
        """The shard, the member and, where it is known, the name that the image had before it was packed."""
        shard, row = self._place(index)
        names = self._names(index_path(Path(shard)))
        return self._name(index, 0) + (f" (was {names[row]})" if row < len(names) else "")

    def fingerprint_bytes(self) -> bytes:
        """The lengths of the images' files: what tells these images from others."""
        return self._levels["length"][:, 0].astype("<u4").tobytes()

    def load(self, index: int) -> tuple[Picture, int]:
        """The image, not decoded yet, and its label.

        Raises:
            OSError: the shard cannot be read or the member is no image.
        """
        self._place(index)
        levels = self.levels(index)
        if levels[0].width:
            picture: Picture = PyramidPicture(levels, partial(self._read, index), partial(self._name, index))
        else:
            try:
                picture = open_picture(self._read(index, 0))
            except OSError as error:
                raise OSError(f"{self._name(index, 0)}: {error}") from error
        return picture, int(self.labels[index])

    def encoded(self, index: int) -> tuple[bytes, int]:
        """The original file as it was stored, and the label.

        Raises:
            OSError: the shard cannot be read, or the file is damaged.
        """
        self._place(index)
        return self._read(index, 0), int(self.labels[index])

    def _place(self, index: int) -> tuple[str, int]:
        """The shard of an image, and which image of it."""
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        shard = int(np.searchsorted(self._ends, index, side="right"))
        return self._shards[shard], index - (int(self._ends[shard - 1]) if shard else 0)

    def _read(self, index: int, level: int) -> bytes:
        """The bytes of a stored version."""
        offset, length, _, _, crc = self._levels[index, level].item()
        data = self._open(self._place(index)[0]).read(offset, length)
        if len(data) < length:
            raise OSError(f"the shard is cut off: {len(data)} of {length} bytes at {offset}")
        if crc and zlib.crc32(data) != crc:
            # Most damage to a JPEG decodes without complaint.
            raise OSError(f"it is damaged: the CRC-32 of its {length} bytes is not the one in the shard's index")
        return data

    def _name(self, index: int, level: int) -> str:
        """The shard and the member of a stored version."""
        shard = self._place(index)[0]
        offset = int(self._levels[index, level]["offset"])
        try:
            # Its header lies in the block before; keeping the names in memory would take more than all the rest.
            header = self._open(shard).read(offset - tarfile.BLOCKSIZE, tarfile.BLOCKSIZE)
            member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape").name
        except (OSError, tarfile.HeaderError):
            member = f"the member at byte {offset}"
        return f"{shard}: {member}"
