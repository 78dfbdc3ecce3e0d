"""CIFAR's own files, made small."""

import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from upchirp.data import open_data
from upchirp.data.sources.cifar import is_cifar
from upchirp.errors import InputError


def batch(count: int, first: int, key: str = "labels") -> dict[str, Any]:
    pixels = np.arange(first, first + count, dtype=np.uint8)[:, None].repeat(3072, axis=1)
    pixels[:, :1024] = 7  # red
    return {"data": pixels, key: [k % 2 for k in range(first, first + count)], "batch_label": "one"}


def write(folder: Path, files: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        # The authors' files are of Python 2.
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    return folder


def cifar_10(folder: Path) -> Path:
    files = {f"data_batch_{k}": batch(2, 2 * k) for k in range(1, 6)}
    meta = {"label_names": ["cat", "dog"], "num_vis": 3072}
    return write(folder / "cifar-10-batches-py", {**files, "test_batch": batch(3, 20), "batches.meta": meta})


def packed(folder: Path, name: str) -> Path:
    with tarfile.open(folder.parent / name, "w:gz") as archive:
        archive.add(folder, folder.name)
    return folder.parent / name


@pytest.mark.parametrize("archived", [False, True])
def test_cifar_10_as_a_folder_and_as_its_archive(tmp_path: Path, archived: bool) -> None:
    folder = cifar_10(tmp_path)
    train, val = open_data(packed(folder, "cifar-10-python.tar.gz") if archived else folder)
    assert (len(train), len(val), train.classes) == (10, 3, ("cat", "dog"))
    picture, label = train.load(3)
    assert label == 1
    pixels = np.asarray(picture.whole())
    assert pixels.shape == (32, 32, 3) and pixels[5, 9].tolist() == [7, 5, 5]


def test_cifar_100_has_its_fine_labels(tmp_path: Path) -> None:
    meta = {"fine_label_names": ["ant", "bee"], "coarse_label_names": ["insect"]}
    files = {"train": batch(4, 0, "fine_labels"), "test": batch(2, 9, "fine_labels"), "meta": meta}
    train, val = open_data(packed(write(tmp_path / "cifar-100-python", files), "cifar-100-python.tar.gz"))
    assert (len(train), val.load(0)[1], val.classes) == (4, 1, ("ant", "bee"))


class Attack:
    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = cifar_10(tmp_path)
    (folder / "test_batch").write_bytes(pickle.dumps(Attack()))
    with pytest.raises(InputError, match="test_batch holds no images of CIFAR \\(it asks for") as caught:
        open_data(folder)
    assert "\n" not in str(caught.value) and not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("batches.meta", {}, "lacks files of CIFAR"),
        ("batches.meta", {"label_names": ["cat"]}, "labels of 0 to 1, but 1 classes"),
        ("test_batch", {"data": np.zeros((2, 7), np.uint8), "labels": [0, 1]}, "is damaged"),
        ("test_batch", [1], "holds no images of CIFAR"),
    ],
)
def test_damaged_files_are_told(tmp_path: Path, name: str, content: Any, message: str) -> None:
    folder = cifar_10(tmp_path)
    (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(InputError, match=message):
        open_data(folder)


def test_what_is_cut_off_and_what_is_none(tmp_path: Path) -> None:
    archive = packed(cifar_10(tmp_path), "cifar-10-python.tar.gz")
    archive.write_bytes(archive.read_bytes()[:300])
    with pytest.raises(InputError, match=r"cannot read|lacks files"):
        open_data(archive)
    assert not is_cifar(tmp_path)
    with pytest.raises(InputError, match="leave out"):
        open_data(tmp_path / "cifar-10-batches-py", val_split="dev")
