"""`upchirp similarity`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console

from upchirp.cli.display import Display
from upchirp.cli.help import values_of_flags
from upchirp.cli.opening import opening
from upchirp.cli.parsing import parse
from upchirp.cli.printable import json_text, printable
from upchirp.cli.words import apart
from upchirp.errors import InputError
from upchirp.training.parallel.device_name import check_device
from upchirp.training.recipes.eval_groups import EvalData, EvalLoading

DESCRIPTION = """Compare the checkpoints of two RUNs by what they make of the same images (linear CKA, Figure 6); write
similarity.json, similarity.html and similarity.png. Runs keep their checkpoints by --checkpoint-keep all."""


@dataclass(frozen=True, kw_only=True)
class SimilarityCommand:
    """Flags of `upchirp similarity`."""

    output: Path | None = None
    """Folder to write; by default a new one under runs/."""
    data: str | None = None
    """Images, by default those that the first run validated on."""
    images: int = 1024
    """How many of them."""
    which: Literal["average", "raw"] = "raw"
    """The raw weights of the checkpoints, or their averages."""
    batch_size: int = 256
    """Images in one forward pass, and in a batch of the estimate."""
    workers: int | None = None
    """Loader processes."""
    device: str | None = None
    """Where to compute: cpu, cuda, cuda:1 or mps; by default the accelerator if there is one."""
    json: bool = False
    """Print JSON."""

    def __post_init__(self) -> None:
        check_device(self.device)


def run(words: Sequence[str]) -> int:
    """Compare, say what came of it, and return the exit code."""
    runs, flags = apart(words, values_of_flags(SimilarityCommand()))
    command = parse(SimilarityCommand(), flags, prog="upchirp similarity", description=DESCRIPTION)
    if len(runs) != 2:
        raise InputError(f"{len(runs)} runs: name two run folders, which may be the same")
    console = Console(stderr=True)
    with opening(console):
        from upchirp.compare.checkpoint_similarity import REPORT, similarity
        from upchirp.reports.similarity_html import verdict
    with Display(console) as display:
        found = similarity(
            *map(Path, runs),
            output=command.output,
            data=EvalData(data=command.data),
            images=command.images,
            which=command.which,
            loading=EvalLoading(batch_size=command.batch_size, workers=command.workers),
            device=command.device,
            observers=(display,),
        )
    if command.json:
        print(json_text({**found.summary, "output": str(found.output)}))
        return 0
    for line in (verdict(found.summary), f"report: {found.output / REPORT}"):
        print(printable(line))
    return 0
