"""Runs with the replay buffer: the images they decode, how they resume, and how `auto` chooses."""

import json
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from upchirp import InputError, TrainConfig, train
from upchirp.data import open_data
from upchirp.models import create_model
from upchirp.training import Event, Interrupted, Noted, Started, Stepped, Trainer, curriculum_for, load_checkpoint
from upchirp.training.checkpoints import checkpoint as checkpoints
from upchirp.training.probing import replay as replay_choice
from upchirp.training.probing.replay import MOST_REPLAYS, Speeds, loader_speed, model_speed, replays_needed

Make = Callable[..., TrainConfig]


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


def stop_after(step: int) -> Callable[[Event], None]:
    def observe(event: Event) -> None:
        if isinstance(event, Stepped) and event.step.index + 1 == step:
            signal.raise_signal(signal.SIGINT)

    return observe


def same_weights(first: Path, second: Path) -> bool:
    for name in ("model.safetensors", "model_ema.safetensors"):
        one, other = load_file(first / name), load_file(second / name)
        if one.keys() != other.keys() or any(not torch.equal(one[key], other[key]) for key in one):
            return False
    return True


@pytest.mark.parametrize(("mode", "prepare"), [("batch", "cpu"), ("mixed", "device")])
def test_a_run_interrupted_inside_a_stage_ends_with_the_same_weights(
    config: Make, mode: str, prepare: str, tmp_path: Path
) -> None:
    # 240 KiB: two and a half batches of 32 images of 32 pixels, one of 48 pixels.
    settings = {"replay": 2, "replay_mode": mode, "replay_gib": 240 / 2**20, "epochs": 6, "prepare": prepare}
    whole = train(config(**settings, output=str(tmp_path / "whole")))
    plain = train(config(**{**settings, "replay": 0}, output=str(tmp_path / "plain")))
    assert not same_weights(whole.output, plain.output)
    first = whole.plan.stages[0].steps
    assert first > 9, "the buffer is to be full and turned over where the run stops"
    run = config(**settings)
    for stop in (8, first + 2):
        with pytest.raises(Interrupted):
            train(replace(run, resume="auto"), observers=[stop_after(stop)])
    result = train(replace(run, resume="auto"))
    assert same_weights(result.output, whole.output)


def test_images_decoded_are_those_of_the_plan_and_the_steps_stay(config: Make, tmp_path: Path) -> None:
    run = config(replay=1, epochs=6)
    counted = Counting(run)

    def begin(event: Event) -> None:
        # Labels were looked at before.
        if isinstance(event, Started):
            counted.read.clear()

    result = train(run, data=(counted, counted.validation), observers=[begin])
    plain = train(config(epochs=6, output=str(tmp_path / "plain")))
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
    monkeypatch.setattr(replay_choice, "loader_speed", lambda config, curriculum, side, *rest: table[side].loader)
    monkeypatch.setattr(replay_choice, "model_speed", lambda config, curriculum, side, *rest: table[side].model)
    return table


def test_auto_writes_its_choice_into_plan_and_checkpoint_and_resumes_by_it(
    config: Make, speeds: dict[int, Speeds], tmp_path: Path
) -> None:
    run = config(replay="auto")
    seen: list[Event] = []
    with pytest.raises(Interrupted):
        train(run, observers=[stop_after(4), seen.append])
    notes = [event.message for event in seen if isinstance(event, Noted) and "images/s" in event.message]
    assert ["32 px" in notes[0], "48 px" in notes[1], len(notes)] == [True, True, 2]
    assert all(word in notes[0] for word in ("100 images/s", "450", "4 replayed"))
    latest = list(checkpoints.checkpoints(run.output / "checkpoints"))[-1]
    stored = json.loads((run.output / "plan.json").read_text())["stages"]
    for stages in (stored, load_checkpoint(latest)["plan"]["stages"]):
        assert [stage["replay"]["batches"] for stage in stages] == [4, 1, 0]
    speeds[32] = speeds[48] = Speeds(loader=100, model=1)  # measured anew it would be another plan
    other = train(config(replay="auto", output=str(tmp_path / "other"), resume=str(latest)))
    resumed = train(replace(run, resume="auto"))
    assert [stage.replay.batches for stage in resumed.plan.stages] == [4, 1, 0]
    assert same_weights(resumed.output, other.output)


def test_auto_chooses_nothing_where_the_loader_is_fast(config: Make, speeds: dict[int, Speeds]) -> None:
    speeds[32] = speeds[48] = Speeds(loader=100, model=100)
    plan = train(config(replay="auto")).plan
    assert plan.total_fresh_samples == plan.total_samples


def test_resuming_with_another_replay_is_refused(config: Make) -> None:
    run = config(replay=1)
    with pytest.raises(Interrupted):
        train(run, observers=[stop_after(2)])
    with pytest.raises(InputError, match=r"replay 1 \(now 2\)"):
        train(replace(run, resume="auto", replay=2))


@given(st.floats(0.1, 1e5), st.floats(0.1, 1e5))
def test_the_fewest_replays_that_keep_the_device_busy(loader: float, model: float) -> None:
    chosen = replays_needed(Speeds(loader=loader, model=model))
    enough = [n for n in range(MOST_REPLAYS) if loader * (n + 1) >= model * (1 - 1e-9)]
    assert chosen == next(iter(enough), MOST_REPLAYS) or loader * (chosen + 1) == pytest.approx(model)


def test_speeds_are_measured_on_loader_and_model(config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_choice, "_LOADER_SECONDS", 0.2)
    monkeypatch.setattr(replay_choice, "_MODEL_SECONDS", 0.2)
    run = config(low_frequency="crop")
    model = create_model("test_vit", num_classes=2, final_size=64)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    curriculum = curriculum_for(model, run.curriculum, 64)
    trainer = Trainer.of(run, torch.device("cpu"))
    counted = Counting(run)
    speed = loader_speed(trainer, curriculum, 32, counted)
    assert speed == pytest.approx(counted.read.total() / 0.2, rel=0.5)
    small, large = (model_speed(trainer, curriculum, side, model, 16) for side in (32, 64))
    assert small > large > 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_time_budget_is_planned_with_replay(config: Make) -> None:
    settings = {"model": "test_resnet", "batch_size": 8, "micro_batch": 8, "evaluations": 1}
    result = train(config(time_budget="2s", replay=2, **settings))
    assert result.plan.cost == "seconds"
    assert [stage.replay.batches for stage in result.plan.stages] == [2, 2, 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"replay": -1}, "replay is -1"),
        ({"replay": "often"}, "replay is 'often': expected a whole number or auto"),
        ({"replay": True}, "replay is True: expected a whole number or auto"),
        ({"replay_gib": 0}, "replay_gib is 0"),
        ({"replay_mode": "both"}, "replay_mode is 'both': expected one of batch, mixed"),
    ],
)
def test_bad_settings_get_one_line(config: Make, changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        config(**changes)
