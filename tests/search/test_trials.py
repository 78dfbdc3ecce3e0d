"""Single trials: their plans, and that they end the same however they are interrupted or divided."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from upchirp import InputError
from upchirp.curriculum import Stage
from upchirp.data import Corrupt, split
from upchirp.data.sources import FolderSource
from upchirp.models import create_model
from upchirp.search import SearchConfig, Trial
from upchirp.search.runner import Stopped, TrialJob, run_trial
from upchirp.search.trial_plan import Planner
from upchirp.training import StepResult, Trainer
from upchirp.training.checkpoints import checkpoint

Make = Callable[..., SearchConfig]


@pytest.fixture
def task(search_config: Make, image_folder: Path, tmp_path: Path) -> Callable[..., TrialJob]:
    """Makes the task of a trial on all images of the small folder."""

    def make(trial: Trial, start: Path | None = None, **changes: object) -> TrialJob:
        config = search_config(**changes)
        train, val = split(FolderSource(image_folder / "train"), 0.25, 0)
        with torch.device("meta"):
            model = create_model("test_vit", num_classes=2, final_size=64)
        return TrialJob(
            config=config.training,
            plan=Planner(config, model, len(train)).of(trial),
            drop_path=1.0,
            folder=tmp_path / "states" / trial.name,
            start=start,
            stop=tmp_path / "stop",
            threads=1,
            train=train,
            val=val,
            model=None,
        )

    return make


def test_halving_changes_nothing_of_what_survives(task: Callable[..., TrialJob]) -> None:
    """Half a stage and then the other half is the whole stage, bit for bit: halving only leaves out."""
    whole = task(Trial((32,), 0, 1, tuning=1), epochs=6)
    expected = run_trial(whole)
    first = task(Trial((32,), 0, 0.5, tuning=0.5), epochs=6)
    run_trial(first)
    assert 0 < first.plan.middle < whole.plan.middle < whole.plan.end
    state = checkpoint.step_path(first.folder, first.plan.middle)
    second = task(Trial((32,), 0.5, 1, tuning=1), start=state, epochs=6)
    second = replace(second, folder=whole.folder.parent / "second")
    assert second.plan.begin == first.plan.middle and second.plan.middle == whole.plan.middle
    outcome = run_trial(second).outcome
    assert (outcome.accuracy, outcome.loss) == (expected.outcome.accuracy, expected.outcome.loss)
    assert outcome.cost == pytest.approx(expected.outcome.cost - first.plan.training_cost)


def test_a_trial_stopped_at_any_step_ends_the_same(task: Callable[..., TrialJob], tmp_path: Path) -> None:
    trial = Trial((32,), 0, 1, tuning=1)
    whole = task(trial, epochs=4)
    expected = run_trial(whole)
    assert whole.plan.middle > 2 and whole.plan.end > whole.plan.middle
    state = checkpoint.step_path(whole.folder, whole.plan.middle)
    before = checkpoint.load(state)["state"]
    assert [path.name for path in checkpoint.checkpoints(whole.folder)] == [state.name]
    # With the stop file there from the start every call does one step, training and fine-tuning alike.
    single = replace(whole, folder=tmp_path / "again")
    single.stop.touch()
    for _ in range(whole.plan.end - 1):
        with pytest.raises(Stopped):
            run_trial(single)
    resumed = run_trial(single)
    assert resumed.outcome == expected.outcome
    after = checkpoint.load(checkpoint.step_path(single.folder, whole.plan.middle))["state"]
    assert all(torch.equal(before["model"][name], after["model"][name]) for name in before["model"])


def test_a_damaged_state_of_a_trial_is_begun_anew(task: Callable[..., TrialJob]) -> None:
    whole = task(Trial((32,), 0, 1, tuning=1))
    expected = run_trial(whole)
    (state,) = checkpoint.checkpoints(whole.folder)
    state.write_bytes(state.read_bytes()[:-10])
    again = run_trial(whole)
    assert again.outcome == expected.outcome
    assert "damaged" in again.notes[0] and "anew" in again.notes[0]


def test_images_that_cannot_be_read_are_named_once_and_stop_a_trial_above_one_percent(
    task: Callable[..., TrialJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = task(Trial((32,), 0, 1, tuning=1), epochs=4)
    given = [Corrupt(7, "cat/7.jpg", "truncated")]
    run = Trainer.run

    def damaged(*words: object, **options: object) -> Iterator[StepResult]:
        for result in run(*words, **options):
            yield replace(result, corrupt=tuple(given))

    monkeypatch.setattr(Trainer, "run", damaged)
    assert trial.plan.run.dataset_size < 100, "one image is more than 1 %, but one alone stops nothing"
    assert [note for note in run_trial(trial).notes if "cat/7.jpg" in note] == [
        "cannot read cat/7.jpg (truncated): replaced by another (1 so far)"
    ]
    given.append(Corrupt(8, "cat/8.jpg", "truncated"))
    with pytest.raises(InputError, match=r"more than 1 % of the .* cat/8.jpg \(truncated\)"):
        run_trial(replace(trial, folder=trial.folder.with_name("again")))


def test_the_next_stage_begins_before_the_fine_tuning(task: Callable[..., TrialJob]) -> None:
    """Line 7: Theta is the winner's state when its stage ended, and learning rates and data go on from there."""
    first = task(Trial((32,), 0, 1, tuning=1), epochs=4)
    run_trial(first)
    state = checkpoint.step_path(first.folder, first.plan.middle)
    second = task(Trial((32, 64), 1, 2, tuning=1), start=state, epochs=4)
    assert second.plan.begin == first.plan.middle
    result = run_trial(second)
    # Without an interruption at the boundary: one run of both stages in a row.
    both = replace(task(Trial((32, 64), 0, 2, tuning=1), epochs=4), folder=first.folder.parent / "both")
    assert both.plan.run == second.plan.run
    assert run_trial(both).outcome.accuracy == result.outcome.accuracy
    ours, theirs = (
        checkpoint.load(checkpoint.step_path(folder, second.plan.middle))["state"]["model"]
        for folder in (second.folder, both.folder)
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_learning_rates_and_magnitudes_of_line_6(search_config: Make) -> None:
    """alpha_{(i-1)/N:i/N} for the stage, alpha_{i/N:i/N+T_ft/T} for the fine-tuning, as parts of one curve."""
    config = search_config(epochs=200, stages=5, candidates=(32, 48, 64), tuning_epochs=10, cost="pixels")
    with torch.device("meta"):
        model = create_model("test_vit", num_classes=2, final_size=64)
    planner = Planner(config, model, 48_000)
    for side in (32, 48, 64):
        made = planner.of(Trial((48, side), 1, 2, tuning=1))
        assert made.tuning is not None
        stages: tuple[Stage, ...] = made.tuning.stages
        assert [stage.bandwidth for stage in stages] == [48, side, 64]
        assert [stage.progress for stage in stages[:2]] == [(0.0, 0.2), (0.2, 0.4)]
        start, end = stages[2].progress
        assert (start, end) == (0.4, pytest.approx(0.4 + 10 / 200, abs=1e-4))
        # T/N * FLOPs(final) / FLOPs(B) passes, whatever the bandwidth.
        assert stages[1].samples / 48_000 == pytest.approx(40 * (64 / side) ** 2, rel=1e-3)
        assert stages[2].samples / 48_000 == pytest.approx(10, rel=1e-3)
        assert made.training_cost == pytest.approx(40, rel=1e-3)
        assert made.spent(made.end) == pytest.approx(50, rel=1e-3)
        # The same rates as in a run that goes on at the final size to its end.
        whole = planner.of(Trial((48, side, 64, 64, 64), 0, 5)).run
        for index in (made.begin, made.middle - 1, made.middle, made.end - 1):
            ours, theirs = (made.run if index < made.middle else made.tuning).step(index), whole.step(index)
            assert ours.learning_rate == pytest.approx(theirs.learning_rate, rel=1e-3)
            assert ours.magnitude == pytest.approx(theirs.magnitude, rel=1e-3)
