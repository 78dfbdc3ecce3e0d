import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from upchirp.compare import Measured, SeedSpread, difference, seed_spread
from upchirp.compare.uncertainty import contrast, student_t

NONE = SeedSpread(variance=0, freedom=0)
SHARES = st.floats(0.01, 0.99)


def runs(rights: Sequence[npt.NDArray[np.bool_]]) -> Measured:
    """Seeds that guess images right as given."""
    hits = np.array(rights, dtype=float)
    return Measured(accuracy=(100 * hits.mean(axis=1)).tolist(), images=hits.shape[1], hits=hits.mean(axis=0))


def drawn(rng: np.random.Generator, chances: npt.NDArray[np.float64], seeds: int) -> Measured:
    return runs([rng.random(len(chances)) < chances for _ in range(seeds)])


@given(SHARES, SHARES, st.integers(10, 100_000))
def test_without_single_results_it_is_the_binomial_error(one: float, other: float, images: int) -> None:
    a, b = (Measured(accuracy=[100 * share], images=images) for share in (one, other))
    made = difference(a, b, NONE)
    expected = 100 * math.sqrt((one * (1 - one) + other * (1 - other)) / images)
    assert made.of_images == pytest.approx(max(expected, 100 / images))
    assert made.points == pytest.approx(100 * (one - other))
    assert not made.paired and made.of_seeds is None


@given(st.integers(0, 2**32 - 1), st.integers(20, 400))
def test_paired_results_give_mcnemars_error(seed: int, images: int) -> None:
    """The variance of (b - c) / n is (b + c - (b - c)^2 / n) / n^2 for b and c discordant images."""
    rng = np.random.default_rng(seed)
    a, b = rng.random((2, images)) < 0.6
    made = difference(runs([a]), runs([b]), NONE)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    variance = (only_a + only_b - (only_a - only_b) ** 2 / images) / images**2
    assert made.paired
    # Estimated from a sample it is n / (n - 1) of that.
    assert made.of_images == pytest.approx(100 * max(math.sqrt(variance * images / (images - 1)), 1 / images))


@given(st.integers(0, 2**32 - 1))
def test_a_difference_is_antisymmetric_and_none_from_itself(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (drawn(rng, rng.random(100), seeds=2) for _ in range(2))
    spread = seed_spread([a, b])
    one, other = difference(a, b, spread), difference(b, a, spread)
    assert one.points == pytest.approx(-other.points)
    assert one.margin == pytest.approx(other.margin)
    assert one.seen == other.seen
    assert difference(a, a, spread).points == 0 and not difference(a, a, spread).seen


@pytest.mark.parametrize("luck", [0.0, 0.03])
def test_of_two_that_are_alike_a_difference_is_seen_in_5_percent_of_comparisons_at_most(luck: float) -> None:
    """Seeds differ by luck as a whole, and image by image."""
    rng = np.random.default_rng(0)
    seen = 0
    for _ in range(400):
        chances = rng.beta(0.5, 0.5, 500)
        a, b = (
            runs([rng.random(500) < np.clip(chances + luck * rng.standard_normal(), 0, 1) for _ in range(2)])
            for _ in range(2)
        )
        seen += difference(a, b, seed_spread([a, b])).seen
    assert seen / 400 < 0.06


def test_a_true_difference_is_seen() -> None:
    rng = np.random.default_rng(1)
    chances = rng.beta(0.5, 0.5, 5000)
    a, b = (drawn(rng, np.clip(chances + gain, 0, 1), seeds=3) for gain in (0.1, 0.0))
    assert difference(a, b, seed_spread([a, b])).seen


def test_pairing_sees_what_binomial_errors_do_not() -> None:
    base = np.arange(1000) % 2 == 0
    better = base.copy()
    better[1:40:2] = True  # 20 images more, and none fewer
    assert difference(runs([better]), runs([base]), NONE).seen
    a, b = (Measured(accuracy=runs([each]).accuracy, images=1000) for each in (better, base))
    assert not difference(a, b, NONE).seen


@given(st.floats(0.1, 10), st.integers(1, 5), st.integers(1, 20))
def test_seeds_and_images_add_up(variance: float, seeds: int, freedom: int) -> None:
    spread = SeedSpread(variance=variance, freedom=freedom)
    a = Measured(accuracy=[50.0] * seeds, images=1000)
    made = difference(a, a, spread)
    assert made.of_seeds == pytest.approx(math.sqrt(2 * variance / seeds))
    expected = math.hypot(1.96 * made.of_images, student_t(freedom) * (made.of_seeds or 0))
    assert made.margin == pytest.approx(expected, rel=1e-3)


def test_weights_scale_a_contrast() -> None:
    a = Measured(accuracy=[60.0, 62.0], images=1000)
    spread = seed_spread([a])
    whole, half = contrast([(1.0, a)], spread), contrast([(0.5, a)], spread)
    assert half.points == whole.points / 2
    assert half.margin == pytest.approx(whole.margin / 2)


def test_figures_that_are_no_shares_of_images_differ_by_the_same_draws() -> None:
    """What two differ by on each draw varies less than either does, where both find the same images hard."""
    rng = np.random.default_rng(0)
    hardness = rng.normal(50, 3, 200)
    draws = [hardness + rng.normal(0, 0.5, 200) for _ in range(2)]
    a, b = (Measured(accuracy=[51.0], images=1000, resampled=each) for each in draws)
    made = difference(a, b, NONE)
    assert made.paired
    assert made.of_images == pytest.approx(float(np.std(draws[0] - draws[1], ddof=1)))
    # Without the draws of one of them there is nothing to pair.
    alone = difference(a, replace(b, resampled=None), NONE)
    assert not alone.paired and alone.of_images > 2


def test_everything_right_is_not_certain() -> None:
    a = runs([np.ones(50, bool)])
    assert difference(a, a, NONE).margin >= 2


# NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2, column 0.975.
@pytest.mark.parametrize(
    ("freedom", "expected"), [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (10, 2.228), (30, 2.042)]
)
def test_students_t(freedom: int, expected: float) -> None:
    assert student_t(freedom) == pytest.approx(expected, rel=0.01)
