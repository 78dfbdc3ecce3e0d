"""A source under other labels."""

from collections.abc import Sequence

from upchirp.data.images.decoding import Picture
from upchirp.data.sources.source import Source
from upchirp.errors import InputError


class RelabelledSource:
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
        self.whole = source
        """The images under their own labels."""
        self.new_labels = tuple(labels)
        """For each label of theirs the one to give instead."""
        self.classes = tuple(classes)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.whole)

    def describe(self, index: int) -> str:
        """What the source says of the image."""
        return self.whole.describe(index)

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
