"""Runs with larger batches at small bandwidths: with the replay buffer, with selection, and how they resume."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from tests.runs import Make, differing, interrupted, logged

from upchirp import InputError, Loader, TrainConfig, efficienttrain_plus_plus, plan, train
from upchirp.cli import main
from upchirp.data import open_data


@pytest.mark.parametrize(
    "changes",
    [
        {"replay": 1, "replay_mode": "mixed", "replay_gib": 1000 / 2**20},
        {"select": "infobatch", "model_ema": False},
        {"curriculum": "efficienttrain", "early_batch": [96]},
    ],
    ids=["replay", "selection", "samples"],
)
def test_a_run_with_early_batches_resumes_in_any_stage(config: Make, tmp_path: Path, changes: dict) -> None:
    settings = {"early_batch": "auto", "lr_cap": 8e-3, "lr": 2e-3, "epochs": 6, "log_interval": 1, **changes}
    whole = train(config(**settings, output=str(tmp_path / "whole")))
    sizes = [stage.batch_size for stage in whole.plan.stages]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[-1] == 32
    rates = [record["learning_rate"] for record in logged(whole.output)]
    assert rates == [step.learning_rate for step in whole.plan.steps()]
    assert max(rates) > 2e-3
    run = interrupted(interrupted(config(**settings), 2), whole.plan.stages[0].steps + 1)
    # Only micro-batches of another size may change the rounding.
    assert not differing(train(run).output, whole.output)


def test_early_batches_ask_for_the_same_data_in_the_same_order(image_folder: Path) -> None:
    source, _ = open_data(str(image_folder), 64)
    settings = {"epochs": 12, "dataset_size": len(source), "batch_size": 32}
    plain, early = (
        plan(efficienttrain_plus_plus(64, multiple=16), early_batch=sizes, **settings) for sizes in (None, "auto")
    )
    seen = []
    for run, micro_batch in ((plain, 16), (early, {32: 64, 48: 32, 64: 16})):
        batches = list(Loader(source, run, workers=0, micro_batch=micro_batch))
        assert {(batch.bandwidth, len(batch.rows)) for batch in batches} <= set(
            dict.fromkeys(run.bandwidths, 16).items() if micro_batch == 16 else micro_batch.items()
        )
        assert sum(batch.completes_step for batch in batches) == run.total_steps
        assert len(batches) == len(Loader(source, run, workers=0, micro_batch=micro_batch))
        seen.append([index for batch in batches for index in batch.indices.tolist()])
    common = min(map(len, seen))
    assert seen[0][:common] == seen[1][:common]


def test_micro_batches_that_do_not_fit_get_one_line(config: Make, image_folder: Path) -> None:
    with pytest.raises(InputError, match="micro-batch 32 does not fit batch size 80: choose a divisor"):
        train(config(early_batch=[80, 32], micro_batch=32, epochs=12))
    source, _ = open_data(str(image_folder), 64)
    run = plan(efficienttrain_plus_plus(64, multiple=16), epochs=12, dataset_size=len(source), batch_size=32)
    with pytest.raises(InputError, match="no micro-batch for bandwidth 48"):
        Loader(source, run, micro_batch={32: 16, 64: 16})


def test_settings_are_stored_and_may_not_change(config: Make) -> None:
    run = config(early_batch=[96, 64], max_batch_size=96, lr_cap=0.1, epochs=12)
    interrupted(run, 1)
    assert run.output is not None
    stored = yaml.safe_load((run.output / "config.yaml").read_text())
    assert (stored["early_batch"], stored["max_batch_size"], stored["lr_cap"]) == ([96, 64], 96, 0.1)
    # Who prepares, and the number format, are chosen when it is known where the run is trained.
    assert TrainConfig.from_flat(stored) == run.as_chosen({"prepare": "cpu", "amp_dtype": stored["amp_dtype"]})
    with pytest.raises(InputError, match=r"early_batch \[96, 64\] \(now auto\)"):
        train(replace(run, early_batch="auto", resume="auto"))


def test_the_command_line_shows_batches_and_ceilings(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "--model", "resnet18", "--batch-size", "1024", "--lr-cap", "8e-3", "--early-batch"]
    for sizes, expected in ((["auto"], [5632, 2048, 1024]), (["4096", "2048"], [4096, 2048, 1024])):
        assert main([*words, *sizes, "--json"]) == 0
        assert [stage["batch_size"] for stage in json.loads(capsys.readouterr().out)["stages"]] == expected
        assert main([*words, *sizes]) == 0
        table = capsys.readouterr().out
        assert all(f"{size:,}" in table for size in expected)
        assert "0.0028" in table, "the ceiling at 160 px is 2e-3 sqrt(2)"
    assert main([*words, "many"]) == 2
    assert "'many' is neither a whole number nor auto" in capsys.readouterr().err


def test_a_list_of_early_batches_needs_early_stages(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "--model", "resnet18", "--curriculum", "constant", "--batch-size", "1024", "--json"]
    assert main([*words, "--early-batch", "4096", "2048"]) == 2
    assert "early batch gives 2 batch sizes, but constant has 0 bandwidths below 224" in capsys.readouterr().err
    assert main([*words, "--early-batch", "auto"]) == 0
    assert [stage["batch_size"] for stage in json.loads(capsys.readouterr().out)["stages"]] == [1024]
