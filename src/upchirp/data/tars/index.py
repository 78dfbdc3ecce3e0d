"""The index of the images in a tar shard, in a small file beside the shard."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from upchirp.errors import InputError, one_line
from upchirp.files import whole_file

FORMAT = 2
INDEX_SUFFIX = ".index.npz"

LEVEL = np.dtype([("offset", "<i8"), ("length", "<u4"), ("width", "<u4"), ("height", "<u4"), ("crc", "<u4")])


class Level(NamedTuple):
    """One stored version of an image."""

    offset: int
    """Of its first byte in the shard."""
    length: int
    """Bytes; 0 where this version was not stored."""
    width: int
    """Pixels, of the upright image; 0 where it is not known."""
    height: int
    """Pixels, of the upright image; 0 where it is not known."""
    crc: int = 0
    """CRC-32 of its bytes, as `zlib.crc32` counts it; 0 where it is not known."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, pixels."""
        return self.width, self.height


@dataclass(frozen=True)
class TarIndex:
    """The images of one shard, as columns: no Python object per image, so forked workers share it.

    >>> index = TarIndex.of([(3, [Level(512, 9000, 500, 375), Level(10240, 2000, 171, 128)])], sizes=(128,))
    >>> len(index), int(index.labels[0]), Level(*index.levels[0, 1].item()).width
    (1, 3, 171)
    """

    labels: npt.NDArray[np.int32]
    """(images,)."""
    levels: npt.NDArray[np.void]
    """(images, 1 + len(sizes)) of type `LEVEL`: the original, then the smaller versions."""
    sizes: tuple[int, ...] = ()
    """Shorter side of the smaller versions, pixels."""
    tar_bytes: int = 0
    """Size of the shard that this index describes."""
    tar_mtime_ns: int | None = None
    """When a shard of others was last changed; not recorded for shards of `upchirp pack`, which may be copied."""
    sha256: str = ""
    """Of the shard, where known."""
    left_out: tuple[tuple[str, str], ...] = ()
    """Name and reason of the images that could not be read when the shard was made."""

    def __len__(self) -> int:
        """The number of images."""
        return len(self.labels)

    @classmethod
    def of(
        cls, samples: Sequence[tuple[int, Sequence[Level]]], sizes: Sequence[int] = (), **recorded: Any
    ) -> "TarIndex":
        """The index of samples, each a label and its levels, the original first."""
        labels = np.array([label for label, _ in samples], dtype=np.int32)
        levels = np.zeros((len(samples), 1 + len(sizes)), dtype=LEVEL)
        for row, (_, stored) in enumerate(samples):
            levels[row] = [tuple(level) for level in stored]
        return cls(labels, levels, tuple(sizes), **recorded)


def index_path(tar: Path) -> Path:
    """The index file of a shard: beside it.

    >>> index_path(Path("train/000000.tar")).name
    '000000.tar.index.npz'
    """
    return tar.with_name(tar.name + INDEX_SUFFIX)


def save_index(index: TarIndex, path: Path, names: Sequence[str] = ()) -> None:
    """Write an index, whole or not at all.

    Args:
        index: what to write.
        path: the index file.
        names: where the images came from, for messages; read only when one is asked for.

    Raises:
        OSError: it cannot be written.
    """
    recorded = {
        "format": FORMAT,
        "sizes": index.sizes,
        "tar_bytes": index.tar_bytes,
        "tar_mtime_ns": index.tar_mtime_ns,
        "sha256": index.sha256,
        "left_out": index.left_out,
    }
    with whole_file(path) as stream:
        np.savez(
            stream,
            labels=index.labels,
            levels=index.levels,
            recorded=_as_bytes(json.dumps(recorded)),
            names=_as_bytes(json.dumps(list(names))),
        )


def load_index(path: Path) -> TarIndex:
    """Read an index; nothing that it holds is run.

    Raises:
        InputError: it is damaged, or of a format that this version does not know.
        OSError: it cannot be read.
    """
    data = _bytes(path)
    try:
        with np.load(BytesIO(data), allow_pickle=False) as stored:
            recorded = json.loads(bytes(stored["recorded"]))
            if recorded["format"] > FORMAT:
                raise InputError(f"{path} has format {recorded['format']}, not {FORMAT}: use a newer upchirp")
            if recorded["format"] < FORMAT:
                raise InputError(f"{path} was made by an older upchirp: run the same `upchirp pack` command again")
            labels, levels = stored["labels"], stored["levels"]
        sizes = tuple(int(size) for size in recorded["sizes"])
        if labels.shape != levels.shape[:1] or levels.shape[1:] != (1 + len(sizes),) or levels.dtype != LEVEL:
            raise ValueError("its columns do not agree")
        return TarIndex(
            labels,
            levels,
            sizes,
            int(recorded["tar_bytes"]),
            recorded["tar_mtime_ns"],
            str(recorded["sha256"]),
            tuple((name, reason) for name, reason in recorded["left_out"]),
        )
    except InputError:
        raise
    except Exception as error:
        # NumPy's and zipfile's readers raise anything on damage (NotImplementedError, RuntimeError, MemoryError, ...).
        # Indexes of shards of others are made again without a word, so this is one of `upchirp pack`.
        raise InputError(
            f"the shard index {path} is damaged ({one_line(error)}): copy it again, or delete it and run the same "
            "`upchirp pack` command again"
        ) from error


def load_names(path: Path) -> list[str]:
    """Where the images of a shard came from; empty where nobody knows."""
    try:
        with np.load(BytesIO(_bytes(path)), allow_pickle=False) as stored:
            return [str(name) for name in json.loads(bytes(stored["names"]))]
    except Exception:
        # Names only make messages clearer; for what damage raises see `load_index`.
        return []


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        # A failing disk does not say where.
        raise OSError(error.errno, error.strerror, str(path)) from error


def is_current(index: TarIndex, tar: Path) -> bool:
    """Whether a shard is still the one that its index describes, as far as size and time tell."""
    status = os.stat(tar)  # noqa: PTH116
    return index.tar_bytes == status.st_size and index.tar_mtime_ns in (None, status.st_mtime_ns)


def _as_bytes(text: str) -> npt.NDArray[np.uint8]:
    return np.frombuffer(text.encode(), dtype=np.uint8)
