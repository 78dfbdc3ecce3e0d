"""Memory that runs out: steps that are redone with fewer images at once, and micro-batches that are tried before."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.runs import Make, differing, interrupted, logged, notes
from tests.training.hungry import Hungry
from torch import nn

from upchirp import InputError, Plan, TrainConfig, TrainResult, efficienttrain_plus_plus, plan
from upchirp import train as run_training
from upchirp.data import Augmentation, open_data
from upchirp.training import Event, Reduced, load_checkpoint
from upchirp.training.checkpoints import checkpoint as checkpoints
from upchirp.training.engine.memory import Buffers, MicroBatches, OutOfMemory
from upchirp.training.engine.step import StepResult
from upchirp.training.engine.trainer import Trainer
from upchirp.training.parallel.ranks import Ranks
from upchirp.training.parallel.state import State
from upchirp.training.probing.micro_batch import find_micro_batches, fits_on
from upchirp.training.run import memory

CPU = torch.device("cpu")


@pytest.fixture
def make(config: Make) -> Make:
    """Small runs with mixing, erasing and an average, in micro-batches of 16 of 32 images."""
    settings = {"reprob": 0.5, "opt": "adamw", "lr": 1e-2, "evaluations": 1, "log_interval": 1, "drop_path": 0.0}
    return lambda **changes: config(**{**settings, **changes})


def steps_of(run: TrainConfig) -> Plan:
    return plan(efficienttrain_plus_plus(64, multiple=16), epochs=3, dataset_size=64, batch_size=32, learning_rate=1e-2)


def segment(
    run: TrainConfig, model: nn.Module, sizes: MicroBatches, delivered: int = 16, steps: int = 100
) -> tuple[State, list[StepResult], list[tuple[list[int], list[float]]]]:
    """Train from the start; returns the state, the results, and the data and losses of every micro-batch."""
    source, _ = open_data(run.data, 64)
    trainer, whole = Trainer.of(run, CPU), steps_of(run)
    state = trainer.state(model, bandwidth=64, learning_rate=1e-2)
    loader = trainer.loader(source, whole, micro_batch=delivered, select=run.selection)
    data: list[tuple[list[int], list[float]]] = []

    def record(batch: Any, losses: torch.Tensor) -> torch.Tensor:
        data.append((batch.indices.tolist(), losses.tolist()))
        return loader.record(batch, losses)

    results = list(trainer.run(state, whole, loader, until=steps, record=record, micro_batches=sizes))
    return state, results, data


def assert_same(one: State, other: State) -> None:
    """The same to the last bit: weights, statistics, moments, average."""
    first, second = one.state_dict(), other.state_dict()
    for part in ("model", "ema"):
        assert all(torch.equal(first[part][key], second[part][key]) for key in first[part]), part
    states = (each["optimizer"]["state"].values() for each in (first, second))
    for moments, others in zip(*states, strict=True):
        assert all(torch.equal(moments[key], others[key]) for key in moments)
    assert one.step == other.step


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("spared", [0, 1, 4, 7])
@pytest.mark.parametrize("select", [None, "infobatch"])
def test_a_redone_step_is_one_with_the_small_micro_batch(make: Make, where: str, spared: int, select: str) -> None:
    """Out of memory in the first or the second micro-batch of a step, at 48 px, after some steps were spared."""
    run = make(select=select)
    hungry = Hungry(limit=8, side=48, spared=spared, where=where)
    state, results, _ = segment(run, hungry, sizes := MicroBatches())
    assert [result.reduced_to for result in results if result.reduced_to] == [8, 8], "once for each bandwidth"
    assert sizes.reduced == {48: 8, 64: 8}

    # The reference is given the small micro-batch at the step in which memory ran out.
    trainer, chosen = Trainer.of(run, CPU), MicroBatches()
    expected = trainer.state(Hungry(), bandwidth=64, learning_rate=1e-2)
    loader = trainer.loader(open_data(run.data, 64)[0], steps_of(run), micro_batch=16, select=run.selection)
    calm = trainer.run(expected, steps_of(run), loader, micro_batches=chosen)
    losses = []
    for result in results:
        if result.reduced_to is not None:
            chosen.sizes[result.step.bandwidth] = result.reduced_to
        losses.append(next(calm).loss)
    assert_same(state, expected)
    assert torch.equal(torch.stack([result.loss for result in results]), torch.stack(losses))
    assert [result.step for result in results] == list(steps_of(run).steps())


def test_micro_batches_larger_than_what_the_loader_gives(make: Make) -> None:
    run = make()
    joined, _, data = segment(run, one := Hungry(), MicroBatches({32: 32, 48: 16, 64: 8}), delivered=8)
    assert {(32, 32), (16, 48), (8, 64)} == set(one.seen)
    whole, _, other = segment(run, Hungry(), MicroBatches({48: 16, 64: 8}), delivered=32)
    assert_same(joined, whole)
    assert data == other


def test_memory_may_run_out_twice_in_a_step(make: Make) -> None:
    run = make(batch_size=32)
    state, results, _ = segment(run, hungry := Hungry(limit=8), MicroBatches(), delivered=32)
    assert [result.reduced_to for result in results if result.reduced_to] == [8, 8, 8]
    small, _, _ = segment(run, Hungry(), MicroBatches(), delivered=8)
    assert_same(state, small)
    assert [rows for rows, side in hungry.seen if side == 32][:4] == [32, 16, 8, 8]


def test_where_nothing_can_be_halved_the_state_is_that_of_before_the_step(make: Make) -> None:
    run = make(mixup=0.8)
    state, _, _ = segment(run, Hungry(), MicroBatches(), steps=7)
    hungry = Hungry(limit=4, spared=14)
    with pytest.raises(OutOfMemory, match="at 48 px with a micro-batch of 8 images, which cannot be halved"):
        segment(run, hungry, MicroBatches())
    for name, value in hungry.state_dict().items():
        assert torch.equal(value, state.model.state_dict()[name]), name
    assert all(parameter.grad is None for parameter in hungry.parameters())


def test_other_errors_are_not_taken_for_memory(make: Make) -> None:
    class Broken(Hungry):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        segment(make(), Broken(), MicroBatches())


@given(st.integers(1, 500), st.sampled_from([1, 2, 4, 8]))
def test_halves_are_whole_groups_until_one_group_is_left(groups: int, group: int) -> None:
    sizes = MicroBatches()
    before = groups * group
    while before > group:
        half = sizes.halve(64, rows=10_000, group=group) if sizes.sizes else sizes.halve(64, rows=before, group=group)
        assert group <= half <= before / 2
        assert half % group == 0
        assert half > before / 2 - group
        assert sizes.sizes[64] == half
        before = half
    with pytest.raises(OutOfMemory):
        sizes.halve(64, rows=before, group=group)


def test_buffers_go_back_whatever_they_are() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("repeated", torch.ones(1, 1).expand(3, 2))
            self.register_buffer("count", torch.tensor(0))
            self.register_buffer("mean", torch.zeros(2))

    odd, buffers = Odd(), Buffers()
    for _ in range(2):
        buffers.keep(odd)
        odd.count += 1
        odd.mean += 1
        buffers.restore()
        assert (odd.count.item(), odd.mean.tolist()) == (0, [0.0, 0.0])
    odd.mean = torch.ones(5)
    buffers.keep(odd)
    odd.mean.zero_()
    buffers.restore()
    assert odd.mean.tolist() == [1.0] * 5


# Whole runs.


def train(config: TrainConfig, model: nn.Module, seen: list[Event] | None = None) -> TrainResult:
    return run_training(config, model=model, observers=[] if seen is None else [seen.append])


def test_a_run_that_runs_out_of_memory_goes_on_and_says_so(make: Make, tmp_path: Path) -> None:
    seen: list[Event] = []
    hungry = Hungry(limit=8)
    result = train(make(), hungry, seen)
    small = train(make(micro_batch=8, output=str(tmp_path / "small")), Hungry())
    assert not differing(result.output, small.output)
    reduced = [event for event in seen if isinstance(event, Reduced)]
    assert [(event.step.bandwidth, event.micro_batch) for event in reduced] == [(27, 8), (46, 8), (64, 8)]
    assert "out of memory at 27 px in step 1: it was redone with 8 images at once" in notes(seen)[-3]
    assert "the batch stays 32" in notes(seen)[-3]
    found = logged(result.output, "micro_batch")
    assert [(record["step"], record["bandwidth"], record["micro_batch"]) for record in found] == [
        (event.step.index + 1, event.step.bandwidth, 8) for event in reduced
    ]


def test_a_resumed_run_remembers_unless_told_otherwise(make: Make, tmp_path: Path) -> None:
    run = make()
    whole = train(make(output=str(tmp_path / "whole")), Hungry(limit=8))
    interrupted(run, 2, model=Hungry(limit=8))
    assert run.output is not None
    before = {path: path.read_bytes() for path in run.output.rglob("*") if path.is_file()}
    seen: list[Event] = []
    # Memory is enough now, but what ran out before is not tried again at 27 px.
    resumed = train(replace(run, resume="auto"), again := Hungry(limit=8), seen)
    assert (16, 27) not in again.seen
    assert (16, 46) in again.seen, "memory did not run out there before"
    assert any("ran out in this run before, so it goes on with 8 images at 27 px" in note for note in notes(seen))
    assert not differing(resumed.output, whole.output)

    for path in sorted(run.output.rglob("*")):
        if path.is_file() and path not in before:
            path.unlink()
    for path, content in before.items():
        path.write_bytes(content)
    train(replace(run, resume="auto", micro_batch=32), other := Hungry(), seen)
    assert {rows for rows, _ in other.seen} == {32}


def test_a_damaged_record_of_micro_batches_gets_one_line(make: Make) -> None:
    run = make()
    interrupted(run, 2, model=Hungry(limit=8))
    assert run.output is not None
    (run.output / "micro_batches.json").write_text("{")
    with pytest.raises(InputError, match=r"cannot read .*micro_batches.json .*: delete it, and memory is tried anew"):
        train(replace(run, resume="auto"), Hungry())


def test_a_run_that_cannot_go_on_keeps_its_checkpoint(make: Make) -> None:
    run = make(checkpoint_interval=3)
    with pytest.raises(InputError, match=r"which cannot be halved.*; the last good checkpoint is ") as error:
        train(run, Hungry(limit=4, spared=9))
    assert "\n" not in str(error.value)
    assert run.output is not None
    (kept,) = checkpoints.checkpoints(run.output / "checkpoints")
    assert load_checkpoint(kept)["state"]["step"] == 3


def test_memory_that_runs_out_in_the_optimizer_gets_one_line(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def step(*_: object, **__: object) -> None:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has no more.")

    monkeypatch.setattr(torch.amp.GradScaler, "step", step)
    with pytest.raises(InputError, match="out of memory in step 3 outside the forward and backward passes") as error:
        train(make(), Hungry())
    assert "\n" not in str(error.value)


# What is tried before a run.


class Alone(Ranks):
    """One rank of several that all agree with it."""

    def largest(self, *numbers: int) -> tuple[int, ...]:
        return numbers


@given(st.sampled_from([8, 24, 32, 40, 96, 1000, 1024, 4096]), st.integers(1, 6000), st.sampled_from([1, 2, 4]))
def test_the_largest_divisor_that_fits_with_a_margin(batch_size: int, memory: int, ranks: int) -> None:
    run = plan(efficienttrain_plus_plus(64), epochs=300, batch_size=batch_size)
    tried: list[tuple[int, int]] = []

    def fits(stage: Any, images: int) -> bool:
        tried.append((stage.bandwidth, images))
        return images * stage.bandwidth <= memory * 64

    unmixed = Augmentation(mixup=0.0, cutmix=0.0)
    share = batch_size // ranks
    divisors = [size for size in range(1, share + 1) if share % size == 0]
    expected = {
        side: max((size for size in divisors if -(-size * 11 // 10) * side <= memory * 64), default=0)
        for side in run.bandwidths
    }
    if not all(expected.values()):
        with pytest.raises(InputError, match=r"not even 1 images of .* px fit in memory"):
            find_micro_batches(unmixed, run, fits, ranks=Alone(0, ranks))
        return
    assert find_micro_batches(unmixed, run, fits, ranks=Alone(0, ranks)) == expected
    assert len(tried) <= 6 * len(run.bandwidths), "bisection, not one after the other"


def test_ranks_agree_by_what_fits_on_all() -> None:
    run = plan(efficienttrain_plus_plus(), epochs=9, batch_size=1024)
    said: list[int] = []

    class Pair(Ranks):
        """This rank and one on which 64 images fit."""

        def largest(self, *numbers: int) -> tuple[int, ...]:
            said.extend(-number for number in numbers)
            return tuple(max(number, -64) for number in numbers)

    found = find_micro_batches(Augmentation(), run, lambda stage, images: images <= 200, ranks=Pair(0, 2))
    assert (said, found) == ([128] * 3, {96: 64, 160: 64, 224: 64})


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_a_probe_finds_what_a_model_can_be_trained_with(make: Make, where: str) -> None:
    run = make()
    model = Hungry(limit=24, side=48, where=where)
    before = copy.deepcopy(model.state_dict())
    fits = fits_on(Trainer.of(run, CPU), steps_of(run), model)
    stages = steps_of(run).stages
    tried = [fits(stages[k], images) for k, images in ((0, 32), (1, 32), (1, 24), (2, 32))]
    assert tried == [True, False, True, False]
    assert find_micro_batches(run.augmentation, steps_of(run), fits) == {32: 32, 48: 16, 64: 16}
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert not model.seen


def test_a_run_takes_what_fits(make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[Event] = []
    run = make(micro_batch="auto", early_batch="auto", epochs=12)
    result = train(run, Hungry(), seen)
    assert [stage.batch_size for stage in result.plan.stages] == [176, 64, 32]
    assert any("tries CUDA's memory only: here it is 176 images at 27 px" in note for note in notes(seen))

    monkeypatch.setattr(memory, "can_try", lambda device: True)
    seen.clear()
    train(replace(run, output=tmp_path / "tried"), model := Hungry(limit=24, side=46), seen)
    assert "`micro_batch='auto'`: memory holds 176 images at 27 px, 16 images at 46 px, 16 images at 64 px" in notes(
        seen
    )
    # Two images tell whether kernels get gradients.
    assert set(model.seen) - {(2, 27)} == {(176, 27), (16, 46), (16, 64)}
    assert not any(isinstance(event, Reduced) for event in seen)
