"""Local folders of Hugging Face data sets: saved to disk, or parquet files."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from upchirp.data.sources.hugging_face import HuggingFaceSource
from upchirp.data.sources.hugging_face_columns import library
from upchirp.data.sources.layout import USUAL, SplitNames
from upchirp.errors import InputError, first_line, some

_TRAIN = ("train",)
_VALIDATION = ("val", "validation", "valid", "test")
# The hub's older files end in a hash.
_OF = re.compile(r"-(\d+)-of-(\d+)(?:-\w+)?\.parquet$")
# The table beside a folder of image files; it holds no images.
_NO_IMAGES = "metadata.parquet"
_LAYOUT = (
    "expected a DatasetDict of train and validation saved by save_to_disk, or train*.parquet and validation*.parquet "
    "in it or in its data/"
)


def is_hugging_face(root: Path, splits: SplitNames = USUAL) -> bool:
    """Whether a folder holds a data set that `open_hugging_face` may read: saved to disk, or as parquet files."""
    if (root / "dataset_dict.json").is_file() or _is_saved(root):
        return True
    names = splits.train_names(_TRAIN) + splits.val_names(_VALIDATION)
    return any(_is_saved(root / split) or _parquet(root, split) for split in names)


def open_hugging_face(
    root: Path,
    splits: SplitNames = USUAL,
    *,
    label: str | None = None,
    labelled: bool = True,
    cache_dir: Path | None = None,
) -> tuple[HuggingFaceSource, HuggingFaceSource | None]:
    """The training and, if there are any, the validation images of a local Hugging Face data set.

    Nothing is fetched from the network.

    Two kinds of folders are read:

    * What `DatasetDict.save_to_disk` wrote. It is mapped into memory where it lies and costs nothing.
    * Parquet files in the hub's layouts: `train-00000-of-00004.parquet` in `root` or `root/data`, or `*.parquet` in
      `root/train`. Rows of a parquet file cannot be reached one by one, so `datasets` converts the files to Arrow
      once. The copy lies in its own cache (`HF_DATASETS_CACHE`, by default `~/.cache/huggingface/datasets`), takes
      about as much disk as the parquet files (encoded images hardly compress) and is used again until they change.
      Loading into memory instead would need that much memory, in every process.

    The validation split is `val`, else `validation`, else `valid`; `test` only if there is none of them. What
    `Dataset.save_to_disk` wrote of one split is training images.

    Args:
        root: the folder.
        splits: what the splits are called, where that is not as usual.
        label: the column of labels; see `HuggingFaceSource`.
        labelled: whether labels are needed; see there.
        cache_dir: where to keep the Arrow copy of parquet files; by default the cache of `datasets`.

    Raises:
        InputError: `datasets` is not installed, a split or a shard is missing or damaged, the two splits have
            different classes, or a split is refused by `HuggingFaceSource`.
    """
    if _is_saved(root):
        if asked := splits.train or splits.val:
            raise InputError(f"{root} holds one split without a name, and no {asked}: leave it out")
        with _quiet(), _readable(str(root)):
            dataset = library().load_from_disk(str(root))
            return HuggingFaceSource(dataset, label=label, name=str(root), labelled=labelled), None
    wanted = splits.train_names(_TRAIN), splits.val_names(_VALIDATION)
    folders = {split: root / split for split in wanted[0] + wanted[1] if _is_saved(root / split)}
    files = {split: paths for split in wanted[0] + wanted[1] if (paths := _parquet(root, split))}
    found: list[str] = list(folders or files)
    chosen = [next((split for split in names if split in found), None) for names in wanted]
    lacking = (splits.train or "train", splits.val)
    missing = [name for name, split in zip(lacking, chosen, strict=True) if split is None and name is not None]
    if missing:
        have = ", ".join(found) or "(none)"
        raise InputError(f"{root} has the splits {have}, and no {' and no '.join(missing)}: {_LAYOUT}")
    opened = []
    for split in filter(None, chosen):
        with _quiet(), _readable(f"{split} in {root}"):
            if folders:
                dataset = library().load_from_disk(str(folders[split]))
            else:
                _complete(files[split])
                dataset = library().Dataset.from_parquet(
                    [_literal(path) for path in files[split]],
                    cache_dir=None if cache_dir is None else str(cache_dir),
                    keep_in_memory=False,
                )
        opened.append((dataset, f"{split} in {root}"))
    if len(opened) == 1:
        ((dataset, name),) = opened
        return HuggingFaceSource(dataset, label=label, name=name, labelled=labelled), None
    if not labelled:
        train, val = (HuggingFaceSource(dataset, name=name, labelled=False) for dataset, name in opened)
        return train, val
    return _with_same_classes(opened, root, label)


def _with_same_classes(
    splits: list[tuple[Any, str]], root: Path, label: str | None
) -> tuple[HuggingFaceSource, HuggingFaceSource]:
    train, val = (HuggingFaceSource(dataset, label=label, name=name) for dataset, name in splits)
    if train.classes == val.classes:
        return train, val
    if train.named and val.named:
        differing = sorted(set(train.classes) ^ set(val.classes))
        raise InputError(
            f"the splits in {root} have different classes, {len(train.classes)} and {len(val.classes)} "
            f"({some(differing) or 'the same ones in another order'}): cast both to the same ClassLabel"
        )
    # Texts are the training images' classes. Numbers take the other split's names; of two splits with numbers one may
    # lack the last classes.
    if not val.named and train.classes != tuple(map(str, range(len(train.classes)))):
        classes = train.classes
    else:
        classes = max((train, val), key=lambda source: (source.named, len(source.classes))).classes
    train, val = (HuggingFaceSource(dataset, label=label, name=name, classes=classes) for dataset, name in splits)
    return train, val


def _is_saved(folder: Path) -> bool:
    """Whether `Dataset.save_to_disk` wrote a folder."""
    return (folder / "dataset_info.json").is_file() and (folder / "state.json").is_file()


def _parquet(root: Path, split: str) -> list[Path]:
    """The parquet files of a split, in order."""
    shard = re.compile(rf"{re.escape(split)}(?:[-_.].*)?\.parquet")
    for place in (root, root / "data"):
        found = [path for path in place.glob("*.parquet") if shard.fullmatch(path.name)]
        if found:
            return sorted(found)
    return sorted(path for path in (root / split).glob("*.parquet") if path.name != _NO_IMAGES)


def _complete(files: list[Path]) -> None:
    """Refuse a split without some of the shards that the names count, or with those of another version."""
    numbered = [match for path in files if (match := _OF.search(path.name))]
    totals = sorted({int(match[2]) for match in numbered})
    if len(totals) > 1 or 0 < len(numbered) < len(files):
        raise InputError(
            f"{files[0].parent} holds parquet files of more than one version of a split ({files[0].name}, ..., "
            f"{files[-1].name}): keep those of one"
        )
    for total in totals:
        have = {int(match[1]) for match in numbered}
        if len(have) < total:
            first = next(number for number in range(total) if number not in have)
            raise InputError(
                f"{files[0].parent} lacks {total - len(have)} of {total} parquet shards beside {files[0].name}, the "
                f"first is number {first}: download them again"
            )


def _literal(path: Path) -> str:
    """A path that `datasets`, which takes patterns, reads as itself."""
    return re.sub(r"([*?[])", r"[\1]", str(path.absolute()))


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no notices of `datasets`."""
    datasets = library()
    verbosity = datasets.logging.get_verbosity()
    # Its errors come as exceptions too, of which one line is shown.
    datasets.logging.set_verbosity(logging.CRITICAL)
    # Where the environment decides about the bars, the library refuses to change them and warns.
    shown = datasets.config.HF_DATASETS_DISABLE_PROGRESS_BARS is None and not datasets.are_progress_bars_disabled()
    if shown:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
        datasets.logging.set_verbosity(verbosity)


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Turn what `datasets` raises on damaged files, or a full disk, into one line."""
    from datasets.exceptions import DatasetsError

    try:
        yield
    except InputError:
        raise
    except (DatasetsError, OSError, ValueError, KeyError, TypeError) as error:
        cause = error
        while isinstance(cause.__cause__, Exception):
            cause = cause.__cause__
        raise InputError(
            f"cannot read {name}: {first_line(cause)} (download or save it again, or make room on the disk)"
        ) from error
