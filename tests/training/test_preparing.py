"""`--prepare auto`: how the way of preparing images is chosen, kept, and taken up again."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tests.runs import Make, differing, interrupted, notes

from upchirp import TrainConfig, efficienttrain_plus_plus, plan, train
from upchirp.data import Augmentation, open_data
from upchirp.training import Event, Trainer, Working, curriculum_for, load_checkpoint
from upchirp.training.assets.models import make_model
from upchirp.training.checkpoints import checkpoint as checkpoints
from upchirp.training.engine.memory import OutOfMemory
from upchirp.training.parallel.ranks import Ranks
from upchirp.training.probing import preparing
from upchirp.training.probing.preparing import (
    LEAST_IMAGES,
    WORTH,
    PrepareChoice,
    choose,
    choose_prepare,
    pays_to_measure,
)
from upchirp.training.probing.probe import Bench
from upchirp.training.probing.rates import loader_speed
from upchirp.training.run import plans

STAGES = plan(efficienttrain_plus_plus(), epochs=20).stages
CUDA = torch.device("cuda")

speed = st.floats(1.0, 1e6)
rates = st.builds(lambda small, large: {96: small, 224: large}, speed, speed)


@given(rates, rates, rates)
def test_the_chosen_way_is_the_cpu_unless_another_saves_enough(model: Any, cpu: Any, device: Any) -> None:
    chosen = choose(STAGES, model, {"cpu": cpu, "device": device})
    alone = {way: choose(STAGES, model, {"cpu": of}) for way, of in (("cpu", cpu), ("device", device))}
    # With one way alone the time is computing / (1 - waiting), so the shares of waiting tell which is faster.
    saved = 1 - (1 - alone["cpu"].waiting) / (1 - alone["device"].waiting)
    assert chosen.prepare == "cpu" or saved > WORTH * (1 - 1e-6)
    assert chosen.prepare == "device" or saved < WORTH * (1 + 1e-6)
    assert chosen.waiting == pytest.approx(alone[chosen.prepare].waiting)
    assert -1e-9 <= chosen.waiting < 1
    assert chosen.reason.startswith(f"`prepare='{chosen.prepare}'`: ")
    assert "\n" not in chosen.reason


@given(rates, rates, rates, st.floats(0.1, 10.0))
def test_a_machine_twice_as_fast_chooses_alike(model: Any, cpu: Any, device: Any, factor: float) -> None:
    faster = [{side: factor * of[side] for side in of} for of in (model, cpu, device)]
    one = choose(STAGES, model, {"cpu": cpu, "device": device})
    other = choose(STAGES, faster[0], {"cpu": faster[1], "device": faster[2]})
    assert other.waiting == pytest.approx(one.waiting) or one.prepare != other.prepare
    if one.prepare != other.prepare:
        # On the very edge rounding may decide.
        cpu_waits = choose(STAGES, model, {"cpu": cpu}).waiting
        assert (1 - cpu_waits) / (1 - choose(STAGES, model, {"cpu": device}).waiting) == pytest.approx(1 - WORTH)


@given(rates, rates, st.integers(1, 5))
def test_a_loader_that_is_fast_enough_is_left_as_it_is(model: Any, device: Any, times: int) -> None:
    cpu = {side: times * of for side, of in model.items()}
    chosen = choose(STAGES, model, {"cpu": cpu, "device": device})
    assert chosen.prepare == "cpu"
    assert chosen.waiting == pytest.approx(0, abs=1e-9)


def test_replayed_images_need_no_loader() -> None:
    model, cpu, device = {96: 2000, 224: 300}, {96: 1000, 224: 400}, {96: 3000, 224: 400}
    assert choose(STAGES, model, {"cpu": cpu, "device": device}).prepare == "device"
    replayed = plan(efficienttrain_plus_plus(), epochs=20).with_replay(1).stages
    assert choose(replayed, model, {"cpu": cpu, "device": device}).prepare == "cpu"


@pytest.mark.parametrize(
    ("cpu", "device", "expected"),
    [
        # ResNet-50, 15 workers beside an H200 (benchmarks/results/feeding-h200.json): it did not pay.
        ({96: 5679, 224: 3545}, {96: 6542, 224: 2323}, "cpu"),
        ({96: 11753, 224: 4300}, {96: 8672, 224: 2900}, "cpu"),
        # Two workers of the machine of loader-raw.json.
        ({96: 1378, 224: 1062}, {96: 1682, 224: 1558}, "device"),
    ],
)
def test_what_was_measured_leads_to_what_was_faster(cpu: Any, device: Any, expected: str) -> None:
    assert choose(STAGES, {96: 25_629, 224: 4_925}, {"cpu": cpu, "device": device}).prepare == expected


def test_between_the_measured_sizes_time_grows_with_the_pixels() -> None:
    """ResNet-50 on an H100 at 160 px: 8,074 images/s, between 21,583 at 96 and 3,950 at 224."""
    assert 1 / preparing._seconds_of_one({96: 21_583, 224: 3_950}, 160) == pytest.approx(8_074, rel=0.05)
    assert 1 / preparing._seconds_of_one({224: 4}, 224) == 4


LONG = plan(efficienttrain_plus_plus(), epochs=20, dataset_size=LEAST_IMAGES, batch_size=256)


@pytest.mark.parametrize(
    ("changes", "device", "run", "expected"),
    [
        ({}, CUDA, LONG, True),
        ({}, torch.device("cpu"), LONG, False),
        ({}, torch.device("mps"), LONG, False),
        ({"deterministic": True}, CUDA, LONG, False),
        ({"mode": "faithful"}, CUDA, LONG, False),
        ({"low_frequency": "crop"}, CUDA, LONG, False),
        ({"parallel": "fsdp"}, CUDA, LONG, False),
        ({"augmentation": Augmentation(pixel_type="float32")}, CUDA, LONG, False),
        ({}, CUDA, replace(LONG, stages=(replace(LONG.stages[0], operator="crop"), *LONG.stages[1:])), False),
        ({}, CUDA, plan(efficienttrain_plus_plus(), epochs=1, dataset_size=LEAST_IMAGES // 3, batch_size=256), False),
    ],
)
def test_measured_is_where_a_device_can_help(changes: Any, device: torch.device, run: Any, expected: bool) -> None:
    assert pays_to_measure(TrainConfig(**changes), device, run) is expected


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What is measured of the loader, in order; on a machine on which the device prepares twice as fast as workers."""
    asked: list[tuple[str, int]] = []

    def loader(bench: Bench, side: int, *, meanwhile: Callable, **how: Any) -> float:
        way = bench.trainer.loading.way
        asked.append((way, side))
        meanwhile()
        return {"cpu": 100.0, "device": 200.0}[way]

    monkeypatch.setattr(plans, "pays_to_measure", lambda *given, **how: True)
    monkeypatch.setattr(preparing, "loader_speed", loader)
    monkeypatch.setattr(preparing, "model_speed", lambda bench, side, *rest, **how: 64 / side * 250.0)
    return asked


def chosen_for(config: TrainConfig, ranks: Ranks | None = None) -> tuple[str, str]:
    source, _ = open_data(config.data, config.final_size)
    model = make_model(config, 2)
    curriculum = curriculum_for(model, config.curriculum, config.final_size)
    run = plan(curriculum, epochs=3, dataset_size=len(source), batch_size=32)
    trainer = Trainer.of(config, torch.device("cpu"))
    if ranks is not None:
        object.__setattr__(trainer.parallel, "ranks", ranks)
    told: list[str] = []
    result = choose_prepare(
        Bench(trainer=trainer, curriculum=curriculum, model=model, source=source),
        config,
        run,
        packing_helps=lambda: True,
        report=lambda what, done=None, total=None: told.append(what),
    )
    assert told == ["measuring who prepares images fast enough"]
    return result


def test_the_device_is_measured_only_where_the_cpu_is_too_slow(
    config: Make, measured: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    way, line = chosen_for(config())
    assert measured == [("cpu", 32), ("cpu", 64), ("device", 32), ("device", 64)]
    assert way == "device"
    assert "gives 200 images/s at 32 px and 200 at 64, `prepare='cpu'` 100 and 100, and the model takes 500" in line
    assert "the device will wait for" in line
    assert "`upchirp pack`, or `replay=" in line
    measured.clear()
    monkeypatch.setattr(preparing, "model_speed", lambda *rest, **how: 90.0)
    assert chosen_for(config()) == (
        "cpu",
        "`prepare='cpu'`: it gives 100 images/s at 32 px and 100 at 64, and the model takes 90 and 90",
    )
    assert measured == [("cpu", 32), ("cpu", 64)]


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize("error", [OutOfMemory("none"), torch.OutOfMemoryError("CUDA out of memory")])
def test_too_little_memory_for_a_copy_of_the_model_is_no_failure(
    config: Make, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(*given: Any, **how: Any) -> float:
        raise error

    monkeypatch.setattr(preparing, "model_speed", fails)
    way, line = chosen_for(config())
    assert (way, "too little memory" in str(line)) == ("cpu", True)


@pytest.mark.usefixtures("measured")
def test_the_first_rank_decides_for_all(config: Make) -> None:
    class Second(Ranks):
        def from_first(self, make: Any) -> Any:
            return PrepareChoice(prepare="cpu", waiting=0.0, reason="`prepare='cpu'`: as the first rank found")

        def largest(self, *numbers: int) -> tuple[int, ...]:
            return numbers

    assert chosen_for(config(), Second(1, 2)) == ("cpu", "`prepare='cpu'`: as the first rank found")


def test_a_run_keeps_the_choice_and_resumes_by_it(
    config: Make, measured: list[tuple[str, int]], tmp_path: Path
) -> None:
    seen: list[Event] = []
    whole = train(config(output=str(tmp_path / "whole")), observers=[seen.append])
    assert any(isinstance(event, Working) and "measuring who prepares" in event.what for event in seen)
    assert [note for note in notes(seen) if note.startswith("`prepare='device'`: saves about")]
    measured.clear()
    asked = train(config(output=str(tmp_path / "asked"), prepare="device"))
    assert not measured
    assert not differing(asked.output, whole.output)
    usual = train(config(output=str(tmp_path / "usual"), prepare="cpu"))
    assert differing(usual.output, whole.output)

    resumed = interrupted(config(), 4)
    measured.clear()
    stored = yaml.safe_load((resumed.output / "config.yaml").read_text())
    assert stored["prepare"] == "device"
    latest = list(checkpoints.checkpoints(resumed.output / "checkpoints"))[-1]
    assert load_checkpoint(latest)["prepare"] == "device"
    other = train(config(output=str(tmp_path / "other"), resume=str(latest)))
    ended = train(resumed)
    assert not measured
    assert not differing(ended.output, whole.output)
    assert not differing(other.output, whole.output)


def test_a_run_of_before_there_was_a_choice_goes_on_by_the_cpu(
    config: Make, measured: list[tuple[str, int]], uninterrupted: Path
) -> None:
    run = interrupted(config(prepare="cpu"), 4)
    path = run.output / "config.yaml"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith("prepare")))
    train(replace(run, prepare="auto"))
    assert not measured
    assert not differing(run.output, uninterrupted)


def test_a_run_may_go_on_another_way_and_says_what_that_costs(config: Make) -> None:
    run = interrupted(config(), 9)
    assert yaml.safe_load((run.output / "config.yaml").read_text())["prepare"] == "cpu"
    seen: list[Event] = []
    train(replace(run, prepare="device"), observers=[seen.append])
    assert "prepare was cpu and is device now: the weights will not be bit-identical" in notes(seen)


def test_both_ways_are_measured_on_this_machine(config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "_SECONDS", 0.02)
    # However fast the loader is.
    monkeypatch.setattr(preparing, "WORTH", -1.0)
    ways: list[str] = []

    def measured(bench: Bench, *asked: Any, **options: Any) -> Any:
        ways.append(bench.trainer.loading.way)
        return loader_speed(bench, *asked, **options)

    monkeypatch.setattr(preparing, "loader_speed", measured)
    way, line = chosen_for(config())
    assert set(ways) == {"cpu", "device"} and way in ways
    assert "images/s at 32 px" in line
