"""The file of an image, as its source holds it."""

from io import BytesIO
from typing import Protocol, runtime_checkable

from upchirp.data.sources import Source, SubsetSource


@runtime_checkable
class EncodedSource(Protocol):
    """A source that gives an image's file without decoding anything."""

    def encoded(self, index: int) -> tuple[bytes, int]:
        """The bytes of the image's file, and its label.

        Raises:
            OSError: they cannot be read.
        """


def encoded(source: Source, index: int) -> tuple[bytes, int]:
    r"""The bytes of an image's file and its label, from any source.

    Sources that hold no files (a data set of one's own) give their pixels as PNG, which loses nothing.

    Args:
        source: where the image is.
        index: which one.

    Raises:
        OSError: it cannot be read.

    >>> from upchirp.data.sources import GeneratedSource
    >>> data, label = encoded(GeneratedSource("val", num_images=4, num_classes=2), 1)
    >>> data[:2], label
    (b'\xff\xd8', 1)
    """
    if isinstance(source, SubsetSource):
        return encoded(source.whole, source.place(index))
    if isinstance(source, EncodedSource):
        return source.encoded(index)
    picture, label = source.load(index)
    buffer = BytesIO()
    picture.whole().save(buffer, "PNG")
    return buffer.getvalue(), label
