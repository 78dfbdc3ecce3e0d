"""Runs that leave out images of low loss: what they say and write, how they resume, and what they train on."""

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.runs import Make, differing, logged, notes
from torch import nn

from upchirp import (
    Augmentation,
    Batch,
    BatchTransform,
    InputError,
    TrainConfig,
    constant,
    efficienttrain_plus_plus,
    mixed_cross_entropy,
    plan,
)
from upchirp import train as run_training
from upchirp.data import Targets, open_data
from upchirp.training import Event, Optimization, Selected, Trainer, TrainResult, load_checkpoint
from upchirp.training.checkpoints import checkpoint as checkpoints
from upchirp.training.parallel.state import State
from upchirp.training.parallel.whole import Alone

EVERY_STEP = {"checkpoint_interval": 1, "checkpoint_keep": 100}


@pytest.fixture
def make(config: Make) -> Make:
    """Small runs with selection, in which a pass takes one to two steps."""
    settings = {"select": "infobatch", "epochs": 4, "evaluations": 1, "model_ema": False, "micro_batch": 32}
    return lambda **changes: config(**{**settings, **changes})


def train(config: TrainConfig, seen: list[Event] | None = None) -> TrainResult:
    return run_training(config, observers=[] if seen is None else [seen.append])


def passes(folder: Path | None) -> list[dict]:
    return logged(folder, "pass")


class Small(nn.Module):
    """A model that takes every size, with dropout, so that its random numbers matter."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(48, 2))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(images))


@pytest.mark.parametrize(("replays", "mode"), [(0, "batch"), (1, "batch"), (2, "mixed")])
def test_a_segment_from_any_step_ends_with_the_same_weights_and_data(make: Make, replays: int, mode: str) -> None:
    run = make(epochs=3, randaug_layers=0, low_frequency="lanczos")
    source, _ = open_data(run.data, 64)
    curriculum = efficienttrain_plus_plus(64, multiple=16)
    steps = plan(curriculum, epochs=3, dataset_size=len(source), batch_size=32, learning_rate=1e-2)
    # 200 KiB: two batches of 32 images of 32 pixels.
    steps = steps.with_replay(replays, mode=mode, gib=200 / 2**20)
    cpu = torch.device("cpu")

    def segment(stored: bytes | None) -> tuple[list[bytes], list[tuple[list[int], float]], dict]:
        """Train from a stored state to the end; returns the state before each step, the data, the weights."""
        torch.manual_seed(0)
        model = Small()
        trainer = Trainer.of(run, cpu)
        state = trainer.state(model, bandwidth=64, learning_rate=1e-2)
        loader = trainer.loader(source, steps, micro_batch=16, select=run.selection)
        if stored is not None:
            content = torch.load(io.BytesIO(stored), weights_only=True)
            state.load_state_dict(content["state"])
            loader.load_state_dict(content["loader"])
        data: list[tuple[list[int], float]] = []

        def record(batch: Batch, losses: torch.Tensor) -> torch.Tensor:
            weighted = loader.record(batch, losses)
            data.append((batch.indices.tolist(), weighted.sum().item()))
            return weighted

        states = []
        for _ in trainer.run(state, steps, loader, record=record):
            stream = io.BytesIO()
            torch.save({"state": state.state_dict(), "loader": loader.state_dict()}, stream)
            states.append(stream.getvalue())
        return states, data, model.state_dict()

    states, data, weights = segment(None)
    assert len(states) == steps.total_steps == len(data) // 2
    for done, stored in enumerate(states[:-1], start=1):
        _, resumed, ended = segment(stored)
        assert resumed == data[2 * done :]
        assert all(torch.equal(weights[key], ended[key]) for key in weights), done


def test_a_run_resumed_from_its_checkpoints_ends_with_the_same_weights(make: Make, tmp_path: Path) -> None:
    settings = {"replay": 1, "replay_mode": "mixed"}
    whole = train(make(**settings, **EVERY_STEP, output=str(tmp_path / "whole")))
    begun = passes(whole.output)
    assert any(record["left_out"] for record in begun)
    # Right before a pass begins, and in the middle of one.
    boundary = next(record["step"] - 1 for record in begun[2:])
    middle = next(step for step in range(4, 20) if step + 1 not in {record["step"] for record in begun})
    for step in (boundary, middle):
        path = checkpoints.step_path(whole.output / "checkpoints", step)
        state = load_checkpoint(path)
        assert state["loader"]["step"] == state["state"]["step"] == step
        resumed = train(make(**settings, resume=str(path), output=str(tmp_path / path.stem)))
        assert not differing(resumed.output, whole.output), step
        assert passes(resumed.output) == [record for record in begun if record["step"] > step]


def test_selection_is_told_and_counted(make: Make) -> None:
    seen: list[Event] = []
    result = train(make(epochs=6), seen)
    expected = json.loads((result.output / "plan.json").read_text())["selection"]
    assert (expected["prune"], expected["until"]) == (0.5, 0.875)
    assert expected["expected"]["summary"] in notes(seen)
    more = f"`epochs={expected['expected']['epochs']:.1f}` would make as many passes as 6 without"
    assert more in expected["expected"]["summary"]
    begun = [event.summary for event in seen if isinstance(event, Selected)]
    records = passes(result.output)
    assert [record["left_out"] for record in records] == [summary.left_out for summary in begun]
    assert {"step", "progress", "kept", "rescaled", "mean_score"} <= records[0].keys()
    assert json.loads(json.dumps(records[0]))["mean_score"] is None
    total = result.plan.total_samples
    count = len(begun) - 1 + (total - sum(summary.kept for summary in begun[:-1])) / begun[-1].kept
    assert f"{count:.1f} passes over the data instead of {total / 64:.1f}" in notes(seen)[-1]
    assert f"left out {100 * (1 - total / 64 / count):.1f} %" in notes(seen)[-1]


def test_steps_and_cost_are_those_without_selection(make: Make, tmp_path: Path) -> None:
    with_selection = train(make())
    without = train(make(select=None, output=str(tmp_path / "without")))
    assert with_selection.plan == without.plan
    assert differing(with_selection.output, without.output)
    assert not passes(without.output)
    assert "selection" not in json.loads((without.output / "plan.json").read_text())


def test_checkpoints_of_before_there_was_selection_load_without_it(make: Make, tmp_path: Path) -> None:
    whole = train(make(select=None, epochs=2, checkpoint_interval=4))
    path = checkpoints.step_path(whole.output / "checkpoints", 4)
    content = load_checkpoint(path)
    del content["loader"]
    old = tmp_path / "old.pt"
    checkpoints.save(content, old)
    resumed = train(make(select=None, epochs=2, resume=str(old), output=str(tmp_path / "resumed")))
    assert not differing(resumed.output, whole.output)
    with pytest.raises(InputError, match="trained without selection and is to go on with"):
        train(make(epochs=2, resume=str(old), output=str(tmp_path / "other")))


def test_resuming_with_another_selection_is_refused(make: Make) -> None:
    run = make(epochs=2)
    train(run)
    for name, value in (("select", None), ("select_prune", 0.4), ("select_until", 0.5)):
        with pytest.raises(InputError, match=f"{name} .* \\(now {value}\\)"):
            train(replace(run, resume="auto", **{name: value}))


@pytest.mark.parametrize("size", [8, 2])
def test_the_gradient_is_weighted_and_the_logged_loss_is_that_of_all_images(size: int) -> None:
    torch.manual_seed(0)
    # Micro-batches of two cannot be mixed, as a group is eight.
    mixup = 0.5 if size == 8 else 0.0
    augmentation = Augmentation(reprob=0.0, mixup=mixup, cutmix=0.0, mixup_prob=1.0, smoothing=0.1)
    transform = BatchTransform(augmentation, seed=0)
    whole = plan(constant(8), epochs=1, dataset_size=8, batch_size=8)
    step = replace(whole.step(0), learning_rate=1.0)
    images, labels = torch.randint(0, 256, (8, 3, 8, 8), dtype=torch.uint8), torch.arange(8) % 4
    weights = torch.tensor([1.0, 2, 1, 1, 2, 2, 1, 1])
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4, bias=False))
    inputs, targets = transform(images, labels, bandwidth=8, step=0, batch_size=8)
    losses = mixed_cross_entropy(model(inputs), targets, 0.1, reduction="none")
    (gradient,) = torch.autograd.grad((losses * weights).mean(), list(model.parameters()))
    before = model[1].weight.detach().clone()

    batches = []
    for first in range(0, 8, size):
        rows = slice(first, first + size)
        # What is not rescaled comes without weights.
        factors = None if (weights[rows] == 1).all() else weights[rows]
        parts = (images[rows], labels[rows], step, range(first, first + size), torch.arange(first, first + size) + 10)
        batches.append(Batch(*parts, factors, completes_step=rows.stop == 8))
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def record(batch: Batch, rows: torch.Tensor) -> torch.Tensor:
        seen.append((batch.indices, rows.detach()))
        return batch.weigh(rows)

    scaler = torch.amp.GradScaler("cpu", enabled=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    state = State(model=model, optimizer=optimizer, ema=None, scaler=scaler, bandwidth=8, parallel=Alone())
    trainer = Trainer(optimization=Optimization(amp=False), augmentation=augmentation)
    (result,) = trainer.run(state, whole, batches, record=record)
    torch.testing.assert_close(before - model[1].weight, gradient, rtol=1e-4, atol=1e-6)
    assert torch.cat([indices for indices, _ in seen]).tolist() == list(range(10, 18))
    torch.testing.assert_close(torch.cat([rows for _, rows in seen]), losses.detach())
    torch.testing.assert_close(result.loss, (losses * weights).sum().detach() / weights.sum())


def test_losses_of_rows_average_to_the_loss() -> None:
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.bfloat16)
    targets = Targets(torch.arange(6) % 5, torch.arange(6) % 3, torch.linspace(0, 1, 6))
    rows = mixed_cross_entropy(logits, targets, 0.1, reduction="none")
    assert (rows.shape, rows.dtype) == ((6,), torch.float32)
    assert torch.equal(rows.mean(), mixed_cross_entropy(logits, targets, 0.1))
    alone = Targets(targets.labels[2:3], targets.partners[2:3], targets.weight[2:3])
    torch.testing.assert_close(rows[2], mixed_cross_entropy(logits[2:3], alone, 0.1))
    with pytest.raises(InputError, match="reduction 'sum' is unknown"):
        mixed_cross_entropy(logits, targets, reduction="sum")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"select": "often"}, "select is 'often': expected infobatch"),
        ({"select_prune": 0}, r"prune is 0\.0: it must lie between 0 and 1"),
        ({"select_prune": 1}, r"prune is 1\.0"),
        ({"select_prune": math.nan}, "prune is nan"),
        ({"select_until": 0}, r"until is 0\.0: it must be a progress above 0"),
        ({"select_until": 1.5}, r"until is 1\.5"),
    ],
)
def test_bad_settings_get_one_line(config: Make, changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        config(**changes)
