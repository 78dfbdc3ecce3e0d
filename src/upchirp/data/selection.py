"""Passes that leave out images of low loss: InfoBatch (Qin et al., ICLR 2024, arXiv 2303.04947; Section 6.4.3 here).

Which images a pass leaves out is decided from the scores when the step begins in which the pass does, after every step
before it. So an order of selected passes is known up to a position only, and grows while a run trains. It depends on
the losses and on nothing else: not on workers, not on how a batch is cut up, not on interruptions.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from upchirp.curriculum import Selection, Step
from upchirp.data.device.sending import to_device
from upchirp.data.draws import pass_order, selection_draws
from upchirp.errors import InputError

LEFT_OUT, KEPT, RESCALED = range(3)
"""What happens to an image in a pass."""

Merge = Callable[[Tensor, Tensor], Tensor]
"""Takes scores, float32 (N,), and when they were recorded, int64 (N,), -1 for not; returns the latest of all ranks."""

_NOT_SEEN = float("inf")
"""The score of an image that was not trained on yet: above every mean."""


@dataclass(frozen=True)
class PassSummary:
    """What was decided about a pass over the data."""

    number: int
    """Which pass it is, from 0."""
    kept: int
    """Images in it."""
    rescaled: int
    """Those of them whose loss is rescaled, for the ones like them that are left out."""
    left_out: int
    """Images that are not in it."""
    mean_score: float | None
    """Mean score of the images seen before; none before the first pass."""


def choose(
    scores: npt.NDArray[np.float32], draws: npt.NDArray[np.uint64], prune: float
) -> tuple[npt.NDArray[np.uint8], float | None]:
    """Which images a pass leaves out (Equation 3 of InfoBatch), and the mean score that decides.

    Args:
        scores: last loss of each image, (N,); what is not finite was not seen yet, or is of no use.
        draws: uniform 64-bit numbers, (N,).
        prune: probability with which an image below the mean is left out.

    Returns:
        `LEFT_OUT`, `KEPT` or `RESCALED` for each image, (N,), and the mean of the finite scores, if there are any.

    >>> codes, mean = choose(np.float32([1, 5, 1, np.inf]), np.array([0, 0, 2**64 - 1, 0], dtype=np.uint64), prune=0.5)
    >>> codes.tolist(), round(mean, 2)
    ([0, 1, 2, 1], 2.33)
    """
    seen = np.isfinite(scores)
    if not seen.any():
        return np.full(len(scores), KEPT, dtype=np.uint8), None
    known = scores[seen].astype(np.float64)
    # Rounding may put the mean of equal scores above all of them.
    mean = min(float(known.mean()), float(known.max()))
    low = seen & (scores.astype(np.float64) < mean)
    unlucky = draws < np.uint64(int(prune * 2**64))
    return np.where(low, np.where(unlucky, LEFT_OUT, RESCALED), KEPT).astype(np.uint8), mean


@dataclass(frozen=True, eq=False)
class SelectedPass:
    """One pass over the data without what is left out."""

    number: int
    """Which pass it is, from 0."""
    start: int
    """Its first position in the order of the run's data."""
    codes: npt.NDArray[np.uint8]
    """`LEFT_OUT`, `KEPT` or `RESCALED` for each image of the data set."""
    seed: int
    """Seed of the run."""

    @cached_property
    def order(self) -> npt.NDArray[np.int64]:
        """The images in their order: that of a whole pass, without what is left out."""
        whole = pass_order(len(self.codes), self.seed, self.number)
        return np.compress(self.codes[whole] != LEFT_OUT, whole)

    @property
    def end(self) -> int:
        """The position after its last one."""
        return self.start + int(np.count_nonzero(self.codes))


class SelectedPasses:
    """The order of a run's data with selection: an `Order` that grows pass by pass.

    `record` takes losses in, `extend` makes the passes that a step needs from them.

    Args:
        selection: the settings.
        dataset_size: images in the data set.
        seed: seed of the run.
        merge: where several processes train, each of which records its own rows: called on all of them at once; see
            `upchirp.training.parallel.ranks.Ranks.latest`.
    """

    def __init__(self, selection: Selection, dataset_size: int, seed: int = 0, merge: Merge | None = None) -> None:
        self.selection = selection
        self.seed = seed
        self._merge = merge
        self._times = torch.full((dataset_size,), -1, dtype=torch.int64)
        self._scores = torch.full((dataset_size,), _NOT_SEEN, dtype=torch.float32)
        self._passes: list[SelectedPass] = []

    @property
    def end(self) -> int:
        """How many positions are known."""
        return self._passes[-1].end if self._passes else 0

    def reaches(self, end: int) -> bool:
        """Whether the positions before `end` are known."""
        return end <= self.end

    def take(self, first: int, count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Indices and weights of `count` known positions from `first`: (count,), across as many passes as it takes."""
        if not self._passes or first < self._passes[0].start or first + count > self.end:
            raise IndexError(f"positions {first} to {first + count} are not known, or not any more")
        starts = [each.start for each in self._passes]
        indices, codes = [], []
        for each in self._passes[bisect_right(starts, first) - 1 :]:
            part = each.order[max(0, first - each.start) : max(0, first + count - each.start)]
            indices.append(part)
            codes.append(each.codes[part])
        weights = np.where(np.concatenate(codes) == RESCALED, self.selection.rescale, 1.0)
        return np.concatenate(indices), weights.astype(np.float32)

    def record(self, indices: Tensor, losses: Tensor, time: int = 0) -> None:
        """Keep the losses of images as their scores; of an image that is there twice, the later one.

        Args:
            indices: int64, (rows,), on the host.
            losses: (rows,), not rescaled, on the device of training, for which nothing waits.
            time: of the first row in the order of all steps and rows; it decides between ranks.
        """
        losses = losses.detach().to(torch.float32)
        if self._scores.device != losses.device:
            self._scores, self._times = self._scores.to(losses.device), self._times.to(losses.device)
        # A device writes duplicates in any order, so they are sorted out here.
        unique, from_the_end = np.unique(indices.numpy()[::-1], return_index=True)
        rows = len(indices) - 1 - from_the_end
        images = to_device(unique, losses.device)
        self._scores.index_copy_(0, images, losses[to_device(rows, losses.device)])
        if self._merge is not None:
            self._times.index_copy_(0, images, to_device(time + rows, losses.device))

    def extend(self, step: Step, end: int) -> tuple[PassSummary, ...]:
        """Make the passes that reach position `end`, from the losses of all steps before `step`.

        Raises:
            InputError: no losses were recorded until then.
        """
        scores = self._merged().cpu().numpy()
        if step.index > 0 and np.all(np.isposinf(scores)):
            raise InputError(
                f"selection knows no losses at step {step.index}: call `losses = loader.record(batch, losses)` in each "
                f"step, and `loader.load_state_dict` when you resume"
            )
        made = []
        while not self.reaches(end):
            made.append(self._make_pass(scores, step.progress))
        return tuple(made)

    def _make_pass(self, scores: npt.NDArray[np.float32], progress: float) -> PassSummary:
        number = self._passes[-1].number + 1 if self._passes else 0
        codes, mean = choose(scores, selection_draws(self.seed, number, len(scores)), self.selection.prune)
        if progress >= self.selection.until:
            codes = np.full_like(codes, KEPT)
        self._passes.append(SelectedPass(number, self.end, codes, self.seed))
        left_out, kept, rescaled = np.bincount(codes, minlength=3).tolist()
        return PassSummary(number, kept=kept + rescaled, rescaled=rescaled, left_out=left_out, mean_score=mean)

    def forget(self, before: int) -> None:
        """Drop the passes that lie before a position as a whole; the last one stays."""
        self._passes = self._needed(before)

    def passes_until(self, position: int) -> float:
        """Passes over the data until a position in the last one made, counting the images that were left out."""
        last = self._passes[-1]
        return last.number + (position - last.start) / (last.end - last.start)

    def summary(self, position: int) -> str:
        """What was left out until a position in the last pass made, in one line."""
        without, passes = position / len(self._times), self.passes_until(position)
        share = f"{100 * (1 - without / passes):.1f} % of the images"
        return f"selection left out {share}: {passes:.1f} passes over the data instead of {without:.1f}"

    def state_dict(self, before: int = 0) -> dict[str, Any]:
        """Tensors and plain values: the scores, and the passes that positions from `before` on need.

        With `merge` all processes call it at once.
        """
        passes = [
            {"number": each.number, "start": each.start, "codes": torch.from_numpy(each.codes.copy())}
            for each in self._needed(before)
        ]
        return {
            "prune": self.selection.prune,
            "until": self.selection.until,
            "scores": self._merged().cpu().clone(),
            "passes": passes,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state of the same selection and data set.

        Raises:
            InputError: it is of another.
        """
        stored = Selection(prune=state["prune"], until=state["until"])
        size = len(self._scores)
        if stored != self.selection or len(state["scores"]) != size:
            raise InputError(
                f"the state is of {stored} over {len(state['scores'])} images, not of {self.selection} over {size}: "
                f"go on with the same"
            )
        self._scores = state["scores"].clone()
        self._times = torch.full_like(self._scores, -1, dtype=torch.int64)
        self._passes = [
            SelectedPass(each["number"], each["start"], each["codes"].numpy().copy(), self.seed)
            for each in state["passes"]
        ]

    def _merged(self) -> Tensor:
        """The scores, those of other processes included from now on."""
        if self._merge is not None:
            self._scores = self._merge(self._scores, self._times)
            self._times.fill_(-1)
        return self._scores

    def _needed(self, before: int) -> list[SelectedPass]:
        return [each for each in self._passes if each.end > before] or self._passes[-1:]
