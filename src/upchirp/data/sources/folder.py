"""Images in one folder per class."""

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from upchirp.data.decoding import Picture, open_picture
from upchirp.errors import InputError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff")


class FolderSource:
    """The images of `root/CLASS/**`, in the order of torchvision's `ImageFolder`.

    Classes are the sub-folders of `root` sorted by name; label `i` is the `i`-th of them. Files count as
    images by their suffix; hidden files and folders (names that start with a dot) are passed over. Nothing is
    opened until it is loaded. All paths lie in one block of bytes, so that forked workers share it: reading
    Python objects would copy them, page by page, into every worker.

    Args:
        root: the folder that holds one folder per class.

    Raises:
        InputError: `root` is no folder, has no class folders, or a class folder has no images.

    >>> import tempfile
    >>> from PIL import Image
    >>> root = Path(tempfile.mkdtemp())
    >>> for name in ("cat", "dog"):
    ...     (root / name).mkdir()
    ...     Image.new("RGB", (4, 3)).save(root / name / "1.png")
    >>> source = FolderSource(root)
    >>> source.classes, len(source), source.load(1)[1]
    (('cat', 'dog'), 2, 1)
    """

    classes: tuple[str, ...]

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._root = Path(root)
        if not self._root.is_dir():
            raise InputError(f"image folder {self._root} is missing: give a folder that holds one folder per class")
        with os.scandir(self._root) as entries:
            names = (entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())
            self.classes = tuple(sorted(names))
        if not self.classes:
            raise InputError(f"{self._root} has no class folders: expected one folder of images per class in it")
        paths = []
        counts = []
        for name in self.classes:
            found = [os.fsencode(path) for path in _images(self._root / name)]
            paths += found
            counts.append(len(found))
        empty = [name for name, count in zip(self.classes, counts, strict=True) if count == 0]
        if empty:
            listed = ", ".join(empty[:3]) + (", ..." if len(empty) > 3 else "")
            raise InputError(
                f"{len(empty)} class folder(s) in {self._root} without images: {listed}; "
                f"add images ({' '.join(IMAGE_SUFFIXES)}) or remove the folder"
            )
        self.labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        """The label of each image: (images,)."""
        self._ends = np.cumsum([len(path) for path in paths], dtype=np.int64)
        self._paths = b"".join(paths)

    def __len__(self) -> int:
        """The number of images."""
        return len(self._ends)

    def describe(self, index: int) -> str:
        """The path of an image."""
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        start = int(self._ends[index - 1]) if index else 0
        inner = os.fsdecode(self._paths[start : int(self._ends[index])])
        # Joined as text: building a Path would take a tenth of what a small image takes to load.
        return os.sep.join((str(self._root), self.classes[self.labels[index]], inner))  # noqa: PTH118

    def fingerprint_bytes(self) -> bytes:
        """The names of the images, the same on every machine: what tells these images from others."""
        names = os.fsdecode(self._paths).replace(os.sep, "/")
        return unicodedata.normalize("NFC", names).encode("utf-8", "surrogateescape")

    def load(self, index: int) -> tuple[Picture, int]:
        """The image, not decoded yet, and its label.

        Raises:
            OSError: the file cannot be read or is no image.
        """
        data, label = self.encoded(index)
        return open_picture(data), label

    def encoded(self, index: int) -> tuple[bytes, int]:
        """The file of the image, and its label.

        Raises:
            OSError: the file cannot be read.
        """
        with open(self.describe(index), "rb", buffering=0) as stream:  # noqa: PTH123
            return stream.read(), int(self.labels[index])


def _images(folder: Path) -> Iterator[str]:
    """Paths of the images below `folder`, relative to it; sub-folders in the order of their paths."""
    for place, _, files in sorted(os.walk(folder, followlinks=True)):
        inner = Path(place).relative_to(folder)
        if any(part.startswith(".") for part in inner.parts):
            continue
        prefix = f"{inner}{os.sep}" if inner.parts else ""
        for name in sorted(files):
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith("."):
                yield prefix + name
