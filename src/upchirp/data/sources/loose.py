"""Images wherever they lie: single files, folders of any shape, lists of paths."""

import os
from collections.abc import Iterable
from pathlib import Path

from upchirp.data.images.decoding import Picture, open_picture
from upchirp.data.sources.listing import list_images
from upchirp.data.sources.tree import DiskFolder, PassedOver
from upchirp.errors import InputError


class LooseSource:
    """Image files without labels: every label is 0, and there are no classes.

    Args:
        paths: of the files.

    >>> import tempfile
    >>> from PIL import Image
    >>> path = Path(tempfile.mkdtemp()) / "a.png"
    >>> Image.new("RGB", (4, 3)).save(path)
    >>> source = LooseSource([str(path)])
    >>> len(source), source.classes, source.load(0)[0].size
    (1, (), (4, 3))
    """

    classes: tuple[str, ...] = ()

    def __init__(self, paths: Iterable[str]) -> None:
        self.paths = tuple(paths)
        """Of the images."""

    def __len__(self) -> int:
        """The number of images."""
        return len(self.paths)

    def describe(self, index: int) -> str:
        """The path of an image."""
        return self.paths[index]

    def load(self, index: int) -> tuple[Picture, int]:
        """The image, not decoded yet, and 0.

        Raises:
            OSError: the file cannot be read or is no image.
        """
        with open(self.paths[index], "rb", buffering=0) as stream:  # noqa: PTH123
            return open_picture(stream.read()), 0


def find_images(places: Iterable[str | os.PathLike[str]]) -> tuple[list[str], PassedOver]:
    """The images among some files and, at any depth, in some folders, in the order of the places; in folders by name.

    A file that is named counts as an image whatever its suffix is.

    Raises:
        InputError: no places, one that is not there, or a folder without images.
    """
    found: list[str] = []
    passed_over = PassedOver()
    named = [str(Path(place)) for place in places]
    for place in named:
        if not Path(place).exists():
            raise InputError(f"there is no file or folder {place}")
        if not Path(place).is_dir():
            found.append(place)
            continue
        listing = list_images(DiskFolder(place), loose=True)
        passed_over.add(listing.passed_over)
        found += [os.path.join(place, listing.path(index)) for index in range(len(listing))]  # noqa: PTH118
    if not found:
        raise InputError("no images are named: name files or folders")
    return found, passed_over
