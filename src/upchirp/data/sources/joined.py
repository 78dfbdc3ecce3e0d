"""Several sources as one."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from upchirp.data.images.decoding import Picture
from upchirp.data.label_sets import LabelSets, label_sets_of
from upchirp.data.sources.relabelled import with_common_sets
from upchirp.data.sources.source import Source


class JoinedSource:
    """The images of several sources of the same classes, one source after the other.

    Args:
        sources: one or more.

    Raises:
        InputError: images of some have several labels, and those of others one each.

    >>> from upchirp.data.sources.generated import GeneratedSource
    >>> one, other = (GeneratedSource(split, num_images=4, num_classes=2) for split in ("train", "val"))
    >>> joined = JoinedSource([one, other])
    >>> len(joined), joined.describe(5) == other.describe(1), joined.load(5)[1] == other.load(1)[1]
    (8, True, True)
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self.parts = tuple(with_common_sets(sources))
        """The sources, in their order."""
        self.classes = self.parts[0].classes
        self._ends = np.cumsum([len(part) for part in self.parts])

    def __len__(self) -> int:
        """The number of images."""
        return int(self._ends[-1])

    def describe(self, index: int) -> str:
        """What its source says of the image."""
        part, inner = self._place(index)
        return part.describe(inner)

    def load(self, index: int) -> tuple[Picture, int]:
        """The image, not decoded yet, and its label.

        Raises:
            OSError: the image cannot be read.
        """
        part, inner = self._place(index)
        return part.load(inner)

    @property
    def labels(self) -> npt.NDArray[Any]:
        """The label of each image, (images,).

        Raises:
            AttributeError: a source does not know its own without opening the images.
        """
        known: list[Any] = [getattr(part, "labels", None) for part in self.parts]
        if any(labels is None for labels in known):
            raise AttributeError("not all sources know the labels of their images")
        return np.concatenate(known)

    @property
    def label_sets(self) -> LabelSets | None:
        """What labels stand for, where images have several."""
        return label_sets_of(self.parts[0])

    def _place(self, index: int) -> tuple[Source, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        number = int(np.searchsorted(self._ends, index, side="right"))
        return self.parts[number], index - (int(self._ends[number - 1]) if number else 0)
