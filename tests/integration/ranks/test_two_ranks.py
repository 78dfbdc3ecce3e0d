"""Two ranks on the CPU compute what one computes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.integration.ranks.conftest import finish, settings
from tests.processes import finish_ranks
from tests.runs import logged, losses

from upchirp import InputError, TrainConfig, train
from upchirp.cli import main
from upchirp.training import load_checkpoint, read_metrics
from upchirp.training.probing.micro_batch import choose_micro_batch

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def seen(folder: Path) -> list[dict[str, Any]]:
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


def test_the_loss_curve_is_that_of_one_rank(folder: Path) -> None:
    one, two = losses(folder / "one"), losses(folder / "whole")
    assert len(one) > 8
    assert two == pytest.approx(one, rel=1e-4)
    assert losses(folder / "whole", "evaluation") == pytest.approx(losses(folder / "one", "evaluation"), rel=1e-4)


@pytest.mark.parametrize("run", ["masked", "masked_sharded"])
def test_masks_are_those_of_one_rank(folder: Path, run: str) -> None:
    if run == "masked_sharded" and not (folder / run).exists():
        pytest.skip("torch cannot share a model out")
    one, two = (folder / name for name in ("masked_one", run))
    assert len(losses(one)) == 4 and losses(two) == pytest.approx(losses(one), rel=1e-4)
    assert losses(two, "evaluation") == pytest.approx(losses(one, "evaluation"), rel=1e-4)
    weights, others = (load_file(path / "model.safetensors") for path in (one, two))
    torch.testing.assert_close(others, weights, rtol=1e-3, atol=1e-5)


def test_several_labels_are_ranked_together(folder: Path) -> None:
    (one, alone), (two, both) = (
        (losses(folder / name), logged(folder / name, "evaluation")) for name in ("several_one", "several")
    )
    assert len(one) == 6 and two == pytest.approx(one, rel=1e-4)
    assert 0 < both[-1]["mAP"] < 100 and both[-1]["mAP"] == pytest.approx(alone[-1]["mAP"], abs=1.0)


def test_weights_are_those_of_one_rank_under_plain_names(folder: Path) -> None:
    for name in ("model.safetensors", "model_ema.safetensors"):
        one, two = load_file(folder / "one" / name), load_file(folder / "whole" / name)
        torch.testing.assert_close(two, one, rtol=1e-3, atol=1e-5)


def test_the_head_alone_is_trained_first_on_every_rank(folder: Path, image_folder: Path) -> None:
    train(settings(image_folder, folder / "held_one", head_only=0.5))
    assert losses(folder / "held") == pytest.approx(losses(folder / "held_one"), rel=1e-4)
    assert losses(folder / "held") != pytest.approx(losses(folder / "one"), rel=1e-3)


@pytest.mark.parametrize("run", ["whole", "held", "norms", "unused"])
def test_all_ranks_end_with_the_same_state(seen: list[dict[str, Any]], run: str) -> None:
    assert seen[0][run] == seen[1][run]


def test_each_image_is_evaluated_once(seen: list[dict[str, Any]]) -> None:
    alone = seen[0]["alone"]
    assert alone["images"] == 13
    assert 0 < alone["top1"] < 100 and 0 < alone["mAP"] < 100
    assert seen[0]["evaluation"] == pytest.approx(alone)
    assert seen[1]["evaluation"] == seen[0]["evaluation"]


def test_three_ranks_of_the_command_that_evaluates_print_once_what_one_process_finds(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    words = ["eval", "--run", str(folder / "whole"), "--device", "cpu", "--workers", "0", "--json"]
    assert main(words) == 0
    alone = json.loads(capsys.readouterr().out)
    assert alone["images"] % 3, "ranks have unequal shares"
    assert json.loads(finish(3, "-m", "upchirp", *words)) == pytest.approx(alone)


def test_nothing_else_went_wrong(seen: list[dict[str, Any]]) -> None:
    assert [rank["failures"] for rank in seen] == [{}, {}]


def test_going_on_with_other_numbers_of_ranks(folder: Path, image_folder: Path) -> None:
    whole = losses(folder / "one")
    assert losses(folder / "started") == pytest.approx(whole, rel=1e-4)
    assert sorted(losses(folder / "signal")) == [1, 2, 3, 4, 5]
    train(settings(image_folder, folder / "signal", resume="auto"))
    assert losses(folder / "signal") == pytest.approx(whole, rel=1e-4)


def test_a_signal_to_one_rank_stops_all_after_the_same_step(seen: list[dict[str, Any]]) -> None:
    assert seen[0]["signal"] == seen[1]["signal"]
    assert "stopped after step 5" in seen[0]["signal"]


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("prepare", "only rank 1 fails"),
        ("infinite", "not finite|the loss is"),
        ("batch", "batch size 30 cannot be shared by 2 ranks, in groups of 2"),
    ],
)
def test_what_is_wrong_anywhere_stops_all_ranks_by_the_same_line(
    seen: list[dict[str, Any]], what: str, line: str
) -> None:
    assert seen[0][what] == seen[1][what]
    with pytest.raises(InputError, match=line):
        raise InputError(seen[0][what])


def test_selection_sees_the_losses_of_all_ranks(folder: Path, image_folder: Path) -> None:
    options = {"select": "infobatch", "select_until": 1.0, "epochs": 6, "curriculum": "constant"}
    train(settings(image_folder, folder / "selection_one", checkpoint_interval=5, **options))
    passes = [
        [record for record in read_metrics(folder / name) if record["kind"] == "pass"]
        for name in ("selection_one", "selection")
    ]
    assert sum(record["left_out"] for record in passes[0]) > 20
    for one, two in zip(*passes, strict=True):
        assert two["kept"] == one["kept"]
        assert two["mean_score"] == (one["mean_score"] and pytest.approx(one["mean_score"], rel=1e-3))
    one, two = (
        load_checkpoint(sorted((folder / name / "checkpoints").glob("step_*.pt"))[-1])["loader"]["selection"]["scores"]
        for name in ("selection_one", "selection")
    )
    torch.testing.assert_close(two, one, rtol=1e-3, atol=1e-4)


def test_the_latest_of_all_ranks_counts(seen: list[dict[str, Any]]) -> None:
    assert seen[0]["latest"] == seen[1]["latest"] == [1.0, float("inf"), 3.0]


def test_a_batch_is_cut_by_ranks_and_micro_batches(image_folder: Path, tmp_path: Path) -> None:
    def config(**changes: object) -> TrainConfig:
        return settings(image_folder, tmp_path, **changes)

    assert choose_micro_batch(config(micro_batch=None), 4096, ranks=2) == 512
    assert choose_micro_batch(config(micro_batch=None), 96, ranks=4) == 24
    assert choose_micro_batch(config(micro_batch=None), 4096, ranks=2, shrunk=64 / 32) == 2048
    for changes, batch_size, ranks, line in [
        ({}, 32, 3, "batch size 32 cannot be shared by 3 ranks, in groups of 8 that are mixed together: take 24"),
        ({}, 40, 2, "take 32"),
        ({"mixup": 0.0, "cutmix": 0.0}, 33, 2, "batch size 33 cannot be shared by 2 ranks: take 32"),
        (
            {"micro_batch": 32},
            32,
            2,
            "micro-batch 32 does not fit a rank's 16 of batch size 32: choose a divisor of 16",
        ),
    ]:
        with pytest.raises(InputError, match=line):
            choose_micro_batch(config(**changes), batch_size, ranks=ranks)


def test_what_all_ranks_refuse_is_said_once(tmp_path: Path) -> None:
    done = finish_ranks(2, "-m", "upchirp", "train", "--data", tmp_path / "none", "--model", "test_vit")
    assert done.returncode == 2
    assert done.stderr.count("none is missing") == 1, done.stderr
