import json
from pathlib import Path

import pytest

from upchirp.cli import main


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--curricula", "constant", "efficienttrain"], "too small for one step"),
        (["--curricula", "constant", "efficient"], "unknown curriculum"),
        (["--model", "resnet5"], "resnet50"),
        (
            ["--curricula", "constant", "efficienttrain", "--early-batch", "24", "24", "24"],
            "early batch gives 3 batch sizes",
        ),
        (["--early-batch", "40", "32", "--micro-batch", "16"], "micro-batch 16 does not fit batch size 40"),
    ],
)
def test_a_mistake_in_the_last_run_shows_before_the_first(
    capsys: pytest.CaptureFixture[str], image_folder: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    common = [
        "compare", "--data", str(image_folder), "--model", "test_resnet", "--final-size", "64", "--recipe", "light",
        "--epochs", "3", "--batch-size", "16", "--budgets", "1.0", "0.01", "--output", str(tmp_path / "out"),
    ]  # fmt: skip
    assert main([*common, *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_comparison_end_to_end(capsys: pytest.CaptureFixture[str], image_folder: Path, tmp_path: Path) -> None:
    words = [
        "compare", "--data", str(image_folder), "--model", "test_vit", "--model-kwargs", "depth=1",
        "--final-size", "64", "--recipe", "light", "--epochs", "3", "--batch-size", "16", "--workers", "0",
        "--device", "cpu", "--no-report", "--budgets", "0.5", "1.0", "--seeds", "0", "1", "--curricula", "constant",
        "efficienttrain_plus_plus", "--output", str(tmp_path / "out"),
        "--early-batch", "24", "16",  # of the curriculum's early stages; the baseline has none
    ]  # fmt: skip
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "report.html" in shown
    assert "run 1 of 6: constant-1 seed 0\n" in shown
    assert "run 6 of 6: efficienttrain_plus_plus-1 seed 1, about " in shown
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    runs = summary["runs"]
    assert [run["curriculum"] for run in runs] == ["constant", *["efficienttrain_plus_plus"] * 2]
    # Within one step of batch size 16 for each of three stages, of 64 images.
    assert [run["equivalent_epochs"] for run in runs] == pytest.approx([3.0, 1.5, 3.0], abs=0.26)
    assert all(len(run["accuracy"]) == len(run["train_seconds"]) == 2 for run in runs)
    # 8 validation images of each class, and every run kept its guesses: no half a point is seen in that.
    assert summary["validation_images"] == 16
    assert all(run["difference"]["paired"] for run in runs[1:])
    assert all(run["difference"]["margin"] > 100 / 16 for run in runs[1:])
    assert summary["speedups"]["efficienttrain_plus_plus"]["kind"] in ("within error", "at least", "not reached")
    assert all((tmp_path / "out" / folder / "model.safetensors").exists() for run in runs for folder in run["folders"])
    report = (tmp_path / "out/report.html").read_text()
    assert "efficienttrain_plus_plus" in report
    # What it cost is known beforehand, and in seconds from the runs that are there.
    assert main([*words, "--resume", "auto", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = ["constant-1", "efficienttrain_plus_plus-0.5", "efficienttrain_plus_plus-1"]
    assert [line.split()[0] for line in lines] == ["run", *names, *names, "6", "6"]
    assert all(line.endswith("s") for line in lines[1:-1]) and max(map(len, lines)) <= 80
    assert lines[-1] == "6 of them are finished."
    # A second call goes on from what is there: nothing is trained again.
    onward = ["compare", "--resume", "auto", "--output", str(tmp_path / "out")]
    assert main(onward) == 0
    assert "left" not in capsys.readouterr().out
    again = json.loads((tmp_path / "out/summary.json").read_text())
    assert [run["train_seconds"] for run in again["runs"]] == [run["train_seconds"] for run in runs]
    capsys.readouterr()
    assert main([*onward[:-1], str(tmp_path / "out" / runs[0]["folders"][0])]) == 2
    assert "holds a run of another kind" in capsys.readouterr().err
    assert main([*onward[:-1], str(tmp_path / "nowhere")]) == 2
    assert "nowhere holds nothing to go on with: check --output" in capsys.readouterr().err


def test_a_dry_run_costs_nothing_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str], image_folder: Path, tmp_path: Path
) -> None:
    words = [
        "compare", "--data", str(image_folder), "--model", "test_resnet", "--final-size", "64", "--recipe", "light",
        "--epochs", "3", "--batch-size", "16", "--workers", "0", "--device", "cpu", "--budgets", "1.0", "--seeds", "0",
        "--output", str(tmp_path / "out"),
    ]  # fmt: skip
    assert main([*words, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    total = shown.splitlines()[3].split()
    # 3 epochs of 64 images at 16 a step, and as much within a step of each stage.
    assert total[:2] == ["2", "runs"] and float(total[2]) == pytest.approx(6, abs=0.26)
    assert "The time is known after the first run, or by --measure." in shown
    assert main([*words, "--dry-run", "--measure"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("s")
    assert main([*words, "--measure"]) == 2
    assert not (tmp_path / "out").exists()
