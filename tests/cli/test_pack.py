"""`upchirp pack`: what it prints, how it refuses, and its exit codes."""

import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from upchirp.cli import main

SMALL = ("--sizes", "12", "24", "--shard-size", "10", "--workers", "1")


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The last line of a command that refuses."""
    assert main(("pack", *words)) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("upchirp: error: ")
    return lines[-1]


def test_pack_prints_what_is_stored_and_what_is_read(
    capsys: pytest.CaptureFixture[str], image_folder: Path, tmp_path: Path
) -> None:
    words = ["pack", "--data", str(image_folder), "--output", str(tmp_path / "out"), *SMALL]
    assert main(words) == 0
    text = capsys.readouterr().out
    for expected in ("original", "12 px", "24 px", "100%", "kB", f"train with --data {tmp_path / 'out'}"):
        assert expected in text
    assert "LEFT OUT" not in text
    assert main(words) == 0
    assert "9 of 9 shards were there already" in capsys.readouterr().out


def test_json_holds_the_same(capsys: pytest.CaptureFixture[str], image_folder: Path, tmp_path: Path) -> None:
    assert main(["pack", "--data", str(image_folder), "--output", str(tmp_path / "out"), "--json", *SMALL]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["shards"], summary["shards_found"], summary["left_out"]) == (9, 0, [])
    assert [(total["split"], total["size"], total["images"]) for total in summary["levels"]] == [
        ("train", None, 64), ("train", 12, 64), ("train", 24, 64), ("val", None, 16)
    ]  # fmt: skip
    assert {"bandwidth", "bytes", "original_bytes", "images_per_second"} == summary["reads"][0].keys()


def test_images_left_out_stand_out(capsys: pytest.CaptureFixture[str], image_folder: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / "in" / split).mkdir(parents=True)
        (tmp_path / "in" / split / "cat").symlink_to(image_folder / split / "cat")
    (tmp_path / "in/train/dog").mkdir()
    (tmp_path / "in/val/dog").symlink_to(image_folder / "val/dog")
    for number in range(7):
        (tmp_path / "in/train/dog" / f"{number}.jpg").write_bytes(b"no image")
    assert main(["pack", "--data", str(tmp_path / "in"), "--output", str(tmp_path / "out"), *SMALL]) == 0
    text = capsys.readouterr().out
    assert "LEFT OUT: 7 images that cannot be read (12.73%)" in text
    assert "train/dog/" in text and "... 2 more" in text


def test_names_that_no_terminal_can_show_are_escaped(
    capsys: pytest.CaptureFixture[str], image_folder: Path, tmp_path: Path
) -> None:
    for split in ("train", "val"):
        shutil.copytree(image_folder / split / "cat", tmp_path / "in" / split / "cat")
    odd = os.fsdecode(b"\xff\n\x1b[2J.jpg")
    (tmp_path / "in/train/cat" / odd).write_bytes(b"no image")
    words = ["--data", str(tmp_path / "in"), "--output", str(tmp_path / "out"), *SMALL]
    assert main(["pack", *words]) == 0
    assert "train/cat/\\xff\\n\\x1b[2J.jpg: " in capsys.readouterr().out
    assert main(["pack", *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["left_out"][0][0] == f"train/cat/{odd}"
    for split in ("train", "val"):
        (tmp_path / "tars" / split).mkdir(parents=True)
        with tarfile.open(tmp_path / "tars" / split / "0.tar", "w") as archive:
            archive.addfile(tarfile.TarInfo("a\nb\x1b.jpg"))
    line = refusal(capsys, "--data", str(tmp_path / "tars"), "--output", str(tmp_path / "other"))
    assert "0.tar: sample a\\nb\\x1b has no label" in line


def test_verify(capsys: pytest.CaptureFixture[str], image_folder: Path, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    assert main(["pack", "--data", str(image_folder), "--output", output, *SMALL]) == 0
    assert main(["pack", "--verify", "--output", output]) == 0
    assert "is whole" in capsys.readouterr().out
    shard = tmp_path / "out/train/000002.tar"
    data = bytearray(shard.read_bytes())
    data[1000] ^= 255
    shard.write_bytes(data)
    line = refusal(capsys, "--verify", "--output", output)
    assert "1 damaged" in line and "train/000002.tar; delete them and run the same `upchirp pack` command" in line
    assert main(["pack", "--verify", "--output", output, "--json"]) == 2
    assert [damage["shard"] for damage in json.loads(capsys.readouterr().out)["damaged"]] == ["train/000002.tar"]


def test_refusals(capsys: pytest.CaptureFixture[str], image_folder: Path, tmp_path: Path) -> None:
    data = str(image_folder)
    assert "name the packed folder by --output" in refusal(capsys, "--data", data)
    assert "name what to pack by --data" in refusal(capsys, "--output", str(tmp_path / "out"))
    assert "give 1 or more" in refusal(capsys, "--data", data, "--output", str(tmp_path / "out"), "--workers", "0")
    assert "quality 0" in refusal(capsys, "--data", data, "--output", str(tmp_path / "out"), "--quality", "0")
    assert "was not made by" in refusal(capsys, "--verify", "--output", str(tmp_path))
    (tmp_path / "file").touch()
    assert "is a file: name a folder that" in refusal(capsys, "--verify", "--output", str(tmp_path / "file"))
    assert "lies in the data folder" in refusal(capsys, "--data", data, "--output", data + "/packed")
