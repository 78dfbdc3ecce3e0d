"""A source whose labels nobody asks for."""

import numpy as np
import numpy.typing as npt

from upchirp.data.images.decoding import Picture
from upchirp.data.sources.source import Source


class UnlabelledSource:
    """The images of a source, each with the label 0 and without classes.

    Args:
        source: the images.

    >>> from upchirp.data.sources.generated import GeneratedSource
    >>> images = UnlabelledSource(GeneratedSource("val", num_images=4, num_classes=2))
    >>> images.classes, [images.load(index)[1] for index in range(4)]
    ((), [0, 0, 0, 0])
    """

    classes: tuple[str, ...] = ()

    def __init__(self, source: Source) -> None:
        self.whole = source
        """The images under their own labels."""

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Zeros, (images,)."""
        return np.zeros(len(self), np.int64)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.whole)

    def describe(self, index: int) -> str:
        """What the source says of the image."""
        return self.whole.describe(index)

    def load(self, index: int) -> tuple[Picture, int]:
        """The image, not decoded yet, and 0.

        Raises:
            OSError: the image cannot be read.
        """
        return self.whole.load(index)[0], 0
