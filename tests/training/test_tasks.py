"""A task of one's own: by how many quarters an image is turned, which takes no labels."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.runs import Make, differing, interrupted, logged, weights
from torch import nn
from torch.nn import functional

from upchirp import InputError, TrainConfig, train
from upchirp.data import Targets, open_data
from upchirp.models import check_outputs
from upchirp.search import SearchConfig, search


@dataclass(frozen=True)
class Rotation:
    """Images are turned by 0 to 3 quarters, one after the other."""

    labelled = False
    figures = {"right": 100.0, "loss": 1.0}  # noqa: RUF012
    best = "right"

    def outputs(self, classes: int) -> int:
        return 4

    def check(self, model: nn.Module, size: int, classes: int) -> None:
        check_outputs(model, size, 4)

    def around(self, model: nn.Module, *, fresh: bool) -> nn.Module:
        return model

    def exported(
        self, model: nn.Module, tensors: Mapping[str, torch.Tensor]
    ) -> tuple[nn.Module, dict[str, torch.Tensor]]:
        return model, dict(tensors)

    def ask(
        self, inputs: torch.Tensor, targets: Targets, seeds: NDArray[np.uint64]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        turns = torch.arange(len(inputs), device=inputs.device) % 4
        turned = [torch.rot90(image, int(turn), (1, 2)) for image, turn in zip(inputs, turns, strict=True)]
        return torch.stack(turned), turns

    def loss(self, outputs: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(outputs.float(), asked, reduction="none")

    def measure(self, outputs: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
        right = (outputs.argmax(dim=1) == asked).sum().float()
        return torch.stack([right, self.loss(outputs, asked).sum()])

    def guesses(self, outputs: torch.Tensor) -> None:
        return None

    def pictures(self, *about: object) -> dict[str, torch.Tensor]:
        return {}


class Reconstruction(Rotation):
    """No model is made for it by name."""

    def outputs(self, classes: int) -> None:
        return None


@pytest.fixture
def run(config: Make) -> TrainConfig:
    return config(mixup=0.0, cutmix=0.0, hflip=0.0, report=True)


def test_it_trains_and_resumes(run: TrainConfig, tmp_path: Path) -> None:
    whole = train(run, task=Rotation())
    evaluations = logged(whole.output, "evaluation")
    assert all(0 <= line["right"] <= 100 and line["images"] == 16 for line in evaluations)
    assert whole.top1 == evaluations[-1]["right"] or whole.top1 in [line["right"] for line in evaluations]
    assert weights(whole.output)["model.safetensors: head.weight"].shape[0] == 4
    assert not (whole.output / "predictions.npz").exists()
    other = interrupted(replace(run, output=tmp_path / "other", report=False), 5, task=Rotation())
    train(other, task=Rotation())
    assert not differing(whole.output, other.output)


def test_it_learns_what_it_is_asked(config: Make) -> None:
    """Halves of one colour each tell which way is up."""

    class Halves:
        def __len__(self) -> int:
            return 32

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            image = torch.zeros(3, 32, 32, dtype=torch.uint8)
            image[:, :16] = 255
            return image, -1

    plain = {"mixup": 0.0, "cutmix": 0.0, "hflip": 0.0, "randaug_layers": 0, "reprob": 0.0, "scale": (0.9, 1.0)}
    run = config(**plain, epochs=20, curriculum="constant", final_size=32, lr=1e-2)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4))
    assert train(run, task=Rotation(), model=linear, data=(Halves(), Halves())).top1 == 100.0


def test_it_is_searched_over(config: Make, image_folder: Path, tmp_path: Path) -> None:
    training = config(mixup=0.0, cutmix=0.0, model_ema=False, batch_size=16, epochs=2, output=str(tmp_path / "search"))
    settings = SearchConfig(training=training, stages=3, candidates=(32, 64), search_val=0.25, tuning_epochs=0.5)
    search(settings, task=Rotation(), data=open_data(str(image_folder), 64)[0])
    lines = [json.loads(line) for line in (tmp_path / "search" / "journal.jsonl").read_text().splitlines()]
    trials = [line for line in lines if line["kind"] == "trial"]
    assert len(trials) == 4 and all(0 <= trial["accuracy"] <= 100 for trial in trials)


def test_a_model_that_does_not_fit_is_refused(run: TrainConfig) -> None:
    with pytest.raises(InputError, match="has 2 outputs for 4 classes"):
        train(run, task=Rotation(), model=nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 2)))
    with pytest.raises(InputError, match="Reconstruction cannot be made by name: pass a model"):
        train(run, task=Reconstruction())
