"""Scores of images with several labels: average precision by class, its mean, and F1."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

_FIGURES = ("average_precision", "best_f1", "threshold", "precision", "recall")
_ROUNDING = 1e-6
"""Share of a probability that float32 may lose or add on its way."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelScores:
    """How likely each class is to be in each image, and whether it is, in the order of the data set.

    >>> made = LabelScores(
    ...     indices=np.arange(3),
    ...     truth=np.array([[True, False, False], [True, True, False], [False, True, False]]),
    ...     scores=np.array([[2.0, -1.0, 0.0], [-2.0, 3.0, 0.0], [-1.0, 1.0, 0.0]]),
    ... )
    >>> made.precisions.round(3).tolist(), {name: round(value, 2) for name, value in made.figures.items()}
    ([0.833, 1.0, nan], {'mAP': 91.67, 'micro_f1': 85.71})
    """

    indices: npt.NDArray[Any]
    """Which images of the data set, rising, (N,); those nobody could read are missing."""
    truth: npt.NDArray[np.bool_]
    """Whether an image has a class, (N, classes)."""
    scores: npt.NDArray[np.floating[Any]]
    """The model's outputs, above 0 for what it holds more likely than not, (N, classes)."""

    @cached_property
    def precisions(self) -> npt.NDArray[np.float64]:
        """The average precision of each class, 0 to 1, (classes,); not a number for a class that no image has."""
        columns = zip(self.truth.T, self.scores.T, strict=True)
        return np.array([average_precision(truth, scores) for truth, scores in columns])

    @property
    def figures(self) -> dict[str, float]:
        """In percent `mAP`, the mean of the average precisions, and `micro_f1`, of all classes at 0.5 together."""
        known = self.precisions[~np.isnan(self.precisions)]
        found = self.scores > 0
        right, guessed, true = (self.truth & found).sum(), found.sum(), self.truth.sum()
        return {
            "mAP": 100 * float(known.mean()) if len(known) else float("nan"),
            "micro_f1": 100 * float(2 * right / max(guessed + true, 1)),
        }

    def resampled(self, draws: int) -> npt.NDArray[np.float64]:
        """MAP on other draws of as many of the images, with replacement, in percent, (draws,).

        Every call draws the same ones of as many images, so that those of two models are paired.
        """
        rng = np.random.default_rng(0)
        taken = (rng.integers(len(self.indices), size=len(self.indices)) for _ in range(draws))
        return np.array([
            LabelScores(indices=rows, truth=self.truth[rows], scores=self.scores[rows]).figures["mAP"]
            for rows in taken
        ])  # fmt: skip

    def by_class(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """For each class its name, how many images have it, and its average precision in percent; none if none do.

        `best_f1`, in percent too, is the highest that any threshold gives; `threshold` is that one, the least
        probability that is taken for a yes, and `precision` and `recall` are what it gives, in percent. Without names
        classes have their numbers.
        """
        names = names or tuple(map(str, range(self.truth.shape[1])))
        return [{"class": name, **self._figures_of(label)} for label, name in enumerate(names)]

    def _figures_of(self, label: int) -> dict[str, Any]:
        if not (images := int(self.truth[:, label].sum())):
            return {"images": 0, **dict.fromkeys(_FIGURES)}
        best = self.curve(label).best
        return {
            "images": images,
            "average_precision": 100 * float(self.precisions[label]),
            "best_f1": 100 * best.f1,
            # Another device, or a batch of another size, rounds the very score that it is of in another way.
            "threshold": best.threshold * (1 - _ROUNDING),
            "precision": 100 * best.precision,
            "recall": 100 * best.recall,
        }

    def curve(self, label: int) -> "PrecisionRecall":
        """Precision and recall of a class at every threshold."""
        return precision_recall(self.truth[:, label], self.scores[:, label])


class Best(NamedTuple):
    """What the threshold gives that has the highest F1."""

    f1: float
    """2 PR / (P + R), 0 to 1."""
    threshold: float
    """The least probability that is taken for a yes."""
    precision: float
    recall: float


@dataclass(frozen=True, eq=False)
class PrecisionRecall:
    """Precision and recall of a class at each threshold that a score of an image is, the highest first.

    >>> curve = precision_recall(np.array([True, False, True]), np.array([0.9, 0.0, 0.0]))
    >>> curve.precisions.round(2).tolist(), curve.recalls.tolist(), curve.best.f1
    ([1.0, 0.67], [0.5, 1.0], 0.8)
    """

    thresholds: npt.NDArray[np.floating[Any]]
    """Scores, (thresholds,)."""
    taken: npt.NDArray[np.int64]
    """How many images have that score or a higher one, (thresholds,)."""
    right: npt.NDArray[np.int64]
    """How many of them have the class, (thresholds,)."""

    @property
    def precisions(self) -> npt.NDArray[np.float64]:
        """The share of those images that have the class, (thresholds,)."""
        return np.asarray(self.right / self.taken)

    @property
    def recalls(self) -> npt.NDArray[np.float64]:
        """The share of the class's images that are among those, (thresholds,); no numbers if there are none."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self.right / self.right[-1])

    @property
    def best(self) -> Best:
        """The highest F1; of several thresholds with it the highest."""
        f1 = 2 * self.right / (self.taken + self.right[-1])
        place = int(np.argmax(f1))
        with np.errstate(over="ignore"):
            threshold = 1 / (1 + np.exp(-np.float64(self.thresholds[place])))
        found = (f1[place], threshold, self.precisions[place], self.recalls[place])
        return Best(*map(float, found))


def precision_recall(truth: npt.NDArray[np.bool_], scores: npt.NDArray[np.floating[Any]]) -> PrecisionRecall:
    """Precision and recall at each threshold, as scikit-learn has them: images of one score are taken together.

    Args:
        truth: whether an image has the class, (N,).
        scores: the higher, the likelier; what is no number comes last, (N,).
    """
    order = np.argsort(-scores, kind="stable")
    ranked = np.nan_to_num(scores[order], nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    return PrecisionRecall(ranked[ends], ends + 1, np.cumsum(truth[order])[ends])


def average_precision(truth: npt.NDArray[np.bool_], scores: npt.NDArray[np.floating[Any]]) -> float:
    """The sum over all thresholds of precision times what recall they add, AP = sum_n (R_n - R_(n-1)) P_n.

    As scikit-learn has it: nothing is interpolated, and images of one score are taken together. It lies in 0 to 1, and
    is not a number if no image has the class. See `precision_recall` for the arguments.

    >>> average_precision(np.array([True, False, True]), np.array([0.9, 0.5, 0.5]))
    0.8333333333333333
    """
    if not truth.any():
        return float("nan")
    curve = precision_recall(truth, scores)
    right = curve.right
    return float((np.diff(right, prepend=0) / right[-1] * right / curve.taken).sum())
