"""`upchirp pretrain`."""

from pathlib import Path

import pytest

from upchirp import InputError
from upchirp.cli import main
from upchirp.training import load_config, read_metrics
from upchirp.training.run.loop import Run

SMALL = ["--model", "test_vit", "--model-kwargs", "depth=1", "--final-size", "64", "--decoder-depth", "1",
         "--decoder-width", "32"]  # fmt: skip


def test_it_pretrains_and_ends_as_it_was_asked(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    words = ["--data", str(image_folder / "train"), *SMALL, "--epochs", "0.5", "--curriculum", "constant",
             "--target", "pixels", "--mask-ratio", "0.5", "--output", str(output), "--workers", "0", "--device", "cpu",
             "--evaluations", "1"]  # fmt: skip
    assert main(["pretrain", *words]) == 0
    said = capsys.readouterr().out
    assert "20 nearest neighbours: top-1 100.00 %" in said
    assert f"{output}: explained " in said and "measure the loss and are not trained on" in said
    stored = load_config(output / "config.yaml")
    assert {name: stored[name] for name in ("regime", "target", "mask_ratio", "batch_size", "lr_base")} == {
        "regime": "pretrain", "target": "pixels", "mask_ratio": 0.5, "batch_size": 16, "lr_base": 1.5e-4,
    }  # fmt: skip
    assert "magnitude" not in read_metrics(output)[0]
    assert main(["pretrain", "--resume", "auto", "--output", str(output)]) == 0
    assert "was finished before" in capsys.readouterr().out


def test_its_price_counts_visible_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    gigas = []
    for ratio in ("0.75", "0.1"):
        words = ["pretrain", *SMALL, "--mask-ratio", ratio, "--epochs", "800", "--dry-run"]
        assert main(words) == 0
        said = capsys.readouterr().out
        assert "1,281,167 images without labels" in said and "less computation than 1600 epochs as usual" in said
        assert "magnitude" not in said
        gigas.append(said)
    assert gigas[0] != gigas[1]


def test_a_decoder_that_outweighs_its_encoder_is_told(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(run: Run) -> float:
        raise InputError("it has begun")

    # Steps and checkpoints of so large a decoder take long.
    monkeypatch.setattr(Run, "execute", end)
    told = "8 blocks of 512 are published for ViT-B and larger, try --decoder-width 64"
    words = ["pretrain", *SMALL[:-4], "--epochs", "0.25"]
    run = ["--data", str(image_folder / "train"), "--batch-size", "16", "--curriculum", "constant", "--workers", "0",
           "--device", "cpu", "--evaluations", "1", "--output", str(tmp_path / "run")]  # fmt: skip
    assert main([*words, *run, "--dry-run"]) == 0
    assert told in " ".join(capsys.readouterr().out.split())
    assert main([*words, *run]) == 2
    shown = capsys.readouterr()
    assert told in " ".join(shown.out.split()) and "it has begun" in shown.err
    # Whoever asks for it knows.
    assert main([*words, *run, "--decoder-depth", "8", "--dry-run"]) == 0
    assert "try --decoder-width" not in capsys.readouterr().out
    for model, told in (("vit_tiny_patch16_224", True), ("vit_base_patch16_224", False)):
        assert main(["pretrain", "--model", model, "--dry-run"]) == 0
        assert ("--decoder-width 192" in " ".join(capsys.readouterr().out.split())) == told


def test_what_does_not_go_with_it_is_refused(image_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "--model", "resnet18", "--dry-run"]) == 2
    assert "ResNet cannot drop tokens" in capsys.readouterr().err
    assert main(["train", "--model", "resnet18", "--target", "pixels", "--data", str(image_folder)]) == 2
    assert "target belongs to a pre-training without labels" in capsys.readouterr().err
    words = ["--regime", "pretrain", "--model", "test_vit", "--data", str(image_folder), "--dry-run"]
    assert main(["compare", *words]) == 2
    assert "what a pre-training is worth shows after it" in capsys.readouterr().err
