"""`upchirp eval`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from upchirp.cli.display import Display
from upchirp.cli.opening import opening
from upchirp.cli.parsing import parse
from upchirp.cli.printable import json_text, print_note, printable
from upchirp.data.settings import DEFAULT_TIMEOUT, Interpolation
from upchirp.errors import InputError
from upchirp.reports.words import figure_name, in_percent
from upchirp.training.parallel.device_name import check_device
from upchirp.training.parallel.launcher import is_first_process
from upchirp.training.recipes.eval_groups import EvalData, EvalLoading, EvalPreprocessing, Frequencies, Origin
from upchirp.training.recipes.group import group_of

if TYPE_CHECKING:
    from upchirp.training import SizedEvaluation

_MOST_ROWS = 30
DESCRIPTION = "Evaluate the weights of a run, or a weights file, on the validation images, at one size or several."


@dataclass(frozen=True, kw_only=True)
class EvalCommand:
    """Flags of `upchirp eval`: a run folder, or weights and data."""

    run: Path | None = None
    """Run folder: gives model, data, size and weights where they are not given."""
    model: str | None = None
    """Any timm model by name; by default what the weights file says."""
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments for the model's constructor."""
    weights: Path | None = None
    """.safetensors, a checkpoint, a file of timm's, or a name, timm/NAME.TAG or hf-hub:OWNER/NAME, which is downloaded
    once; by default the run's, its average if there is one."""
    which: Literal["average", "raw"] | None = None
    """The average of the weights, or the raw ones; by default the average where there is one."""
    data: str | None = None
    """Any data that `upchirp train --data` takes."""
    val_share: float | None = None
    """Of data without validation images evaluate only the share that training holds out; by default that is done for a
    run's own data."""
    val_split: str | None = None
    """Name of the split to evaluate: a folder, a Hugging Face split, or a value in a table's column of splits."""
    label_column: str | None = None
    """The column of labels of a table or a Hugging Face data set, where its name does not tell."""
    final_size: int | None = None
    """Input side, pixels; by default the run's, or 224."""
    sizes: tuple[int, ...] = ()
    """Several input sides instead, pixels."""
    low_pass: tuple[float, ...] = ()
    """Evaluate images without the frequencies beyond each of these radii, in periods per image (Figures 2 and 4)."""
    high_pass: tuple[float, ...] = ()
    """Evaluate images without the frequencies within each of these radii (Table 1)."""
    crop_pct: float | None = None
    """Share of the resized image that the centre crop keeps; by default what the weights say, else the paper's rule."""
    mean: tuple[float, ...] | None = None
    """Mean of the values of each channel; by default what the weights say, else the run."""
    std: tuple[float, ...] | None = None
    """Standard deviation of the same; likewise."""
    interpolation: Interpolation | None = None
    """Filter of the resize; likewise."""
    batch_size: int = 256
    """Images in one forward pass."""
    workers: int | None = None
    """Loader processes."""
    loader_timeout: float = DEFAULT_TIMEOUT
    """Seconds without a batch from them after which the evaluation stops; 0 waits forever."""
    device: str | None = None
    """Where to evaluate: cpu, cuda, cuda:1 or mps; by default the accelerator if there is one."""
    checkpoints: bool = False
    """Evaluate every checkpoint that the run kept, the oldest first, instead of its final weights (Figure 4)."""
    per_class: bool = False
    """Print the accuracy of each class, the worst first, or where images have several labels its average precision, its
    highest F1 and the threshold of that; with --json as `per_class`."""
    confusion: bool = False
    """Print which classes are taken for which, the most frequent first; with --json all of them as `confusions`."""
    report_file: Path | None = None
    """Write an HTML file: accuracy by class, and the worst confusions with pictures; of several labels an image each
    class's figures, and precision against recall."""
    per_class_file: Path | None = None
    """Write a CSV file with a row for each class: what --per-class prints, and where images have several labels the
    precision and the recall at the threshold. `upchirp predict` --threshold takes it."""
    json: bool = False
    """Print JSON."""

    def __post_init__(self) -> None:
        check_device(self.device)


def run(words: Sequence[str]) -> int:
    """Evaluate and print, and return the exit code."""
    command = parse(EvalCommand(), words, prog="upchirp eval", description=DESCRIPTION)
    if command.sizes and command.final_size is not None:
        raise InputError("give the input side by --final-size, or several by --sizes, not both")
    sizes = command.sizes if command.final_size is None else (command.final_size,)
    # Beside the results, which may be read by a program.
    console = Console(stderr=True, quiet=not is_first_process())
    with opening(console):
        from upchirp.training import evaluate_weights
    with Display(console) as display:
        results = evaluate_weights(
            group_of(Origin, command),
            group_of(EvalData, command),
            sizes=sizes,
            frequencies=group_of(Frequencies, command),
            preprocessing=group_of(EvalPreprocessing, command),
            loading=group_of(EvalLoading, command),
            checkpoints=command.checkpoints,
            device=command.device,
            report_file=command.report_file,
            per_class_file=command.per_class_file,
            observers=(display,),
        )
    if not is_first_process():
        return 0
    if command.json:
        listed = [{**result.to_dict(), **_details(result, command)} for result in results]
        several = command.sizes or command.low_pass or command.high_pass or command.checkpoints
        print(json_text(listed if several else listed[0]))
        return 0
    _print_figures(results, command)
    if command.confusion and results[0].evaluation.scores is not None:
        print_note("these images have several labels, and none is taken for another: --confusion has nothing to print")
        command = replace(command, confusion=False)
    for result in results:
        for title, rows in _details(result, command).items():
            _print_details(f"{title.replace('_', ' ')} at {result.size} px", rows)
    for what, file in (("report", command.report_file), ("classes", command.per_class_file)):
        if file is not None:
            print(f"{what}: {printable(file)}")
    return 0


def _print_figures(results: Sequence["SizedEvaluation"], command: EvalCommand) -> None:
    table = Table()
    filtered = command.low_pass or command.high_pass
    leading = ("step",) if command.checkpoints else ()
    figures = [figure_name(name) for name in results[0].evaluation.figures]
    for heading in (*leading, "size", *(("frequencies",) if filtered else ()), *figures, "images"):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in results:
        evaluation = result.evaluation
        table.add_row(
            *((f"{result.step:,}",) if result.step is not None else ()),
            f"{result.size} px",
            *((_frequencies(result),) if filtered else ()),
            *(f"{value:.2f} %" if in_percent(name) else f"{value:.4f}" for name, value in evaluation.figures.items()),
            f"{evaluation.images:,}",
        )
    Console().print(table)


def _details(result: "SizedEvaluation", command: EvalCommand) -> dict[str, list[dict[str, Any]]]:
    """What is asked for beside the figures, by its name in JSON."""
    asked = {"per_class": result.by_class() if command.per_class else None}
    asked["confusions"] = result.confusions() if command.confusion else None
    return {name: rows for name, rows in asked.items() if rows is not None}


def _print_details(title: str, rows: list[dict[str, Any]]) -> None:
    if figure := next((name for name in ("accuracy", "average_precision") if rows and name in rows[0]), None):
        rows = sorted(rows, key=lambda row: math.inf if row[figure] is None else row[figure])
    table = Table(title=title)
    for place, heading in enumerate(rows[0] if rows else ("class", "guess", "images")):
        table.add_column(
            figure_name(heading).replace("_", " "), justify="left" if not place or heading == "guess" else "right"
        )
    for row in rows[:_MOST_ROWS]:
        table.add_row(*(_cell(name, value) for name, value in row.items()))
    Console().print(table)
    if len(rows) > _MOST_ROWS:
        print(f"... and {len(rows) - _MOST_ROWS:,} more (all of them by --json)")


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}" if name == "threshold" else f"{value:.1f} %"
    return escape(printable(value))


def _frequencies(result: "SizedEvaluation") -> str:
    """Which were left in the images, in periods per image."""
    return f"up to {result.low_pass:g}" if result.low_pass is not None else f"beyond {result.high_pass:g}"
