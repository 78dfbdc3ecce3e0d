"""The journal of a search: what was found out, one line each, written at once and for good."""

import json
import os
from pathlib import Path
from typing import Any

from upchirp.errors import InputError


class Journal:
    """An append-only file of JSON lines; each is on the disk before `append` returns.

    A last line that was cut off by a crash is dropped when the journal is opened.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "journal.jsonl"
    >>> Journal(path).append({"kind": "stage", "bandwidth": 96})
    >>> with path.open("a") as stream:
    ...     _ = stream.write('{"kind": "sta')
    >>> Journal(path).records
    [{'kind': 'stage', 'bandwidth': 96}]

    Raises:
        InputError: a line inside the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: list[dict[str, Any]] = []
        """All records so far."""
        content = path.read_bytes() if path.exists() else b""
        whole = content.rpartition(b"\n")
        for number, line in enumerate(whole[0].splitlines() if whole[1] else [], 1):
            try:
                record = json.loads(line)
                record["kind"]
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"line {number} of {path} is damaged: cut the file before it and go on with `resume='auto'`"
                ) from error
            self.records.append(record)
        if whole[2]:
            with path.open("rb+") as stream:
                stream.truncate(len(content) - len(whole[2]))
                os.fsync(stream.fileno())

    def append(self, record: dict[str, Any]) -> None:
        """Write a record and wait until it is on the disk."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        self.records.append(record)

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The records of one kind, in order."""
        return [record for record in self.records if record["kind"] == kind]
