"""Files that appear under their names only when they are complete, and YAML that says what is wrong with it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import yaml

from upchirp.errors import InputError, one_line, reason_of

TEMPORARY_SUFFIX = ".tmp"


def check_folder_of(path: Path, setting: str) -> None:
    """Raise if a file could not be written for want of its folder: before the work that it is for.

    Raises:
        InputError: the folder is missing; `setting` names where the path came from.
    """
    if not path.absolute().parent.is_dir():
        raise InputError(f"there is no folder {path.absolute().parent}: make it, or choose another `{setting}`")


@contextmanager
def whole_path(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Let a file be written under a temporary name, which becomes its own when it is complete on disk.

    A crash leaves at most a file whose name ends in `.tmp`; an error leaves nothing.

    Args:
        path: where the file shall be; one that is there stays until the new one is complete.
        durable: wait until it is on the disk; not needed for what is written anew every moment.

    Raises:
        OSError: it cannot be written.
    """
    # The number of the process keeps two writers of one file out of each other's way.
    temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    try:
        yield temporary
        if durable:
            with temporary.open("rb+") as stream:
                os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    if durable and os.name == "posix":
        # Makes the new name durable as well.
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def whole_file(path: Path, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """Write a file whole or not at all; see `whole_path`.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "note"
    >>> with whole_file(path) as stream:
    ...     _ = stream.write(b"text")
    ...     path.exists()
    False
    >>> path.read_bytes()
    b'text'
    """
    with whole_path(path, durable=durable) as temporary, temporary.open("wb") as stream:
        yield stream


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Write a text file, in UTF-8, whole or not at all; see `whole_path`."""
    with whole_file(path, durable=durable) as stream:
        stream.write(text.encode("utf-8"))


class _OnceEach(yaml.SafeLoader):
    """Refuses a name that stands twice in a mapping, of which YAML's library would take the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise yaml.constructor.ConstructorError(
                problem=f"{twice!r} stands twice in one mapping", problem_mark=node.start_mark
            )
        return super().construct_mapping(node, deep)


def read_yaml(path: Path, what: str) -> Any:
    """What a YAML file holds, as plain data.

    Args:
        path: the file.
        what: what it is, for messages.

    Raises:
        InputError: it cannot be read, or is no YAML.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _OnceEach)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the {what} {path}: {reason_of(error, path)}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not valid YAML: {one_line(error)}") from error


def clear_leftovers(folder: Path) -> None:
    """Delete what writers that were killed left in a folder of ours."""
    for leftover in folder.glob(f"*{TEMPORARY_SUFFIX}"):
        leftover.unlink()
