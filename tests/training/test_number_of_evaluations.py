"""How often a run is evaluated where nobody says it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tests.runs import Make, logged, notes

from upchirp import TrainConfig, train
from upchirp.compare import CompareConfig
from upchirp.compare.settling import Sources, settle_variants
from upchirp.curriculum import efficienttrain_plus_plus, plan
from upchirp.training import Event, estimate
from upchirp.training.jobs.pricing import settings_for_data
from upchirp.training.recipes.evaluations import choose_evaluations, stop_note
from upchirp.training.recipes.run_groups import Keeping


@given(
    epochs=st.floats(0.5, 200),
    train_images=st.integers(640, 100_000),
    images=st.integers(1, 20_000),
    average=st.booleans(),
)
def test_they_take_a_fifth_of_the_time_at_most(epochs: float, train_images: int, images: int, average: bool) -> None:
    run = plan(efficienttrain_plus_plus(96), epochs=epochs, dataset_size=train_images, batch_size=16)
    number, told = choose_evaluations(Keeping(), run, images, average=average)
    assert 1 <= number <= 10 and (told is None) == (number == 10)
    # A forward pass is a third of a step, and besides the final size there is the bandwidth's, which costs at most as
    # much and nothing in the last of the three stages.
    training, forwards = run.equivalent_epochs * train_images, images * (1 + average) / 3
    if number > 1:
        assert number * forwards <= 0.2 * training
    if number < 10:
        assert (number + 1) * (forwards + images / 3) > 0.2 * training
    assert choose_evaluations(Keeping(evaluations=7), run, images, average=average) == (7, None)


@given(patience=st.integers(1, 20), epochs=st.floats(1, 50))
def test_a_run_that_is_to_stop_early_gets_enough(patience: int, epochs: float) -> None:
    run = plan(efficienttrain_plus_plus(96), epochs=epochs, dataset_size=640, batch_size=16)
    number, _ = choose_evaluations(Keeping(early_stop=patience), run, 10_000, average=True)
    assert stop_note(run, Keeping(early_stop=patience, evaluations=number)) is None
    if number > 10:
        assert stop_note(run, Keeping(early_stop=patience, evaluations=number - 1)) is not None


def test_a_short_run_is_evaluated_seldom_and_says_so(config: Make, tmp_path: Path) -> None:
    run = config(evaluations=None, epochs=6)
    events: list[Event] = []
    train(run, observers=[events.append])
    (line,) = [note for note in notes(events) if note.startswith("evaluations ")]
    number = int(line.split()[1].rstrip(":"))
    assert 1 < number < 10 and "of 16 images, about" in line
    assert len([each for each in logged(run.output, "evaluation") if each["weights"] == "ema"]) == number
    assert run.output is not None
    # What was chosen is kept, and is what is told before.
    assert yaml.safe_load((run.output / "config.yaml").read_text())["evaluations"] == number
    asked = TrainConfig.from_flat({name: value for name, value in run.to_flat().items() if name != "output"})
    assert settings_for_data(asked).evaluations == number
    assert line in estimate(asked)["chosen"]


def test_a_comparison_keeps_its_curves(image_folder: Path) -> None:
    asked: dict[str, Any] = {
        "data": str(image_folder), "model": "test_resnet", "final_size": 64, "epochs": 1, "batch_size": 16,
        "workers": 0, "device": "cpu", "recipe": "light",
    }  # fmt: skip
    for changes, expected in (({}, 10), ({"evaluations": 3}, 3)):
        settled = settle_variants(CompareConfig.from_flat({**asked, **changes}), Sources())
        assert {each.config.evaluations for each in settled.values()} == {expected}


@pytest.mark.parametrize("number", [0, -1])
def test_none_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match=f"`evaluations` is {number}: it must be 1 or more"):
        Keeping(evaluations=number)
