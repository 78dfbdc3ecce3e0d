"""Every stream of random numbers of a run: each follows from its seed and a position, and none is carried along.

So an interruption, other workers or other ranks change no number. NumPy's Philox turns a key and a counter into numbers
that stay what they are for good; what keeps its streams apart is in `Stream`. Other generators are seeded anew:

| numbers | generator | seed |
| --- | --- | --- |
| crop, flip and RandAugment of an image | `random.Random` | the request's, from `Stream.SEEDS` |
| dropout and drop path of a step | torch's global one | `step_seed(seed, step, rank)` |
| weights of a new model | torch's global one | the run's |
| images of the data `generated` | `numpy.random.default_rng` | the source's, the split and the image |
"""

import hashlib
from enum import Enum

import numpy as np
import numpy.typing as npt

_WORD = (1 << 64) - 1


class Stream(Enum):
    """What Philox's numbers are for, with what sets the stream apart: two bits of the key, two words of the counter."""

    ORDER = (0, 0, 0)
    """In which order a pass takes the images; one stream for each pass."""
    SEEDS = (1, 0, 0)
    """The seed of each fresh image, by its position in the run."""
    REPLACEMENTS = (2, 0, 0)
    """Which image stands in for one that cannot be read, from the request's own seed; one stream for each attempt."""
    REPLAYS = (3, 0, 0)
    """Which image of the replay buffer is taken, by the position in the run."""
    SELECTION = (0, 1, 0)
    """Which images of low loss a pass leaves out; one stream for each pass."""
    SPLIT = (1, 1, 0)
    """Which images go to a part of a data set."""
    MIXING = (0, 0, 1)
    """Mixup and CutMix of a step's whole batch; one stream for each step."""
    ERASING = (1, 0, 1)
    """Where images are erased, likewise."""
    NOISE = (2, 0, 1)
    """What they are filled with; one stream for a run."""
    TRANSFORM = (2, 1, 0)
    """What a transform of one's own draws for a step's whole batch; one stream for each step."""
    TASK = (3, 0, 1)
    """A seed for each row of a step, for what a task draws, such as masks; one stream for each step."""


def philox(stream: Stream, seed: int, number: int = 0, *, position: int = 0) -> np.random.Philox:
    """The generator of a stream.

    Args:
        stream: what the numbers are for.
        seed: of the run, the first word of the key.
        number: of the pass, attempt or step, in the second word of the key.
        position: where to begin, in blocks of four numbers: the first word of the counter.

    >>> philox(Stream.SEEDS, 7, position=1).random_raw(1) == philox(Stream.SEEDS, 7).random_raw(5)[4:]
    array([ True])
    """
    bits, third, fourth = stream.value
    key = np.array([seed & _WORD, (number << 2 | bits) & _WORD], dtype=np.uint64)
    return np.random.Philox(key=key, counter=np.array([position & _WORD, 0, third, fourth], dtype=np.uint64))


def row_seeds(seed: int, step: int, rows: range) -> npt.NDArray[np.uint64]:
    """One seed for each of some rows of a step's global batch, for what a task draws of it: shape (rows,).

    Rows are the same on any number of ranks, and in whatever parts they are computed; an image that is replayed gets
    another one each time.

    >>> row_seeds(0, 3, range(2, 4)).tolist() == row_seeds(0, 3, range(4)).tolist()[2:]
    True
    """
    return np.asarray(philox(Stream.TASK, seed, step).random_raw(rows.stop)[rows.start :], dtype=np.uint64)


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """The seed of one step's dropout and drop path on one rank."""
    digest = hashlib.blake2b(f"{seed}:{step}:{rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
