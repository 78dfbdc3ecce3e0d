"""Distillation: the loss, what the teacher sees, and runs with one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.runs import Make, differing, interrupted, losses, notes
from torch import nn
from torch.nn import functional

from upchirp import InputError, train
from upchirp.data import Targets
from upchirp.data.sources import GeneratedSource
from upchirp.search import SearchConfig, search
from upchirp.training import Classification, Event, load_checkpoint
from upchirp.training.methods.distillation import Distillation, Teacher
from upchirp.training.recipes.groups import Objective

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
SEEDS = np.zeros(2, dtype=np.uint64)


class Recorder(nn.Module):
    """Answers with the mean colour, and keeps what it was shown."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.shown = images
        return images.mean(dim=(2, 3)) * 3


def test_the_loss_is_that_of_the_paper() -> None:
    recorder = Recorder()
    task = Distillation(Classification(), Teacher(recorder, 8, MEAN, STD), MEAN, STD, temperature=2.0, share=0.3)
    images = torch.rand(2, 3, 8, 8)
    targets = Targets(torch.tensor([0, 2]), torch.tensor([1, 2]), torch.tensor([0.7, 1.0]), smoothing=0.1)
    shown, asked = task.ask(images, targets, SEEDS)
    assert shown is images
    outputs = torch.randn(2, 3, requires_grad=True)
    own, theirs = (torch.softmax(each.double() / 2, dim=1) for each in (outputs, recorder(images)))
    apart = (theirs * (theirs.log() - own.log())).sum(dim=1) * 4
    expected = 0.7 * functional.cross_entropy(outputs.double(), targets.dense(3).double(), reduction="none")
    torch.testing.assert_close(task.loss(outputs, asked).double(), expected + 0.3 * apart, rtol=1e-5, atol=1e-6)
    task.loss(outputs, asked).sum().backward()
    assert outputs.grad is not None
    # As good as the teacher, nothing is left of its part.
    alone = replace(task, share=1.0)
    assert alone.loss(recorder(images), asked).abs().max() < 1e-6


def test_the_teacher_sees_the_same_images_in_its_own_way() -> None:
    recorder = Recorder()
    teacher = Teacher(recorder, 16, (0.1, 0.2, 0.3), (0.5, 0.5, 1.0))
    colour = torch.tensor([0.9, 0.6, 0.2])[:, None, None]
    images = (colour.expand(2, 3, 6, 6) - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    teacher.answers(images, mean=MEAN, std=STD)
    assert recorder.shown.shape == (2, 3, 16, 16)
    torch.testing.assert_close(recorder.shown[0, :, 5, 5], torch.tensor([1.6, 0.8, -0.1]), rtol=1e-4, atol=1e-4)


def test_bce_asks_for_each_class() -> None:
    targets = Targets(torch.tensor([0]), torch.tensor([2]), torch.tensor([0.75]), smoothing=0.1)
    logits = torch.tensor([[2.0, -1.0, 0.5]])
    shares, likely = targets.dense(3), torch.sigmoid(logits)
    expected = -(shares * likely.log() + (1 - shares) * (1 - likely).log()).mean(dim=1)
    torch.testing.assert_close(Classification("bce").loss(logits, targets), expected)


def test_a_run_learns_from_the_run_before(config: Make, uninterrupted: Path, tmp_path: Path) -> None:
    weights = uninterrupted / "model_ema.safetensors"
    own = {"kd_model": str(weights), "kd_alpha": 1.0, "loss": "bce", "epochs": 2, "model_ema": False}
    events: list[Event] = []
    run = config(**own)
    train(run, observers=[events.append])
    assert [note for note in notes(events) if note.startswith(f"learning from {weights}, test_vit at 64 px")]
    # With all of the loss the teacher's, what the task itself asks is none of it.
    again = config(**own | {"loss": "cross_entropy"}, output=str(tmp_path / "again"))
    train(interrupted(again, 3))
    assert not differing(run.output, again.output)
    plain = config(**own | {"kd_alpha": 0.5}, output=str(tmp_path / "plain"))
    train(plain)
    assert losses(plain.output) != losses(run.output)
    assert run.output is not None
    state = load_checkpoint(next((run.output / "checkpoints").glob("best_*.pt")))["state"]
    assert not [name for name in state["model"] if "teacher" in name]


def test_teachers_that_do_not_fit(config: Make, uninterrupted: Path, tmp_path: Path) -> None:
    weights = str(uninterrupted / "model.safetensors")
    five = GeneratedSource("train", size=40, num_images=32, num_classes=5)
    with pytest.raises(InputError, match="tells 2 classes, which are not the data's 5"):
        train(config(kd_model=weights), data=(five, five))
    with pytest.raises(InputError, match=r"cannot read .*gone.safetensors"):
        train(config(kd_model=str(tmp_path / "gone.safetensors")))
    with pytest.raises(InputError, match="a pre-training has none"):
        config(regime="pretrain", kd_model=weights)
    with pytest.raises(InputError, match="have no teacher: leave out `kd_model`"):
        search(SearchConfig(training=config(kd_model=weights)))
    for changes in ({"kd_temperature": 0.0}, {"kd_alpha": 1.5}):
        with pytest.raises(InputError, match=next(iter(changes))):
            Objective(**changes)
