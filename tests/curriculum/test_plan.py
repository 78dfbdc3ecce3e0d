import json
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from upchirp import Curriculum, InputError, LearningRate, Phase, Plan, plan, preset
from upchirp.curriculum import CostTable, pixels

IMAGENET = 1_281_167


@st.composite
def curricula(draw: st.DrawFn) -> Curriculum:
    ends = [*sorted(draw(st.lists(st.floats(0.02, 0.98), unique=True, max_size=4))), 1.0]
    assume(all(b - a > 0.01 for a, b in zip([0.0, *ends], ends, strict=False)))
    sides = draw(st.lists(st.integers(8, 384), min_size=len(ends), max_size=len(ends)))
    axis = draw(st.sampled_from(["compute", "samples"]))
    phases = tuple(Phase(end=end, bandwidth=side) for end, side in zip(ends, sides, strict=True))
    return Curriculum(name="any", axis=axis, phases=phases)


def test_steps_match_the_released_code() -> None:
    # released_code_facts: 217, 157 and 80 whole passes of 312 steps for 200 epochs of ImageNet-1K at batch 4096.
    stages = plan(preset("efficienttrain_plus_plus"), epochs=200).stages
    for stage, passes in zip(stages, (217, 157, 80), strict=True):
        assert stage.steps == pytest.approx(passes * 312, rel=0.01)


def test_efficienttrain_300_epochs_are_196_equivalent_ones() -> None:
    # DESIGN.md, from Table 5: boundaries at 0.47 and 0.69 of the compute.
    run = plan(preset("efficienttrain"), epochs=300)
    assert run.equivalent_epochs == pytest.approx(196, abs=0.5)
    costs = [stage.cost for stage in run.stages]
    assert costs[0] / sum(costs) == pytest.approx(0.47, abs=0.01)
    assert (costs[0] + costs[1]) / sum(costs) == pytest.approx(0.69, abs=0.01)


@given(curricula(), st.floats(20, 400), st.integers(1_000, 2_000_000), st.sampled_from([64, 100, 1024]))
def test_budget_is_met_within_one_step_per_stage(
    curriculum: Curriculum, epochs: float, dataset_size: int, batch_size: int
) -> None:
    try:
        run = plan(curriculum, epochs=epochs, dataset_size=dataset_size, batch_size=batch_size)
    except InputError:
        assume(False)
    spent, boundary = 0.0, 0.0
    for stage, phase in zip(run.stages, curriculum.phases, strict=True):
        unit = stage.cost_per_sample if curriculum.axis == "compute" else 1.0
        spent += stage.samples * unit
        boundary = phase.end * epochs * dataset_size
        assert abs(spent - boundary) <= 0.5 * unit * batch_size + 1e-6 * boundary
        assert stage.steps >= 1


@given(curricula(), st.integers(1_000, 50_000))
def test_steps_walk_the_stages(curriculum: Curriculum, dataset_size: int) -> None:
    try:
        run = plan(curriculum, epochs=5, dataset_size=dataset_size, batch_size=256)
    except InputError:
        assume(False)
    assume(run.total_steps < 3000)
    steps = list(run.steps())
    assert [step.index for step in steps] == list(range(run.total_steps))
    assert all(0 <= step.progress < 1 for step in steps)
    assert [step.progress for step in steps] == sorted(step.progress for step in steps)
    seen = 0
    for step in steps:
        assert step.first_sample == seen
        assert (
            curriculum.at(step.progress).bandwidth == step.bandwidth or step.progress in run.stages[step.stage].progress
        )
        assert step.magnitude == pytest.approx(curriculum.magnitude_at(step.progress), abs=1e-9)
        seen += step.batch_size
    assert seen == run.total_samples
    assert list(run.steps(start=3)) == steps[3:]


@given(curricula())
def test_plan_survives_json(curriculum: Curriculum) -> None:
    run = plan(curriculum, epochs=300)
    assert Plan.from_dict(json.loads(json.dumps(run.to_dict()))) == run


@given(curricula(), st.integers(0, 5), st.sampled_from(["batch", "mixed"]), st.booleans())
def test_replay_leaves_steps_and_cost_and_survives_json(
    curriculum: Curriculum, replays: int, mode: str, final: bool
) -> None:
    run = plan(curriculum, epochs=300)
    replaying = run.with_replay(replays, mode=mode, gib=0.5, final=final)
    assert Plan.from_dict(json.loads(json.dumps(replaying.to_dict()))) == replaying
    assert replaying.equivalent_epochs == run.equivalent_epochs
    for stage, plain, data in zip(replaying.stages, run.stages, replaying.to_dict()["stages"], strict=True):
        assert (stage.steps, stage.samples, stage.cost) == (plain.steps, plain.samples, plain.cost)
        n = replays if final or stage.bandwidth != run.final_size else 0
        assert stage.replay.batches == n
        # One cycle may be begun, and the first step of a mixed stage is fresh as a whole.
        assert 0 <= stage.fresh_samples - stage.samples / (n + 1) <= stage.batch_size
        assert (data["samples"], data["fresh_samples"]) == (stage.samples, stage.fresh_samples)


def test_replay_by_bandwidth() -> None:
    run = plan(preset("efficienttrain_plus_plus"), epochs=200).with_replay({96: 3})
    assert [stage.replay.batches for stage in run.stages] == [3, 0, 0]


def test_plans_of_before_the_replay_buffer_replay_nothing() -> None:
    run = plan(preset("efficienttrain_plus_plus"), epochs=200)
    old = run.to_dict()
    for stage in old["stages"]:
        del stage["replay"], stage["fresh_samples"]
    assert Plan.from_dict(old) == run
    assert run.total_fresh_samples == run.total_samples


def test_total_cost_budget_is_met_on_both_axes() -> None:
    seconds = CostTable("seconds", {96: 0.001, 160: 0.003, 192: 0.004, 224: 0.006})
    for name in ("efficienttrain_plus_plus", "efficienttrain"):
        run = plan(preset(name), total_cost=7200, cost=seconds, batch_size=256)
        spent = sum(stage.samples * seconds(stage.bandwidth) for stage in run.stages)
        assert spent == pytest.approx(7200, rel=0.001)
        assert run.cost == "seconds"


def test_speedup_is_computed_in_the_given_cost() -> None:
    run = plan(preset("constant"), epochs=100)
    assert run.speedup(300, pixels) == pytest.approx(3.0, rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0.0001}, "too small for one step of batch size 4096 at bandwidth 96"),
        ({"epochs": -1}, "positive"),
        ({"epochs": float("nan")}, "positive"),
        ({"epochs": float("inf")}, "positive"),
        ({}, "either as epochs or"),
        ({"epochs": 1, "total_cost": 1}, "either as epochs or"),
        ({"epochs": 1, "batch_size": 0}, "batch size is 0"),
        ({"epochs": 1, "dataset_size": 0}, "dataset size is 0"),
        ({"epochs": 1, "cost": CostTable("flops", {96: 1.0})}, "no flops known for bandwidth 224"),
    ],
)
def test_bad_budget_gets_one_line(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan(preset("efficienttrain_plus_plus"), **arguments)


@given(st.floats(0, 0.9), st.floats(1e-5, 1), st.lists(st.floats(0, 1), min_size=2, max_size=8))
def test_learning_rate_rises_to_its_ceiling_and_falls(warmup: float, ceiling: float, points: list[float]) -> None:
    shape = LearningRate(warmup=warmup, warmup_lr=0.0, min_lr=0.0)
    assert shape.at(warmup, ceiling=ceiling) == pytest.approx(ceiling)
    before = [shape.at(point * warmup, ceiling=ceiling) for point in sorted(points)]
    after = [shape.at(warmup + point * (1 - warmup), ceiling=ceiling) for point in sorted(points)]
    slack = 1e-12
    assert all(0 <= a <= b + slack <= ceiling + 2 * slack for a, b in pairwise(before))
    assert all(ceiling + slack >= a >= b - slack >= -slack * 2 for a, b in pairwise(after))
    assert shape.at(1.0, ceiling=ceiling) == pytest.approx(0.0, abs=1e-9)


def test_cosine_runs_over_progress_not_steps() -> None:
    schedule = LearningRate(warmup=0.0, warmup_lr=0.0, min_lr=0.0)
    run = plan(preset("efficienttrain_plus_plus"), epochs=200, learning_rate=1.0, schedule=schedule)
    first_of_last_stage = run.step(run.stages[0].steps + run.stages[1].steps)
    # cos: (1 + cos(0.6 pi)) / 2
    assert first_of_last_stage.learning_rate == pytest.approx(0.3454915, rel=1e-4)


def test_data_that_is_no_plan_is_refused() -> None:
    with pytest.raises(InputError, match="not a plan"):
        Plan.from_dict({"stages": [{"side": 3}]})


@pytest.mark.parametrize("gib", [0.0, -1.0, float("inf"), float("nan")])
def test_a_replay_buffer_needs_a_bound(gib: float) -> None:
    run = plan(preset("efficienttrain_plus_plus", 96), epochs=2, dataset_size=1000, batch_size=64)
    with pytest.raises(InputError, match=r"buffer's bound is .* GiB: it must be a positive number"):
        run.with_replay(1, gib=gib)
