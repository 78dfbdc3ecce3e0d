"""Transforms of one's own, learned ones included: seeded, resumed and kept in checkpoints like everything else."""

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.runs import Make, differing, interrupted, losses
from torch import nn

from upchirp import Batch, InputError, Loader, plan, train
from upchirp.curriculum import load_curriculum
from upchirp.data import GeneratedSource, Moment
from upchirp.training import load_checkpoint
from upchirp.training.engine.trainer import Trainer
from upchirp.training.parallel.ranks import Ranks
from upchirp.training.recipes.run_groups import Loading

EXAMPLES = Path(__file__).parents[2] / "examples"
LEARNED, REGIONS = (EXAMPLES / name for name in ("learned_low_pass.py", "opening_regions.py"))


def example(path: Path) -> dict[str, Any]:
    return runpy.run_path(str(path))


def opening(folder: Path | None) -> torch.Tensor:
    """What the filter had learned in the last checkpoint."""
    assert folder is not None
    last = sorted((folder / "checkpoints").glob("step_*.pt"))[-1]
    return load_checkpoint(last)["state"]["transforms"]["low_pass.opening"]


def test_a_learned_filter_learns_and_goes_on_exactly(config: Make, tmp_path: Path) -> None:
    parts = example(LEARNED)
    options = {"curriculum": parts["curriculum"](64), "compile": False}
    whole, halted = (config(output=str(tmp_path / name), **options) for name in ("whole", "halted"))
    learned = parts["run"](whole)
    start = torch.linspace(-1, 1, 8)
    assert (opening(whole.output) - start).abs().max() > 1e-4
    assert torch.equal(learned.opening.detach(), opening(whole.output))
    going_on = interrupted(halted, 3, transforms={"low_pass": parts["LearnedLowPass"]()})
    parts["run"](going_on)
    assert differing(whole.output, halted.output) == []
    assert torch.equal(opening(whole.output), opening(halted.output))


def test_ranks_take_the_mean_of_what_a_transform_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    """DDP does so for the model's own gradients; a run of two ranks learned what one did."""
    learned = example(LEARNED)["LearnedLowPass"]()
    trainer = Trainer(loading=Loading(workers=0), transforms={"low_pass": learned})
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2))
    state = trainer.state(model, bandwidth=32, learning_rate=0.1)
    run = plan(load_curriculum(example(LEARNED)["curriculum"](32), 32), epochs=2, dataset_size=16, batch_size=16)
    averaged = []
    monkeypatch.setattr(Ranks, "average", lambda self, tensors: averaged.append([each.shape for each in tensors]))
    before = learned.opening.detach().clone()
    source = GeneratedSource("train", size=32, num_images=16, num_classes=2)
    results = list(trainer.run(state, run, source))
    assert averaged == [[(8,)]] * len(results) and not torch.equal(learned.opening, before)
    # A probe trains copies.
    after = learned.opening.detach().clone()
    probe = trainer.probe_state(model, bandwidth=32)
    assert len(list(trainer.run(probe, run, source))) == 2
    assert torch.equal(learned.opening, after) and learned.opening.grad is None


def test_regions_open_and_are_the_same_in_any_micro_batch(config: Make, tmp_path: Path) -> None:
    parts = example(REGIONS)
    images = torch.ones(4, 3, 64, 64)
    shares = []
    for progress in (0.0, 0.25, 0.5):
        moment = Moment(progress=progress, step=3, bandwidth=64, rows=range(4), seed=0)
        shares.append(parts["opening_regions"](images, moment).mean().item())
    assert shares == [0.0, pytest.approx(0.5, abs=0.08), 1.0]
    run = {"curriculum": parts["curriculum"](64), "drop": 0.0, "epochs": 2, "amp": False}
    folders = {rows: tmp_path / str(rows) for rows in (16, 32)}
    for rows, folder in folders.items():
        parts["run"](config(micro_batch=rows, output=str(folder), **run))
    assert losses(folders[16]) == pytest.approx(losses(folders[32]), rel=1e-4)
    plain = config(output=str(tmp_path / "plain"), **{**run, "curriculum": "constant"})
    train(plain)
    assert losses(plain.output)[2] != pytest.approx(losses(folders[16])[2], rel=1e-3)


def test_a_transform_that_is_not_given_is_told_before_training(config: Make) -> None:
    run = config(curriculum=example(REGIONS)["curriculum"](64))
    with pytest.raises(InputError, match="names the transform 'regions', and given are other: give it by"):
        train(run, transforms={"other": lambda images, moment: images})


def test_a_loop_of_one_s_own_gets_it_with_the_batch() -> None:
    curriculum = load_curriculum(example(REGIONS)["curriculum"](32), 32)
    source = GeneratedSource("train", size=32, num_images=16, num_classes=2)
    run = plan(curriculum, epochs=4, dataset_size=16, batch_size=8)
    seen: list[Moment] = []

    def look(images: torch.Tensor, moment: Moment) -> torch.Tensor:
        seen.append(moment)
        return images * 0

    loader = Loader(source, run, workers=0, seed=5, transforms={"regions": look})
    batches: list[Batch] = list(loader)
    inputs = [batch.prepare(loader.transform)[0] for batch in batches]
    assert [bool(each.any()) for each in inputs] == [batch.progress >= 0.5 for batch in batches]
    assert [(moment.progress, moment.seed) for moment in seen] == [(batch.progress, 5) for batch in batches[:4]]
    assert run.stages[0].transform == "regions" and "32 regions" in str(run)
