"""Checkpoints on disk: written whole or not at all, checksummed, and read without running anything they hold."""

import hashlib
import json
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from upchirp.errors import InputError, first_line, reason_of
from upchirp.files import clear_leftovers, whole_file, whole_path, write_text

PARTS = "shards"
"""What a checkpoint's content calls its files of tensors in the folder beside it, if it has any: name and SHA-256."""

_DESCRIPTION = "described"
_BEST = re.compile(r"best_\d+\.pt")
_STEP = re.compile(r"step_\d+\.pt")


class Loaded(NamedTuple):
    """A checkpoint that was read, and what was passed over on the way."""

    path: Path
    content: dict[str, Any]
    """What `save` was given."""
    damaged: tuple[str, ...]
    """One line for each later checkpoint that could not be used."""


def save(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint and its SHA-256 beside it (`sha256sum --check` reads it).

    Both files appear under their names only when they are complete on disk, the checksum first, so a crash or a full
    disk leaves the checkpoints before it as they were.

    Raises:
        OSError: the disk is full or fails, or the run folder is gone.
    """
    path.parent.mkdir(exist_ok=True)
    with whole_file(path) as stream:
        hashing: Any = _Hashing(stream)
        try:
            torch.save(content, hashing)
        except Exception as error:
            # torch answers a failed write with an error of its own that names no cause.
            if hashing.error is None:
                raise
            raise hashing.error from error
        write_text(_checksum_file(path), f"{hashing.digest.hexdigest()}  {path.name}\n")


def load(path: Path) -> dict[str, Any]:
    """Read one checkpoint.

    Raises:
        InputError: a missing, truncated or altered file, or one that holds more than tensors and plain values.
    """
    try:
        digest = sha256(path)
        recorded = _checksum_file(path).read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the checkpoint {path}: {reason_of(error, path)}") from error
    if not recorded or recorded[0] != digest:
        raise InputError(f"the checkpoint {path} is damaged: its SHA-256 is not the recorded one")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # A damaged or foreign file makes torch's readers raise anything (UnicodeDecodeError, KeyError, ...).
        raise InputError(f"the checkpoint {path} cannot be read: {first_line(error)}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is no upchirp checkpoint")
    for name, digest in content.get(PARTS, {}).items():
        file = path.with_suffix("") / name
        try:
            damaged = sha256(file) != digest
        except OSError as error:
            raise InputError(f"cannot read the checkpoint {path}: {reason_of(error, path)}") from error
        if damaged:
            raise InputError(f"the checkpoint {path} is damaged: the SHA-256 of {file} is not the recorded one")
    return content


def load_latest(folder: Path) -> Loaded | None:
    """Read the latest checkpoint of a run that is whole; `None` if there is none at all.

    Raises:
        InputError: there are checkpoints and every one is damaged.
    """
    damaged: list[str] = []
    for path in reversed(list(checkpoints(folder))):
        try:
            return Loaded(path, load(path), tuple(damaged))
        except InputError as error:
            damaged.append(str(error))
    if damaged:
        raise InputError(
            f"no checkpoint in {folder} can be used: {damaged[0]}; copy one back from elsewhere, or start anew in "
            "another `output`"
        )
    return None


def checkpoints(folder: Path) -> Iterator[Path]:
    """The step checkpoints of a folder, oldest first."""
    yield from _numbered(folder, _STEP)


def step_path(folder: Path, step: int) -> Path:
    """Where the checkpoint after so many steps is kept."""
    return folder / f"step_{step:09d}.pt"


def step_of(path: Path) -> int:
    """After how many steps a checkpoint was written, by its name."""
    return int(path.stem.rpartition("_")[2])


def best_path(folder: Path, step: int) -> Path:
    """Where the best checkpoint is kept; it has a name of its own, so that the one before stays until it is whole."""
    return folder / f"best_{step:09d}.pt"


def load_best(folder: Path) -> Loaded | None:
    """Read the best checkpoint of a run, if there is one.

    Raises:
        InputError: it is damaged.
    """
    found = _numbered(folder, _BEST)[-1:]
    return Loaded(found[0], load(found[0]), ()) if found else None


def prune_best(best: Path) -> None:
    """Delete all best checkpoints but one, which was just written: an attempt given up may have left later ones."""
    for path in _numbered(best.parent, _BEST):
        if path != best:
            delete(path)


def prune(folder: Path, keep: int | Literal["all"]) -> None:
    """Delete all but the last `keep` step checkpoints, and leftovers of interrupted writing."""
    for path in [] if keep == "all" else list(checkpoints(folder))[:-keep]:
        delete(path)
    clear_leftovers(folder)
    for parts in folder.iterdir():
        if parts.is_dir() and not parts.with_suffix(".pt").exists():
            shutil.rmtree(parts, ignore_errors=True)


def is_checkpoint(path: Path) -> bool:
    """Whether the file is one of ours, by its name or the checksum beside it."""
    return _checksum_file(path).exists() or bool(_STEP.fullmatch(path.name) or _BEST.fullmatch(path.name))


def export_weights(weights: dict[str, torch.Tensor], path: Path, described: Mapping[str, Any]) -> None:
    """Write weights under their plain timm names as safetensors, whole or not at all.

    `described` says what model they are of, in plain data that `stored_description` gives back.

    Raises:
        OSError: the disk is full or fails.
    """
    # One entry only: the library writes several in random order, and equal weights should make equal files.
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    with whole_path(path) as temporary:
        # The library makes files that the owner alone may read: this one gets the rights that others here have.
        temporary.touch()
        rights = stat.S_IMODE(temporary.stat().st_mode)
        try:
            save_file(tensors, temporary, metadata={_DESCRIPTION: json.dumps(described)})
        except SafetensorError as error:
            raise OSError(f"cannot write {path}: {error}") from error
        temporary.chmod(rights)


def stored_description(path: Path) -> dict[str, Any]:
    """What a checkpoint or an exported file says of its model; nothing if it is neither.

    Raises:
        InputError: a damaged file.
    """
    if is_checkpoint(path):
        return dict(load(path).get(_DESCRIPTION, {}))
    if path.suffix != ".safetensors" or not path.is_file():
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        return dict(json.loads(metadata.get(_DESCRIPTION, "{}")))
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError(f"cannot read the weights {path}: {reason_of(error, path)}") from error


def _numbered(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    found = [path for path in folder.glob("*.pt") if pattern.fullmatch(path.name)]
    return sorted(found, key=step_of)


def delete(path: Path) -> None:
    """Delete a checkpoint, its checksum, and its files of tensors if it has any."""
    path.unlink()
    _checksum_file(path).unlink(missing_ok=True)
    shutil.rmtree(path.with_suffix(""), ignore_errors=True)


class _Hashing:
    """A write-only stream that hashes what passes through, and remembers what the disk said."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.digest = hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        try:
            return self.stream.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.stream.flush()


def _checksum_file(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
