"""Runs with the replay buffer: the images they decode, how they resume, and how `auto` chooses."""

import copy
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from tests.runs import Make, differing, interrupted, notes
from torch import nn

from upchirp import InputError, TrainConfig, train
from upchirp.data import open_data
from upchirp.training import Event, Started, Trainer, curriculum_for, load_checkpoint
from upchirp.training.checkpoints import checkpoint as checkpoints
from upchirp.training.probing import planning
from upchirp.training.probing import rates as measuring
from upchirp.training.probing import replay as replay_choice
from upchirp.training.probing.probe import Bench
from upchirp.training.probing.rates import loader_speed, model_speed
from upchirp.training.probing.replay import MOST_REPLAYS, Speeds, replays_needed


class Counting:
    """A source that counts how often each image is read."""

    def __init__(self, config: TrainConfig) -> None:
        self.source, self.validation = open_data(config.data, config.final_size)
        self.classes = self.source.classes
        self.read: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self.source)

    def load(self, index: int) -> tuple:
        self.read[index] += 1
        return self.source.load(index)

    def describe(self, index: int) -> str:
        return self.source.describe(index)


@pytest.mark.parametrize(("mode", "prepare"), [("batch", "cpu"), ("mixed", "device")])
def test_a_run_interrupted_inside_a_stage_ends_with_the_same_weights(
    config: Make, mode: str, prepare: str, tmp_path: Path
) -> None:
    # 240 KiB: two and a half batches of 32 images of 32 pixels, one of 48 pixels.
    settings = {
        "replay": 2,
        "replay_mode": mode,
        "replay_gib": 240 / 2**20,
        "epochs": 6,
        "micro_batch": 32,
        "prepare": prepare,
    }
    whole = train(config(**settings, output=str(tmp_path / "whole")))
    first = whole.plan.stages[0].steps
    assert first > 9, "the buffer is to be full and turned over where the run stops"
    run = interrupted(interrupted(config(**settings), 8), first + 2)
    assert not differing(train(run).output, whole.output)


def test_images_decoded_are_those_of_the_plan_and_the_steps_stay(config: Make, tmp_path: Path) -> None:
    run = config(replay=1, epochs=6)
    counted = Counting(run)

    def begin(event: Event) -> None:
        # Labels were looked at before.
        if isinstance(event, Started):
            counted.read.clear()

    result = train(run, data=(counted, counted.validation), observers=[begin])
    plain = train(config(epochs=6, output=str(tmp_path / "plain")))
    assert differing(result.output, plain.output)
    assert [stage.steps for stage in result.plan.stages] == [stage.steps for stage in plain.plan.stages]
    assert counted.read.total() == result.plan.total_fresh_samples
    stored = json.loads((result.output / "plan.json").read_text())["stages"]
    assert [stage["replay"]["batches"] for stage in stored] == [1, 1, 0]
    for stage in stored:
        steps = stage["steps"]
        assert stage["samples"] == 32 * steps
        assert stage["fresh_samples"] == 32 * (steps if stage["bandwidth"] == 64 else (steps + 1) // 2)


def test_replay_at_the_final_size_is_asked_for(config: Make) -> None:
    result = train(config(curriculum="constant", replay=1, replay_final=True, epochs=2))
    assert result.plan.total_fresh_samples < result.plan.total_samples


@pytest.fixture
def speeds(monkeypatch: pytest.MonkeyPatch) -> dict[int, Speeds]:
    """What is measured for each bandwidth."""
    table = {32: Speeds(loader=100, model=450), 48: Speeds(loader=100, model=150), 64: Speeds(loader=100, model=90)}
    monkeypatch.setattr(replay_choice, "loader_speed", lambda bench, side: table[side].loader)
    monkeypatch.setattr(replay_choice, "model_speed", lambda bench, side, micro_batch: table[side].model)
    return table


def test_auto_writes_its_choice_into_plan_and_checkpoint_and_resumes_by_it(
    config: Make, speeds: dict[int, Speeds], tmp_path: Path
) -> None:
    run = config(replay="auto")
    seen: list[Event] = []
    resumed = interrupted(run, 4, seen.append)
    measured = [note for note in notes(seen) if "images/s" in note]
    assert ["32 px" in measured[0], "48 px" in measured[1], len(measured)] == [True, True, 2]
    assert all(figure in measured[0] for figure in ("100 images/s", "450", "4 replayed"))
    latest = list(checkpoints.checkpoints(run.output / "checkpoints"))[-1]
    stored = json.loads((run.output / "plan.json").read_text())["stages"]
    for stages in (stored, load_checkpoint(latest)["plan"]["stages"]):
        assert [stage["replay"]["batches"] for stage in stages] == [4, 1, 0]
    speeds[32] = speeds[48] = Speeds(loader=100, model=1)  # measured anew it would be another plan
    other = train(config(replay="auto", output=str(tmp_path / "other"), resume=str(latest)))
    ended = train(resumed)
    assert [stage.replay.batches for stage in ended.plan.stages] == [4, 1, 0]
    assert not differing(ended.output, other.output)


def test_a_new_run_from_a_checkpoint_keeps_the_bound_of_its_buffer(
    config: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By default that follows from the memory that is free; a run that replays nothing does not ask."""
    free = iter(range(200, 100, -1))
    monkeypatch.setattr(planning, "free_memory", lambda: next(free) * 2**20)
    for replay in (0, 1):
        run = interrupted(config(replay=replay, output=str(tmp_path / f"first{replay}")), 4)
        latest = list(checkpoints.checkpoints(run.output / "checkpoints"))[-1]
        train(config(replay=replay, output=str(tmp_path / f"second{replay}"), resume=str(latest)))


def test_auto_chooses_nothing_where_the_loader_is_fast(config: Make, speeds: dict[int, Speeds]) -> None:
    speeds[32] = speeds[48] = Speeds(loader=100, model=100)
    plan = train(config(replay="auto")).plan
    assert plan.total_fresh_samples == plan.total_samples


def test_resuming_with_another_replay_is_refused(config: Make) -> None:
    run = interrupted(config(replay=1), 2)
    with pytest.raises(InputError, match=r"replay 1 \(now 2\)"):
        train(replace(run, replay=2))


@example(loader=3124.9999999999854, model=3125.0)
@given(st.floats(0.1, 1e5), st.floats(0.1, 1e5))
def test_the_fewest_replays_that_keep_the_device_busy(loader: float, model: float) -> None:
    chosen = replays_needed(Speeds(loader=loader, model=model))
    enough = [n for n in range(MOST_REPLAYS) if loader * (n + 1) >= model * (1 - 1e-9)]
    assert chosen == next(iter(enough), MOST_REPLAYS) or loader * (chosen + 1) == pytest.approx(model)


class Clock:
    """Time that passes only as tests say."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Timed(nn.Module):
    """A model that takes a millisecond for an image of 32 pixels, and four for one of 64."""

    clock: ClassVar[Clock]

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.clock.now += len(images) * (images.shape[-1] / 32) ** 2 / 1000
        return self.head(images.mean((2, 3)))


def test_speeds_are_measured_on_loader_and_model(config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    Timed.clock = clock = Clock()
    monkeypatch.setattr(measuring, "time", clock)

    class Slow(Counting):
        def load(self, index: int) -> tuple:
            clock.now += 0.1
            return super().load(index)

    run = config(low_frequency="crop")
    model = Timed()
    before = copy.deepcopy(model.state_dict())
    curriculum = curriculum_for(model, run.curriculum, 64)
    trainer = Trainer.of(run, torch.device("cpu"))
    bench = Bench(trainer=trainer, curriculum=curriculum, model=model, source=Slow(run))
    assert loader_speed(bench, 32) == pytest.approx(10)
    speeds = [model_speed(bench, side, 16) for side in (32, 64)]
    assert speeds == pytest.approx([1000, 250])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"replay": -1}, "`replay` is -1"),
        ({"replay": "often"}, "replay is 'often': expected a whole number or auto"),
        ({"replay": True}, "replay is True: expected a whole number or auto"),
        ({"replay_gib": 0}, "`replay_gib` is 0"),
        ({"replay_mode": "both"}, "replay_mode is 'both': expected one of batch, mixed"),
    ],
)
def test_bad_settings_get_one_line(config: Make, changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        config(**changes)
