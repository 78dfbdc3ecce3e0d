"""The summary of a packed folder: its content, and the bytes of a training image at each bandwidth."""

import random
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from upchirp.curriculum import efficienttrain_plus_plus
from upchirp.data.images.crops import crop_box
from upchirp.data.images.pillow import DECODE_ERRORS
from upchirp.data.images.pyramid import choose_level
from upchirp.data.settings import Augmentation
from upchirp.data.sources.shards import ShardSource
from upchirp.data.tars.index import index_path, load_index
from upchirp.data.tars.manifest import SPLITS, load_manifest

_SAMPLED_IMAGES = 4000
_TIMED_IMAGES, _TIMED_SECONDS = 200, 0.5
_USUAL_FINAL_SIZE = 224


@dataclass(frozen=True)
class LevelTotal:
    """All stored images of one size."""

    split: str
    """`train` or `val`."""
    size: int | None
    """Shorter side, pixels; `None` for the originals."""
    images: int
    """How many images have it."""
    bytes: int
    """Of all of them."""


@dataclass(frozen=True)
class ReadBytes:
    """What a training reads for one image, on average."""

    bandwidth: int
    """Side of the low-frequency input, pixels."""
    bytes: float
    """From the packed folder."""
    original_bytes: float
    """If it read the originals."""
    images_per_second: float = field(compare=False)
    """That one core of this machine reads and decodes, as far as the crop needs; 0 where none can be read."""


@dataclass(frozen=True)
class Summary:
    """A packed folder in numbers."""

    levels: tuple[LevelTotal, ...]
    """Per split, the originals first."""
    reads: tuple[ReadBytes, ...]
    """Per bandwidth of EfficientTrain++."""
    shards: int
    """Number of shards."""
    tar_bytes: int
    """Of all shards."""
    left_out: tuple[tuple[str, str], ...]
    """Name and reason of images that could not be read."""

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return asdict(self)


def summarize(root: Path) -> Summary:
    """Sum up a packed folder from its indexes.

    The bytes that a training image costs are the mean over crops drawn as training draws them, of up to 4000 images;
    the speed is that of up to 200 of them, or as many as take half a second.

    Args:
        root: a folder that `pack` wrote.

    Raises:
        InputError: an index is damaged.
        OSError: an index cannot be read.
    """
    manifest = load_manifest(root)
    totals = []
    left_out: list[tuple[str, str]] = []
    tar_bytes = 0
    for split in SPLITS:
        indexes = [load_index(index_path(shard)) for shard in manifest.shards_of(root, split)]
        lengths = np.concatenate([index.levels["length"] for index in indexes]).astype(np.int64)
        for column, size in enumerate((None, *indexes[0].sizes)):
            stored = lengths[:, column]
            totals.append(LevelTotal(split, size, int(np.count_nonzero(stored)), int(stored.sum())))
        left_out += [pair for index in indexes for pair in index.left_out]
        tar_bytes += sum(index.tar_bytes for index in indexes)
        if split == "train":
            reads = _reads(ShardSource(manifest.shards_of(root, split), indexes))
    return Summary(tuple(totals), reads, len(list(manifest.shards(root))), tar_bytes, tuple(left_out))


def _reads(source: ShardSource) -> tuple[ReadBytes, ...]:
    # Shards are shuffled, so every n-th image is as good as a random one.
    images = [source.levels(index) for index in range(0, len(source), -(-len(source) // _SAMPLED_IMAGES))]
    shorter = int(np.median([min(levels[0].width, levels[0].height) for levels in images]))
    settings = Augmentation()
    reads = []
    for bandwidth in _bandwidths(shorter):
        rng = random.Random(0)
        lengths = [
            levels[
                choose_level(levels, crop_box(rng, levels[0].size, settings.scale, settings.ratio), bandwidth)
            ].length
            for levels in images
        ]
        original_bytes = _mean([levels[0].length for levels in images])
        reads.append(ReadBytes(bandwidth, _mean(lengths), original_bytes, _speed(source, bandwidth, settings)))
    return tuple(reads)


def _speed(source: ShardSource, bandwidth: int, settings: Augmentation) -> float:
    """Crops that this process reads and decodes in a second."""
    rng = random.Random(0)
    began, done = time.perf_counter(), 0
    for index in range(0, len(source), -(-len(source) // _TIMED_IMAGES)):
        picture, _ = source.load(index)
        # What was damaged since is for `verify` to tell.
        with suppress(*DECODE_ERRORS):
            picture.region(crop_box(rng, picture.size, settings.scale, settings.ratio), bandwidth)
            done += 1
        if time.perf_counter() - began > _TIMED_SECONDS:
            break
    return done / (time.perf_counter() - began)


def _bandwidths(shorter: int) -> tuple[int, ...]:
    """The bandwidths of a usual training on images of that shorter side, pixels.

    >>> _bandwidths(375), _bandwidths(64)
    ((96, 160, 224), (28, 44, 64))
    """
    final = min(_USUAL_FINAL_SIZE, max(4, shorter // 4 * 4))
    return efficienttrain_plus_plus(final, multiple=4).bandwidths


def _mean(values: Sequence[int]) -> float:
    return sum(values) / len(values)
