"""A step passes through the files that docs/design.md names, and through no others."""

import re
import sys
from pathlib import Path
from types import FrameType

import torch

import upchirp
from upchirp import Batch, constant, plan
from upchirp.models import create_model
from upchirp.training import Optimization, Trainer

SOURCE = Path(upchirp.__file__).parent
DESIGN = (Path(__file__).parents[2] / "docs" / "design.md").read_text(encoding="utf-8")


def files_of_a_step() -> set[str]:
    steps = plan(constant(32), epochs=3, dataset_size=8, batch_size=8)
    images, labels = torch.zeros(8, 3, 32, 32, dtype=torch.uint8), torch.zeros(8, dtype=torch.int64)
    batches = [Batch(images, labels, step, range(8), torch.arange(8)) for step in steps.steps()]
    trainer = Trainer(optimization=Optimization(model_ema=True, clip_grad=1.0))
    state = trainer.state(create_model("test_resnet", num_classes=2, final_size=32), bandwidth=32, learning_rate=0.1)
    results = trainer.run(state, steps, batches)
    next(results)
    passed = set[str]()

    def note(frame: FrameType, event: str, argument: object) -> None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(SOURCE):
            passed.add(path.relative_to(SOURCE).as_posix())

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        next(results)
    finally:
        sys.setprofile(before)
    return passed


def test_a_step_passes_through_the_files_that_are_named() -> None:
    section = DESIGN.split("## One step\n")[1].split("\n## ")[0]
    table = re.findall(r"^\| `([\w/]+\.py)`", section, re.MULTILINE)
    named = re.findall(r"`([\w/]+/\w+\.py|randomness\.py)`", section)
    assert len(table) == 6
    assert all((SOURCE / name).is_file() for name in named)
    passed = files_of_a_step()
    assert set(table) <= passed
    assert passed <= set(named), "say in docs/design.md what these files do, or do without them"
