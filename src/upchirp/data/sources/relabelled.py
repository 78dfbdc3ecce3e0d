"""Sources under other labels, or under none."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from upchirp.data.images.decoding import Picture
from upchirp.data.label_sets import LabelSets, label_sets_of
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
        label_sets: what the new labels stand for, where images have several.

    >>> from upchirp.data.sources.generated import GeneratedSource
    >>> source = GeneratedSource("val", num_images=4, num_classes=2)
    >>> turned = RelabelledSource(source, (1, 0), source.classes[::-1])
    >>> [source.load(index)[1] for index in range(4)], [turned.load(index)[1] for index in range(4)]
    ([0, 1, 0, 1], [1, 0, 1, 0])
    """

    def __init__(
        self, source: Source, labels: Sequence[int], classes: Sequence[str], label_sets: LabelSets | None = None
    ) -> None:
        super().__init__(source)
        self.new_labels = tuple(labels)
        """For each label of theirs the one to give instead."""
        self.classes = tuple(classes)
        self.label_sets = label_sets
        """What the new labels stand for; nothing where each image has one class."""

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """The new label of each image, (images,).

        Raises:
            AttributeError: the source does not know its own without opening the images, or has others than it may.
        """
        own = np.asarray(self.whole.labels)  # type: ignore[attr-defined]
        if len(own) and not 0 <= own.min() <= own.max() < len(self.new_labels):
            raise AttributeError("labels that count no class")
        return np.asarray(np.take(self.new_labels, own), np.int64)

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


def renumbered(source: Source, numbers: Sequence[int], classes: Sequence[str]) -> RelabelledSource:
    """The images of a source whose classes are counted otherwise, with one label or several.

    Args:
        source: the images.
        numbers: for each class of the source its new number.
        classes: names of all classes in their new order.
    """
    if (sets := label_sets_of(source)) is None:
        return RelabelledSource(source, numbers, classes)
    return RelabelledSource(source, range(len(sets)), classes, sets.renumbered(numbers, len(classes)))


def with_common_sets(sources: Sequence[Source]) -> list[Source]:
    """Sources of the same classes whose labels stand for the same: the first as it is, or with further sets.

    Raises:
        InputError: images of some have several labels, and those of others one each.
    """
    own = [sets for source in sources if (sets := label_sets_of(source)) is not None]
    if not own:
        return list(sources)
    if len(own) < len(sources):
        lone = next(source for source in sources if label_sets_of(source) is None)
        raise InputError(
            f"images of one data set have several labels and those of another one each (such as {lone.describe(0)}): "
            "give both in the same way"
        )
    if all(np.array_equal(sets.rows, own[0].rows) for sets in own):
        return list(sources)
    common, numbers = own[0], []
    for sets in own:
        common, numbers_of = common.joined(sets)
        numbers.append(numbers_of)
    return [
        RelabelledSource(source, places, source.classes, common)
        for source, places in zip(sources, numbers, strict=True)
    ]


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
