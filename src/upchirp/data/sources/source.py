"""The protocol of a source: all that the loader asks of a data set."""

from typing import Protocol, runtime_checkable

from upchirp.data.images.decoding import Picture


@runtime_checkable
class Source(Protocol):
    """Labelled images by index.

    Loader workers each use a copy, so a source can be pickled and keeps no open files.

    Two attributes are optional and serve to tell data apart without opening an image (see `fingerprint`): `labels`,
    the label of each image, and a method `fingerprint_bytes` that returns, for instance, the names of the images.
    """

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, label 0 first; empty where they are not known."""

    def __len__(self) -> int:
        """The number of images."""

    def describe(self, index: int) -> str:
        """The path or name of an image, for messages."""

    def load(self, index: int) -> tuple[Picture, int]:
        """The image, its pixels not decoded yet, and its label.

        Raises:
            OSError: the image cannot be read.
        """
