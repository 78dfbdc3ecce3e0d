import json

import pytest
import torch

from upchirp import Plan, Stage, efficienttrain_plus_plus, plan
from upchirp.cli import main
from upchirp.training.probing import planning
from upchirp.training.recipes.groups import Replaying


def test_decoded_images_are_shown_where_there_is_replay(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    words = ["plan", "--model", "resnet18"]
    assert main(words) == 0
    assert "decoded" not in capsys.readouterr().out
    assert main([*words, "--replay", "1", "--replay-mode", "mixed"]) == 0
    table = capsys.readouterr().out
    assert main([*words, "--replay", "1", "--replay-mode", "mixed", "--json"]) == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    assert "decoded" in table
    assert all(f"{stage['fresh_samples'] / 1e6:.1f} M" in table for stage in stages)
    assert "…" not in table
    assert stages[0]["fresh_samples"] < stages[0]["samples"]
    assert stages[-1]["fresh_samples"] == stages[-1]["samples"]


def test_the_released_code_replays_three_one_and_none_from_1_966_080_images(capsys: pytest.CaptureFixture[str]) -> None:
    """`1920 x 128 x 8` of its launch scripts; the buffer is counted in images, where memory has room for them."""
    assert main(["plan", "--model", "resnet50", "--replay-stages", "3", "1", "--replay-gib", "512", "--json"]) == 0
    run = Plan.from_dict(json.loads(capsys.readouterr().out))
    assert [stage.replay.batches for stage in run.stages] == [3, 1, 0]
    shares = [stage.fresh_samples / stage.samples for stage in run.stages]
    assert shares == pytest.approx([1 / 4, 1 / 2, 1], rel=1e-3)
    held = [stage.replay.window(stage.batch_size, stage.bandwidth) * stage.batch_size for stage in run.stages[:2]]
    assert held == [1_966_080, 1_966_080] and held[0] > run.dataset_size
    # What was 4 GiB of memory held 37 batches.
    assert run.with_replay(1, gib=4).stages[0].replay.window(4096, 96) == 37
    # Plans of before know no number of images, and go on as they were.
    stored = {**run.stages[0].to_dict(), "replay": {"batches": 1, "mode": "batch", "buffer_bytes": 2**40}}
    assert Stage.from_dict(stored).replay.window(4096, 96) > 480


def test_without_a_bound_the_buffer_gets_a_quarter_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "free_memory", lambda: 64 * 2**30)
    assert planning.spare_gib(torch.device("cpu"), ranks=2) == 16
    run = plan(efficienttrain_plus_plus(), epochs=200)
    assert planning.with_replay(run, Replaying(), 1, gib=16).stages[0].replay.buffer_bytes == 16 * 2**30
    assert planning.with_replay(run, Replaying(replay_gib=4), 1, gib=16).stages[0].replay.buffer_bytes == 4 * 2**30


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--replay", "auto"], "needs the machine's speed: add --measure, or give --replay a number"),
        (["--time-budget", "1h"], "needs the machine's speed: add --measure, or give --epochs in its place"),
        (["--replay", "often"], "neither a whole number nor auto"),
        (["--replay", "-2"], "replay is -2"),
        (
            ["--replay-stages", "3"],
            "gives 1 number, but the curriculum has 2 bandwidths below the final size (96, 160)",
        ),
        (["--replay-stages", "3", "-1"], "each is 0 or more"),
        (["--replay-stages", "3", "1", "--replay", "1"], "say the same thing"),
        (["--replay-images", "0"], "--replay-images is 0"),
    ],
)
def test_bad_replay_gets_one_line(capsys: pytest.CaptureFixture[str], flags: list[str], message: str) -> None:
    assert main(["plan", "--model", "resnet18", *flags]) != 0
    told = capsys.readouterr().err.strip()
    assert message in told
    assert "\n" not in told
