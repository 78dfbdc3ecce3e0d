"""`pack.json`: what a folder that `upchirp pack` wrote holds, and from which data and settings it was made."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from upchirp.errors import InputError
from upchirp.files import whole_file

FORMAT = 1
MANIFEST = "pack.json"
SPLITS = ("train", "val")


@dataclass(frozen=True, kw_only=True)
class PackSettings:
    """How images are packed.

    Raises:
        InputError: a setting out of its range.

    >>> PackSettings(sizes=(192, 128), raw=(96,)).sizes
    (96, 128, 192)
    """

    sizes: tuple[int, ...] = (128, 192, 256)
    """Shorter sides of the smaller versions of a training image, pixels; they are kept in ascending order."""
    raw: tuple[int, ...] = ()
    """Those of them, and others, that are stored as decoded pixels: about five times the bytes, and no decoding."""
    quality: int = 95
    """JPEG quality of the smaller versions, 1 to 100."""
    max_size: int | None = None
    """Originals with a longer shorter side are stored re-encoded at this one, pixels; by default all stay as they
    are."""
    shard_size: int = 1000
    """Images in a shard."""

    def __post_init__(self) -> None:
        for name, sizes in (("sizes", self.sizes), ("raw", self.raw)):
            if any(size < 1 for size in sizes) or len(set(sizes)) < len(sizes):
                listed = " ".join(map(str, sizes))
                raise InputError(f"{name} {listed}: give each size once, in pixels from 1, or none")
        object.__setattr__(self, "raw", tuple(sorted(self.raw)))
        object.__setattr__(self, "sizes", tuple(sorted({*self.sizes, *self.raw})))
        if not 1 <= self.quality <= 100:
            raise InputError(f"quality {self.quality}: give 1 to 100")
        if self.max_size is not None and self.max_size < 1:
            raise InputError(f"max-size {self.max_size}: give 1 pixel or more")
        if self.shard_size < 1:
            raise InputError(f"shard-size {self.shard_size}: give 1 image or more")


@dataclass(frozen=True)
class PackedSplit:
    """One split of the data that were packed."""

    images: int
    """In the data; those that could not be read are left out of the shards."""
    names_sha256: str
    """Of the images' names in their order: tells other data from the same."""
    shards: int
    """Number of shards."""
    labels_sha256: str | None = None
    """Of the images' labels in their order, which names do not tell where no folder does; nothing where they are not
    known without opening the images, and in folders that earlier versions packed, whose shards' indexes tell."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The contents of `pack.json`."""

    settings: PackSettings
    """How the images were packed."""
    classes: tuple[str, ...]
    """Names of the classes, label 0 first."""
    splits: Mapping[str, PackedSplit]
    """`train` and `val`."""
    label_sets: list[list[int]] | None = None
    """Of images with several labels what their label, a number, stands for: numbers of classes."""
    complete: bool = False
    """Whether all shards were written."""

    def shards(self, root: Path) -> Iterator[Path]:
        """The paths of all shards."""
        for split in self.splits:
            yield from self.shards_of(root, split)

    def shards_of(self, root: Path, split: str) -> list[Path]:
        """The paths of the shards of one split."""
        return [root / split / f"{number:06d}.tar" for number in range(self.splits[split].shards)]

    def difference(self, other: "Manifest") -> str | None:
        """What another manifest has otherwise, in words; `None` if both are for the same result.

        >>> one = Manifest(settings=PackSettings(), classes=("a",), splits={"val": PackedSplit(3, "", 1)})
        >>> one.difference(Manifest(settings=PackSettings(quality=90), classes=("a",), splits=one.splits))
        'quality 95, not 90'
        """
        for name, value in asdict(self.settings).items():
            wanted = getattr(other.settings, name)
            if value != wanted:
                return f"{name.replace('_', '-')} {_words(value)}, not {_words(wanted)}"
        if self.classes != other.classes:
            return f"other classes ({len(self.classes)}, the data have {len(other.classes)})"
        if self.label_sets != other.label_sets:
            return "images with other labels"
        for split, packed in self.splits.items():
            if packed.images != other.splits[split].images:
                return f"{packed.images} {split} images, the data have {other.splits[split].images}"
            if packed.names_sha256 != other.splits[split].names_sha256:
                return f"{split} images of other names than the data have"
            known = {packed.labels_sha256, other.splits[split].labels_sha256}
            if None not in known and len(known) > 1:
                return f"other labels of the {split} images than the data have"
        return None


def save_manifest(manifest: Manifest, root: Path) -> None:
    """Write `pack.json`, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    with whole_file(root / MANIFEST) as stream:
        stream.write(json.dumps({"format": FORMAT, **asdict(manifest)}, indent=1).encode() + b"\n")


def load_manifest(root: Path) -> Manifest:
    """Read `pack.json`.

    Raises:
        InputError: it is missing, damaged, or of a format that this version does not know.
    """
    path = root / MANIFEST
    try:
        stored = json.loads(path.read_bytes())
        if stored["format"] != FORMAT:
            raise InputError(f"{path} has format {stored['format']}, not {FORMAT}: use a newer upchirp")
        settings: dict[str, Any] = stored["settings"]
        sizes = {name: tuple(settings.get(name, ())) for name in ("sizes", "raw")}
        return Manifest(
            settings=PackSettings(**{**settings, **sizes}),
            classes=tuple(stored["classes"]),
            splits={split: PackedSplit(**stored["splits"][split]) for split in SPLITS},
            # Folders that earlier versions packed lack them.
            label_sets=stored.get("label_sets"),
            complete=stored["complete"] is True,
        )
    except InputError:
        raise
    except NotADirectoryError:
        raise InputError(f"{root} is a file: name a folder that `upchirp pack` wrote") from None
    except FileNotFoundError:
        raise InputError(f"{root} was not made by `upchirp pack`: it has no {MANIFEST}") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path} is damaged ({error!r}): delete it and run `upchirp pack` into an empty folder"
        ) from error


def _words(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
