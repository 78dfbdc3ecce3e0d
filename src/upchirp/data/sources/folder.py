"""Images in one folder per class."""

import os
from collections.abc import Sequence
from pathlib import Path

from upchirp.data.sources.listed import ListedSource
from upchirp.data.sources.listing import Counted, ignore, list_images
from upchirp.data.sources.tree import DiskFolder
from upchirp.errors import InputError


class FolderSource(ListedSource):
    """The images of `root/CLASS/**`, in the order of torchvision's `ImageFolder`.

    Classes are the sub-folders of `root` sorted by name; label `i` is the `i`-th of them. Files count as
    images by their suffix, if Pillow reads what it stands for; hidden files and folders (names that start with a dot)
    and what systems keep for themselves (`@eaDir`, `__MACOSX`, `Thumbs.db`) are passed over. Links to folders are
    followed, and what two ways lead to is counted once. Nothing is opened until it is loaded.

    Args:
        root: the folder that holds one folder per class.
        classes: the classes that labels follow, as those of the training images do for validation images; by default
            the names of the folders.
        counted: called now and then with the number of images found so far.
        loose: take images that lie right in `root` too, and folders without images: all there are, labels aside.

    Raises:
        InputError: `root` is no folder, has no class folders, a class folder has no images, or is none of `classes`.

    >>> import tempfile
    >>> from PIL import Image
    >>> root = Path(tempfile.mkdtemp())
    >>> for name in ("cat", "dog"):
    ...     (root / name).mkdir()
    ...     Image.new("RGB", (4, 3)).save(root / name / "1.png")
    >>> source = FolderSource(root)
    >>> source.classes, len(source), source.load(1)[1]
    (('cat', 'dog'), 2, 1)
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        classes: Sequence[str] | None = None,
        counted: Counted = ignore,
        *,
        loose: bool = False,
    ) -> None:
        if not Path(root).is_dir():
            raise InputError(f"image folder {Path(root)} is missing: give a folder that holds one folder per class")
        place = str(Path(root))
        super().__init__(place, list_images(DiskFolder(place), classes, counted, loose=loose))
