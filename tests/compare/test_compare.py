import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upchirp.cli import main
from upchirp.compare import speedup_at_equal_accuracy
from upchirp.compare.equal_accuracy import Point


@given(st.floats(50, 500), st.floats(1.1, 5), st.floats(10, 90))
def test_speedup_of_a_known_line(seconds: float, ratio: float, accuracy: float) -> None:
    """On accuracy = slope * time the crossing is where the line says."""
    crossing = seconds / ratio
    curve = [Point(factor * crossing, factor * accuracy) for factor in (0.5, 0.9, 1.1)]
    found = speedup_at_equal_accuracy(Point(seconds, accuracy), curve)
    assert found.kind == "interpolated"
    assert found.ratio == pytest.approx(ratio)


def test_ends_of_the_curve_are_not_extrapolated() -> None:
    above = speedup_at_equal_accuracy(Point(100, 50), [Point(80, 52), Point(60, 51)])
    assert (above.kind, above.ratio) == ("at least", pytest.approx(100 / 60))
    below = speedup_at_equal_accuracy(Point(100, 50), [Point(80, 49), Point(60, 48)])
    assert (below.kind, below.ratio) == ("not reached", None)


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
        "compare", "--data", str(image_folder), "--model", "test_resnet", "--final-size", "64", "--recipe", "light",
        "--epochs", "3", "--batch-size", "16", "--workers", "0", "--device", "cpu", "--budgets", "0.5", "1.0",
        "--seeds", "0", "1", "--curricula", "constant", "efficienttrain_plus_plus", "--output", str(tmp_path / "out"),
        "--early-batch", "24", "16",  # of the curriculum's early stages; the baseline has none
    ]  # fmt: skip
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "report.html" in shown
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    runs = summary["runs"]
    assert [run["curriculum"] for run in runs] == ["constant", *["efficienttrain_plus_plus"] * 2]
    # Within one step of batch size 16 for each of three stages, of 64 images.
    assert [run["equivalent_epochs"] for run in runs] == pytest.approx([3.0, 1.5, 3.0], abs=0.26)
    assert all(len(run["accuracy"]) == len(run["train_seconds"]) == 2 for run in runs)
    assert "speedup_at_equal_accuracy" in summary
    assert all((tmp_path / "out" / folder / "model.safetensors").exists() for run in runs for folder in run["folders"])
    report = (tmp_path / "out/report.html").read_text()
    assert "efficienttrain_plus_plus" in report
    # A second call goes on from what is there: nothing is trained again.
    assert main([*words, "--resume", "auto"]) == 0
    again = json.loads((tmp_path / "out/summary.json").read_text())
    assert [run["train_seconds"] for run in again["runs"]] == [run["train_seconds"] for run in runs]
