"""The script that builds the measurements' data, on made-up miniatures of the public layouts."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from upchirp import open_data


@pytest.fixture
def script(load_benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return load_benchmark("build_data")


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.fixture
def tiny(tmp_path: Path, script: ModuleType) -> Path:
    """Three of the listed classes and one that is not, four images each, as tiny-imagenet-200 has them."""
    root = tmp_path / "tiny-imagenet-200"
    listed = [line.split("\t")[0] for line in script.CLASSES.read_text().splitlines()]
    assert len(listed) == len(set(listed)) == 40
    lines = ""
    for label, name in enumerate([*listed[:3], "n09999999"]):
        files = [f"{name}_{number}.JPEG" for number in range(4)]
        put(root / "train" / name / f"{name}_boxes.txt", "".join(f"{file}\t0\t0\t9\t9\n" for file in files).encode())
        for file in files:
            put(root / "train" / name / "images" / file, file.encode())
        lines += f"val_{label}.JPEG\t{name}\t0\t0\t9\t9\n"
        put(root / "val" / "images" / f"val_{label}.JPEG", f"val {label}".encode())
    put(root / "val" / "val_annotations.txt", lines.encode())
    put(tmp_path / "classes.txt", "".join(f"{name}\tsome name\n" for name in listed[:3]).encode())
    return root


def test_tiny_imagenet_from_its_folder_and_its_zip(script: ModuleType, tiny: Path, tmp_path: Path) -> None:
    archive = tmp_path / "tiny.zip"
    with zipfile.ZipFile(archive, "w") as stream:
        for path in tiny.rglob("*.*"):
            stream.write(path, path.relative_to(tmp_path))
    for source in (tiny, archive):
        output = tmp_path / f"from-{source.name}"
        script.build_tiny(source, output, tmp_path / "classes.txt")
        train, val = open_data(output)
        assert (len(train), len(val), len(train.classes)) == (12, 3, 3)
        assert Path(train.describe(5)).read_text() == f"{train.classes[1]}_1.JPEG"
        assert [Path(val.describe(index)).read_text() for index in range(3)] == ["val 0", "val 1", "val 2"]
    one, other = (script.digest(tmp_path / f"from-{source.name}") for source in (tiny, archive))
    assert one == other != script.TINY_SHA256
    assert one != script.digest(tmp_path / f"from-{tiny.name}", contents=False)


def test_imagenette(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "val"):
        for name in ("n01", "n02"):
            for file in ("n01_10.JPEG", "n01_9.JPEG", "ILSVRC2012_val_00000001.JPEG"):
                path = tmp_path / "imagenette2-320" / split / name / file
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (320, 500)).save(path, "JPEG")
    script.build_imagenette(tmp_path / "imagenette2-320", tmp_path / "few", train=2, val=1)
    train, val = open_data(tmp_path / "few")
    assert [Path(train.describe(index)).name for index in range(2)] == ["ILSVRC2012_val_00000001.JPEG", "n01_10.JPEG"]
    assert (len(train), len(val)) == (4, 2)
    assert train.load(0)[0].size == (224, 224)
    script.main(["imagenette-224", "--source", str(tmp_path / "imagenette2-320"), "--output", str(tmp_path / "all")])
    assert "NOT the images that were measured on" in capsys.readouterr().out
