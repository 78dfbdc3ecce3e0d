"""Orders and draws that follow from a seed and a position: raw Philox output, see `upchirp.randomness`."""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from upchirp.randomness import Stream, philox


@lru_cache(maxsize=2)
def pass_order(dataset_size: int, seed: int, number: int) -> npt.NDArray[np.int64]:
    """The order of the images in one pass over the data: shape (dataset_size,), each index once.

    >>> sorted(pass_order(4, seed=0, number=7).tolist())
    [0, 1, 2, 3]
    """
    keys = philox(Stream.ORDER, seed, number).random_raw(dataset_size)
    return np.argsort(keys, kind="stable")


def sample_seeds(seed: int, first: int, count: int) -> npt.NDArray[np.uint64]:
    """One seed for each fresh position of the run from `first`: shape (count,)."""
    return _draws(Stream.SEEDS, seed, first, count)


def replay_draws(seed: int, first: int, count: int) -> npt.NDArray[np.uint64]:
    """One number for each image seen from `first` on: which one of the buffer it is, if it is replayed; (count,)."""
    return _draws(Stream.REPLAYS, seed, first, count)


def selection_draws(seed: int, number: int, count: int) -> npt.NDArray[np.uint64]:
    """One number for each image of the data set in one pass: whether it is left out, if it may be; (count,)."""
    return np.asarray(philox(Stream.SELECTION, seed, number).random_raw(count), dtype=np.uint64)


def split_draws(seed: int, count: int) -> npt.NDArray[np.uint64]:
    """One number for each image of a data set: in which order they go to a part of it; (count,)."""
    return np.asarray(philox(Stream.SPLIT, seed).random_raw(count), dtype=np.uint64)


def _draws(stream: Stream, seed: int, first: int, count: int) -> npt.NDArray[np.uint64]:
    """One number for each position from `first`, whatever the others that are drawn with it."""
    return np.asarray(philox(stream, seed, position=first).random_raw(4 * count)[::4], dtype=np.uint64)
