"""Images that cannot be read: named once each, and more than 1 % of them stop the work."""

from upchirp.data import Corrupt
from upchirp.errors import InputError


class UnreadableImages(InputError):
    """More than 1 % of the images cannot be read."""


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
        if 100 * len(self._seen) > self.dataset_size:
            last = next(reversed(self._seen.values()))
            raise UnreadableImages(
                f"more than 1 % of the {self.dataset_size} training images cannot be read, the last one is "
                f"{last.name} ({last.reason}): repair or replace them"
            )
