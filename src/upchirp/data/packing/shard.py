"""Writing one shard: the originals, their smaller versions, and the index."""

import errno
import hashlib
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import simplejpeg
from PIL import Image

from upchirp.data.images.arrays import ArrayPicture
from upchirp.data.images.decoding import open_picture
from upchirp.data.images.pillow import DECODE_ERRORS, open_image
from upchirp.data.images.ppm import encode_ppm
from upchirp.data.packing.encoded import encoded
from upchirp.data.sources import Source
from upchirp.data.tars.index import Level, TarIndex, index_path, is_current, load_index, save_index
from upchirp.data.tars.manifest import PackSettings
from upchirp.errors import InputError, one_line
from upchirp.files import whole_file

_EXTENSIONS = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif"}
# These say something about one file; every other error of the system is about the disk or the network, and would
# leave holes in the shards.
_ABOUT_THE_FILE = (None, errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP)
_END = bytes(2 * tarfile.BLOCKSIZE)


class Version(NamedTuple):
    """One version of an image, ready to be stored."""

    data: bytes
    """The file."""
    extension: str
    """Of the member's name, such as `jpg` or `128.jpg`."""
    size: tuple[int, int]
    """Width and height of the upright image, pixels."""


@dataclass(frozen=True)
class ShardTask:
    """What one shard shall hold."""

    path: Path
    """The tar file."""
    source: Source
    """Where the images are."""
    indices: Sequence[int]
    """Which of them, in their order in the shard."""
    sizes: tuple[int, ...]
    """Shorter sides of the smaller versions, pixels."""
    settings: PackSettings
    """Quality and greatest size."""


def is_whole(shard: Path) -> bool:
    """Whether a shard was written to its end: its index is there, and it has the recorded size."""
    try:
        return is_current(load_index(index_path(shard)), shard)
    except (OSError, InputError):
        return False


def write_shard(task: ShardTask, step: Callable[[], None], root: str = "") -> None:
    """Write a shard and then its index, each whole or not at all. The same images give the same bytes.

    Args:
        task: what to write.
        step: called after each image; what it raises ends the writing.
        root: start of the images' names that is not worth recording.

    Raises:
        InputError: a disk or network failed while an image was read.
        OSError: the shard cannot be written.
    """
    samples: list[tuple[int, list[Level]]] = []
    names: list[str] = []
    left_out: list[tuple[str, str]] = []
    with whole_file(task.path) as stream:
        tar = _Tar(stream)
        for index in task.indices:
            try:
                data, label = encoded(task.source, index)
                versions = make_versions(data, task.sizes, task.settings)
            except InputError:
                raise
            except DECODE_ERRORS as error:
                name = task.source.describe(index)
                if isinstance(error, OSError) and error.errno not in _ABOUT_THE_FILE:
                    raise InputError(f"cannot read {name}: {error.strerror}; run the same command again") from error
                left_out.append((name.removeprefix(root), _reason(error)))
            else:
                key = f"{index:09d}"
                levels = [
                    Level(
                        tar.add(f"{key}.{version.extension}", version.data),
                        len(version.data),
                        *version.size,
                        crc=zlib.crc32(version.data),
                    )
                    if version is not None
                    else Level(0, 0, 0, 0)
                    for version in versions
                ]
                tar.add(f"{key}.cls", str(label).encode("ascii"))
                samples.append((label, levels))
                names.append(task.source.describe(index).removeprefix(root))
            step()
        tar.end()
    stored = TarIndex.of(
        samples, task.sizes, tar_bytes=tar.offset, sha256=tar.digest.hexdigest(), left_out=tuple(left_out)
    )
    save_index(stored, index_path(task.path), names)


def make_versions(data: bytes, sizes: Sequence[int], settings: PackSettings) -> Iterator[Version | None]:
    """The original and its smaller versions, made from the whole upright image by Lanczos.

    A version is left out (`None`) where it would be no smaller than the original, in pixels or, encoded, in bytes.

    Args:
        data: the original file.
        sizes: shorter sides of the smaller versions, pixels.
        settings: `quality`, which sizes are `raw`, and the `max_size` above which the original is re-encoded too.

    Raises:
        OSError: the file is no image, or is damaged.

    >>> from io import BytesIO
    >>> buffer = BytesIO()
    >>> Image.effect_noise((120, 90), 50).save(buffer, "PNG")
    >>> [version and version.size for version in make_versions(buffer.getvalue(), (45, 90), PackSettings())]
    [(120, 90), (60, 45), None]
    """
    picture = open_picture(data)
    if isinstance(picture, ArrayPicture):
        raise OSError("arrays are not packed: train on the files as they are")
    # Decoded even where nothing is made of it: this is where damage is found.
    image = picture.whole()
    if image.size != picture.size:
        raise OSError(f"the image has {image.size} pixels, its header says {picture.size}")
    shorter = min(image.size)
    if settings.max_size is not None and shorter > settings.max_size:
        original = _encoded(_reduced(image, settings.max_size), settings.quality, "jpg")
    else:
        kind = open_image(data).format or "img"
        original = Version(data, _EXTENSIONS.get(kind, kind.lower()), image.size)
    versions: list[Version | None] = [original]
    for size in sizes:
        version = None
        if size < min(original.size):
            reduced = _reduced(image, size)
            if size in settings.raw:
                version = Version(encode_ppm(np.asarray(reduced)), f"{size}.ppm", reduced.size)
            else:
                version = _encoded(reduced, settings.quality, f"{size}.jpg")
                # As many bytes would be read as of the original, and fewer pixels found.
                version = version if len(version.data) < len(original.data) else None
        versions.append(version)
    return iter(versions)


def _reduced(image: Image.Image, shorter: int) -> Image.Image:
    width, height = (max(shorter, round(side * shorter / min(image.size))) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _encoded(image: Image.Image, quality: int, extension: str) -> Version:
    pixels = np.ascontiguousarray(image)
    data = simplejpeg.encode_jpeg(pixels, quality=quality, colorspace="RGB", colorsubsampling="420", fastdct=False)
    return Version(data, extension, image.size)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return one_line(error)


class _Tar:
    """A tar file in the making, with headers that depend on nothing but names and sizes."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.offset = 0
        self.digest = hashlib.sha256()

    def add(self, name: str, data: bytes) -> int:
        """Append a member; returns the offset of its first byte."""
        member = tarfile.TarInfo(name)
        member.size = len(data)
        member.mode = 0o644
        self._write(member.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict"))
        offset = self.offset
        self._write(data)
        self._write(bytes(-len(data) % tarfile.BLOCKSIZE))
        return offset

    def end(self) -> None:
        """Append the end mark."""
        self._write(_END)

    def _write(self, data: bytes) -> None:
        self._stream.write(data)
        self.digest.update(data)
        self.offset += len(data)
