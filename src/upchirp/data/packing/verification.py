"""Checking a packed folder: every byte, every index, every header."""

import hashlib
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from upchirp.data.images.decoding import open_picture
from upchirp.data.images.pillow import DECODE_ERRORS
from upchirp.data.packing.folder import CHECKSUMS
from upchirp.data.packing.processes import processes_for
from upchirp.data.tars.index import Level, TarIndex, index_path, load_index
from upchirp.data.tars.manifest import load_manifest
from upchirp.errors import InputError, reason_of

_LINE = re.compile(r"^([0-9a-f]{64})  (\S+)$", re.MULTILINE)
_REMAKE = "run the same `upchirp pack` command again, it makes that file anew"


@dataclass(frozen=True)
class Damage:
    """A shard that is not what was packed."""

    shard: str
    """Its path in the folder, such as `train/000003.tar`."""
    reason: str
    """What is wrong with it."""


def verify(
    root: str | os.PathLike[str], *, workers: int | None = None, progress: Callable[[int, int], None] | None = None
) -> tuple[Damage, ...]:
    """Check all shards of a packed folder: checksums, agreement of index and tar, and each image's header.

    Args:
        root: a folder that `pack` wrote.
        workers: threads; by default one for each core.
        progress: called with the number of shards checked, and of all shards.

    Returns:
        What is damaged; empty if all is well.

    Raises:
        InputError: the folder was not made by `pack`, packing has not ended, or `SHA256SUMS` is missing or damaged.
    """
    root = Path(root).expanduser()
    manifest = load_manifest(root)
    if not manifest.complete:
        raise InputError(f"packing into {root} has not ended: run the same `upchirp pack` command again, it goes on")
    workers = processes_for(workers)
    shards = list(manifest.shards(root))
    recorded = _checksums(root, [shard.relative_to(root).as_posix() for shard in shards])
    damages = []
    # Hashing lets other threads run.
    with ThreadPoolExecutor(min(workers, len(shards))) as pool:
        for number, reason in enumerate(pool.map(partial(_check, root, recorded), shards), start=1):
            if reason is not None:
                damages.append(Damage(shards[number - 1].relative_to(root).as_posix(), reason))
            if progress is not None:
                progress(number, len(shards))
    return tuple(damages)


def _checksums(root: Path, names: Sequence[str]) -> dict[str, str]:
    """The recorded checksums of the shards of these names."""
    path = root / CHECKSUMS
    try:
        text = path.read_text(encoding="ascii")
    except FileNotFoundError:
        raise InputError(f"{path} is missing: {_REMAKE}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path} ({reason_of(error, path)}): delete it, then {_REMAKE}") from error
    recorded = {name: digest for digest, name in _LINE.findall(text)}
    if lacking := [name for name in names if name not in recorded]:
        raise InputError(
            f"{path} is damaged: it has no checksum of {len(lacking)} of {len(names)} shards, the first is "
            f"{lacking[0]}; delete it, then {_REMAKE}"
        )
    return recorded


def _check(root: Path, recorded: dict[str, str], shard: Path) -> str | None:
    """What is wrong with a shard; `None` if nothing is."""
    try:
        index = load_index(index_path(shard))
        with shard.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size != index.tar_bytes:
                return f"it has {size} bytes instead of {index.tar_bytes}"
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if digest != index.sha256:
            return "its SHA-256 is not the one recorded when it was packed"
        if recorded.get(shard.relative_to(root).as_posix()) != digest:
            return f"its SHA-256 is not the one in {CHECKSUMS}"
        return _compare(index, shard)
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except InputError as error:
        return str(error)
    except (OSError, tarfile.TarError) as error:
        return f"it cannot be read ({reason_of(error, shard)})"


def _compare(index: TarIndex, shard: Path) -> str | None:
    """How a shard differs from its index."""
    with shard.open("rb") as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
        members = {member.offset_data: member for member in archive.getmembers()}
        images = sum(not member.name.endswith(".cls") for member in members.values())
        if images != int((index.levels["length"] > 0).sum()):
            return "it holds more images than its index, or fewer"
        labels = {
            member.name.partition(".")[0]: _at(stream, offset, member.size)
            for offset, member in members.items()
            if member.name.endswith(".cls")
        }
        for row in range(len(index)):
            for level in (Level(*values) for values in index.levels[row].tolist()):
                if not level.length:
                    continue
                member = members.get(level.offset)
                if member is None or member.size != level.length:
                    return f"its index says {level.length} bytes at {level.offset}, where no such member is"
                if labels.get(member.name.partition(".")[0]) != str(int(index.labels[row])).encode("ascii"):
                    return f"the label of {member.name} is not the one in its index"
                data = _at(stream, level.offset, level.length)
                if zlib.crc32(data) != level.crc:
                    return f"the CRC-32 of {member.name} is not the one in its index"
                try:
                    size = open_picture(data).size
                except DECODE_ERRORS as error:
                    return f"{member.name} is no image ({error})"
                if size != level.size:
                    return f"{member.name} has {size} pixels, its index says {level.size}"
    return None


def _at(stream: IO[bytes], offset: int, length: int) -> bytes:
    return os.pread(stream.fileno(), length, offset)
