"""`upchirp predict` on the weights of a real run."""

import csv
import io
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from upchirp.cli import main
from upchirp.data import EvalTransform, FolderSource, LooseSource, find_images, normalize
from upchirp.models import create_model
from upchirp.training import EvalLoading, Origin, load_config, predict

FLAGS = ["--workers", "0", "--device", "cpu"]


@pytest.fixture(scope="module")
def run(uninterrupted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a small network."""
    return Path(shutil.copytree(uninterrupted, tmp_path_factory.mktemp("predict") / "run"))


def printed(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(["predict", *FLAGS, *words]) == code
    return capsys.readouterr().out


def expected(run: Path, images: list[Path], *, mirrored: bool = False) -> torch.Tensor:
    """Probabilities by plain timm and torch."""
    config = load_config(run / "config.yaml")
    stored = json.loads((run / "config.json").read_text())
    model = create_model(
        config["model"],
        num_classes=stored["num_classes"],
        final_size=config["final_size"],
        **config["model_kwargs"],
    )
    model.load_state_dict(load_file(run / "model_ema.safetensors"))
    transform = EvalTransform(config["final_size"], stored["pretrained_cfg"]["crop_pct"])
    pixels = torch.stack([torch.from_numpy(transform(Image.open(path).convert("RGB"))) for path in images])
    inputs = normalize(pixels.permute(0, 3, 1, 2), tuple(config["mean"]), tuple(config["std"]))
    return model.eval()(inputs.flip(3) if mirrored else inputs).softmax(1).detach()


def test_predictions_are_those_of_the_model_by_the_names_of_the_classes(
    run: Path, image_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = FolderSource(image_folder / "val")
    told = json.loads(printed(capsys, "--run", str(run), "--json", "--top", "2", str(image_folder / "val")))
    assert [entry["image"] for entry in told] == [source.describe(index) for index in range(len(source))]
    probabilities = expected(run, [Path(entry["image"]) for entry in told])
    for entry, own in zip(told, probabilities, strict=True):
        assert [guess["class"] for guess in entry["predictions"]] == [source.classes[k] for k in own.topk(2).indices]
        assert [guess["probability"] for guess in entry["predictions"]] == pytest.approx(own.topk(2).values, abs=1e-5)
    # The exported file alone is enough.
    weights = str(run / "model_ema.safetensors")
    assert json.loads(printed(capsys, "--weights", weights, "--json", "--top", "2", str(image_folder / "val"))) == told


def test_a_path_is_printed_as_it_is(
    run: Path, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = shutil.copy(next((image_folder / "val").rglob("*.jpg")), tmp_path / "50%.jpg")
    assert re.fullmatch(
        rf"{re.escape(str(image))}: \w+ \d+\.\d %\n", printed(capsys, "--run", str(run), "--top", "1", str(image))
    )


@pytest.mark.parametrize("line", ["A B --run RUN", "--run RUN A --tta B", "A --run RUN B", "--run RUN -- A B"])
def test_images_stand_anywhere_among_the_flags(
    run: Path, image_folder: Path, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    first, second = map(str, sorted((image_folder / "val").rglob("*.jpg"))[:2])
    named = {"A": first, "B": second, "RUN": str(run)}
    told = printed(capsys, "--json", *(named.get(word, word) for word in line.split()))
    assert [entry["image"] for entry in json.loads(told)] == [first, second]


def test_what_cannot_be_read_is_told_in_a_few_words(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "lost.png").symlink_to("nowhere.png")
    assert main(["predict", *FLAGS, "--run", str(run), str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert f"cannot read {tmp_path / 'empty.jpg'}: the file is empty\n" in told
    assert f"cannot read {tmp_path / 'lost.png'}: there is no such file\n" in told


def test_between_predictions_gradients_work(run: Path, image_folder: Path) -> None:
    images = LooseSource(find_images([image_folder / "val"])[0])
    told = predict(images, Origin(run=run), loading=EvalLoading(workers=0), device="cpu")
    next(told)
    weight = torch.ones(1, requires_grad=True)
    (weight * 2).sum().backward()
    assert weight.grad is not None


def test_test_time_augmentation_averages_with_the_mirror_image(
    run: Path, image_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (first,) = [FolderSource(image_folder / "val").describe(0)]
    told = json.loads(printed(capsys, "--run", str(run), "--json", "--top", "1", "--tta", first))
    both = (expected(run, [Path(first)]) + expected(run, [Path(first)], mirrored=True)) / 2
    assert told[0]["predictions"][0]["probability"] == pytest.approx(float(both.max()), abs=1e-5)


def test_csv_goes_on_over_an_image_that_cannot_be_read(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a, b.png", "z.png"):
        Image.fromarray(np.full((40, 50, 3), 90, np.uint8)).save(tmp_path / name)
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    out = printed(capsys, "--run", str(run), "--csv", "--top", "1", "--batch-size", "2", str(tmp_path), code=1)
    header, *rows = csv.reader(io.StringIO(out))
    assert header == ["image", "rank", "class", "label", "probability", "error"]
    assert [Path(row[0]).name for row in rows] == ["a, b.png", "bad.jpg", "z.png"]
    assert rows[1][5] and not rows[1][2]
    assert rows[0][2:5] == rows[2][2:5]


@pytest.mark.parametrize("what", ["image", "paths"])
def test_standard_input_is_an_image_or_a_list_of_paths(
    run: Path, image_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    first = Path(FolderSource(image_folder / "val").describe(0))
    given = first.read_bytes() if what == "image" else f"{first}\n".encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
    text = printed(capsys, "--run", str(run), "-")
    named = "-" if what == "image" else str(first)
    assert text.startswith(f"{named}: ")
    assert text[len(named) :] == printed(capsys, "--run", str(run), str(first))[len(str(first)) :]


def test_an_empty_standard_input_names_no_images(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert main(["predict", "--run", str(run), "-"]) == 2
    assert "no images are named" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no images: name files or folders"),
        (["nowhere.jpg", "--model", "resnet18"], "there is no file or folder nowhere.jpg"),
        ([".", "--csv", "--json"], "give one of --csv and --json"),
    ],
)
def test_what_cannot_be_predicted_is_told(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["predict", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_without_images_and_weights_that_are_none(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("")
    assert main(["predict", "--run", str(run), str(tmp_path)]) == 2
    assert "there is no image in" in capsys.readouterr().err
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert main(["predict", *FLAGS, str(tmp_path)]) == 2
    assert "nothing to evaluate: give --run" in capsys.readouterr().err
    assert main(["predict", *FLAGS, "--run", str(run), "--top", "0", str(tmp_path)]) == 2
    assert "--top is 0" in capsys.readouterr().err
