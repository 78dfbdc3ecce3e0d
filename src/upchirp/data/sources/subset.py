"""Parts of a source: a stratified share of its images, and the rest."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from upchirp.data.draws import split_draws
from upchirp.data.images.decoding import Picture
from upchirp.data.label_sets import LabelSets, label_sets_of
from upchirp.data.sources.source import Source
from upchirp.errors import InputError


class SubsetSource:
    """Some of the images of a source, under indices of their own.

    Args:
        source: the whole.
        indices: which images, in the order of the subset.

    >>> from upchirp.data.sources.generated import GeneratedSource
    >>> subset = SubsetSource(GeneratedSource("val", num_images=8, num_classes=4), [5, 2])
    >>> len(subset), subset.load(0)[1], subset.describe(1)
    (2, 1, 'generated val image 2 (square-stripes)')
    """

    def __init__(self, source: Source, indices: Sequence[int] | npt.NDArray[np.int64]) -> None:
        self.whole = source
        """The source that this is a part of."""
        self.indices = np.asarray(indices, dtype=np.int64)
        """Of the images in it: (images,)."""
        self.classes = source.classes

    @property
    def label_sets(self) -> LabelSets | None:
        """What labels stand for, as in the whole."""
        return label_sets_of(self.whole)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.indices)

    def describe(self, index: int) -> str:
        """What the whole says of the image."""
        return self.whole.describe(self.place(index))

    def load(self, index: int) -> tuple[Picture, int]:
        """The image, not decoded yet, and its label.

        Raises:
            OSError: the image cannot be read.
        """
        return self.whole.load(self.place(index))

    @property
    def labels(self) -> npt.NDArray[Any]:
        """The label of each image: (images,)."""
        return labels_of(self.whole)[self.indices]

    def place(self, index: int) -> int:
        """The index of an image in the whole."""
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        return int(self.indices[index])


def known_labels(source: Source) -> npt.NDArray[Any] | None:
    """The label of each image, (images,), where no image has to be opened for them."""
    if isinstance(source, SubsetSource):
        whole = known_labels(source.whole)
        return None if whole is None else whole[source.indices]
    labels: npt.NDArray[Any] | None = getattr(source, "labels", None)
    return labels


def labels_of(source: Source) -> npt.NDArray[Any]:
    """The label of each image: (images,). Every image is opened where the source does not know them by itself.

    Raises:
        OSError: an image that has to be opened cannot be.
    """
    known = getattr(source, "labels", None)
    return known if known is not None else np.array([source.load(index)[1] for index in range(len(source))])


def _strata_of(source: Source) -> npt.NDArray[Any]:
    """The group of each image that gives its share to each part: its class, of several its rarest one, (images,)."""
    labels, sets = labels_of(source), label_sets_of(source)
    return labels if sets is None else sets.rarest(labels)


def stratified(labels: npt.NDArray[Any], share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Which images belong to a random share in which every class has its share, to within one image.

    The whole share is met to within half an image; the classes whose part is cut most get the images that are left.

    Args:
        labels: (images,), integers.
        share: in [0, 1].
        seed: of the choice.

    >>> taken = stratified(np.array([0, 0, 0, 0, 1, 1]), 0.5, seed=0)
    >>> int(taken[:4].sum()), int(taken[4:].sum())
    (2, 1)
    """
    counts = np.unique(labels, return_counts=True)[1]
    exact = share * counts
    quotas = np.floor(exact).astype(np.int64)
    left = int(share * len(labels) + 0.5) - int(quotas.sum())
    quotas[np.argsort(quotas - exact, kind="stable")[:left]] += 1
    return _drawn(labels, quotas, seed)


def _drawn(labels: npt.NDArray[Any], quotas: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.bool_]:
    """Which images are drawn when each class, in ascending order, gives so many."""
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    # Images by class, inside a class at random: the first ones of each class are taken.
    order = np.lexsort((split_draws(seed, len(labels)), classes))
    starts = np.cumsum(counts) - counts
    ranks = np.arange(len(labels)) - np.repeat(starts, counts)
    taken = np.zeros(len(labels), dtype=np.bool_)
    taken[order] = ranks < np.repeat(quotas, counts)
    return taken


def split(source: Source, share: float, seed: int) -> tuple[SubsetSource, SubsetSource]:
    """The rest of a source, and a stratified random share of it, both in the order of the whole.

    >>> from upchirp.data.sources.generated import GeneratedSource
    >>> rest, part = split(GeneratedSource("val", num_images=40, num_classes=4), 0.1, seed=0)
    >>> len(rest), sorted(part.load(index)[1] for index in range(len(part)))
    (36, [0, 1, 2, 3])

    Raises:
        InputError: a share outside (0, 1), or one that leaves a part empty.
    """
    if not 0 < share < 1:
        raise InputError(f"a share of {share} of the images: it must lie between 0 and 1")
    taken = stratified(_strata_of(source), share, seed)
    if taken.all() or not taken.any():
        raise InputError(f"a share of {share} of {len(source)} images leaves a part empty: choose another")
    return SubsetSource(source, np.flatnonzero(~taken)), SubsetSource(source, np.flatnonzero(taken))


def hold_out(source: Source, share: float) -> tuple[SubsetSource, SubsetSource]:
    """The rest of a source to train on, and a share of it to validate: the same images whoever asks, and when.

    Each class gives its share, rounded, but at least one image and never its last one; an image with several labels
    counts for the rarest of them. The run's seed has no part in it.

    Args:
        source: the whole.
        share: in (0, 1).

    >>> from upchirp.data.sources.generated import GeneratedSource
    >>> train, val = hold_out(GeneratedSource("val", num_images=24, num_classes=4), 0.1)
    >>> len(train), sorted(val.load(index)[1] for index in range(len(val)))
    (20, [0, 1, 2, 3])

    Raises:
        InputError: a share outside (0, 1), or no class that has two images.
    """
    if not 0 < share < 1:
        raise InputError(f"`val_share` is {share}: it must lie between 0 and 1")
    labels = _strata_of(source)
    counts = np.unique(labels, return_counts=True)[1]
    taken = _drawn(labels, np.minimum(np.maximum(np.rint(share * counts), 1), counts - 1).astype(np.int64), seed=0)
    if not taken.any():
        raise InputError(
            f"{len(source)} images of {len(counts)} classes leave none to validate: give validation images"
        )
    return SubsetSource(source, np.flatnonzero(~taken)), SubsetSource(source, np.flatnonzero(taken))
