"""The index of a tar shard that someone else made: read its headers once, and its labels."""

import json
import re
import tarfile
from pathlib import Path
from typing import IO

from upchirp.data.tars.index import Level, TarIndex
from upchirp.errors import InputError

IMAGE_EXTENSIONS = frozenset(("jpg", "jpeg", "png", "webp"))
LABEL_KEYS = ("label", "cls", "class_id")
"""Where a `.json` member may hold the label; the first that is there counts."""

# WebDataset's rule: the key ends at the first dot of the file's name, folders belong to it.
_MEMBER = re.compile(r"((?:.*/)?[^/.][^/.]*)\.([^/]+)", re.DOTALL)


def scan(tar: Path) -> TarIndex:
    """Index a WebDataset shard: samples with one image (`.jpg`, `.jpeg`, `.png`, `.webp`) and one label.

    A label is the integer in a `.cls` member, else the integer under `label`, `cls` or `class_id` of a `.json`
    member. Members of other kinds, hidden files and links are passed over. Only headers and labels are read, so the
    size of the images stays unknown. A shard without an end mark is taken if its samples are whole: some writers leave
    it out, so one that was cut off exactly between two samples cannot be told from it.

    Args:
        tar: the shard, not compressed.

    Raises:
        InputError: the file is no tar or is cut off, it has no images, or a sample lacks its image or its label, or
            has two of them.
        OSError: it cannot be read.
    """
    before = tar.stat()
    found = _Found(tar)
    try:
        with tar.open("rb") as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            for member in archive:
                # The list that tarfile keeps of its members would grow for nothing.
                archive.members.clear()  # type: ignore[attr-defined]
                parts = _MEMBER.fullmatch(member.name)
                if parts is None or not member.isreg() or member.issparse():
                    continue
                if member.offset_data + member.size > before.st_size:
                    raise tarfile.ReadError(f"{member.name} ends behind the end of the file")
                found.take(member, parts[1], parts[2].lower(), stream)
            stream.seek(archive.offset)
            following = stream.read(tarfile.BLOCKSIZE)
            if following.strip(b"\0"):
                raise tarfile.ReadError("a header is damaged")
    except tarfile.TarError as error:
        raise InputError(
            f"{tar} is no plain tar file, or it is cut off ({error}): download it again; unpack .gz first"
        ) from error
    found.check_whole(ended=bool(following))
    return TarIndex.of(
        [(found.labels[key], [level]) for key, level in found.images.items()],
        tar_bytes=before.st_size,
        tar_mtime_ns=before.st_mtime_ns,
    )


class _Found:
    """The samples of a shard, as far as its members tell."""

    def __init__(self, tar: Path) -> None:
        self.images: dict[str, Level] = {}
        self.labels: dict[str, int] = {}
        self._tar = tar
        self._others: set[str] = set()
        self._dotted = ""

    def take(self, member: tarfile.TarInfo, key: str, extension: str, stream: IO[bytes]) -> None:
        """Take note of a member of a sample."""
        if extension in IMAGE_EXTENSIONS:
            if key in self.images:
                raise InputError(f"{self._tar}: sample {key} has two images: keep one in each sample")
            self.images[key] = Level(member.offset_data, member.size, 0, 0)
        elif extension == "cls" or (extension == "json" and key not in self.labels):
            label = _label(_read(stream, member), extension)
            if label is not None:
                self.labels[key] = label
            elif extension == "cls":
                raise InputError(f"{self._tar}: the label of sample {key} in {member.name} is no integer from 0")
            else:
                self._others.add(key)
        else:
            self._others.add(key)
            if extension.rpartition(".")[2] in IMAGE_EXTENSIONS:
                self._dotted = (
                    f"; the key ends at the first dot, so {member.name} is the {extension} of {key}: rename it"
                )

    def check_whole(self, *, ended: bool) -> None:
        """Raise unless every sample has an image and a label; `ended` says whether the shard has an end mark."""
        images, labels = self.images.keys(), self.labels.keys()
        unlabelled, imageless = images - labels, (labels | self._others) - images
        if (unlabelled or imageless) and not ended:
            raise InputError(
                f"{self._tar} is cut off: it has no end mark, and sample {min(unlabelled or imageless)} is not whole; "
                "download it again"
            )
        if unlabelled:
            raise InputError(
                f"{self._tar}: sample {min(unlabelled)} has no label: expected a .cls member, or a .json member with "
                f"an integer under {' or '.join(LABEL_KEYS)}{self._dotted}"
            )
        if imageless:
            kinds = ", ".join(f".{extension}" for extension in sorted(IMAGE_EXTENSIONS))
            raise InputError(
                f"{self._tar}: sample {min(imageless)} has no image: expected a member of {kinds}{self._dotted}"
            )
        if not images:
            raise InputError(f"{self._tar} holds no images: expected samples of KEY.jpg and KEY.cls{self._dotted}")


def _read(stream: IO[bytes], member: tarfile.TarInfo) -> bytes:
    stream.seek(member.offset_data)
    return stream.read(member.size)


def _label(data: bytes, extension: str) -> int | None:
    """The label in a member; `None` if there is none."""
    try:
        if extension == "cls":
            value: object = int(data)
        else:
            found = json.loads(data)
            value = next((found[name] for name in LABEL_KEYS if name in found), None)
    except (ValueError, TypeError, RecursionError):
        return None
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and 0 <= value < 2**31 else None  # type: ignore[operator, return-value]
