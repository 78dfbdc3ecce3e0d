from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upchirp import InputError
from upchirp.compare import Measured, SeedSpread, Speedup, Timed, speedup_at_equal_accuracy
from upchirp.compare.equal_accuracy import relative_time_spread

NONE = SeedSpread(variance=0, freedom=0)
EXACT = 10**9
"""So many images that only the lines count."""


def budget(seconds: float, accuracy: float, images: int) -> Timed:
    return Timed(seconds=[seconds], measured=Measured(accuracy=[accuracy], images=images))


def speedup(
    baseline: tuple[float, float],
    *curve: tuple[float, float],
    images: int = EXACT,
    spread: SeedSpread = NONE,
    time_spread: SeedSpread = NONE,
) -> Speedup:
    points: Sequence[Timed] = [budget(*point, images) for point in curve]
    return speedup_at_equal_accuracy(budget(*baseline, images), points, spread, time_spread=time_spread)


@given(st.floats(50, 500), st.floats(1.1, 5), st.floats(10, 90))
def test_speedup_of_a_known_line(seconds: float, ratio: float, accuracy: float) -> None:
    """On accuracy = slope * time the crossing is where the line says."""
    crossing = seconds / ratio
    found = speedup((seconds, accuracy), *((factor * crossing, factor * accuracy) for factor in (0.5, 0.9, 1.1)))
    assert found.kind == "interpolated"
    assert found.ratio == pytest.approx(ratio)


def test_ends_of_the_curve_are_not_extrapolated() -> None:
    above = speedup((100, 50), (80, 52), (60, 51))
    assert (above.kind, above.ratio) == ("at least", pytest.approx(100 / 60))
    below = speedup((100, 50), (80, 49), (60, 48))
    assert (below.kind, below.ratio) == ("not reached", None)


@given(st.integers(200, 20_000), st.floats(45, 55), st.floats(1, 30), st.floats(1, 30))
def test_the_interval_holds_the_ratio_and_shrinks_with_more_images(
    images: int, accuracy: float, below: float, above: float
) -> None:
    shape = ((300.0, accuracy), (100.0, accuracy - below), (250.0, accuracy + above))
    few, many = (speedup(*shape, images=n) for n in (images, 4 * images))
    for found in (few, many):
        if found.kind == "interpolated":
            assert found.ratio is not None
            assert (found.low or 0) <= found.ratio <= (found.high or float("inf"))
    if few.kind == "interpolated":
        assert many.kind == "interpolated"
        assert (many.low or 0) >= (few.low or 0)
        assert (many.high or float("inf")) <= (few.high or float("inf"))


@given(st.integers(10, 1_000_000))
def test_an_end_is_open_exactly_where_the_curves_end_is_within_error(images: int) -> None:
    found = speedup((300, 50), (100, 48), (250, 53), images=images)
    # Binomial: the margin of a difference at about 50 % is 1.96 * sqrt(0.5 / n) of 1.
    margin = 196 * (0.5 / images) ** 0.5
    if abs(margin - 2) < 0.01 or abs(margin - 3) < 0.01:
        return
    assert (found.kind == "within error") == (margin > 3)
    assert (found.high is None) == (margin > 2)
    assert (found.low is None) == (margin > 3)


@pytest.mark.parametrize("curve", [[(60, 50.5)], [(60, 49.5)], [(60, 49.5), (80, 50.5)], [(60, 49), (80, 49.5)]])
def test_accuracies_within_error_give_no_ratio(curve: list[tuple[float, float]]) -> None:
    assert speedup((100, 50), *curve).kind != "within error"
    withheld = speedup((100, 50), *curve, images=1000)
    assert (withheld.kind, withheld.ratio, withheld.low, withheld.high) == ("within error", None, None, None)


def test_the_spread_of_seeds_alone_can_withhold_a_ratio() -> None:
    spread = SeedSpread(variance=4.0, freedom=4)
    assert speedup((100, 50), (60, 48), (80, 52), spread=spread).kind == "within error"


def test_the_spread_of_times_widens_the_interval() -> None:
    shape = ((300.0, 50.0), (150.0, 45.0), (250.0, 55.0))
    sure, unsure = (
        speedup(*shape, images=100_000, time_spread=SeedSpread(variance=variance, freedom=4))
        for variance in (0.0, 0.01)
    )
    assert sure.low and sure.high and unsure.low and unsure.high
    assert unsure.low < sure.low < 1.5 < sure.high < unsure.high


def test_times_are_compared_relative_to_their_mean() -> None:
    measured = Measured(accuracy=[50, 50], images=100)
    timed = [Timed(seconds=[90 * scale, 110 * scale], measured=measured) for scale in (1, 10)]
    spread = relative_time_spread(timed)
    assert (spread.variance, spread.freedom) == (pytest.approx(0.02), 2)


def test_no_curve_is_refused() -> None:
    with pytest.raises(InputError, match="no budgets"):
        speedup((1, 1))
