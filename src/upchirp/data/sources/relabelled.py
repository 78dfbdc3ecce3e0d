"""Sources under other labels, or under none."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from upchirp.data.images.decoding import Picture
from upchirp.data.sources.source import Source
from upchirp.errors import InputError


class _Renaming:
    """The images of another source, known as there."""

    def __init__(self, source: Source) -> None:
        self.whole = source
        """The images under their own labels."""

    def __len__(self) -> int:
        """The number of images."""
        return len(self.whole)

    def describe(self, index: int) -> str:
        """What the source says of the image."""
        return self.whole.describe(index)


class RelabelledSource(_Renaming):
    """The images of a source, their labels counted as a model counts its classes.

    Args:
        source: the images.
        labels: for each label of the source the one to give instead.
        classes: names of the classes under the new labels.

    >>> from upchirp.data.sources.generated import GeneratedSource
    >>> source = GeneratedSource("val", num_images=4, num_classes=2)
    >>> turned = RelabelledSource(source, (1, 0), source.classes[::-1])
    >>> [source.load(index)[1] for index in range(4)], [turned.load(index)[1] for index in range(4)]
    ([0, 1, 0, 1], [1, 0, 1, 0])
    """

    def __init__(self, source: Source, labels: Sequence[int], classes: Sequence[str]) -> None:
        super().__init__(source)
        self.new_labels = tuple(labels)
        """For each label of theirs the one to give instead."""
        self.classes = tuple(classes)

    def load(self, index: int) -> tuple[Picture, int]:
        """The image, not decoded yet, and its new label.

        Raises:
            OSError: the image cannot be read.
            InputError: the source has more labels than classes.
        """
        picture, label = self.whole.load(index)
        if not 0 <= label < len(self.new_labels):
            raise InputError(
                f"{self.describe(index)} has label {label}: labels count the {len(self.new_labels)} classes from 0"
            )
        return picture, self.new_labels[label]


class UnlabelledSource(_Renaming):
    """The images of a source, each with the label 0 and without classes.

    Args:
        source: the images.

    >>> from upchirp.data.sources.generated import GeneratedSource
    >>> images = UnlabelledSource(GeneratedSource("val", num_images=4, num_classes=2))
    >>> images.classes, [images.load(index)[1] for index in range(4)]
    ((), [0, 0, 0, 0])
    """

    classes: tuple[str, ...] = ()

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Zeros, (images,)."""
        return np.zeros(len(self), np.int64)

    def load(self, index: int) -> tuple[Picture, int]:
        """The image, not decoded yet, and 0.

        Raises:
            OSError: the image cannot be read.
        """
        return self.whole.load(index)[0], 0
