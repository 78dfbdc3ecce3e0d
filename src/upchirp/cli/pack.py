"""`upchirp pack`."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from upchirp.cli.display import say
from upchirp.cli.opening import opening
from upchirp.cli.parsing import parse
from upchirp.cli.printable import json_text, print_note, printable
from upchirp.data.settings import VAL_SHARE
from upchirp.data.tars.manifest import PackSettings
from upchirp.errors import InputError

if TYPE_CHECKING:
    from upchirp.data.packing import PackResult, Summary

DESCRIPTION = (
    "Write a data set as tar shards with smaller versions of the training images, so that small bandwidths read "
    "fewer bytes. Train on the result by --data. Packing that was interrupted goes on when it is run again."
)
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class PackCommand:
    """Flags of `upchirp pack`."""

    data: str | None = None
    """What to pack: anything that `upchirp train --data` takes."""
    val_share: float = VAL_SHARE
    """Share of each class that becomes val/ where the data has no validation images."""
    train_split: str | None = None
    """Name of the training images' folder, Hugging Face split, or value in a table's column of splits."""
    val_split: str | None = None
    """The same for the validation images."""
    label_column: str | None = None
    """The column of labels of a table or a Hugging Face data set, where its name does not tell."""
    output: Path | None = None
    """Folder to write, or to check with --verify."""
    sizes: tuple[int, ...] = PackSettings.sizes
    """Shorter sides of the smaller versions, pixels."""
    raw: tuple[int, ...] = PackSettings.raw
    """Shorter sides of versions stored as decoded pixels: about five times the bytes, and nothing to decode."""
    quality: int = PackSettings.quality
    """JPEG quality of the smaller versions."""
    max_size: int | None = None
    """Store originals with a longer shorter side re-encoded at this one, pixels; by default as they are."""
    shard_size: int = PackSettings.shard_size
    """Images in a shard."""
    final_size: int = 224
    """For --data generated only: its images are stored at twice that side."""
    workers: int | None = None
    """Processes; by default one for each core."""
    verify: bool = False
    """Check a packed folder instead: checksums, indexes, and the header of each image."""
    json: bool = False
    """Print JSON."""


def run(words: Sequence[str]) -> int:
    """Pack or verify, print, and return the exit code."""
    command = parse(PackCommand(), words, prog="upchirp pack", description=DESCRIPTION)
    if command.output is None:
        raise InputError("no output: name the packed folder by --output")
    try:
        if command.verify:
            return _verify(command, command.output)
        return _pack(command, command.output)
    except KeyboardInterrupt:
        print("upchirp: interrupted; run the same command again, it goes on", file=sys.stderr)
        return 130


def _pack(command: PackCommand, output: Path) -> int:
    if command.data is None:
        raise InputError("no data: name what to pack by --data")
    settings = PackSettings(
        sizes=command.sizes,
        raw=command.raw,
        quality=command.quality,
        max_size=command.max_size,
        shard_size=command.shard_size,
    )
    with opening(Console(stderr=True)):
        from upchirp.data.packing import pack
    with _progress("images") as progress:
        result = pack(
            command.data,
            output,
            settings,
            final_size=command.final_size,
            val_share=command.val_share,
            train_split=command.train_split,
            val_split=command.val_split,
            label_column=command.label_column,
            note=print_note,
            workers=command.workers,
            progress=progress,
        )
    if command.json:
        found = {"shards": result.shards, "shards_found": result.found}
        print(json_text({**result.summary.to_dict(), **found}))
    else:
        _show(result, output, Console())
    return 0


def _verify(command: PackCommand, output: Path) -> int:
    with opening(Console(stderr=True)):
        from upchirp.data.packing import verify
    with _progress("shards") as progress:
        damages = verify(output, workers=command.workers, progress=progress)
    if command.json:
        print(json_text({"damaged": [vars(damage) for damage in damages]}))
    else:
        for damage in damages:
            print(printable(f"{damage.shard}: {damage.reason}"), file=sys.stderr)
        if not damages:
            print(f"{printable(output)} is whole: every checksum, index and image header agrees")
    if damages:
        listed = ", ".join(damage.shard for damage in damages[:_SHOWN]) + (", ..." if len(damages) > _SHOWN else "")
        raise InputError(
            f"{len(damages)} damaged in {output}: {listed}; delete them and run the same `upchirp pack` command again"
        )
    return 0


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, so that standard output holds the result alone."""
    console = Console(stderr=True)
    bar = Progress(
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn(what),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        # No thread of its own: packing forks.
        auto_refresh=False,
        disable=not console.is_terminal,
    )
    task = bar.add_task("", total=None)

    def show(done: int, total: int) -> None:
        bar.update(task, completed=done, total=total)
        bar.refresh()

    with bar:
        yield show


def _show(result: "PackResult", output: Path, console: Console) -> None:
    summary = result.summary
    if result.found:
        say(console, f"{result.found} of {result.shards} shards were there already")
    console.print(_levels_table(summary))
    console.print(_reads_table(summary))
    if summary.left_out:
        images = sum(total.images for total in summary.levels if total.size is None)
        share = len(summary.left_out) / (len(summary.left_out) + images)
        say(console, f"LEFT OUT: {len(summary.left_out)} images that cannot be read ({share:.2%}):")
        for name, reason in summary.left_out[:_SHOWN]:
            say(console, f"  {name}: {reason}")
        if len(summary.left_out) > _SHOWN:
            say(console, f"  ... {len(summary.left_out) - _SHOWN} more (all of them by --json)")
    say(console, f"{result.shards} shards, {_bytes(summary.tar_bytes)}: train with --data {output}")


def _levels_table(summary: "Summary") -> Table:
    table = Table(title="stored")
    for heading in ("split", "shorter side", "images", "bytes", "of the originals"):
        table.add_column(heading, justify="right")
    originals = {total.split: max(1, total.bytes) for total in summary.levels if total.size is None}
    for total in summary.levels:
        table.add_row(
            total.split,
            "original" if total.size is None else f"{total.size} px",
            f"{total.images:,}",
            _bytes(total.bytes),
            f"{total.bytes / originals[total.split]:.0%}",
        )
    return table


def _reads_table(summary: "Summary") -> Table:
    table = Table(
        title="read for one training image, mean",
        caption="images/s that one core of this machine reads and decodes, before it resizes and augments them",
    )
    for heading in ("B", "packed", "originals", "share", "images/s"):
        table.add_column(heading, justify="right")
    for read in summary.reads:
        table.add_row(
            str(read.bandwidth),
            f"{read.bytes / 1e3:.1f} kB",
            f"{read.original_bytes / 1e3:.1f} kB",
            f"{read.bytes / read.original_bytes:.0%}",
            f"{read.images_per_second:,.0f}",
        )
    return table


def _bytes(count: int) -> str:
    """Bytes as a short text.

    >>> _bytes(2_500_000), _bytes(145_000_000_000)
    ('2.5 MB', '145.0 GB')
    """
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"
