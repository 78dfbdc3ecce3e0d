"""Where labelled images come from: folders, a generated data set, the user's own data sets."""

from typing import Protocol, runtime_checkable

from PIL import Image

from upchirp.data.sources.folder import FolderSource
from upchirp.data.sources.generated import GeneratedSource
from upchirp.data.sources.map_style import MapStyleSource
from upchirp.data.sources.open import open_data


@runtime_checkable
class Source(Protocol):
    """Labelled images by index.

    Loader workers each use a copy, so a source can be pickled and keeps no open files.
    """

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, label 0 first; empty where they are not known."""

    def __len__(self) -> int:
        """The number of images."""

    def describe(self, index: int) -> str:
        """The path or name of an image, for messages."""

    def load(self, index: int) -> tuple[Image.Image, int]:
        """The image, perhaps not decoded yet (`size` is known), and its label.

        Raises:
            OSError: the image cannot be read.
        """


__all__ = ["FolderSource", "GeneratedSource", "MapStyleSource", "Source", "open_data"]
