"""Data sets of the Hugging Face library `datasets`, from the local disk; needs the extra `upchirp[hf]`."""

import contextlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from upchirp.data.images.decoding import Picture, open_picture
from upchirp.errors import InputError

_IMAGE_NAMES = ("image", "img")
_LABEL_NAMES = ("label", "labels", "fine_label", "cls")
# No data set has so many classes, and a list of their names would fill the memory.
_MOST_CLASSES = 10_000_000


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
        label: the column of labels. By default the one with the feature `ClassLabel` (of several the one named
            `label`, `labels`, `fine_label` or `cls`), else the integers with one of these names.
        classes: names of the classes, label 0 first. By default those of the `ClassLabel`, else "0", "1", ... up to
            the largest label.
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
        image = _image_column(dataset, image, name)
        if not labelled and label is None:
            with contextlib.suppress(InputError):
                label = _label_column(dataset, None, name)
        else:
            label = _label_column(dataset, label, name)
        # A shuffled or filtered data set is its table and a list of rows; the library has no public name for it.
        indices = dataset._indices
        self._rows: npt.NDArray[np.int64] | None = (
            None if indices is None else indices.column(0).to_numpy().astype(np.int64)
        )
        self.named = bool(classes) or (label is not None and isinstance(dataset.features[label], datasets.ClassLabel))
        """Whether the names of the classes are known, and not only their number."""
        try:
            self.labels, self.classes = self._labels(dataset, label, tuple(classes))
        except InputError:
            if labelled:
                raise
            # Hub data sets mark hidden labels with -1.
            self.labels, self.classes = np.zeros(len(dataset), np.int32), ()
        # Alone, so that a pickled source carries no other columns.
        self._dataset = dataset.select_columns([image])
        self._start()

    def _labels(
        self, dataset: Any, label: str | None, classes: tuple[str, ...]
    ) -> tuple[npt.NDArray[np.int32], tuple[str, ...]]:
        if label is None:
            return np.zeros(len(dataset), np.int32), ()
        labels = dataset.data.column(label).cast("int64").fill_null(-1).to_numpy()
        return _checked(
            labels if self._rows is None else labels[self._rows],
            classes or tuple(getattr(dataset.features[label], "names", ())),
            f"the labels ({label}) of {self._name}",
        )

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


def _image_column(dataset: Any, wanted: str | None, name: str) -> str:
    """The column of encoded images; `wanted` if it is given."""
    datasets = library()

    def is_image(feature: Any) -> bool:
        return isinstance(feature, datasets.Image)

    def is_encoded(feature: Any) -> bool:
        inner = feature.get("bytes") if isinstance(feature, dict) else feature
        return getattr(inner, "dtype", None) in ("binary", "large_binary")

    return _choose(
        dataset.features,
        wanted,
        [is_image, is_encoded],
        _IMAGE_NAMES,
        f"{name} needs one column of encoded images (the feature Image, or bytes)",
        "image",
    )


def _label_column(dataset: Any, wanted: str | None, name: str) -> str:
    """The column of labels; `wanted` if it is given."""
    datasets = library()
    integers = re.compile(r"u?int\d+")

    def is_class(feature: Any) -> bool:
        return isinstance(feature, datasets.ClassLabel)

    def is_integer(feature: Any) -> bool:
        return bool(integers.fullmatch(str(getattr(feature, "dtype", "")))) and isinstance(feature, datasets.Value)

    known = {column: feature for column, feature in dataset.features.items() if column in _LABEL_NAMES}
    features = dataset.features if wanted or any(map(is_class, dataset.features.values())) else known
    return _choose(
        features,
        wanted,
        [is_class, is_integer],
        _LABEL_NAMES,
        f"{name} needs one column of labels (the feature ClassLabel, or integers named {', '.join(_LABEL_NAMES)})",
        "label",
        listed=dataset.features,
    )


def _choose(
    features: dict[str, Any],
    wanted: str | None,
    kinds: Sequence[Callable[[Any], bool]],
    names: Sequence[str],
    need: str,
    argument: str,
    listed: dict[str, Any] | None = None,
) -> str:
    """The column of the first kind that any column is of; of several the only one with a known name."""
    columns = ", ".join(f"{column} ({_kind(feature)})" for column, feature in (listed or features).items())
    if wanted is not None:
        if wanted not in features or not any(kind(features[wanted]) for kind in kinds):
            raise InputError(f"{need}, and {wanted!r} is none: it has the columns {columns}")
        return wanted
    for kind in kinds:
        found = [column for column, feature in features.items() if kind(feature)]
        known = [column for column in found if column in names]
        for columns_found in (found, known):
            if len(columns_found) == 1:
                return columns_found[0]
        if found:
            raise InputError(
                f"{need}, and has {len(found)} ({', '.join(found)}): "
                f"name one, HuggingFaceSource(dataset, {argument}={found[0]!r})"
            )
    raise InputError(
        f"{need}: it has the columns {columns}; cast one, or name it with HuggingFaceSource(..., {argument}=...)"
    )


def _kind(feature: Any) -> str:
    """What a feature is, in a word."""
    if isinstance(feature, dict):
        return "struct"
    kind = type(feature).__name__
    return str(feature.dtype) if kind == "Value" else kind


def _checked(
    labels: npt.NDArray[np.int64], classes: tuple[str, ...], what: str
) -> tuple[npt.NDArray[np.int32], tuple[str, ...]]:
    """The labels and the names of all classes."""
    if not classes:
        largest = int(labels.max())
        if largest >= _MOST_CLASSES:
            raise InputError(f"{what} go up to {largest}: they are no class numbers, name the right column")
        classes = tuple(str(number) for number in range(largest + 1))
    outside = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if len(outside):
        row = int(outside[0])
        limits = f"0 to {len(classes) - 1}" if classes else "0 or more"
        raise InputError(
            f"{what} must be {limits}, and {len(outside)} are not or are missing (row {row} has {labels[row]}): "
            "choose a split with labels, or remove these rows"
        )
    return labels.astype(np.int32), classes


def library() -> Any:
    """The package `datasets`.

    Raises:
        InputError: it is not installed.
    """
    try:
        import datasets
    except ImportError:
        raise InputError("Hugging Face data sets need the package datasets: pip install 'upchirp[hf]'") from None
    return datasets
