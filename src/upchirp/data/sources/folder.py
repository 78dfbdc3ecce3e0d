"""Images in one folder per class."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from upchirp.data.images.decoding import Picture, open_picture
from upchirp.data.sources.listing import Counted, ignore, list_images
from upchirp.data.sources.tree import DiskFolder
from upchirp.errors import InputError


class FolderSource:
    """The images of `root/CLASS/**`, in the order of torchvision's `ImageFolder`.

    Classes are the sub-folders of `root` sorted by name; label `i` is the `i`-th of them. Files count as
    images by their suffix, if Pillow reads what it stands for; hidden files and folders (names that start with a dot)
    and what systems keep for themselves (`@eaDir`, `__MACOSX`, `Thumbs.db`) are passed over. Links to folders are
    followed, and what two ways lead to is counted once. Nothing is opened until it is loaded.

    Args:
        root: the folder that holds one folder per class.
        classes: the classes that labels follow, as those of the training images do for validation images; by default
            the names of the folders.
        counted: called now and then with the number of images found so far.
        loose: take images that lie right in `root` too, and folders without images: all there are, labels aside.

    Raises:
        InputError: `root` is no folder, has no class folders, a class folder has no images, or is none of `classes`.

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

    def __init__(
        self,
        root: str | os.PathLike[str],
        classes: Sequence[str] | None = None,
        counted: Counted = ignore,
        *,
        loose: bool = False,
    ) -> None:
        self._root = str(Path(root))
        if not Path(root).is_dir():
            raise InputError(f"image folder {self._root} is missing: give a folder that holds one folder per class")
        self._listing = list_images(DiskFolder(self._root), classes, counted, loose=loose)
        self.classes = self._listing.classes
        self.passed_over = self._listing.passed_over
        """Files and links that were not taken."""

    @property
    def labels(self) -> npt.NDArray[np.int32]:
        """The label of each image: (images,)."""
        return self._listing.labels

    def __len__(self) -> int:
        """The number of images."""
        return len(self._listing)

    def describe(self, index: int) -> str:
        """The path of an image."""
        return self._root + os.sep + self._listing.path(index)

    def fingerprint_bytes(self) -> bytes:
        """The names of the images, the same on every machine: what tells these images from others."""
        return self._listing.fingerprint_bytes()

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
