"""Data sets of the Hugging Face library `datasets`, from the local disk; needs the extra `upchirp[hf]`."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from upchirp.data.images.decoding import Picture, open_picture
from upchirp.data.label_sets import LabelSets
from upchirp.data.sources.hugging_face_columns import image_column, inner, label_column, library
from upchirp.data.sources.hugging_face_labels import ReadLabels, read_labels
from upchirp.errors import InputError


class HuggingFaceSource:
    """One split of a Hugging Face data set: a column of images with a column of labels.

    The images must be encoded files (JPEG, PNG, ...), as the `datasets` feature `Image` stores them; they are
    handed over as they are and never decoded by `datasets`. Its formats and transforms are passed over: the loader
    augments. Rows keep the order of the data set, also after its `shuffle`, `select` or `filter`.

    Images are read straight from the Arrow table, which `datasets` maps into memory, so that loader workers share
    it: a row of 4 KB takes 4 us, one of 80 KB 11 us, where `dataset[i]` takes 23 to 31 us. Only the labels are held,
    4 bytes a row, and the row numbers of a shuffled or filtered data set, 8 bytes a row.

    Args:
        dataset: a `datasets.Dataset`; of a `DatasetDict` take one split, such as `dataset["train"]`.
        image: the column of images. By default the one with the feature `Image`, else the one with encoded bytes
            (a struct of `bytes` and `path`, or binary values); of several the one named `image` or `img`.
        label: the column of labels. By default the one with the feature `ClassLabel` or a list of it (of several the
            one named `label`, `labels`, `fine_label` or `cls`), else the integers with one of these names, else the
            list of integers or texts with one of them or named `tags`, `classes`, `categories`, `targets` or
            `attributes`. Of lists, each image has several labels or none: numbers or names of classes, or a 0 or 1
            for each class.
        classes: names of the classes, label 0 first. By default those of the `ClassLabel` or, sorted, those in lists
            of texts, else "0", "1", ... up to the largest label.
        name: what messages call the data set.
        labelled: whether labels are needed; if not, those that are missing or hidden are 0, and there are no classes.

    Raises:
        InputError: `datasets` is not installed, `dataset` is not one split of a data set, a column is missing or
            not the only one, the data set is empty, or a label is missing or outside of the classes (hub data sets
            mark the hidden labels of a test split with -1).

    >>> from io import BytesIO
    >>> from PIL import Image
    >>> import pytest; datasets = pytest.importorskip("datasets")
    >>> buffer = BytesIO()
    >>> Image.new("RGB", (4, 3)).save(buffer, "JPEG")
    >>> columns = {"image": [{"bytes": buffer.getvalue()}] * 2, "label": [1, 0]}
    >>> features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["cat", "dog"]))
    >>> source = HuggingFaceSource(datasets.Dataset.from_dict(columns, features))
    >>> picture, label = source.load(0)
    >>> picture.size, source.classes[label]
    ((4, 3), 'dog')
    """

    classes: tuple[str, ...]

    def __init__(
        self,
        dataset: Any,
        *,
        image: str | None = None,
        label: str | None = None,
        classes: Sequence[str] = (),
        name: str = "the data set",
        labelled: bool = True,
    ) -> None:
        datasets = library()
        if not isinstance(dataset, datasets.Dataset):
            raise InputError(
                f"{name} is a {type(dataset).__name__}, not a datasets.Dataset: give one split of it, "
                "such as dataset['train'], loaded without streaming"
            )
        if not len(dataset):
            raise InputError(f"{name} has no rows: give a split with images")
        self._name = name
        image = image_column(dataset, image, name)
        if not labelled and label is None:
            with contextlib.suppress(InputError):
                label = label_column(dataset, None, name)
        else:
            label = label_column(dataset, label, name)
        # A shuffled or filtered data set is its table and a list of rows; the library has no public name for it.
        indices = dataset._indices
        self._rows: npt.NDArray[np.int64] | None = (
            None if indices is None else indices.column(0).to_numpy().astype(np.int64)
        )
        feature = dataset.features[label] if label is not None else None
        declared = isinstance(inner(feature) or feature, datasets.ClassLabel)
        self.named = bool(classes) or declared
        """Whether the names of the classes are given, rather than taken from the labels."""
        read = ReadLabels(np.zeros(len(dataset), np.int32), ())
        if label is not None:
            try:
                read = read_labels(dataset, label, self._rows, tuple(classes), f"the labels ({label}) of {name}")
            except InputError:
                # Hub data sets mark hidden labels with -1.
                if labelled:
                    raise
        self.labels, self.classes = read.labels, read.classes
        self.label_sets: LabelSets | None = read.sets
        """Which classes each label stands for; nothing where each image has one."""
        self._label = label
        # Alone, so that a pickled source carries no other columns.
        self._dataset = dataset.select_columns([image])
        self._start()

    def notes(self) -> list[str]:
        """What is to be said of its labels."""
        if self.label_sets is None:
            return []
        return [
            f"images of {self._name} have several labels, in the column {self._label}: each class is told by itself"
        ]

    def _start(self) -> None:
        self._column = self._dataset.data.column(0)
        kind = self._column.type
        self._fields = tuple(kind.field(number).name for number in range(kind.num_fields))

    def __getstate__(self) -> dict[str, Any]:
        # The library pickles a table that lies on the disk by the names of its files; pyarrow would copy it.
        return {name: value for name, value in vars(self).items() if name not in ("_column", "_fields")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    def __len__(self) -> int:
        """The number of images."""
        return len(self.labels)

    def describe(self, index: int) -> str:
        """The row, the data set and, where it is stored, the file name of an image."""
        path = self._path(index)
        return f"row {index} of {self._name}" + (f" ({path})" if path else "")

    def load(self, index: int) -> tuple[Picture, int]:
        """The image, not decoded yet, and its label.

        Raises:
            OSError: the row has no image, its file cannot be read, or it is no image.
        """
        try:
            data, label = self.encoded(index)
            return open_picture(data), label
        except OSError as error:
            raise OSError(f"{self.describe(index)}: {error}") from error

    def encoded(self, index: int) -> tuple[bytes, int]:
        """The file of the image, and its label.

        Raises:
            OSError: the row has no image, or its file cannot be read.
        """
        stored = self._stored(index)
        data = (stored["bytes"] if self._fields else stored).as_py()
        if data is None:
            path = self._path(index)
            if not path:
                raise OSError("it has neither the bytes nor the path of an image")
            data = Path(path).read_bytes()
        return data, int(self.labels[index])

    def _path(self, index: int) -> str | None:
        """The file name that is stored with an image."""
        return self._stored(index)["path"].as_py() if "path" in self._fields else None

    def _stored(self, index: int) -> Any:
        """What the table holds for an image, an Arrow scalar."""
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        return self._column[index if self._rows is None else int(self._rows[index])]
