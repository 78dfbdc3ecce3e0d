"""`upchirp export`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from upchirp.cli.opening import opening
from upchirp.cli.parsing import parse
from upchirp.cli.printable import print_note, printable
from upchirp.errors import InputError
from upchirp.training.recipes.eval_groups import Origin

DESCRIPTION = "Write trained weights as another library reads them, and say how it loads them."


@dataclass(frozen=True, kw_only=True)
class ExportCommand:
    """Flags of `upchirp export`."""

    run: Path | None = None
    """Run folder: its average if there is one, else its weights."""
    weights: Path | None = None
    """.safetensors, a checkpoint, a file of timm's, or a name, timm/NAME.TAG or hf-hub:OWNER/NAME."""
    model: str | None = None
    """Any timm model by name; by default what the weights file says."""
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments for the model's constructor."""
    final_size: int | None = None
    """Input side, pixels; by default that of the weights."""
    format: Literal["timm", "hf", "torchvision", "mmdet", "detectron2", "torch", "onnx"] = "timm"
    """timm: a .safetensors file; hf: a folder for timm's local-dir: and the Hugging Face hub, with a model card;
    torchvision, mmdet, detectron2: a file under their names; torch: a torch.export program; onnx: an ONNX file."""
    output: Path | None = None
    """File to write; for hf a folder."""
    push: str | None = None
    """Upload the folder of --format hf to the Hugging Face hub as OWNER/NAME."""


def run(words: Sequence[str]) -> int:
    """Export, say how to load it, and return the exit code."""
    command = parse(ExportCommand(), words, prog="upchirp export", description=DESCRIPTION)
    if command.output is None:
        raise InputError("no output: name the file, or the folder for --format hf, by --output")
    if command.push is not None and command.format != "hf":
        raise InputError("--push uploads a folder of the hub: give --format hf with it")
    with opening(Console(stderr=True)):
        from upchirp.exporting import export
        from upchirp.exporting.hub import push, run_facts
        from upchirp.training.assets.trained import load_trained
    origin = Origin(run=command.run, weights=command.weights, model=command.model, model_kwargs=command.model_kwargs)
    trained = load_trained(origin, final_size=command.final_size)
    for note in trained.notes:
        print_note(note)
    facts = {} if command.run is None else run_facts(command.run)
    loaded = export(trained, command.format, command.output, facts=facts)
    print(printable(f"{command.output}: {loaded}"))
    if command.push is not None:
        print(printable(push(command.output, command.push)))
    return 0
