"""What the device makes of regions is what workers make of images, up to rounding."""

import random
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from upchirp import Augmentation, InputError, Loader, Selection, TrainConfig, efficienttrain_plus_plus, plan
from upchirp.data import FolderSource, arrival
from upchirp.data.device import resizing
from upchirp.data.device.preparation import Preparation
from upchirp.data.device.rand_augment import rand_augment
from upchirp.data.images.augmentation import TrainTransform
from upchirp.data.images.decoding import PillowPicture
from upchirp.data.images.rand_augment import NAMES, draw_operations, on_pixels
from upchirp.data.images.regions import LaidOut, Region, Regions, RegionTransform, in_own_memory
from upchirp.data.images.resizing import lanczos
from upchirp.data.requests import Request
from upchirp.data.settings import Interpolation

FILL = (124, 116, 104)
Photo = Callable[..., Image.Image]


# Bounds leave room for torch without its own Lanczos, where workers round otherwise.
def difference(one: Any, other: Any) -> np.ndarray[Any, Any]:
    return np.abs(np.asarray(one).astype(int) - np.asarray(other))


@pytest.mark.parametrize("interpolation", [cv2.INTER_CUBIC, cv2.INTER_LINEAR])
@pytest.mark.parametrize("level", [0.0, 0.35, 1.0])
def test_each_operation_does_what_workers_do(photo: Photo, level: float, interpolation: int) -> None:
    """All of them in one call, so each finds its own images."""
    drawn = {
        operation
        for seed in range(400)
        for operation in draw_operations(random.Random(seed), 10 * level, layers=1, prob=1.0, std=0.0)
    }
    assert {operation.name for operation in drawn} == set(NAMES)
    images = [np.asarray(photo(33, 33, seed=seed)) for seed in range(2)] + [np.full((33, 33, 3), 9, np.uint8)]
    pairs = [(image, operation) for image in images for operation in sorted(drawn, key=str)]
    random.Random(0).shuffle(pairs)
    recipes = np.array([(NAMES.index(name), argument or 0.0) for _, (name, argument) in pairs])
    before = torch.from_numpy(np.stack([image for image, _ in pairs]))
    results = rand_augment(before, recipes, FILL, interpolation)
    for (image, operation), result in zip(pairs, results, strict=True):
        off = difference(on_pixels(image, [operation], FILL, interpolation), result)
        # OpenCV blends colours in fixed-point numbers, and some versions take positions to a 32nd of a pixel.
        assert off.mean() < (0.2 if operation.name in ("Rotate", "ShearX", "ShearY") else 0.1), operation
        assert off.max() <= 1 or operation.name in ("Rotate", "ShearX", "ShearY"), operation


@pytest.mark.parametrize("canvas_bytes", [2**25, 20_000])
def test_regions_of_any_size_are_resized_and_mirrored_as_workers_do(
    photo: Photo, monkeypatch: pytest.MonkeyPatch, canvas_bytes: int
) -> None:
    monkeypatch.setattr(resizing, "_CANVAS_BYTES", canvas_bytes)
    sizes = [(24, 24), (60, 45), (45, 61), (24, 80), (7, 9), (1, 30), (150, 100), (23, 25)]
    pixels = [np.array(photo(width, height, seed=width)) for height, width in sizes]
    regions = LaidOut(1)([Region(part, k % 2 == 1, []) for k, part in enumerate(pixels)], in_own_memory)
    behind = torch.randint(256, (resizing.slack(np.array(sizes)),), dtype=torch.uint8)
    results = Preparation(Augmentation(), 32)(regions._replace(pixels=torch.cat([regions.pixels, behind])), 24)
    for k, (part, result) in enumerate(zip(pixels, results, strict=True)):
        expected = lanczos(part, 24)
        off = difference(expected[:, ::-1] if k % 2 else expected, result)
        # Some versions of torch are asked for each direction without rounding in between.
        assert off.mean() < 0.5, sizes[k]
        if sizes[k] == (24, 24):
            assert not off.any()
    if canvas_bytes < 2**25:
        assert len(list(resizing._groups(np.array(sizes)))) > 3


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "lanczos"])
def test_the_final_size_has_the_same_filter_as_in_workers(photo: Photo, interpolation: Interpolation) -> None:
    augmentation = Augmentation(hflip=0.0, randaug_layers=0, interpolation=interpolation)
    transform, prepare = RegionTransform(augmentation, 32), Preparation(augmentation, 32)
    for seed in range(6):
        picture, request = PillowPicture(photo(60, 45)), Request(0, 32, 0.0, seed)
        region = transform(picture, request)
        regions = LaidOut(0)([region], in_own_memory)
        behind = torch.zeros(resizing.slack(np.array([region.pixels.shape[:2]])), dtype=torch.uint8)
        made = prepare(regions._replace(pixels=torch.cat([regions.pixels, behind])), 32)
        apart = difference(TrainTransform(augmentation, 32)(picture, request), made[0])
        # Where torch has no Lanczos filter, other code than its own stands in, which rounds elsewhere.
        assert apart.max() <= 2
        assert apart.mean() < 0.3


def test_a_region_far_larger_than_the_result_is_resized_by_the_worker(photo: Photo) -> None:
    augmentation = Augmentation(scale=(1.0, 1.0), hflip=0.0, randaug_layers=0)
    for width, resized in ((60, False), (90, True)):
        picture, request = PillowPicture(photo(width, width)), Request(0, 24, 0.0, 1)
        pixels, *_ = RegionTransform(augmentation, 32)(picture, request)
        assert pixels.shape == ((24, 24, 3) if resized else (width, width, 3))
        regions = LaidOut(0)([Region(pixels, False, [])], in_own_memory)
        behind = torch.zeros(resizing.slack(np.array([pixels.shape[:2]])), dtype=torch.uint8)
        made = Preparation(augmentation, 32)(regions._replace(pixels=torch.cat([regions.pixels, behind])), 24)
        assert difference(TrainTransform(augmentation, 32)(picture, request), made[0]).mean() < 0.2


@pytest.fixture(scope="module")
def source(photo: Photo, tmp_path_factory: pytest.TempPathFactory) -> FolderSource:
    """Images of several sizes, some of them damaged."""
    root = tmp_path_factory.mktemp("sizes")
    for k in range(24):
        folder = root / "ab"[k % 2]
        folder.mkdir(exist_ok=True)
        path = folder / f"{k:02d}.{'png' if k % 5 == 0 else 'jpg'}"
        photo(40 + 7 * (k % 5), 38 + 5 * (k % 7), seed=k).resize((120, 90) if k % 3 else (50, 60)).save(path)
        if k in (6, 17):
            path.write_bytes(path.read_bytes()[:300])
    return FolderSource(root)


@pytest.mark.parametrize("kind", ["plain", "replay", "select"])
def test_a_loader_gives_what_it_gives_with_workers_that_prepare(
    source: FolderSource, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    run = plan(efficienttrain_plus_plus(32, multiple=4), epochs=3, batch_size=16, dataset_size=len(source))
    if kind == "replay":
        run = run.with_replay(1, final=True)
    # Some portions of several parts, some batches of several portions.
    monkeypatch.setattr(arrival, "_PORTION_BYTES", 60_000)

    def batches(start_step: int = 0, **options: Any) -> list[Any]:
        if kind == "select":
            options["select"] = Selection()
        loader = Loader(source, run, on_corrupt=list, start_step=start_step, seed=3, **options)
        found = []
        for batch in loader:
            if kind == "select":
                loader.record(batch, batch.labels.float() + batch.indices)
            found.append(batch)
        return found

    expected = batches(workers=0)
    alone = batches(workers=0, prepare="device")
    assert len(alone) == len(expected)
    assert any(batch.corrupt for batch in alone)
    for one, other in zip(alone, expected, strict=True):
        assert (one.step, one.rows, one.corrupt, one.passes) == (other.step, other.rows, other.corrupt, other.passes)
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.indices, other.indices)
        assert one.images.shape == other.images.shape
        assert one.images.dtype == torch.uint8
        assert one.images.is_contiguous(memory_format=torch.channels_last)
        off = difference(one.images, other.images).mean(axis=(1, 2, 3))
        # An operation that follows may amplify what rounding began: equalising does.
        assert off.max() < 1.5
        assert off.mean() < 0.3
    for options in ({"workers": 2}, {"workers": 0, "micro_batch": 8}):
        if kind == "select" and "micro_batch" in options:
            continue
        parts = batches(prepare="device", **options)
        images = torch.cat([batch.images.flatten() for batch in parts])
        assert torch.equal(images, torch.cat([batch.images.flatten() for batch in alone])), options
        assert not any(batch.images.is_shared() for batch in parts)
    if kind == "replay":
        later = batches(run.total_steps - 3, workers=0, prepare="device")
        for one, other in zip(later, alone[-3:], strict=True):
            assert torch.equal(one.images, other.images)


def test_parts_are_joined_to_portions_in_order() -> None:
    def part(first: int, rows: int, length: int) -> Any:
        recipes = np.tile([length / 3, 1.0, 0.0], (rows, 1))
        others = np.full(rows, length), np.zeros((rows, 4), np.int64)
        labels = np.arange(first, first + rows)
        return Regions(torch.from_numpy(np.repeat(labels, length).astype(np.uint8)), recipes, *others), labels, (first,)

    arriving = iter([part(0, 2, 3), part(2, 1, 6), part(3, 1, 30), part(4, 2, 3), part(6, 9, 3)])
    found = list(arrival.portions(arriving, 6, pin_memory=False, most=16))
    assert [labels.tolist() for _, labels, _ in found] == [[0, 1, 2], [3], [4, 5]]
    assert [corrupt for *_, corrupt in found] == [(0, 2), (3,), (4,)]
    for regions, labels, _ in found:
        assert regions.pixels.tolist() == np.repeat(labels, regions.lengths).tolist()
    assert len(next(arriving)[1]) == 9


def test_a_thread_goes_ahead_by_so_many_items_and_ends_with_who_asks() -> None:
    taken, closed = [], []

    def items() -> Any:
        try:
            for k in range(9):
                taken.append(k)
                yield k
        finally:
            closed.append(True)

    going = arrival.ahead(items(), 1)
    assert next(going) == 0
    going.close()
    assert closed
    # One asked for, one ready, one in hand.
    assert taken in ([0], [0, 1], [0, 1, 2])

    def failing() -> Any:
        yield 1
        raise InputError("no more")

    going = arrival.ahead(failing(), 1)
    assert next(going) == 1
    with pytest.raises(InputError, match="no more"):
        next(going)


class Stream:
    """Stands in for a stream of CUDA, and for the event that is recorded on it."""

    def record_event(self) -> "Stream":
        return self

    def wait_event(self, event: "Stream") -> None:
        assert isinstance(event, Stream)


@pytest.mark.parametrize("kind", ["replay", "select"])
def test_batches_that_a_thread_puts_together_are_the_same(
    source: FolderSource, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Also where passes are made from losses, so that workers start anew with each."""
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: None)
    run = plan(efficienttrain_plus_plus(32, multiple=4), epochs=6, batch_size=8, dataset_size=len(source))
    run = run.with_replay(1, final=True) if kind == "replay" else run
    found = []
    for goes_ahead in (False, True):
        select = Selection() if kind == "select" else None
        loader = Loader(source, run, workers=int(goes_ahead), on_corrupt=list, select=select, prepare="device")
        loader._fresh.arrival._goes_ahead = goes_ahead
        batches = []
        for batch in loader:
            loader.record(batch, batch.labels.float() + batch.indices)
            batches.append((batch.step, batch.passes, batch.indices.tolist(), batch.images.tolist()))
        found.append(batches)
    assert len(found[0]) == run.total_steps
    assert found[0] == found[1]
    assert not any(thread.name == "upchirp-ahead" for thread in threading.enumerate())


@pytest.mark.parametrize("options", [{"mode": "faithful"}, {"low_frequency": "crop"}])
def test_what_only_workers_do_is_refused(source: FolderSource, options: Any) -> None:
    run = plan(efficienttrain_plus_plus(32, multiple=4), epochs=1, batch_size=16, dataset_size=len(source))
    with pytest.raises(InputError, match="by mode fast with low-frequency lanczos only"):
        Loader(source, run, prepare="device", **options)
    with pytest.raises(InputError, match="let the CPU prepare them"):
        TrainConfig.from_flat({"model": "test_vit", "prepare": "device", **options})
    with pytest.raises(InputError, match="prepare 'gpu' is unknown"):
        Loader(source, run, prepare="gpu")  # type: ignore[arg-type]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype feature")
@pytest.mark.parametrize("prepare", ["cpu", "device"])
def test_on_cuda_batches_arrive_without_waiting_and_are_the_cpus(source: FolderSource, prepare: Any) -> None:
    run = plan(efficienttrain_plus_plus(32, multiple=4), epochs=3, batch_size=16, dataset_size=len(source))
    expected = list(Loader(source, run, on_corrupt=list, workers=0, seed=3, prepare=prepare))
    loader = Loader(source, run, on_corrupt=list, workers=2, seed=3, device="cuda", prepare=prepare)
    for batch, other in zip(loader, expected, strict=True):
        assert batch.images.is_cuda
        assert batch.labels.is_cuda
        off = difference(batch.images.cpu(), other.images)
        assert off.mean() < 0.3
        assert prepare == "device" or not off.any()
        if batch.step.index == 2:
            # What is kept from step to step is made by now. The mode is that of all threads.
            torch.cuda.set_sync_debug_mode("error")
            try:
                regions = _regions(source, batch.bandwidth)
                Preparation(Augmentation(), 32)(regions, batch.bandwidth)
            finally:
                torch.cuda.set_sync_debug_mode("default")


def _regions(source: FolderSource, side: int) -> Regions:
    """Some regions with their pixels on the device."""
    transform = RegionTransform(Augmentation(randaug_prob=1.0), 32)
    regions = LaidOut(2)([transform(source.load(k)[0], Request(k, side, 5.0, k)) for k in range(4, 9)], in_own_memory)
    behind = resizing.slack(regions.recipes[:, :2].astype(np.int64))
    pixels = torch.cat([regions.pixels, torch.zeros(behind, dtype=torch.uint8)]).pin_memory()
    return regions._replace(pixels=pixels.to("cuda", non_blocking=True))
