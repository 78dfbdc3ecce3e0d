"""`upchirp predict`."""

import csv
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from upchirp.cli.display import Display
from upchirp.cli.help import values_of_flags
from upchirp.cli.opening import opening
from upchirp.cli.parsing import parse
from upchirp.cli.printable import json_text, print_note, printable
from upchirp.cli.words import apart
from upchirp.data.settings import DEFAULT_TIMEOUT, Interpolation
from upchirp.errors import InputError
from upchirp.training.parallel.device_name import check_device
from upchirp.training.recipes.eval_groups import EvalLoading, EvalPreprocessing, Origin
from upchirp.training.recipes.group import group_of

DESCRIPTION = """Say what images show, by the weights of a run or a weights file. IMAGES are files, folders of any
shape, or - for an image, or one path a line, on standard input."""


@dataclass(frozen=True, kw_only=True)
class PredictCommand:
    """Flags of `upchirp predict`."""

    run: Path | None = None
    """Run folder: its average if there is one, else its weights."""
    weights: Path | None = None
    """.safetensors, a checkpoint, a file of timm's, or a name, timm/NAME.TAG or hf-hub:OWNER/NAME."""
    model: str | None = None
    """Any timm model by name; by default what the weights file says."""
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments for the model's constructor."""
    top: int | None = None
    """Classes for each image at most, the most probable ones; by default 5, or of weights that tell several labels all
    that reach the threshold."""
    threshold: float | Path | None = None
    """Least probability of a class that is told, or a CSV file with one for each class, as `upchirp eval` writes it by
    --per-class-file; by default 0.5 for weights that tell several labels, else 0."""
    tta: bool = False
    """Test-time augmentation: average each image's probabilities with its mirror image's."""
    final_size: int | None = None
    """Input side, pixels; by default that of the weights."""
    crop_pct: float | None = None
    """Share of the resized image that the centre crop keeps; by default what the weights say."""
    interpolation: Interpolation | None = None
    """Filter of the resize; likewise."""
    batch_size: int = 64
    """Images in one forward pass."""
    workers: int | None = None
    """Loader processes."""
    loader_timeout: float = DEFAULT_TIMEOUT
    """Seconds without a batch from them after which it ends; 0 waits forever."""
    device: str | None = None
    """Where to compute: cpu, cuda, cuda:1 or mps; by default the accelerator if there is one."""
    csv: bool = False
    """Print CSV: image, rank, class, label, probability, error; lines come as they are worked out."""
    json: bool = False
    """Print JSON."""

    def __post_init__(self) -> None:
        check_device(self.device)


def run(words: Sequence[str]) -> int:
    """Predict and print, and return the exit code: 1 if an image could not be read."""
    images, flags = apart(words, values_of_flags(PredictCommand()))
    command = parse(PredictCommand(), flags, prog="upchirp predict", description=DESCRIPTION)
    if not images:
        raise InputError("no images: name files or folders, or - for standard input")
    if command.csv and command.json:
        raise InputError("give one of --csv and --json")
    _check_not_output(images, command)
    console = Console(stderr=True)
    with opening(console):
        from upchirp.data import LooseSource, find_images
        from upchirp.training import predict, read_thresholds
    threshold = read_thresholds(command.threshold) if isinstance(command.threshold, Path) else command.threshold
    with TemporaryDirectory() as folder:
        paths, passed_over = find_images(_places(images, Path(folder)))
        for note in passed_over.notes():
            print_note(note)
        with Display(console) as display:
            predictions = predict(
                LooseSource(paths),
                Origin(
                    run=command.run, weights=command.weights, model=command.model, model_kwargs=command.model_kwargs
                ),
                top=command.top,
                threshold=threshold,
                tta=command.tta,
                final_size=command.final_size,
                preprocessing=EvalPreprocessing(crop_pct=command.crop_pct, interpolation=command.interpolation),
                loading=group_of(EvalLoading, command),
                device=command.device,
                observers=(display,),
            )
        # What came on standard input has no path.
        named = (
            {**found.to_dict(), "image": "-" if found.image.startswith(folder) else found.image}
            for found in predictions
        )
        return _print(named, command)


def _print(predictions: Iterator[dict[str, Any]], command: PredictCommand) -> int:
    unreadable = 0
    listed = []
    table = csv.writer(sys.stdout)
    if command.csv:
        table.writerow(["image", "rank", "class", "label", "probability", "error"])
    for found in predictions:
        unreadable += "error" in found
        if command.json:
            listed.append(found)
        elif command.csv and "error" in found:
            table.writerow([printable(found["image"]), "", "", "", "", printable(found["error"])])
        elif command.csv and not found["predictions"]:
            table.writerow([printable(found["image"]), "", "", "", "", ""])
        elif command.csv:
            for rank, guess in enumerate(found["predictions"], 1):
                cells = [guess["class"], guess["label"], guess["probability"]]
                table.writerow([printable(found["image"]), rank, *cells, ""])
        elif "error" in found:
            print(f"upchirp: cannot read {printable(found['image'])}: {printable(found['error'])}", file=sys.stderr)
        else:
            guesses = ", ".join(
                f"{guess['class']} {100 * guess['probability']:.1f} %" for guess in found["predictions"]
            )
            print(printable(f"{found['image']}: {guesses or 'none'}"))
    if command.json:
        print(json_text(listed, indent=2))
    return 1 if unreadable else 0


def _check_not_output(images: Sequence[str], command: PredictCommand) -> None:
    """Refuse the name of a file to write, where what is printed is to be kept."""
    suffix = ".csv" if command.csv else ".json" if command.json else ""
    for image in images:
        if suffix and image.endswith(suffix) and not Path(image).exists():
            raise InputError(f"there is no image {image}: --{suffix[1:]} prints, and `> {image}` keeps what it prints")


def _places(images: Sequence[str], folder: Path) -> Iterator[str]:
    """The files and folders that are named, here and on standard input."""
    for image in images:
        if image != "-":
            yield image
            continue
        data = sys.stdin.buffer.read()
        if _is_image(data, stored := folder / "image"):
            yield str(stored)
            continue
        lines = [line.rstrip(b"\r") for line in data.split(b"\n")]
        yield from (os.fsdecode(line) for line in lines if line)


def _is_image(data: bytes, stored: Path) -> bool:
    """Whether the bytes are an image, which is put into a file then."""
    from upchirp.data.images.decoding import open_picture

    stored.write_bytes(data)
    try:
        open_picture(data)
    except OSError:
        return False
    return True
