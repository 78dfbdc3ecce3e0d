"""Replay: which rows of a stage's batches are newly prepared, and which come back from a buffer (Section 5.3)."""

from dataclasses import dataclass
from typing import Literal

from upchirp.errors import InputError

ReplayMode = Literal["batch", "mixed"]

GIB = 2**30
BUFFER_IMAGES = 1920 * 128 * 8
"""Images that the released code's buffers hold: 1,920 batches of 128 on each of 8 devices, more than a pass."""
RGB_BYTES = 3
"""Of a pixel of a photograph."""


@dataclass(frozen=True, kw_only=True)
class Replay:
    """How the steps of a stage share out fresh and replayed images; the steps themselves stay as they are.

    With n `batches` (the paper's n_buffer), steps counted from the start of the stage and m = n + 1:

    - `batch`, the paper's text: step j is fresh as a whole if m divides j, and replayed as a whole otherwise.
    - `mixed`, the released code: every batch has its share of 1/m fresh images; row r is fresh if m divides j + r.

    The first step of a stage is fresh in both, as its buffer is empty. Which rows are fresh is thus a pure function
    of (step, row), and either way a row is fresh once in m steps.

    >>> replay = Replay(batches=2, mode="mixed")
    >>> [list(replay.fresh_rows(j, range(6))) for j in range(4)]
    [[0, 1, 2, 3, 4, 5], [2, 5], [1, 4], [0, 3]]

    Raises:
        InputError: a negative number, or an unknown mode.
    """

    batches: int = 0
    """Replayed batches for each fresh one; 0 replays nothing."""
    mode: ReplayMode = "batch"
    """Whole batches are fresh or replayed, or each batch is mixed."""
    buffer_bytes: int = 4 * GIB
    """Most bytes of images that the buffers of all processes hold together; one batch is always held."""
    buffer_images: int | None = None
    """Most images that they hold together, whatever their size; none leaves it to the bytes."""

    def __post_init__(self) -> None:
        if self.batches < 0:
            raise InputError(f"`replay` is {self.batches}: it must be 0 or more replayed batches for each fresh one")
        if self.mode not in ("batch", "mixed"):
            raise InputError(f"replay mode {self.mode!r} is unknown: choose batch or mixed")
        if self.buffer_images is not None and self.buffer_images < 1:
            raise InputError(f"replay buffer of {self.buffer_images} images: it must be 1 or more")
        if self.buffer_bytes < 0:
            raise InputError(f"replay buffer of {self.buffer_bytes} bytes: it must be 0 or more")

    @property
    def if_used(self) -> "Replay":
        """The same, or the default where nothing is replayed: the bounds of a buffer that is never filled say nothing.

        Those may follow from the machine's memory, and two plans that train alike are to be equal.

        >>> Replay(buffer_images=7).if_used == Replay()
        True
        """
        return self if self.batches else Replay()

    @property
    def cycle(self) -> int:
        """Steps in which each row is fresh once."""
        return self.batches + 1

    def fresh_rows(self, offset: int, rows: range) -> range:
        """Which of some consecutive rows are fresh in the stage's step `offset`."""
        if self.mode == "batch" or offset == 0:
            return rows if offset % self.cycle == 0 else rows[:0]
        return rows[-(offset + rows.start) % self.cycle :: self.cycle]

    def fresh_of_row(self, offset: int, row: int) -> int:
        """How many fresh images a row has had before the stage's step `offset`."""
        if offset == 0:
            return 0
        first = row if self.mode == "mixed" else 0
        return 1 + (offset - 1 + first) // self.cycle - first // self.cycle

    def fresh_before(self, offset: int, batch_size: int) -> int:
        """How many fresh images a stage has had before its step `offset`.

        >>> Replay(batches=2, mode="mixed").fresh_before(3, batch_size=6)
        10
        """
        if offset == 0:
            return 0
        cycles, rest = divmod(offset - 1, self.cycle)
        if self.mode == "batch":
            return (1 + cycles) * batch_size
        # In the first k steps of a cycle those rows are fresh that leave one of the last k remainders.
        whole, left = divmod(batch_size, self.cycle)
        return (1 + cycles) * batch_size + rest * whole + max(0, left - (self.cycle - rest))

    def window(self, batch_size: int, side: int, pixel_bytes: int = RGB_BYTES) -> int:
        """How many fresh images of each row the buffer holds, if images are kept at `side` pixels of so many bytes.

        >>> Replay(batches=1).window(batch_size=4096, side=96), Replay(batches=1).window(4096, 96, pixel_bytes=12 * 4)
        (37, 2)
        """
        rows = self.buffer_bytes // (batch_size * pixel_bytes * side * side)
        return max(1, rows if self.buffer_images is None else min(rows, self.buffer_images // batch_size))
