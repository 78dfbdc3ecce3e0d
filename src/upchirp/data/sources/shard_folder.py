"""Folders of tar shards: what `upchirp pack` wrote, or WebDataset shards from elsewhere."""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from upchirp.data.label_sets import LabelSets
from upchirp.data.sources.layout import TRAIN_NAMES, VAL_NAMES
from upchirp.data.sources.shards import ShardSource
from upchirp.data.sources.tree import is_junk
from upchirp.data.tars.index import TarIndex, index_path, is_current, load_index, save_index
from upchirp.data.tars.manifest import MANIFEST, load_manifest
from upchirp.data.tars.scan import scan
from upchirp.errors import InputError

CLASS_FILES = ("classes.txt", "classnames.txt")
_SPLIT_FOLDERS = {"train": TRAIN_NAMES, "val": VAL_NAMES}
_COMPRESSED = re.compile(r".*\.(tar\.(gz|bz2|xz|zst)|tgz)", re.IGNORECASE)
_SCANNERS = 8
_LAYOUT = "expected train/*.tar and val/*.tar, or *train*.tar and *val*.tar, in it"
# No data set has so many classes, and a list of their names would fill the memory.
_MOST_CLASSES = 10_000_000


def has_shards(root: Path) -> bool:
    """Whether a folder holds tar shards, here or in its train and val folders."""
    if (root / MANIFEST).exists():
        return True
    folders = [root / name for names in _SPLIT_FOLDERS.values() for name in names if (root / name).is_dir()]
    if not folders and any(path.is_dir() and not is_junk(path.name) for path in root.iterdir()):
        # An archive beside other folders is what they were unpacked from, if it is not named as a shard.
        return any(split in path.name.lower() for split in _SPLIT_FOLDERS for path in _tars(root))
    return any(_tars(place) or _compressed(place) for place in folders or [root])


def open_shards(root: Path) -> tuple[ShardSource, ShardSource | None]:
    """The training and, if there are any, the validation images of a folder of shards.

    The shards of others are read once for an index, kept beside each shard where the folder can be written. Their
    classes are named by `classes.txt` or `classnames.txt` in the folder, one a line, else by their numbers.

    Args:
        root: a folder that `upchirp pack` wrote, or one with `train/*.tar` and `val/*.tar` or with `*train*.tar` and
            `*val*.tar`.

    Raises:
        InputError: shards are missing, damaged, or not readable as labelled images.
    """
    if (root / MANIFEST).exists():
        return _open_packed(root)
    train, val = (_find(root, split) for split in ("train", "val"))
    if not train:
        have = f"only {len(val)} val shards" if val else "no usable shards"
        raise InputError(f"{root} has {have}: train shards are missing, {_LAYOUT}")
    indexes = _indexes([*train, *val])
    classes = _classes(root, indexes[: len(train)], indexes[len(train) :])
    trained = ShardSource(train, indexes[: len(train)], classes)
    return trained, ShardSource(val, indexes[len(train) :], classes) if val else None


def _open_packed(root: Path) -> tuple[ShardSource, ShardSource]:
    manifest = load_manifest(root)
    if not manifest.complete:
        raise InputError(f"packing into {root} has not ended: run the same `upchirp pack` command again, it goes on")
    sources = []
    sets = None if manifest.label_sets is None else LabelSets.of(manifest.label_sets, len(manifest.classes))
    for split in ("train", "val"):
        shards = manifest.shards_of(root, split)
        indexes = [_packed_index(shard) for shard in shards]
        sources.append(ShardSource(shards, indexes, manifest.classes, sets))
    return sources[0], sources[1]


def _packed_index(shard: Path) -> TarIndex:
    remedy = "copy it again, or delete it and run the same `upchirp pack` command again"
    try:
        index = load_index(index_path(shard))
        if not is_current(index, shard):
            raise InputError(f"{shard} has {shard.stat().st_size} bytes instead of {index.tar_bytes}: {remedy}")
    except FileNotFoundError as error:
        raise InputError(f"{error.filename} is missing: {remedy}") from None
    return index


def _find(root: Path, split: str) -> list[Path]:
    """The shards of one split."""
    folder = next((root / name for name in _SPLIT_FOLDERS[split] if (root / name).is_dir()), root)
    if folder == root:
        words = {name: [path for path in _tars(root) if name in path.name.lower()] for name in _SPLIT_FOLDERS}
        if both := set(words["train"]) & set(words["val"]):
            raise InputError(f"{min(both)} has both train and val in its name: move the shards into train/ and val/")
        shards = words[split]
    else:
        shards = _tars(folder)
    if not shards and (compressed := _compressed(folder)):
        raise InputError(f"{compressed[0]} is compressed, so it cannot be read at random: unpack it to a plain .tar")
    classes = [path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    if folder != root and shards and classes:
        raise InputError(
            f"{folder} has both shards ({shards[0].name}) and class folders ({min(classes)}): keep one of the two"
        )
    return shards


def _tars(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.tar") if not path.name.startswith("."))


def _compressed(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if _COMPRESSED.fullmatch(path.name))


def _indexes(shards: Sequence[Path]) -> list[TarIndex]:
    """The indexes of shards of others, read or made."""
    kept = [_kept(shard) for shard in shards]
    missing = [shard for shard, index in zip(shards, kept, strict=True) if index is None]
    # Threads, for the sake of disks that take their time.
    with ThreadPoolExecutor(_SCANNERS) as pool:
        rest = iter(list(pool.map(_scan_and_keep, missing)))
    return [next(rest) if index is None else index for index in kept]


def _kept(shard: Path) -> TarIndex | None:
    """The index beside a shard, if there is one and the shard is still the same."""
    try:
        index = load_index(index_path(shard))
    except (OSError, InputError):
        # Missing or damaged: it can be made again.
        return None
    return index if is_current(index, shard) else None


def _scan_and_keep(shard: Path) -> TarIndex:
    try:
        index = scan(shard)
    except OSError as error:
        raise InputError(f"cannot read the shard {shard}: {error.strerror or error}") from error
    # Where the folder cannot be written, the next run reads the headers again.
    with suppress(OSError):
        save_index(index, index_path(shard))
    return index


def _classes(root: Path, train: Sequence[TarIndex], val: Sequence[TarIndex]) -> tuple[str, ...]:
    highest = max(int(index.labels.max()) for index in train)
    highest_val = max((int(index.labels.max()) for index in val), default=0)
    if path := next((root / name for name in CLASS_FILES if (root / name).exists()), None):
        try:
            classes = tuple(path.read_text(encoding="utf-8").split("\n"))
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path} is no UTF-8 text ({error.reason}): save the names of the classes as UTF-8"
            ) from error
        classes = tuple(line.strip() for line in (classes[:-1] if not classes[-1].strip() else classes))
        if max(highest, highest_val) >= len(classes):
            raise InputError(
                f"{path} names {len(classes)} classes, but the shards have label {max(highest, highest_val)}: "
                "give one line for each class, label 0 first"
            )
        return classes
    if highest >= _MOST_CLASSES:
        raise InputError(f"the train shards in {root} have label {highest}: labels count the classes from 0")
    if highest_val > highest:
        raise InputError(f"the val shards in {root} have label {highest_val}, the train shards only 0 to {highest}")
    return tuple(map(str, range(highest + 1)))
