"""Packing a data set: plan the shards, skip those that are whole, write the rest, sum up."""

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from upchirp.data.draws import pass_order
from upchirp.data.label_sets import label_sets_of
from upchirp.data.packing.processes import processes_for, write_shards
from upchirp.data.packing.shard import ShardTask, is_whole
from upchirp.data.packing.summary import Summary, summarize
from upchirp.data.settings import VAL_SHARE
from upchirp.data.sources import Note, Source, open_data, warn
from upchirp.data.sources.relabelled import with_common_sets
from upchirp.data.sources.subset import known_labels
from upchirp.data.tars.index import INDEX_SUFFIX, index_path, load_index
from upchirp.data.tars.manifest import (
    MANIFEST,
    SPLITS,
    Manifest,
    PackedSplit,
    PackSettings,
    load_manifest,
    save_manifest,
)
from upchirp.errors import InputError, cannot_write
from upchirp.files import TEMPORARY_SUFFIX, whole_file
from upchirp.folder_lock import locked

CHECKSUMS = "SHA256SUMS"
LOCK = "pack.lock"

# What `whole_file` leaves behind when it is killed; other names are not ours to delete.
_LEFTOVER = re.compile(
    rf"({re.escape(MANIFEST)}|{CHECKSUMS}|\d{{6,}}\.tar({re.escape(INDEX_SUFFIX)})?)\.\d+{re.escape(TEMPORARY_SUFFIX)}"
)

Progress = Callable[[int, int], None]
"""Called with the number of images done, and of all images."""


@dataclass(frozen=True)
class PackResult:
    """What packing did."""

    summary: Summary
    """What the folder holds now."""
    shards: int
    """Number of shards."""
    found: int
    """How many of them were there before."""


def pack(
    data: str | os.PathLike[str],
    output: str | os.PathLike[str],
    settings: PackSettings | None = None,
    *,
    final_size: int = 224,
    val_share: float = VAL_SHARE,
    train_split: str | None = None,
    val_split: str | None = None,
    label_column: str | None = None,
    note: Note = warn,
    workers: int | None = None,
    progress: Progress | None = None,
) -> PackResult:
    """Write a data set as tar shards in WebDataset's layout, with smaller versions of the training images.

    Images go to the shards in a fixed shuffled order, so that who streams them gets mixed classes; a sample's key is
    the image's number in the data that were packed. The same data and settings give the same bytes. Files are known
    by their names: a file whose contents change under its name between two calls is not noticed. Packing that was
    interrupted goes on when it is called again; shards that are whole are kept. Images that cannot be read are left
    out and named in the summary; once they are mended, delete their shards (or the output) and pack again.

    Args:
        data: anything that `open_data` takes.
        output: the folder to write; it is made. Not the data folder, nor inside it.
        settings: sizes, quality and shard size.
        final_size: for `generated` data only: its images are stored at twice that side, pixels.
        val_share: share of each class that becomes `val` where the data have no validation images.
        train_split: see `open_data`.
        val_split: see `open_data`.
        label_column: see `open_data`.
        note: called with each line on what was chosen or passed over; by default it is a warning.
        workers: processes; by default one for each core.
        progress: shows how far it is.

    Raises:
        InputError: the output holds something else, or was packed from other data or with other settings; another
            process packs into it; no image of a split can be read; the disk is full.
    """
    settings = settings or PackSettings()
    workers = processes_for(workers)
    root = Path(output).expanduser()
    _check_apart(data, root)
    opened = open_data(
        data,
        final_size,
        val_share=val_share,
        train_split=train_split,
        val_split=val_split,
        label_column=label_column,
        note=note,
    )
    sources = dict(zip(SPLITS, with_common_sets(opened), strict=True))
    sets = label_sets_of(sources["train"])
    prefix = f"{Path(data).expanduser()}{os.sep}"
    manifest = Manifest(
        settings=settings,
        classes=sources["train"].classes,
        label_sets=None if sets is None else sets.members,
        splits={split: _describe(source, settings, prefix) for split, source in sources.items()},
    )
    _check_output(root, manifest)
    try:
        tasks = [task for split in SPLITS for task in _tasks(root, split, sources[split], settings)]
        _check_labels(root, tasks, prefix)
        missing = _missing(tasks)
        if missing or not (root / CHECKSUMS).exists() or not load_manifest(root).complete:
            root.mkdir(parents=True, exist_ok=True)
            # Its workers write shards.
            with locked(root, LOCK, shared_with_children=True):
                # Again: another process may have begun, or ended, since.
                _check_output(root, manifest)
                missing = _missing(tasks)
                _prepare(root, manifest)
                _write(tasks, missing, workers, prefix, progress)
                _check_splits(root, manifest)
                _write_checksums(root, manifest)
                save_manifest(replace(manifest, complete=True), root)
    except OSError as error:
        raise InputError(cannot_write(error.filename or root, error)) from error
    return PackResult(summarize(root), len(tasks), len(tasks) - len(missing))


def _check_apart(data: str | os.PathLike[str], root: Path) -> None:
    if str(data) == "generated":
        return
    source, target = Path(data).expanduser().resolve(), root.resolve()
    if target == source or source in target.parents:
        raise InputError(f"the output {root} lies in the data folder {data}: choose a folder outside it")


def _describe(source: Source, settings: PackSettings, prefix: str) -> PackedSplit:
    digest = hashlib.sha256()
    for index in range(len(source)):
        digest.update(os.fsencode(source.describe(index).removeprefix(prefix)) + b"\0")
    labels = known_labels(source)
    return PackedSplit(
        images=len(source),
        names_sha256=digest.hexdigest(),
        shards=-(-len(source) // settings.shard_size),
        labels_sha256=None if labels is None else hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest(),
    )


def _check_output(root: Path, manifest: Manifest) -> None:
    """Refuse a folder that holds anything but an earlier part of this result."""
    if root.exists() and not root.is_dir():
        raise InputError(f"the output {root} is a file: name a folder")
    if (root / MANIFEST).exists():
        difference = load_manifest(root).difference(manifest)
        if difference:
            raise InputError(
                f"{root} was packed with {difference}: use the same data and settings, or another `output`"
            )
    elif root.is_dir() and not all(_is_leftover(path) for path in root.iterdir()):
        raise InputError(f"the output {root} is not empty and was not made by `upchirp pack`: name another folder")


def _check_labels(root: Path, tasks: Sequence[ShardTask], prefix: str) -> None:
    """Refuse shards with other labels than the data have, where an earlier version left the manifest without them."""
    if not (root / MANIFEST).exists():
        return
    told = {split for split, packed in load_manifest(root).splits.items() if packed.labels_sha256 is not None}
    for task in tasks:
        split, labels = task.path.parent.name, known_labels(task.source)
        if split in told or labels is None or not is_whole(task.path):
            continue
        index = load_index(index_path(task.path))
        left_out = {name for name, _ in index.left_out}
        packed = [place for place in task.indices if task.source.describe(place).removeprefix(prefix) not in left_out]
        if labels[packed].tolist() != index.labels.tolist():
            raise InputError(
                f"{root} was packed with other labels of the {split} images than the data have: use the same data, or "
                "another `output`"
            )


def _is_leftover(path: Path) -> bool:
    """Whether a file or folder of the output may come from packing that ended before its manifest was written."""
    if path.name in SPLITS and path.is_dir():
        return all(_LEFTOVER.fullmatch(inner.name) for inner in path.iterdir())
    return path.name == LOCK or _LEFTOVER.fullmatch(path.name) is not None


def _tasks(root: Path, split: str, source: Source, settings: PackSettings) -> list[ShardTask]:
    order = pass_order(len(source), 0, 0).tolist()
    # Evaluation reads whole images: smaller versions of them would lie idle.
    sizes = settings.sizes if split == "train" else ()
    return [
        ShardTask(
            root / split / f"{number:06d}.tar", source, order[first : first + settings.shard_size], sizes, settings
        )
        for number, first in enumerate(range(0, len(source), settings.shard_size))
    ]


def _missing(tasks: Sequence[ShardTask]) -> list[ShardTask]:
    return [task for task in tasks if not is_whole(task.path)]


def _prepare(root: Path, manifest: Manifest) -> None:
    # First of all: it is what makes the folder ours, so that the same command goes on after a full disk.
    save_manifest(manifest, root)
    for split in SPLITS:
        (root / split).mkdir(exist_ok=True)
    for folder in (root, *(root / split for split in SPLITS)):
        for path in folder.iterdir():
            if _LEFTOVER.fullmatch(path.name):
                path.unlink(missing_ok=True)


def _write(
    tasks: Sequence[ShardTask],
    missing: Sequence[ShardTask],
    workers: int,
    prefix: str,
    progress: Progress | None,
) -> None:
    total = sum(len(task.indices) for task in tasks)
    before = total - sum(len(task.indices) for task in missing)

    def show(done: int) -> None:
        if progress is not None:
            progress(before + done, total)

    show(0)
    write_shards(missing, workers=workers, root=prefix, progress=show)


def _check_splits(root: Path, manifest: Manifest) -> None:
    for split in SPLITS:
        indexes = [load_index(index_path(shard)) for shard in manifest.shards_of(root, split)]
        if not any(len(index) for index in indexes):
            name, reason = indexes[0].left_out[0]
            raise InputError(
                f"none of the {split} images can be read, the first is {name} ({reason}): check the data, then delete "
                f"{root} and pack again"
            )


def _write_checksums(root: Path, manifest: Manifest) -> None:
    """A file for `sha256sum --check`."""
    with whole_file(root / CHECKSUMS) as stream:
        for shard in manifest.shards(root):
            digest = load_index(index_path(shard)).sha256
            stream.write(f"{digest}  {shard.relative_to(root).as_posix()}\n".encode("ascii"))
