"""JPEG files that the device decodes; a decoder of the CPU stands in for the GPU's."""

import sys
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import simplejpeg
import torch
from PIL import Image

from upchirp import Augmentation, InputError, Loader, efficienttrain_plus_plus, plan
from upchirp.data import FolderSource, fresh, open_data
from upchirp.data.device.decoding import jpeg_decoder
from upchirp.data.images import decoding
from upchirp.data.images.decoding import JpegPicture, open_picture
from upchirp.data.packing import PackSettings, pack
from upchirp.errors import DataFault


class StandIn:
    """Decodes on the CPU as nvJPEG is said to: a call with one damaged file fails."""

    def __init__(self) -> None:
        self.files: list[int] = []

    def __call__(self, files: list[torch.Tensor]) -> list[torch.Tensor]:
        assert all((file.dtype, file.ndim, file.device.type) == (torch.uint8, 1, "cpu") for file in files)
        self.files.append(len(files))
        try:
            return [torch.from_numpy(simplejpeg.decode_jpeg(file.numpy().tobytes())).permute(2, 0, 1) for file in files]
        except ValueError as error:
            raise RuntimeError(f"nvjpegDecode failed: {error}") from error


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    made = StandIn()
    monkeypatch.setattr(fresh, "jpeg_decoder", lambda device: made)
    return made


@pytest.fixture(scope="module")
def folder(photo: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of several sizes, one of them a PNG file, one cut off."""
    root = tmp_path_factory.mktemp("photographs")
    for k in range(16):
        path = root / "train" / "ab"[k % 2] / f"{k:02d}.{'png' if k == 5 else 'jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo(90 + 7 * (k % 5), 80 + 5 * (k % 7), seed=k).save(path)
        if k == 6:
            path.write_bytes(path.read_bytes()[:-300])
        if k < 2:
            (root / "val" / "ab"[k]).mkdir(parents=True)
            photo(90, 80).save(root / "val" / "ab"[k] / "0.jpg")
    return root


def batches(source: Any, prepare: Any, **options: Any) -> list[Any]:
    run = plan(efficienttrain_plus_plus(32, multiple=4), epochs=2, batch_size=8, dataset_size=len(source))
    options = {"workers": 0, "seed": 3, "on_corrupt": list, **options}
    return list(Loader(source, run, prepare=prepare, **options))


def test_images_are_those_of_the_workers(
    folder: Path, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Packed too. With workers that decode at full scale nothing but rounding differs."""
    monkeypatch.setattr(decoding, "_DIVISORS", ())
    pack(folder, tmp_path / "packed", PackSettings(sizes=(40,)), workers=1)
    for source in (FolderSource(folder / "train"), open_data(tmp_path / "packed", 32)[0]):
        expected = batches(source, "device")
        stand_in.files.clear()
        found = batches(source, "device-jpeg")
        for one, other in zip(found, expected, strict=True):
            assert (one.step, one.corrupt) == (other.step, other.corrupt)
            assert torch.equal(one.labels, other.labels)
            off = (one.images.int() - other.images.int()).abs().float().mean(dim=(1, 2, 3))
            # Some operations amplify what the rounding of a worker's own resize began.
            assert off.max() < 1.5
            assert off.mean() < 0.3
        assert sum(stand_in.files) > 0.8 * sum(len(batch.labels) for batch in found)
        parts = batches(source, "device-jpeg", workers=2)
        for one, other in zip(parts, found, strict=True):
            assert torch.equal(one.images, other.images)


def test_a_coarser_scale_changes_images_little(folder: Path, stand_in: StandIn) -> None:
    source = FolderSource(folder / "train")
    plain = {"augmentation": Augmentation(randaug_layers=0)}
    for one, other in zip(batches(source, "device-jpeg", **plain), batches(source, "cpu", **plain), strict=True):
        off = (one.images.int() - other.images.int()).abs().float().mean()
        assert off < 8
    assert stand_in.files


def test_what_the_decoder_refuses_is_decoded_on_the_host(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One by one, so that one file spoils no others; and what nobody can decode stops the run with a line."""
    source = FolderSource(folder / "train")
    whole, picky = StandIn(), StandIn()

    def refuses(files: list[torch.Tensor]) -> list[torch.Tensor]:
        if any(len(file) % 3 == 0 for file in files):
            raise RuntimeError("nvjpegDecode failed: 2")
        return picky(files)

    monkeypatch.setattr(fresh, "jpeg_decoder", lambda device: whole)
    first = batches(source, "device-jpeg")
    monkeypatch.setattr(fresh, "jpeg_decoder", lambda device: refuses)
    for one, other in zip(batches(source, "device-jpeg"), first, strict=True):
        assert (one.images.int() - other.images.int()).abs().float().mean() < 0.5
    assert set(picky.files) >= {1}

    class Broken(FolderSource):
        def load(self, index: int) -> tuple[Any, int]:
            picture, label = super().load(index)
            if isinstance(picture, JpegPicture):
                # The header is whole, and so is the end.
                picture.data = picture.data[:200] + b"\xff\xd9"
            return picture, label

    with pytest.raises(DataFault, match=r"a JPEG file is damaged .*`prepare='device'` does, and names it"):
        batches(Broken(folder / "train"), "device-jpeg")


def test_only_usual_files_are_left_to_the_device(photo: Any) -> None:
    def encoded(**options: Any) -> bytes:
        buffer = BytesIO()
        photo(40, 30).save(buffer, "JPEG", **options)
        return buffer.getvalue()

    def is_plain(data: bytes) -> bool:
        picture = open_picture(data)
        return isinstance(picture, JpegPicture) and picture.is_plain

    assert is_plain(encoded())
    assert is_plain(encoded(progressive=True))
    assert not is_plain(encoded()[:-2])
    assert not is_plain(encoded(keep_rgb=True))
    exif = Image.Exif()
    exif[0x0112] = 6
    assert not is_plain(encoded(exif=exif))


def test_torchcodec_is_called_as_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def decode_jpeg(source: Any, *, mode: str = "RGB", output_dtype: Any = torch.uint8, device: Any = "cpu") -> Any:
        calls.append((source, mode, output_dtype, device))
        return [torch.zeros(3, 4, 5, dtype=torch.uint8) for _ in source]

    package, decoders = ModuleType("torchcodec"), ModuleType("torchcodec.decoders")
    decoders.decode_jpeg = decode_jpeg  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchcodec", package)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", decoders)
    device = torch.device("cuda", 0)
    files = [torch.from_numpy(np.arange(5, dtype=np.uint8))]
    assert [tuple(image.shape) for image in jpeg_decoder(device)(files)] == [(3, 4, 5)]
    assert calls == [(files, "RGB", torch.uint8, device)]


def test_without_a_gpu_or_torchcodec_it_is_refused(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    with pytest.raises(InputError, match="needs a CUDA device and this is cpu"):
        batches(FolderSource(folder / "train"), "device-jpeg", augmentation=Augmentation())
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    with pytest.raises(InputError, match=r"pip install 'upchirp\[gpu\]'"):
        jpeg_decoder(torch.device("cuda"))
