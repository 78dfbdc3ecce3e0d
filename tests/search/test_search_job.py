"""Whole searches, small: what they write, how they resume, and how they end when something is wrong."""

import json
import math
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from upchirp import InputError, TrainConfig, load_curriculum
from upchirp.data import split
from upchirp.data.sources import FolderSource
from upchirp.models import create_model
from upchirp.search import Begun, Found, Scored, SearchConfig, SearchEvent, Working, estimate, search
from upchirp.search.journal import Journal
from upchirp.search.trial import Trial
from upchirp.search.trial_plan import Planner
from upchirp.training import Interrupted, Noted
from upchirp.training.recipes.config_file import save_config

Make = Callable[..., SearchConfig]
CANDIDATES = (32, 64)


def outcomes(folder: Path) -> dict[str, tuple[float, float]]:
    """Accuracy and loss of every trial in a journal."""
    return {
        record["name"]: (record["accuracy"], record["loss"]) for record in Journal(folder / "journal.jsonl").of("trial")
    }


def test_a_search_end_to_end(search_config: Make, tmp_path: Path) -> None:
    config = search_config()
    told = estimate(config)
    assert not (tmp_path / "search").exists()
    events: list[SearchEvent] = []
    result = search(config, observers=[events.append], command="upchirp search")
    trials = [event.trial for event in events if isinstance(event, Scored)]
    assert told["trainings"] == len(trials) == 4
    assert told["candidates"] == list(CANDIDATES)
    assert {trial.name for trial in trials[:2]} == {"64", "32"}
    first = result.bandwidths[0]
    assert {trial.name for trial in trials[2:]} == {f"{first}-64", f"{first}-32"}
    # The best of each stage went on, from what the journal says.
    scores = {name: accuracy for name, (accuracy, _) in outcomes(result.output).items()}
    assert scores[str(first)] == max(scores["32"], scores["64"])
    # What was spent is what was said, but for rounding to whole steps: at most one in each segment.
    spent = result.summary["equivalent_epochs"]
    step = 16 / 48
    assert abs(spent - told["equivalent_epochs"]) <= 8 * step
    assert isinstance(events[0], Begun) and isinstance(events[-1], Found)
    assert any(isinstance(event, Working) for event in events)
    # The file is one that `upchirp train --curriculum` takes, at any final size.
    found = load_curriculum(result.output / "curriculum.yaml", 64, multiple=16)
    assert found == result.curriculum and found.axis == "compute" and found.final_size == 64
    assert load_curriculum(result.output / "curriculum.yaml", 128, multiple=32).final_size == 128
    assert "Algorithm 2" in (result.output / "curriculum.yaml").read_text()
    assert json.loads((result.output / "summary.json").read_text())["found"] == list(result.bandwidths)
    assert not (result.output / "states").exists(), "a finished search keeps no states"


@pytest.mark.parametrize("finished", [2, 5])
def test_stopped_and_resumed(search_config: Make, tmp_path: Path, finished: int) -> None:
    """SIGINT in the second stage or the third; what was finished is not trained again, the answer is the same."""
    whole = search(search_config(stages=4, output=str(tmp_path / "whole")))
    seen: list[str] = []

    def observe(event: SearchEvent) -> None:
        if isinstance(event, Scored):
            seen.append(event.trial.name)
            if len(seen) == finished:
                signal.raise_signal(signal.SIGINT)

    config = search_config(stages=4)
    with pytest.raises(Interrupted):
        search(config, observers=[observe])
    folder = config.training.output
    assert folder is not None and not (folder / "curriculum.yaml").exists()
    assert len(seen) == finished
    # As a crash would leave it.
    with (folder / "journal.jsonl").open("a") as stream:
        stream.write('{"kind": "trial", "na')
    again = replace(config, training=replace(config.training, resume="auto"))
    result = search(again, observers=[observe])
    assert len(seen) == len(set(seen)) == 6
    assert outcomes(folder) == outcomes(whole.output)
    assert result.bandwidths == whole.bandwidths
    # A third time nothing is left to do.
    search(again, observers=[observe])
    assert len(seen) == 6


def test_states_of_losers_are_deleted(search_config: Make, tmp_path: Path) -> None:
    states = tmp_path / "search" / "states"
    most = 0

    def observe(event: SearchEvent) -> None:
        nonlocal most
        if isinstance(event, Scored):
            folders = {folder.name for folder in states.iterdir()}
            most = max(most, len(folders))
            own = event.trial.bandwidths[:-1]
            assert folders <= {"-".join(map(str, own)), *("-".join(map(str, (*own, side))) for side in CANDIDATES)}
            assert all(len(list(folder.glob("step_*.pt"))) <= 2 for folder in states.iterdir())

    search(search_config(stages=4), observers=[observe])
    assert most == 3


def test_the_greedy_search_end_to_end(search_config: Make) -> None:
    config = search_config(algorithm="greedy", tolerance=99.0)
    told = estimate(config)
    result = search(config)
    # Everything is good enough, so it lowers all stages but the last at once.
    assert result.bandwidths == (32, 32, 64)
    assert result.curriculum.axis == "samples"
    assert result.summary["trainings"] == 2 <= told["trainings"]
    assert not told["exact"]
    assert result.summary["trials"][0]["bandwidths"] == [64, 64, 64]


def test_objectives_with_a_time_have_stages_of_equal_passes(search_config: Make) -> None:
    result = search(search_config(objective="loss_time", alpha=50.0))
    # With such an exponent cost decides alone.
    assert result.bandwidths == (32, 32, 64)
    assert result.curriculum.axis == "samples"
    costs = {trial["name"]: trial["cost"] for trial in result.summary["trials"]}
    assert costs["32"] < 0.5 * costs["64"]


def test_halving_trains_less(search_config: Make) -> None:
    config = search_config(epochs=6, halving=True)
    told = estimate(config)
    result = search(config)
    names = [trial["name"] for trial in result.summary["trials"]]
    first = result.bandwidths[0]
    assert names == [
        "32@0.5",
        "64@0.5",
        str(first),
        f"{first}-32@1.5",
        f"{first}-64@1.5",
        f"{first}-{result.bandwidths[1]}",
    ]
    assert told["trainings"] == 6
    assert told["equivalent_epochs"] < estimate(search_config(epochs=6))["equivalent_epochs"]


def test_divergence_of_all_is_one_line(search_config: Make) -> None:
    events: list[SearchEvent] = []
    with pytest.raises(InputError, match="every candidate diverged"):
        search(search_config(lr=1e30, amp=False, clip_grad=None), observers=[events.append])
    assert all(math.isinf(event.outcome.loss) for event in events if isinstance(event, Scored))
    assert any("diverged at step" in event.message for event in events if isinstance(event, Noted))


def test_a_model_of_ones_own(search_config: Make) -> None:
    """A module and a data set from Python; the module is not trained itself."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(12, 2))
    before = model[2].weight.clone()
    images = [(torch.full((3, 64, 64), 60 + 120 * (k % 2), dtype=torch.uint8), k % 2) for k in range(40)]
    result = search(search_config(cost="pixels", data=""), model=model, data=images)
    assert torch.equal(model[2].weight, before)
    assert len(result.bandwidths) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": 1}, "give 2 or more"),
        ({"candidates": (80,)}, "candidate bandwidth 80"),
        ({"candidates": (30, 64)}, "30"),
        ({"candidates": (32,)}, "32 px is the only candidate bandwidth: give two or more `candidates`"),
        ({"algorithm": "greedy", "candidates": (64,)}, "64 px is the only candidate bandwidth"),
        ({"beta": 1.5}, "`beta` is 1.5"),
        ({"search_val": 1.0}, "`search_val` is 1.0"),
        ({"subset": 0.0}, "`subset` is 0.0"),
        ({"candidates_at_once": 0}, "`candidates_at_once` is 0"),
        ({"tuning_epochs": 1.5}, "at most 0.666667 of 2 epochs"),
        ({"objective": "speed"}, "accuracy"),
        ({"objective": "loss_time", "alpha": -1.0}, "`alpha` is -1.0"),
        ({"tolerance": 1.0}, "belong to `algorithm='greedy'`"),
        ({"algorithm": "greedy", "halving": True}, "leave out `halving`"),
        ({"algorithm": "greedy", "candidates_at_once": 2}, "leave out `candidates_at_once`"),
        ({"time_budget": "1h"}, "instead of `time_budget`"),
        ({"resume": "some.pt"}, "`resume='auto'`"),
        ({"weights": "some.safetensors", "model": "test_vit"}, "random weights"),
        ({"select": "infobatch"}, "leave out `select`"),
        ({"replay": "auto"}, "give a number"),
        ({"early_batch": (32,)}, "`early_batch='auto'`"),
        ({"epochs": 0.2, "tuning_epochs": 0.01}, "too small for one step"),
        ({"tuning_epochs": 0.1}, "too few for one step"),
        ({"stagse": 3}, "unknown key"),
    ],
)
def test_bad_settings_get_one_line(search_config: Make, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        search(search_config(**changes))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "search").exists()


def test_other_settings_or_data_are_not_mixed_into_a_search(
    search_config: Make, tmp_path: Path, image_folder: Path
) -> None:
    def stop(event: object) -> None:
        if isinstance(event, Begun):
            signal.raise_signal(signal.SIGINT)

    config = search_config()
    with pytest.raises(Interrupted):
        search(config, observers=[stop])
    with pytest.raises(InputError, match="`resume='auto'`"):
        search(config)
    with pytest.raises(InputError, match=r"seed 0 \(now 1\)"):
        search(search_config(resume="auto", seed=1))
    # As searches of earlier versions wrote it.
    stored = tmp_path / "search" / "config.yaml"
    lines = [line for line in stored.read_text().splitlines() if not line.startswith("model_ema_warmup")]
    stored.write_text("\n".join(lines).replace("prepare: auto", "prepare: cpu"))
    # A copy elsewhere is the same data, and other images of the same number are not.
    copy = shutil.copytree(image_folder, tmp_path / "copy")
    other = shutil.copytree(image_folder, tmp_path / "other")
    (other / "train/cat/000.jpg").rename(other / "train/cat/renamed.jpg")
    with pytest.raises(Interrupted):
        search(search_config(resume="auto", data=str(copy)), observers=[stop])
    with pytest.raises(InputError, match="the search was trained on other images"):
        search(search_config(resume="auto", data=str(other)))
    with pytest.raises(InputError, match="48 images to train on and now there are"):
        search(search_config(resume="auto"), data=split(FolderSource(image_folder / "train"), 0.5, 0)[0])
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("model: test_vit\n")
    with pytest.raises(InputError, match="a run of another kind"):
        search(search_config(resume="auto", output=str(tmp_path / "run")))


def test_damaged_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    for number in range(3):
        journal.append({"kind": "trial", "number": number})
    whole = path.read_bytes()
    lines = [1 + k for k, byte in enumerate(whole) if byte == ord("\n")]
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        again = Journal(path)
        assert len(again.records) == sum(end <= length for end in lines)
        again.append({"kind": "new"})
        assert Journal(path).records == again.records
    path.write_bytes(b"not a line\n" + whole)
    with pytest.raises(InputError, match="line 1 of"):
        Journal(path)


def test_default_candidates_fit_the_model(search_config: Make) -> None:
    assert search_config(candidates=()).bandwidths(16) == (32, 48, 64)
    assert SearchConfig(training=TrainConfig()).bandwidths(32) == (96, 160, 192, 224)


def test_budgets() -> None:
    by_epochs = SearchConfig.from_flat({"epochs": 200})
    assert (by_epochs.epochs, by_epochs.baseline, by_epochs.tuning) == (200, pytest.approx(300), 10)
    by_baseline = SearchConfig.from_flat({"baseline_epochs": 300, "beta": 0.5})
    assert (by_baseline.epochs, by_baseline.baseline, by_baseline.tuning) == (150, 300, 7.5)
    assert by_epochs.training.cost == "flops" and by_epochs.training.deterministic


def test_a_trial_that_fails_ends_the_search_with_the_way_to_go_on(
    search_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(task: object) -> None:
        raise InputError("no room")

    monkeypatch.setattr("upchirp.search.trials.run_trial", fail)
    config = search_config()
    said = f"no room; once that is mended, go on with: upchirp search --resume auto --output {config.training.output}"
    with pytest.raises(InputError) as told:
        search(config, command="upchirp search --stages 3")
    assert str(told.value) == said


def test_a_0_is_of_training_as_usual_unless_the_ramp_is_asked_for(tmp_path: Path) -> None:
    """Algorithm 1, line 2: the baseline's accuracy; Table 4 shows that the ramp alone raises it."""
    common = {"model": "test_vit", "final_size": 64, "recipe": "light", "epochs": 20, "batch_size": 32,
              "algorithm": "greedy", "candidates": [32], "stages": 3}  # fmt: skip

    def magnitudes(config: SearchConfig, *sides: int) -> tuple[float, float]:
        run = Planner(config, create_model("test_vit", num_classes=2), 320).of(Trial(sides, 0, len(sides))).run
        return run.stages[0].magnitude[0], run.stages[-1].magnitude[1]

    plain = SearchConfig.from_flat(common)
    assert magnitudes(plain, 64, 64, 64) == (9.0, 9.0)
    assert magnitudes(plain, 32, 32, 64) == (0.0, 9.0)
    ramp = SearchConfig.from_flat({**common, "baseline_magnitude": "ramp"})
    assert magnitudes(ramp, 64, 64, 64) == (0.0, 9.0)
    # A search of before goes on with what it did.
    stored = {name: value for name, value in plain.to_flat().items() if name != "baseline_magnitude"}
    save_config(stored, tmp_path / "config.yaml")
    assert SearchConfig.stored(tmp_path)["baseline_magnitude"] == "ramp"
