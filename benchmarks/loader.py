"""Images per second from JPEG files to normalised, erased batches, on one core, by path and bandwidth; and fidelity.

The paths, in one process with one thread, alternating within one run: `peers` (timm's training transforms at 224,
erasing included, batches of 50 resized to the bandwidth last), `faithful` and `fast` (both modes here, on the files
as they are, normalised and erased at the bandwidth), `packed` (`fast` on what `upchirp pack` makes of them) and
`packed_raw` (the same with all smaller versions as decoded pixels).
`fast_device` and `packed_device` are what is left to the host with `--prepare device`: to read, to decode the crop, and
to lay it into shared and from there into the batch's memory; nothing is done on a device here, whose work it is.
RandAugment has magnitude 9. `uint8` has the same figures up to uint8 images, for loaders that leave the rest to the
device, as timm's prefetcher does; peers then resize there too. Figures are medians of the rounds, ratios medians of
the rounds' ratios.

Fidelity is measured without flip and RandAugment, against the exact low-frequency crop (aligned) of the same box at
full resolution: the error's share of the reference's variation (AC error, mean over the images), and leakage: the path
is given an image that holds only what lies above the cut-off; the share of its energy that arrives counts, over all.

Then 1 and 2 worker processes through the whole loader.

Example: `python benchmarks/loader.py --json`
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

import cv2
import numpy as np
import simplejpeg
import torch
from PIL import Image
from timm.data import create_transform
from torch.nn import functional
from torchvision.transforms import Compose

from upchirp import Augmentation, BatchTransform, Loader, constant, plan
from upchirp.data import FolderSource, Mode, Source, TrainTransform
from upchirp.data.arrival import portions
from upchirp.data.images.crops import crop_box
from upchirp.data.images.decoding import Box, Picture, open_picture
from upchirp.data.images.pyramid import PyramidPicture, choose_level
from upchirp.data.images.regions import LaidOut, Region, RegionTransform
from upchirp.data.packing import PackSettings, pack
from upchirp.data.packing.shard import make_versions
from upchirp.data.requests import Request
from upchirp.data.sources import ShardSource, open_data
from upchirp.data.tars.index import Level
from upchirp.data.workers.chunks import ChunkSize, cut
from upchirp.machine import hardware, versions
from upchirp.spectral import low_frequency_crop

SAMPLE = Path(__file__).resolve().parents[2] / "shared" / "data" / "imagenet-sample-200.zip"
FINAL_SIZE = 224
BANDWIDTHS = (96, 160, 224)
BATCH = 50
LOADER_SECONDS = 5.0
MAGNITUDE = 9.0
AUGMENTATION = Augmentation(mixup=0.0, cutmix=0.0)
PLAIN = Augmentation(mixup=0.0, cutmix=0.0, randaug_layers=0, hflip=0.0)


class Pipeline(NamedTuple):
    """One way from files to batches."""

    prepare: Callable[[int, int, int], Any]
    """An image's index, the bandwidth and a seed to a uint8 image: a worker's part where a device does the rest."""
    finish: Callable[[list[Any], int, int], torch.Tensor]
    """Uint8 images, the bandwidth and the step to a normalised, erased batch at the bandwidth."""


def image_files(images: Path, folder: Path) -> list[Path]:
    """The images of a folder or zip file; a zip file is unpacked into `folder`."""
    if images.suffix == ".zip":
        with zipfile.ZipFile(images) as archive:
            archive.extractall(folder)
        images = folder
    return sorted(path for path in images.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))


def as_data_folder(files: list[Path], root: Path) -> Path:
    """The images as train/all/ and, because packing wants both, one of them as val/all/."""
    for split, chosen in (("train", files), ("val", files[:1])):
        (root / split / "all").mkdir(parents=True)
        for number, path in enumerate(chosen):
            shutil.copy(path, root / split / "all" / f"{number:05d}.jpg")
    return root


def peers(files: list[Path]) -> Pipeline:
    """The training transforms of timm at 224, as they are without its prefetcher.

    The batch is resized last, bilinearly, as Composer's progressive resizing does.
    """
    transform = create_transform(
        FINAL_SIZE,
        is_training=True,
        color_jitter=None,
        auto_augment=f"rand-m{MAGNITUDE:.0f}-mstd0.5-inc1",
        interpolation="bicubic",
        re_prob=AUGMENTATION.reprob,
        re_mode="pixel",
    )
    assert isinstance(transform, Compose)
    crop, flip, rand_augment, *on_tensors = transform.transforms
    for operation in rand_augment.ops:
        if operation.name == "PosterizeIncreasing":
            # Pillow 13 refuses the 0 bits that timm may ask for.
            operation.level_fn = lambda level, _: (max(1, 4 - int(level / 10 * 4)),)

    def prepare(index: int, bandwidth: int, seed: int) -> Image.Image:
        random.seed(seed)
        with files[index].open("rb") as stream:
            image = Image.open(stream).convert("RGB")
        return rand_augment(flip(crop(image)))

    def finish(images: list[Image.Image], bandwidth: int, step: int) -> torch.Tensor:
        batch = torch.stack([Compose(on_tensors)(image) for image in images])
        return batch if bandwidth == FINAL_SIZE else functional.interpolate(batch, bandwidth, mode="bilinear")

    return Pipeline(prepare, finish)


def ours(source: Source, mode: Mode) -> Pipeline:
    transform = TrainTransform(AUGMENTATION, FINAL_SIZE, mode=mode)
    on_device = BatchTransform(AUGMENTATION, seed=0, channels_last=True)
    labels = torch.zeros(BATCH, dtype=torch.int64)

    def prepare(index: int, bandwidth: int, seed: int) -> np.ndarray:
        return transform(source.load(index)[0], Request(index, bandwidth, MAGNITUDE, seed))

    def finish(images: list[np.ndarray], bandwidth: int, step: int) -> torch.Tensor:
        batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        return on_device(batch, labels, bandwidth=bandwidth, step=step, batch_size=BATCH)[0]

    return Pipeline(prepare, finish)


def left_to_host(source: Source) -> Pipeline:
    """What workers and the training process do where the device prepares images."""
    transform, lay_out = RegionTransform(AUGMENTATION, FINAL_SIZE), LaidOut(AUGMENTATION.randaug_layers)
    slot = torch.zeros(ChunkSize("device").bytes(FINAL_SIZE), dtype=torch.uint8).share_memory_()

    def in_shared_memory(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        memory = slot[: shape[0]]
        return memory, memory

    def prepare(index: int, bandwidth: int, seed: int) -> Region:
        return transform(source.load(index)[0], Request(index, bandwidth, MAGNITUDE, seed))

    def finish(images: list[Region], bandwidth: int, step: int) -> torch.Tensor:
        most = ChunkSize("device").rows(bandwidth)
        parts = ((lay_out(part, in_shared_memory), [0] * len(part), ()) for part in cut(images, most))
        return [regions.pixels for regions, *_ in portions(parts, len(images), pin_memory=False)][-1]

    return Pipeline(prepare, finish)


def seconds_per_image(path: Pipeline, count: int, bandwidth: int, seed: int) -> tuple[float, float]:
    """Of the preparation of uint8 images, and of all: CPU time, so that others on the machine count for little."""
    prepared = 0.0
    started = time.process_time()
    for step in range(count // BATCH):
        before = time.process_time()
        first = step * BATCH
        images = [path.prepare(index, bandwidth, seed + index) for index in range(first, first + BATCH)]
        prepared += time.process_time() - before
        path.finish(images, bandwidth, step)
    total = time.process_time() - started
    return prepared / (count // BATCH * BATCH), total / (count // BATCH * BATCH)


def measure_paths(paths: dict[str, Pipeline], count: int, rounds: int) -> dict[str, Any]:
    seconds: dict[str, dict[int, list[tuple[float, float]]]] = {
        name: {side: [] for side in BANDWIDTHS} for name in paths
    }
    for number in range(rounds + 1):
        for side in BANDWIDTHS:
            for name, path in paths.items():
                measured = seconds_per_image(path, count, side, seed=1000 * number)
                # The first round fills the caches.
                if number:
                    seconds[name][side].append(measured)
        print(f"round {number} of {rounds}", file=sys.stderr)

    def speeds(part: int) -> dict[str, dict[str, float]]:
        return {
            name: {str(side): 1 / median(pair[part] for pair in pairs) for side, pairs in by_side.items()}
            for name, by_side in seconds.items()
        }

    def ratios(part: int) -> dict[str, dict[str, float]]:
        return {
            name: {
                str(side): median(
                    theirs[part] / own[part] for theirs, own in zip(seconds["peers"][side], pairs, strict=True)
                )
                for side, pairs in by_side.items()
            }
            for name, by_side in seconds.items()
        }

    return {**speeds(1), "ratios_to_peers": ratios(1), "uint8": {**speeds(0), "ratios_to_peers": ratios(0)}}


def bytes_per_image(files: FolderSource, packed: ShardSource) -> dict[str, dict[str, float]]:
    """Mean bytes that a fresh image costs, over 20 crops of each image."""
    as_they_are = fmean(Path(files.describe(index)).stat().st_size for index in range(len(files)))
    read: dict[str, float] = {}
    for side in BANDWIDTHS:
        rng = random.Random(0)
        lengths = []
        for index in range(len(packed)):
            levels = packed.levels(index)
            for _ in range(20):
                box = crop_box(rng, (levels[0].width, levels[0].height), PLAIN.scale, PLAIN.ratio)
                lengths.append(levels[choose_level(levels, box, side)].length)
        read[str(side)] = fmean(lengths)
    return {"files": {str(side): as_they_are for side in BANDWIDTHS}, "packed": read}


def fidelity(files: list[Path]) -> dict[str, dict[str, dict[str, float]]]:
    """AC error and leakage of each path at each bandwidth, percent, over one crop of each image that can hold it."""
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for side in BANDWIDTHS:
        errors: dict[str, list[float]] = {}
        leaks: dict[str, list[float]] = {}
        energy: list[float] = []
        for seed, path in enumerate(files):
            picture = open_picture(path.read_bytes())
            box = crop_box(random.Random(seed), picture.size, PLAIN.scale, PLAIN.ratio)
            left, top, right, bottom = box
            if min(right - left, bottom - top) < side:
                continue
            pixels = np.asarray(picture.whole())
            reference = exact(pixels[top:bottom, left:right], side)
            variation = np.square(reference - reference.mean(axis=(0, 1))).sum()
            probe, gain = above_cut_off(pixels, box, side)
            energy.append(np.square(probe[top:bottom, left:right] - 128.0).mean() / gain**2)
            stored = simplejpeg.encode_jpeg(probe, quality=100, colorsubsampling="444")
            originals, probes = versions_of(path.read_bytes()), versions_of(stored)
            for name, picture_of in originals.items():
                result = through(name, picture_of, side, seed).astype(float)
                errors.setdefault(name, []).append(np.sqrt(np.square(result - reference).sum() / variation))
                leaked = np.square(through(name, probes[name], side, seed) - 128.0).mean()
                leaks.setdefault(name, []).append(leaked / gain**2)
        figures[str(side)] = {
            name: {
                "ac_error_percent": 100 * fmean(errors[name]),
                "leakage_percent": 100 * sum(leaks[name]) / sum(energy),
                "leakage_percent_mean_of_images": 100
                * fmean(leak / above for leak, above in zip(leaks[name], energy, strict=True)),
                "images": len(errors[name]),
            }
            for name in errors
        }
    return figures


def versions_of(data: bytes) -> dict[str, Picture]:
    """What each path opens of a file."""
    made = [version for version in make_versions(data, PackSettings().sizes, PackSettings()) if version is not None]
    levels = [Level(0, len(version.data), *version.size) for version in made]
    packed = PyramidPicture(levels, lambda number: made[number].data, str)
    plain: Picture = open_picture(data)
    return {"pillow_lanczos": plain, "peers": plain, "faithful": plain, "fast": plain, "packed": packed}


def through(name: str, picture: Picture, side: int, seed: int) -> np.ndarray:
    """One image through a path's decoding and resizing; the crop follows from the seed."""
    if name in ("pillow_lanczos", "peers"):
        box = crop_box(random.Random(seed), picture.size, PLAIN.scale, PLAIN.ratio)
        image = picture.whole().crop(box)
        if name == "pillow_lanczos":
            return np.asarray(image.resize((side, side), Image.Resampling.LANCZOS))
        pixels = np.array(image.resize((FINAL_SIZE, FINAL_SIZE), Image.Resampling.BICUBIC))
        batch = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
        return functional.interpolate(batch, side, mode="bilinear")[0].permute(1, 2, 0).numpy()
    mode: Mode = "faithful" if name == "faithful" else "fast"
    return TrainTransform(PLAIN, FINAL_SIZE, mode=mode)(picture, Request(0, side, 0.0, seed))


def exact(pixels: np.ndarray, side: int) -> np.ndarray:
    images = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].double()
    return low_frequency_crop(images, side, align=True)[0].permute(1, 2, 0).numpy()


def above_cut_off(pixels: np.ndarray, box: Box, side: int) -> tuple[np.ndarray, float]:
    """What the image holds above the cut-off of a crop of it, around 128, amplified to the range of uint8; the gain."""
    height, width = pixels.shape[:2]
    spectrum = np.fft.fft2(pixels.astype(float), axes=(0, 1))
    rows = np.abs(np.fft.fftfreq(height)) < side / 2 / (box[3] - box[1])
    columns = np.abs(np.fft.fftfreq(width)) < side / 2 / (box[2] - box[0])
    spectrum[np.ix_(rows, columns)] = 0
    high = np.fft.ifft2(spectrum, axes=(0, 1)).real
    gain = 127 / max(float(np.abs(high).max()), 1e-9)
    return (128 + high * gain).round().clip(0, 255).astype(np.uint8), gain


def loader_speed(source: Source, side: int, workers: int, seed: int) -> float:
    """Images per second through worker processes in a few seconds, after the first batches of each have arrived."""
    run = plan(constant(side), epochs=1_000_000 / len(source), dataset_size=len(source), batch_size=BATCH)
    batches: Iterator[Any] = iter(
        Loader(source, run, augmentation=AUGMENTATION, seed=seed, workers=workers, micro_batch=BATCH)
    )
    for _ in range(2 * workers):
        next(batches)
    started, seconds, count = time.perf_counter(), 0.0, 0
    while seconds < LOADER_SECONDS:
        count += len(next(batches).labels)
        seconds = time.perf_counter() - started
    return count / seconds


def measure_workers(sources: dict[str, Source], rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for name, source in sources.items():
        figures[name] = {}
        for side in BANDWIDTHS:
            one, two = [], []
            for number in range(rounds):
                one.append(loader_speed(source, side, 1, number))
                two.append(loader_speed(source, side, 2, number))
            ratios = [after / before for before, after in zip(one, two, strict=True)]
            figures[name][str(side)] = {"1": median(one), "2": median(two), "ratio": median(ratios)}
            print(f"workers: {name} at {side}", file=sys.stderr)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, default=SAMPLE, help="folder or zip file of JPEGs")
    parser.add_argument("--rounds", type=int, default=7, help="0 measures the worker processes only")
    parser.add_argument("--worker-rounds", type=int, default=3, help="0 leaves the worker processes out")
    parser.add_argument("--no-fidelity", action="store_true", help="speeds only")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not options.images.exists():
        parser.error(f"{options.images} is missing: name a folder or zip file of JPEGs by --images")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        found = image_files(options.images, root / "unpacked")
        if len(found) < BATCH:
            parser.error(f"{options.images} holds {len(found)} JPEGs: {BATCH} or more are needed")
        data = as_data_folder(found, root / "data")
        pack(data, root / "packed")
        pack(data, root / "packed_raw", PackSettings(raw=PackSettings.sizes))
        files, packed = FolderSource(data / "train"), open_data(root / "packed", FINAL_SIZE)[0]
        assert isinstance(packed, ShardSource)
        paths = {
            "peers": peers([Path(files.describe(index)) for index in range(len(files))]),
            "faithful": ours(files, "faithful"),
            "fast": ours(files, "fast"),
            "fast_device": left_to_host(files),
            "packed": ours(packed, "fast"),
            "packed_raw": ours(open_data(root / "packed_raw", FINAL_SIZE)[0], "fast"),
            "packed_device": left_to_host(packed),
        }
        result: dict[str, Any] = {}
        if options.rounds:
            result = measure_paths(paths, len(files), options.rounds)
            result["bytes_per_image"] = bytes_per_image(files, packed)
        if options.rounds and not options.no_fidelity:
            result["fidelity"] = fidelity(found)
        if options.worker_rounds:
            result["workers"] = measure_workers({"fast": files, "packed": packed}, options.worker_rounds)
    result |= {
        "images": len(found),
        "rounds": options.rounds,
        "command": " ".join(["python", "benchmarks/loader.py", *sys.argv[1:]]),
        "hardware": hardware(),
        "versions": versions(),
    }
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        show(result)


def show(result: dict[str, Any]) -> None:
    sides = [str(side) for side in BANDWIDTHS]
    if result["rounds"]:
        show_paths(result, sides)
    for name, by_side in result.get("workers", {}).items():
        cells = (f"{by_side[side]['1']:.0f}, {by_side[side]['2']:.0f}" for side in sides)
        print(f"{'1, 2 workers, ' + name:<22}" + "".join(f"{cell:>16}" for cell in cells))


def show_paths(result: dict[str, Any], sides: list[str]) -> None:
    for title, part in (("images/s on one core", result), ("up to uint8", result["uint8"])):
        print(f"{title:<22}" + "".join(f"{'B=' + side:>16}" for side in sides))
        for name in part["ratios_to_peers"]:
            cells = (f"{part[name][side]:.0f} ({part['ratios_to_peers'][name][side]:.2f}x)" for side in sides)
            print(f"{name:<22}" + "".join(f"{cell:>16}" for cell in cells))
    for name, read in result["bytes_per_image"].items():
        print(f"{'KB read, ' + name:<22}" + "".join(f"{read[side] / 1000:>16.1f}" for side in sides))
    figures = ("ac_error_percent", "leakage_percent", "leakage_percent_mean_of_images")
    for figure in figures if "fidelity" in result else ():
        print(figure.replace("_", " "))
        for name in result["fidelity"][sides[0]]:
            values = (result["fidelity"][side][name][figure] for side in sides)
            print(f"  {name:<20}" + "".join(f"{value:>16.1f}" for value in values))


if __name__ == "__main__":
    main()
