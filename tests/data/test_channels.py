"""Images of other channels than red, green and blue: grey ones, and arrays of many bands."""

from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
import torch
from PIL import Image

from upchirp import InputError, Loader, constant, efficienttrain_plus_plus, plan
from upchirp.data import (
    Augmentation,
    BatchTransform,
    Channels,
    EvalTransform,
    LooseSource,
    MapStyleSource,
    Request,
    TrainTransform,
    find_images,
    for_channels,
    open_data,
)
from upchirp.data.device.preparation import grey
from upchirp.data.images.arrays import ArrayPicture, has_many_bands
from upchirp.data.images.decoding import PillowPicture, open_picture
from upchirp.data.requests import RequestSampler
from upchirp.data.settings import Mode

Photo = Callable[..., Image.Image]
QUIET = {"reprob": 0.0, "mixup": 0.0, "cutmix": 0.0, "smoothing": 0.0}


def npy(values: npt.NDArray[Any]) -> bytes:
    stream = BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def tiff(values: npt.NDArray[Any], **options: Any) -> bytes:
    stream = BytesIO()
    tifffile.imwrite(stream, values, photometric="minisblack", **options)
    return stream.getvalue()


def bands(count: int, *, seed: int = 0, side: int = 40) -> npt.NDArray[np.uint16]:
    """(height, width, count), smooth, of values up to 10,000."""
    coarse = np.random.default_rng(seed).uniform(500, 10_000, (count, 6, 5)).astype(np.float32)
    fine = [np.asarray(Image.fromarray(band).resize((side, side - 4), Image.Resampling.BICUBIC)) for band in coarse]
    return np.stack(fine, axis=-1).clip(0, 65535).astype(np.uint16)


def of(count: int, pixel_type: str = "float32", **settings: Any) -> Augmentation:
    mean = (0.5,) if pixel_type == "uint8" else (4000.0,)
    std = (0.25,) if pixel_type == "uint8" else (2000.0,)
    return Augmentation(mean=mean * count, std=std * count, pixel_type=pixel_type, **settings)  # type: ignore[arg-type]


def test_any_layout_and_file_gives_the_same_values() -> None:
    values = bands(5)
    first = np.moveaxis(values, -1, 0)
    files = [npy(values), npy(first), npy(np.asfortranarray(values)), npy(values.astype(">u2"))]
    files += [tiff(values, planarconfig="contig"), tiff(first), tiff(first, planarconfig="separate", metadata=None)]
    view = EvalTransform(32, 1.0, channels=Channels(5, "float32"))
    expected = view(open_picture(files[0]))
    assert expected.shape == (32, 32, 5)
    assert expected.dtype == np.float32
    assert abs(expected.mean(axis=(0, 1)) / values.mean(axis=(0, 1)) - 1).max() < 0.05
    for file in files[1:]:
        np.testing.assert_array_equal(view(open_picture(file)), expected)


@pytest.mark.parametrize("count", [7, 13])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_pillow_is_not_asked_for_bands_that_it_complains_of(count: int, bigtiff: bool, caplog: Any) -> None:
    data = tiff(bands(count), planarconfig="contig", bigtiff=bigtiff)
    assert has_many_bands(data)
    assert isinstance(open_picture(data), ArrayPicture)
    assert not caplog.records
    assert not has_many_bands(tiff(bands(3), planarconfig="contig"))
    assert not has_many_bands(data[:20])


def test_values_of_16_bits_keep_all_of_them_in_units_of_their_own() -> None:
    grey16 = bands(1)[..., 0]
    stream = BytesIO()
    Image.fromarray(grey16).save(stream, "PNG")
    made = EvalTransform(36, 1.0, channels=Channels(1, "float32"))(open_picture(stream.getvalue()))
    np.testing.assert_array_equal(made[..., 0], grey16[:, 2:38])


@pytest.mark.parametrize("mode", ["fast", "faithful"])
def test_grey_images_are_prepared_as_rgb_ones_are_and_made_grey_last(photo: Photo, mode: Mode) -> None:
    augmentation = Augmentation(mean=(0.4,), std=(0.2,))
    colours = Augmentation(mean=(0.4,) * 3, std=(0.2,) * 3)
    for seed in range(6):
        request = Request(index=0, bandwidth=20, magnitude=9.0, seed=seed)
        made = TrainTransform(augmentation, 32, mode)(photo(), request)
        as_before = TrainTransform(colours, 32, mode)(photo(), request)
        assert made.shape == (20, 20, 1)
        np.testing.assert_array_equal(made[..., 0], np.asarray(Image.fromarray(as_before).convert("L")))
        np.testing.assert_array_equal(grey(torch.from_numpy(as_before)[None])[0], made)
    view = EvalTransform(24, 0.875, channels=Channels(1))
    l_mode = photo().convert("L")
    np.testing.assert_array_equal(view(l_mode)[..., 0], EvalTransform(24, 0.875)(l_mode)[..., 0])


@pytest.mark.parametrize("mode", ["fast", "faithful"])
def test_bands_get_the_crop_the_flip_and_the_geometry_of_photographs(photo: Photo, mode: Mode) -> None:
    # The very values of a photograph, as three bands with a fourth: its first three are to come out nearly alike.
    pixels = np.asarray(photo())
    four = ArrayPicture(np.concatenate([pixels, pixels[..., :1]], axis=-1))
    layers = {"randaug_layers": 1, "randaug_prob": 1.0}
    compared = 0
    for seed in range(40):
        request = Request(index=0, bandwidth=24, magnitude=9.0, seed=seed)
        colours = Augmentation(mean=(0.5,) * 3, std=(0.25,) * 3, **layers)
        transform = TrainTransform(colours, 32, mode)
        expected = transform(PillowPicture(photo()), request)
        made = TrainTransform(of(4, "uint8", **layers), 32, mode)(four, request)
        assert made.dtype == np.uint8
        np.testing.assert_array_equal(made[..., 3], made[..., 0])
        name = draw_name(colours, request)
        if name in ("Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel"):
            difference = np.abs(made[..., :3].astype(int) - expected)
            # Kernels of OpenCV and Pillow differ at edges.
            assert difference.mean() < 5, (name, seed)
            compared += 1
    assert compared > 5


def draw_name(augmentation: Augmentation, request: Request) -> str:
    from upchirp.data.images.augmentation import draw

    return draw(augmentation, 32, (60, 45), request).operations[0].name


def test_tones_are_left_as_they_are() -> None:
    values = np.full((40, 40, 5), 7000, np.uint16)
    settings = of(5, randaug_layers=3, randaug_prob=1.0)
    for seed in range(8):
        made = TrainTransform(settings, 32)(ArrayPicture(values), Request(0, 24, 10.0, seed))
        # What comes from outside is the mean, 4000; a bicubic filter goes a little past both.
        assert made.min() >= 3400
        assert made.max() <= 7600
        assert abs(made - 7000).min() < 1


class Pixels(MapStyleSource):
    """Ten arrays of five bands."""

    classes = ("a", "b")

    def __init__(self) -> None:
        super().__init__([(bands(5, seed=k), k % 2) for k in range(16)])


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_bands_are_normalised_erased_mixed_and_replayed(workers: int) -> None:
    source = Pixels()
    settings = of(5, reprob=1.0)
    # More bytes than as many RGB images have.
    run = plan(efficienttrain_plus_plus(32), epochs=8, dataset_size=16, batch_size=32)
    run = run.with_replay(1, final=False)
    loader = Loader(source, run, augmentation=settings, seed=3, workers=workers)
    for batch in loader:
        side = batch.step.bandwidth
        assert (batch.images.dtype, batch.images.shape) == (torch.float32, (32, 5, side, side))
        before = batch.images.clone()
        inputs, targets = batch.prepare(loader.transform, "cpu")
        # The batch itself is as it came: a step may be redone.
        assert torch.equal(batch.images, before)
        assert inputs.shape == before.shape
        assert inputs.abs().max() < 8
        assert len(targets.labels) == 32
    plain = BatchTransform(of(5, **QUIET), seed=0)
    made, _ = plain(before, targets.labels, bandwidth=side, step=0, batch_size=32)
    torch.testing.assert_close(made, (before - 4000) / 2000)


@pytest.mark.parametrize("operator", ["crop", "bicubic"])
def test_the_device_reduces_bands(operator: Any) -> None:
    run = plan(efficienttrain_plus_plus(32), epochs=2, dataset_size=16, batch_size=8)
    loader = Loader(Pixels(), run, augmentation=of(5, **QUIET), low_frequency=operator, workers=0)
    batch = next(iter(loader))
    assert batch.images.shape == (8, 5, 32, 32)
    inputs, _ = batch.prepare(loader.transform, "cpu")
    assert inputs.shape == (8, 5, 14, 14)


def test_erased_boxes_span_all_channels() -> None:
    transform = BatchTransform(of(5, **{**QUIET, "reprob": 1.0}), seed=0)
    images = torch.full((8, 5, 16, 16), 4000.0)
    inputs, _ = transform(images, torch.zeros(8, dtype=torch.int64), bandwidth=16, step=0, batch_size=8)
    erased = inputs != 0
    assert erased.any(dim=(1, 2, 3)).all()
    assert torch.equal(erased, erased[:, :1].expand(-1, 5, -1, -1))


def test_mean_and_deviation_are_measured_where_none_are_known() -> None:
    made, (line,) = for_channels(Augmentation(), Pixels(), 5)
    values = np.stack([bands(5, seed=k) for k in range(16)]).reshape(-1, 5).astype(float)
    np.testing.assert_allclose(made.mean, values.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(made.std, values.std(axis=0), rtol=1e-5)
    assert made.pixel_type == "float32"
    assert "5 channels of float32 values: mean " in line
    assert "measured on 16 training images" in line
    assert for_channels(made, Pixels(), 5) == (made, [])
    # What weights for values of 8 bits say of as many channels says nothing of these.
    assert for_channels(of(5, "uint8"), Pixels(), 5, asked=False)[0].mean == made.mean
    photographs = MapStyleSource([(Image.new("RGB", (8, 8), (255, 0, 51)), 0)])
    assert for_channels(Augmentation(), photographs, 3) == (Augmentation(), [])
    single = for_channels(Augmentation(), photographs, 1)[0]
    assert (single.channels, single.std) == (Channels(1), (1.0,))
    assert single.mean == pytest.approx((82 / 255,), abs=1e-6)


@pytest.mark.parametrize(
    ("image", "channels", "settings", "words"),
    [
        (bands(5), 12, {}, "it has 5 channels, not 12: give `in_chans=5`"),
        (bands(5), 3, {}, "it has 5 channels, not 3: give `in_chans=5`"),
        (bands(5).astype(np.uint8), 1, {}, "it has 5 channels, not 1 or 3: give `in_chans=5`"),
        (Image.new("RGB", (8, 8)), 4, {}, "it has 3 channels, not 4: give `in_chans=3`"),
        (bands(5).astype(np.uint8), 5, {"pixel_type": "float32"}, "have values of 8 bits, and `pixel_type` is float32"),
        (bands(5), 5, {"mean": (0.5,) * 5, "std": (0.2,) * 5}, "are for values of 8 bits: give `pixel_type='float32'`"),
        (np.full((8, 8, 5), np.nan, np.float32), 5, {}, "not finite"),
    ],
)
def test_other_images_are_refused_before_training(
    image: Any, channels: int, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        for_channels(Augmentation(**settings), MapStyleSource([(image, 0)] * 3), channels)


@pytest.mark.parametrize(
    "data",
    [
        npy(bands(5))[:200],
        npy(bands(5))[:-1],
        npy(np.array([{"a": 1}], dtype=object)),
        npy(np.zeros((2, 3, 4, 5))),
        npy(np.zeros((4, 4), complex)),
        b"\x93NUMPY\x01\x00\x10\x00{'shape': junk}",
        b"\x93NUMPY\x01\x00v\x00{'descr': '<u2', 'fortran_order': False, 'shape': (9999999999, 9999999999), }\n",
        tiff(bands(9), planarconfig="contig")[:300],
    ],
    ids=["header", "cut", "objects", "4-d", "complex", "junk", "claims", "tiff"],
)
def test_damaged_arrays_are_read_errors(data: bytes) -> None:
    with pytest.raises(OSError):
        EvalTransform(8, 1.0, channels=Channels(5, "float32"))(open_picture(data))


@pytest.fixture
def mixed(tmp_path: Path) -> Iterator[Path]:
    for split in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            for k in range(3):
                np.save(tmp_path / split / name / f"{k}.npy", bands(5, seed=k))
    yield tmp_path


def test_arrays_are_images_where_there_are_no_others(mixed: Path) -> None:
    train, val = open_data(mixed)
    assert (len(train), len(val)) == (6, 6)
    assert train.describe(0).endswith("0.npy")
    assert len(find_images([mixed / "train"])[0]) == 6
    Image.new("RGB", (8, 8)).save(mixed / "train" / "a" / "x.png")
    Image.new("RGB", (8, 8)).save(mixed / "train" / "b" / "x.png")
    notes: list[str] = []
    train, _ = open_data(mixed, note=notes.append)
    assert [train.describe(k)[-5:] for k in range(len(train))] == ["x.png"] * 2
    assert any("6 .npy" in note for note in notes)


def test_arrays_of_rgb_or_grey_values_of_8_bits_are_photographs(photo: Photo) -> None:
    pixels = np.asarray(photo())
    request = Request(0, 24, 9.0, 5)
    expected = TrainTransform(Augmentation(), 32)(photo(), request)
    for values in (pixels, np.moveaxis(pixels, -1, 0)):
        made = TrainTransform(Augmentation(), 32)(open_picture(npy(values)), request)
        np.testing.assert_array_equal(made, expected)


def test_workers_tell_images_of_another_type_from_the_others(tmp_path: Path) -> None:
    for k in range(4):
        np.save(tmp_path / f"{k}.npy", bands(5).astype(np.uint8 if k == 2 else np.uint16))
    source = LooseSource([str(tmp_path / f"{k}.npy") for k in range(4)])
    told: list[str] = []
    run = plan(constant(32), epochs=1, dataset_size=4, batch_size=4)
    loader = Loader(
        source, run, augmentation=of(5), workers=0, on_corrupt=lambda images: told.extend(i.reason for i in images)
    )
    next(iter(loader))
    (line,) = told
    assert (
        line == "its values are uint8, and those of the others, or of what weights are for, are in units of their own"
    )


def test_a_replay_buffer_counts_the_bytes_of_its_images() -> None:
    run = plan(efficienttrain_plus_plus(32), epochs=9, dataset_size=16, batch_size=4)
    # A quarter of a MiB.
    run = run.with_replay(1, gib=2**-12)
    stage = run.stages[0]
    for channels, bytes_of_pixel in ((of(5), 20), (Augmentation(mean=(0.5,), std=(0.5,)), 1), (Augmentation(), 3)):
        held = Loader(Pixels(), run, augmentation=channels, workers=0).sampler.window(stage)
        assert held == 2**18 // (4 * stage.bandwidth**2 * bytes_of_pixel)


def test_the_device_prepares_photographs_alone() -> None:
    run = plan(constant(32), epochs=1, dataset_size=16, batch_size=8)
    with pytest.raises(InputError, match="`prepare='device'` is for grey and RGB images"):
        Loader(Pixels(), run, augmentation=of(5), prepare="device")
    assert RequestSampler(run, seed=0).plan is run


def test_the_device_prepares_grey_photographs_as_workers_do(photo: Photo) -> None:
    source = MapStyleSource([(photo(seed=k), 0) for k in range(8)])
    run = plan(constant(24), epochs=1, dataset_size=8, batch_size=8)
    settings = Augmentation(mean=(0.4,), std=(0.2,), randaug_layers=0)
    here, there = (
        next(iter(Loader(source, run, augmentation=settings, workers=0, prepare=way))).images
        for way in ("cpu", "device")
    )
    assert there.shape == (8, 1, 24, 24)
    assert (here.int() - there.int()).abs().max() <= 2
