"""CIFAR-10 and CIFAR-100 as their authors hand them out: the archive for Python, or the folder in it."""

import pickle
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from upchirp.data.images.decoding import DecodedPicture, Picture
from upchirp.errors import InputError, reason_of

_ARCHIVE = re.compile(r"cifar-100?-python\.tar(\.gz)?", re.IGNORECASE)


class _Files(NamedTuple):
    """The files of a data set, and what their contents are called."""

    train: tuple[str, ...]
    test: str
    meta: str
    labels: str
    names: str

    @property
    def all(self) -> tuple[str, ...]:
        return *self.train, self.test, self.meta


_CIFAR_10 = _Files(
    ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"),
    "test_batch",
    "batches.meta",
    "labels",
    "label_names",
)
_CIFAR_100 = _Files(("train",), "test", "meta", "fine_labels", "fine_label_names")
_NAMES = {*_CIFAR_10.all, *_CIFAR_100.all}
_LARGEST_FILE = 2**28
_SIDE = 32


class CifarSource:
    """One split in memory: 3 KB an image.

    Args:
        name: of the split, for messages.
        pixels: uint8, (images, 3, 32, 32).
        labels: (images,).
        classes: the names of the classes.

    >>> source = CifarSource("test", np.zeros((2, 3, 32, 32), np.uint8), np.array([1, 0]), ("cat", "dog"))
    >>> len(source), source.load(0)[1], source.load(0)[0].size
    (2, 1, (32, 32))
    """

    def __init__(
        self, name: str, pixels: npt.NDArray[np.uint8], labels: npt.NDArray[Any], classes: tuple[str, ...]
    ) -> None:
        self.classes = classes
        self.labels: npt.NDArray[np.int32] = np.asarray(labels, dtype=np.int32)
        """The label of each image: (images,)."""
        self._name = name
        self._pixels = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))

    def __len__(self) -> int:
        """The number of images."""
        return len(self.labels)

    def describe(self, index: int) -> str:
        """Which image it is."""
        return f"image {index} of {self._name}"

    def load(self, index: int) -> tuple[Picture, int]:
        """The image and its label."""
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        return DecodedPicture(self._pixels[index]), int(self.labels[index])


def is_cifar(path: Path) -> bool:
    """Whether a path is CIFAR's archive for Python, by its name, or the folder in it.

    >>> is_cifar(Path("cifar-100-python.tar.gz")), is_cifar(Path("cats.tar.gz"))
    (True, False)
    """
    if path.is_dir():
        return any(all((path / name).is_file() for name in files.all) for files in (_CIFAR_10, _CIFAR_100))
    return _ARCHIVE.fullmatch(path.name) is not None


def open_cifar(path: Path) -> tuple[CifarSource, CifarSource]:
    """The training and the test images, which validate; of CIFAR-100 with its fine labels.

    The files are pickles. Nothing in them is executed: they may hold arrays, numbers, texts and lists only.

    Raises:
        InputError: files are missing, damaged, or hold anything else.
    """
    found = dict(_read(path))
    files = next((each for each in (_CIFAR_10, _CIFAR_100) if found.keys() >= {*each.all}), None)
    names = found[files.meta].get(files.names) if files else None
    if not files or not names:
        raise InputError(f"{path} lacks files of CIFAR (found {', '.join(sorted(found)) or 'none'}): download it again")
    classes = tuple(map(str, names))
    train, test = ([found[name] for name in own] for own in (files.train, (files.test,)))
    return (
        _source(f"train in {path}", train, files.labels, classes),
        _source(f"test in {path}", test, files.labels, classes),
    )


def _source(name: str, batches: list[Mapping[str, Any]], labels_key: str, classes: tuple[str, ...]) -> CifarSource:
    try:
        pixels = np.concatenate([np.asarray(batch["data"], np.uint8) for batch in batches])
        labels = np.concatenate([np.asarray(batch[labels_key]) for batch in batches])
        pixels = pixels.reshape(len(labels), 3, _SIDE, _SIDE)
    except (LookupError, ValueError, TypeError) as error:
        raise InputError(f"{name} is damaged ({error}): download it again") from error
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(classes):
        raise InputError(f"{name} has labels of {labels.min()} to {labels.max()}, but {len(classes)} classes")
    return CifarSource(name, pixels, labels, classes)


def _read(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The content of each file, by its name."""
    try:
        if path.is_dir():
            for file in sorted(path.iterdir()):
                if file.name in _NAMES:
                    yield file.name, _unpickled(file.read_bytes(), file)
            return
        with tarfile.open(path) as archive:
            for member in archive:
                name = member.name.rpartition("/")[2]
                if member.isfile() and name in _NAMES and member.size <= _LARGEST_FILE:
                    stream = archive.extractfile(member)
                    assert stream is not None
                    yield name, _unpickled(stream.read(), path / member.name)
    except (OSError, tarfile.TarError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {path} ({reason_of(error, path)}): download it again") from error


class _Arrays(pickle.Unpickler):
    """Reads what arrays are made of, and refuses to look up anything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module.replace("numpy._core", "numpy.core"), name) in _ALLOWED:
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


def _unpickled(data: bytes, file: Path) -> Mapping[str, Any]:
    try:
        content = _Arrays(BytesIO(data), encoding="latin1").load()
    except Exception as error:
        # A damaged pickle may raise anything.
        raise InputError(f"{file} holds no images of CIFAR ({error}): download it again") from error
    if not isinstance(content, dict):
        raise InputError(f"{file} holds no images of CIFAR: download it again")
    return content
