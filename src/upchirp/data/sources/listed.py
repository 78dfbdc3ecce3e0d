"""Images that a listing names: what folders, archives and tables of them share."""

import os
from collections.abc import Hashable

import numpy as np
import numpy.typing as npt

from upchirp.data.images.decoding import Picture, open_picture
from upchirp.data.sources.listing import Listing


class ListedSource:
    """Image files of a listing.

    Args:
        root: where the paths of the listing start, for messages and, of files on the disk, for reading.
        listing: the images.
    """

    classes: tuple[str, ...]

    def __init__(self, root: str, listing: Listing) -> None:
        self._root, self._listing = root, listing
        self.classes = listing.classes
        self.passed_over = listing.passed_over
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
            OSError: it cannot be read, or is no image.
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

    def stored(self, index: int) -> tuple[Hashable, int]:
        """What tells the image's file from all others, whatever path leads to it, and its length in bytes.

        Raises:
            OSError: the file is not there.
        """
        found = os.stat(self.describe(index))  # noqa: PTH116
        return (found.st_dev, found.st_ino), found.st_size
