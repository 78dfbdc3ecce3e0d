"""The index of the files in a zip or tar archive. Nothing is unpacked, so no name in it can write anywhere."""

import stat
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from upchirp.errors import InputError, reason_of

# More than any image file has: what claims to be larger is not unpacked into memory.
MOST_BYTES = 2**30
_COMPRESSED_TAR = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
_OTHER = (".7z", ".rar")
ARCHIVES = (".zip", ".tar", *_COMPRESSED_TAR, *_OTHER)
"""Suffixes of archives, whether they can be read or have to be unpacked."""
_UTF_8 = 0x800
_ENCRYPTED = 0x1


class Member(NamedTuple):
    """A file in an archive."""

    offset: int
    """In a zip: of the header before its bytes; in a tar: of its first byte."""
    stored: int
    """Bytes in the archive."""
    size: int
    """Bytes of the file."""
    crc: int
    """CRC-32 of the file; 0 in a tar, which has none."""
    deflated: bool
    """Whether it is compressed."""


@dataclass(frozen=True)
class ArchiveIndex:
    """The regular files in an archive."""

    is_zip: bool
    """Whether it is a zip, else a tar."""
    members: dict[str, Member]
    """By their paths, with `/` between folders."""


def is_archive(path: Path) -> bool:
    """Whether a file is an archive by its name.

    >>> is_archive(Path("photos.ZIP")), is_archive(Path("photos.tar.gz")), is_archive(Path("photo.jpg"))
    (True, True, False)
    """
    return path.name.lower().endswith(ARCHIVES)


def index_archive(path: Path) -> ArchiveIndex:
    """Find the files in a zip, from its directory, or in a plain tar, from its headers.

    Links, devices, and names that lead out of the archive are left out.

    Raises:
        InputError: it is no such archive, cut off, encrypted, or compressed in a way that allows no random access.
    """
    name = path.name.lower()
    if name.endswith((*_COMPRESSED_TAR, *_OTHER)):
        raise InputError(f"{path} is compressed as a whole, so its images cannot be read at random: unpack it")
    try:
        zipped = zipfile.is_zipfile(path)
        found = dict(_zip_members(path) if zipped else _tar_members(path))
    except (zipfile.BadZipFile, tarfile.TarError, NotImplementedError, ValueError, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} is no zip and no plain tar archive, or it is cut off ({error}): download it again, or unpack it"
        ) from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {reason_of(error, path)}") from error
    return ArchiveIndex(zipped, found)


def _zip_members(path: Path) -> Iterator[tuple[str, Member]]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            name = _clean(_zip_name(info))
            if info.is_dir() or name is None or kind not in (0, stat.S_IFREG):
                continue
            if info.flag_bits & _ENCRYPTED:
                raise InputError(f"{path} is encrypted ({info.filename}): unpack it")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise InputError(
                    f"{path} is compressed by a method other than deflate ({info.filename}): unpack it, or zip it again"
                )
            deflated = info.compress_type == zipfile.ZIP_DEFLATED
            yield name, Member(info.header_offset, info.compress_size, info.file_size, info.CRC, deflated)


def _zip_name(info: zipfile.ZipInfo) -> str:
    """The name of a file in a zip, as it was meant."""
    name = info.filename
    if not (name.isascii() or info.flag_bits & _UTF_8):
        # macOS writes UTF-8 and does not say so.
        with suppress(UnicodeError):
            name = name.encode("cp437").decode()
    # Some Windows programs write their own separator.
    return name if "/" in name else name.replace("\\", "/")


def _tar_members(path: Path) -> Iterator[tuple[str, Member]]:
    size = path.stat().st_size
    with path.open("rb") as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
        for info in archive:
            # The list that tarfile keeps of its members would grow for nothing.
            archive.members.clear()  # type: ignore[attr-defined]
            name = _clean(info.name)
            if name is None or not info.isreg() or info.issparse():
                continue
            if info.offset_data + info.size > size:
                raise tarfile.ReadError(f"{info.name} ends behind the end of the file")
            yield name, Member(info.offset_data, info.size, info.size, 0, deflated=False)


def _clean(name: str) -> str | None:
    """A member's path without `.` and empty parts; `None` if it leads out of the archive.

    >>> _clean("./train//cat/1.jpg"), _clean("../1.jpg"), _clean("/etc/passwd")
    ('train/cat/1.jpg', None, 'etc/passwd')
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return "/".join(parts) if parts and ".." not in parts else None
