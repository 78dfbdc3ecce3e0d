import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.runs import write_folder
from torch import Tensor

from upchirp.cli import main
from upchirp.compare.alignment import linear_cka
from upchirp.errors import InputError


def plain_cka(first: Tensor, second: Tensor) -> float:
    """The estimator of all images at once, term by term as it is printed."""

    def hsic(k: np.ndarray, other: np.ndarray) -> float:
        n, one = len(k), np.ones(len(k))
        trace = np.trace(k @ other)
        sums = (one @ k @ one) * (one @ other @ one) / ((n - 1) * (n - 2))
        return float(trace + sums - 2 / (n - 2) * (one @ k @ other @ one)) / (n * (n - 3))

    k, other = ((x @ x.T).double().numpy() for x in (first, second))
    for kernel in (k, other):
        np.fill_diagonal(kernel, 0)
    return hsic(k, other) / float(np.sqrt(hsic(k, k) * hsic(other, other)))


def test_cka_is_the_estimator_as_it_is_printed() -> None:
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(3, 40, 6, generator=generator)
    second = torch.stack([first[0] + torch.randn(40, 6, generator=generator) + 2, first[1] ** 2])
    found = linear_cka(first, second, batch_size=64)
    expected = [[plain_cka(a.double(), b.double()) for b in second] for a in first]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)
    # Batches of a quarter of the images estimate the same, but for noise; other networks have little in common.
    assert linear_cka(first, second, batch_size=10)[0, 0] == pytest.approx(float(found[0, 0]), abs=0.2)
    assert found[0, 0] > 0.4 > 0.2 > abs(float(found[2, 0]))
    with pytest.raises(InputError, match="at least 4"):
        linear_cka(first[:, :3], second[:, :3])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, image_folder: Path) -> dict[str, Path]:
    """Two runs of four steps that kept all their checkpoints, one of them with an average."""
    root = tmp_path_factory.mktemp("runs")
    common = [
        "train", "--data", str(image_folder), "--model", "test_vit", "--model-kwargs", "depth=1", "--final-size", "64",
        "--recipe", "light", "--epochs", "1", "--batch-size", "16", "--workers", "0", "--device", "cpu",
        "--evaluations", "1", "--checkpoint-interval", "1", "--checkpoint-keep", "all", "--no-report",
    ]  # fmt: skip
    extra = {
        "usual": ["--curriculum", "constant"],
        "ours": ["--curriculum", "train_small", "--model-ema", "--model-ema-warmup", "None"],
    }
    for name, words in extra.items():
        assert main([*common, *words, "--output", str(root / name)]) == 0
    return {name: root / name for name in extra}


def test_all_checkpoints_of_two_runs_are_compared(
    capsys: pytest.CaptureFixture[str], runs: dict[str, Path], tmp_path: Path
) -> None:
    assert len(list((runs["usual"] / "checkpoints").glob("step_*.pt"))) == 4
    output = tmp_path / "similarity"
    words = ["similarity", str(runs["usual"]), str(runs["ours"]), "--workers", "0", "--output", str(output)]
    assert main(words) == 0
    assert "The last checkpoints have a similarity of " in capsys.readouterr().out
    summary = json.loads((output / "similarity.json").read_text())
    usual, ours = summary["runs"]
    assert usual["equivalent_epochs"] == [0.25, 0.5, 0.75, 1.0]
    # Training at 48 px costs about half as much.
    assert ours["equivalent_epochs"][0] == pytest.approx(0.25 * (48 / 64) ** 2, rel=0.05)
    assert np.array(summary["cka"]).shape == (4, len(ours["steps"]))
    assert summary["images"] == 16
    with Image.open(output / "similarity.png") as picture:
        assert min(picture.size) > 400
    assert "data:image/svg+xml" in (output / "similarity.html").read_text()
    # A run is like itself, and as an average like nothing that it has not got.
    same = ["similarity", str(runs["ours"]), str(runs["ours"]), "--workers", "0", "--which", "average", "--json"]
    assert main([*same, "--output", str(tmp_path / "same")]) == 0
    cka = np.array(json.loads(capsys.readouterr().out)["cka"])
    np.testing.assert_allclose(cka.diagonal(), 1, atol=1e-5)
    assert main([*same[:1], str(runs["usual"]), *same[2:], "--output", str(tmp_path / "none")]) == 2
    assert "holds raw weights only" in capsys.readouterr().err
    # On images of classes that the runs do not tell.
    others = str(write_folder(tmp_path / "birds", train=1, val=2, classes=("auk", "emu", "owl")))
    assert main([*words[:3], "--workers", "0", "--data", others, "--output", str(tmp_path / "other")]) == 0
    assert json.loads((tmp_path / "other/similarity.json").read_text())["images"] == 6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "nowhere"], "nowhere holds no run"),
        (["nowhere"], "1 runs: name two run folders"),
        (["nowhere", "nowhere", "--images", "3"], "images is 3: it must be 4 or more"),
    ],
)
def test_what_cannot_be_compared_is_told(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert main(["similarity", *words]) == 2
    assert message in capsys.readouterr().err


def evaluated(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main(["eval", "--workers", "0", "--device", "cpu", "--json", *words]) == 0
    return json.loads(capsys.readouterr().out)


def test_filtered_images_are_evaluated_at_each_radius(
    capsys: pytest.CaptureFixture[str], runs: dict[str, Path]
) -> None:
    whole = evaluated(capsys, "--run", str(runs["usual"]))
    results = evaluated(capsys, "--run", str(runs["usual"]), "--low-pass", "0", "8", "99", "--high-pass", "0", "99")
    assert [result.get("low_pass") for result in results] == [0, 8, 99, None, None]
    assert [result.get("high_pass") for result in results] == [None, None, None, 0, 99]
    # All frequencies are as good as no filter, and none of them tells nothing apart.
    assert results[2]["loss"] == pytest.approx(whole["loss"], rel=1e-3)
    assert results[4]["loss"] != pytest.approx(whole["loss"], rel=1e-3)
    assert results[0]["loss"] != pytest.approx(results[1]["loss"], rel=1e-4)
    kept = evaluated(capsys, "--run", str(runs["usual"]), "--checkpoints", "--low-pass", "99")
    assert [result["step"] for result in kept] == [1, 2, 3, 4]
    assert kept[-1]["loss"] == pytest.approx(whole["loss"], rel=1e-3)
    assert main(["eval", "--weights", "nowhere.pt", "--checkpoints"]) == 2
    assert "--checkpoints are those of a --run" in capsys.readouterr().err
    assert main(["eval", "--run", str(runs["usual"]), "--low-pass", "-1"]) == 2
    assert "radius -1.0: it must be 0 or more periods per image" in capsys.readouterr().err


def test_raw_weights_and_averages_of_checkpoints_are_told_apart(
    capsys: pytest.CaptureFixture[str], runs: dict[str, Path]
) -> None:
    run = runs["ours"]
    last = str(max((run / "checkpoints").glob("step_*.pt")))
    loss: dict[str, float] = {}
    for which in ("raw", "average"):
        of_run = evaluated(capsys, "--run", str(run), "--which", which)
        of_checkpoint = evaluated(capsys, "--run", str(run), "--weights", last, "--which", which)
        assert of_checkpoint["loss"] == pytest.approx(of_run["loss"], rel=0.05)
        loss[which] = of_run["loss"]
    assert loss["raw"] != loss["average"] == evaluated(capsys, "--run", str(run))["loss"]
    assert main(["eval", "--run", str(runs["usual"]), "--which", "average"]) == 2
    assert "keeps no average of its weights" in capsys.readouterr().err
