r"""The uncertainty of a difference of accuracies, from the number of validation images and seeds that it rests on.

A measured accuracy would have been another one with other validation images, and with other seeds. For a difference of
means over seeds, or any contrast $d = \sum_k c_k \bar a_k$ of curricula's mean accuracies $\bar a_k$, both are added:

$$ \mathrm{Var}(d) = \underbrace{\frac{1}{n}\,\mathrm{Var}_i\Big(\sum_k c_k h_{ki}\Big)}_{\text{images}}
                   + \underbrace{\sum_k c_k^2\,\frac{s^2}{S}}_{\text{seeds}} $$

$h_{ki}$ is the share of curriculum $k$'s seeds that guess image $i$ right, $n$ the images, $S$ the seeds. All runs are
evaluated on the same images, so the first term is a paired one: images that all runs find easy or hard cancel out, as
in McNemar's test. Without results image by image it is the sum of the binomial errors
$\sum_k c_k^2\,\bar a_k (1 - \bar a_k) / n$, which is more cautious. $s^2$ is the variance between seeds, pooled over
all curricula and budgets because each has few seeds; its own uncertainty widens that part of the interval by Student's
t. A seed's own luck with single images is in both terms, so the interval is rather too wide than too narrow.

Sources: E. Miller, "Adding Error Bars to Evals" (arXiv:2411.00640, sections 2 to 4) for the two terms and pairing;
X. Bouthillier et al., "Accounting for Variance in Machine Learning Benchmarks" (MLSys 2021) for seeds beside images;
Q. McNemar, Psychometrika 12 (1947), for paired proportions.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Z = 1.959964
"""97.5 % quantile of the normal distribution: intervals hold 95 %."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """The accuracy of one curriculum at one budget, for each seed."""

    accuracy: Sequence[float]
    """Top-1 of each seed, percent."""
    images: int
    """Validation images."""
    hits: npt.NDArray[np.float64] | None = None
    """Share of the seeds that guess each image right, (images,), if it is known."""
    resampled: npt.NDArray[np.float64] | None = None
    """Of a figure that is no share of images: its mean over the seeds on other draws of the images, percent, (draws,);
    the same draws whatever is measured."""

    @property
    def mean(self) -> float:
        """Mean top-1, percent."""
        return math.fsum(self.accuracy) / len(self.accuracy)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A difference of accuracies and how sure it is, in points of percent."""

    points: float
    """What was measured."""
    of_images: float
    """Its standard error for other validation images."""
    of_seeds: float | None
    """Its standard error for other seeds; unknown with one seed."""
    margin: float
    """Half the width of the 95 % interval."""
    paired: bool
    """Whether the images' error is that of paired results."""

    @property
    def seen(self) -> bool:
        """Whether the difference is larger than its margin."""
        return abs(self.points) > self.margin

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "seen": self.seen}


@dataclass(frozen=True, kw_only=True)
class SeedSpread:
    """The variance of accuracy between seeds, pooled over curricula and budgets."""

    variance: float
    """In squared points."""
    freedom: int
    """Degrees of freedom; 0 with one seed, when nothing is known."""


def seed_spread(measured: Sequence[Measured]) -> SeedSpread:
    """Pool the variance between seeds.

    >>> seed_spread([Measured(accuracy=(50, 52), images=100), Measured(accuracy=(60, 60), images=100)])
    SeedSpread(variance=1.0, freedom=2)
    """
    squares = sum(float(np.sum((np.array(each.accuracy) - each.mean) ** 2)) for each in measured)
    freedom = sum(len(each.accuracy) - 1 for each in measured)
    return SeedSpread(variance=squares / freedom if freedom else 0.0, freedom=freedom)


def contrast(parts: Sequence[tuple[float, Measured]], spread: SeedSpread) -> Difference:
    """A weighted sum of accuracies with its uncertainty.

    Args:
        parts: weights and accuracies; of a difference the weights are 1 and -1.
        spread: between seeds.

    >>> a, b = Measured(accuracy=[51.0], images=1000), Measured(accuracy=[50.0], images=1000)
    >>> made = contrast([(1, a), (-1, b)], seed_spread([a, b]))
    >>> made.points, round(made.of_images, 2), round(made.margin, 2), made.seen
    (1.0, 2.24, 4.38, False)
    """
    points = math.fsum(weight * each.mean for weight, each in parts)
    of_images, paired = _error_of_images(parts)
    if spread.freedom == 0:
        return Difference(points=points, of_images=of_images, of_seeds=None, margin=Z * of_images, paired=paired)
    of_seeds = math.sqrt(sum(weight**2 * spread.variance / len(each.accuracy) for weight, each in parts))
    margin = math.hypot(Z * of_images, student_t(spread.freedom) * of_seeds)
    return Difference(points=points, of_images=of_images, of_seeds=of_seeds, margin=margin, paired=paired)


def difference(own: Measured, baseline: Measured, spread: SeedSpread) -> Difference:
    """How much better than the baseline, with its uncertainty."""
    return contrast([(1.0, own), (-1.0, baseline)], spread)


def _error_of_images(parts: Sequence[tuple[float, Measured]]) -> tuple[float, bool]:
    """In points, and whether results image by image were at hand; at least what one image guessed otherwise makes."""
    redrawn = [each.resampled for _, each in parts if each.resampled is not None]
    if len(redrawn) == len(parts):
        summed = np.sum([weight * values for (weight, _), values in zip(parts, redrawn, strict=True)], axis=0)
        return float(summed.std(ddof=1)), True
    one_image = max(abs(weight) / max(each.images, 1) for weight, each in parts)
    known = [each.hits for _, each in parts if each.hits is not None]
    paired = len(known) == len(parts) and len({len(hits) for hits in known}) == 1 and len(known[0]) > 1
    if paired:
        summed = np.sum([weight * hits for (weight, _), hits in zip(parts, known, strict=True)], axis=0)
        variance = float(summed.var(ddof=1)) / len(summed)
    else:
        variance = sum(weight**2 * each.mean * (100 - each.mean) / 1e4 / max(each.images, 1) for weight, each in parts)
    return 100 * max(math.sqrt(max(variance, 0.0)), one_image), paired


def student_t(freedom: int) -> float:
    """97.5 % quantile of Student's t, within 1 %.

    Abramowitz and Stegun, "Handbook of Mathematical Functions" (1964), 26.7.5, from 3 degrees of freedom on; below, as
    tables have it.

    >>> [round(student_t(n), 2) for n in (1, 2, 3, 10, 1000)]
    [12.71, 4.3, 3.16, 2.23, 1.96]
    """
    tabulated: Mapping[int, float] = {1: 12.7062, 2: 4.3027}
    if freedom in tabulated:
        return tabulated[freedom]
    terms = (
        (Z**3 + Z) / 4,
        (5 * Z**5 + 16 * Z**3 + 3 * Z) / 96,
        (3 * Z**7 + 19 * Z**5 + 17 * Z**3 - 15 * Z) / 384,
    )
    return Z + math.fsum(term / float(freedom) ** power for power, term in enumerate(terms, 1))
