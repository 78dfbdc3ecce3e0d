"""Images that cannot be read: named once each, and more than 1 % of them stop the work."""

import warnings
from collections.abc import Sequence

from upchirp.data.workers.requested import Corrupt
from upchirp.errors import DataFault

_WARNED = 5


class UnreadableImages(DataFault):
    """More than 1 % of the images cannot be read."""


def too_many(unreadable: int, images: int) -> bool:
    """Whether so many unreadable images stop the work: more than 1 %, and more than one.

    >>> too_many(1, 20), too_many(2, 20), too_many(10, 1000), too_many(11, 1000)
    (False, True, False, True)
    """
    return unreadable > max(1, images / 100)


class CorruptImages:
    """The training images that were replaced by others, counted once however often they are asked for.

    >>> corrupt = CorruptImages(200)
    >>> corrupt.note(Corrupt(7, "cat/7.jpg", "truncated"))
    'cannot read cat/7.jpg (truncated): replaced by another (1 so far)'
    >>> corrupt.note(Corrupt(7, "cat/7.jpg", "truncated"))
    >>> corrupt.check()

    Args:
        dataset_size: number of training images.
    """

    def __init__(self, dataset_size: int) -> None:
        self.dataset_size = dataset_size
        self._seen: dict[int, Corrupt] = {}

    def note(self, image: Corrupt) -> str | None:
        """Count an image; returns what to say of it, or nothing if it was counted before."""
        if image.index in self._seen:
            return None
        self._seen[image.index] = image
        return f"cannot read {image.name} ({image.reason}): replaced by another ({len(self._seen)} so far)"

    def check(self) -> None:
        """Raise if there are too many.

        Raises:
            UnreadableImages: it is more than 1 % of the images.
        """
        if too_many(len(self._seen), self.dataset_size):
            last = next(reversed(self._seen.values()))
            raise UnreadableImages(
                f"more than 1 % of the {self.dataset_size} training images cannot be read, the last one is "
                f"{last.name} ({last.reason}): repair or replace them"
            )


class WarnOfCorrupt:
    """For loops of one's own: warns of the first few unreadable images, and raises when there are too many.

    Args:
        dataset_size: number of training images.
    """

    def __init__(self, dataset_size: int) -> None:
        self._corrupt = CorruptImages(dataset_size)
        self._left = _WARNED

    def __call__(self, images: Sequence[Corrupt]) -> None:
        """Take note of a batch's.

        Raises:
            UnreadableImages: it is more than 1 % of the images.
        """
        for image in images:
            message = self._corrupt.note(image)
            if message and self._left:
                self._left -= 1
                # At the loop over the loader.
                warnings.warn(message + ("" if self._left else "; more of them are only counted"), stacklevel=3)
        self._corrupt.check()
