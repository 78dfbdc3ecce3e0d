"""Both algorithms on made-up trainings whose best schedule is known, against brute force."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upchirp import InputError
from upchirp.search.cost import Rates
from upchirp.search.greedy import greedy_search
from upchirp.search.objectives import objective
from upchirp.search.sequential import rungs, sequential_search
from upchirp.search.trial import Outcome, Trial

FINAL = 224
SIDES = (32, 64, 96, 128, 160, 192, FINAL)
Score = Callable[[tuple[int, ...]], float]


class Training:
    """A made-up training: scores a schedule by a function, and checks what is asked of it."""

    def __init__(self, score: Score, cost: Callable[[Trial], float] = lambda trial: 1.0) -> None:
        self.score = score
        self.cost = cost
        self.trials: list[Trial] = []

    def __call__(self, trials: Sequence[Trial]) -> list[Outcome]:
        known = {trial.name for trial in self.trials}
        for trial in trials:
            assert trial.parent is None or trial.parent in known, "a trial begins where another one ended"
        self.trials += trials
        return [
            Outcome(
                accuracy=self.score(trial.bandwidths), loss=100 - self.score(trial.bandwidths), cost=self.cost(trial)
            )
            for trial in trials
        ]


candidate_sets = st.lists(st.sampled_from(SIDES), min_size=1, max_size=5, unique=True).map(tuple)


@st.composite
def tables(draw: st.DrawFn) -> tuple[int, tuple[int, ...], list[dict[int, float]]]:
    """Stages, candidates, and what each bandwidth of each stage adds to the accuracy."""
    stages, candidates = draw(st.integers(2, 5)), draw(candidate_sets)
    gains = [{side: draw(st.integers(0, 1000)) / 100 for side in SIDES} for _ in range(stages)]
    return stages, candidates, gains


def added_up(gains: list[dict[int, float]]) -> Score:
    """Each stage adds to the accuracy by itself."""
    return lambda bandwidths: sum(gain[side] for gain, side in zip(gains, bandwidths, strict=False))


@given(tables())
def test_sequential_search_is_exact_where_stages_add_up(
    case: tuple[int, tuple[int, ...], list[dict[int, float]]],
) -> None:
    """Where each stage adds to the accuracy by itself, stage by stage finds the best of all schedules."""
    stages, candidates, gains = case
    score = added_up(gains)
    found = sequential_search(
        Training(score), stages=stages, candidates=candidates, final_size=FINAL, objective=objective("accuracy")
    )
    assert len(found) == stages and found[-1] == FINAL
    assert score(found[:-1]) == pytest.approx(max(map(score, product(candidates, repeat=stages - 1))))


@given(st.integers(2, 4), candidate_sets, st.randoms(use_true_random=False))
def test_sequential_search_is_the_box_of_algorithm_2(stages: int, candidates: tuple[int, ...], rng: object) -> None:
    """On any objective, the result and the order of work are those of a literal transcription."""
    values: dict[tuple[int, ...], float] = {}

    def score(bandwidths: tuple[int, ...]) -> float:
        return values.setdefault(bandwidths, rng.random())  # type: ignore[attr-defined]

    training = Training(score)
    found = sequential_search(
        training, stages=stages, candidates=candidates, final_size=FINAL, objective=objective("accuracy")
    )
    theta: tuple[int, ...] = ()
    expected: list[Trial] = []
    for i in range(1, stages):  # line 5
        best = max(sorted(candidates, reverse=True), key=lambda side: score((*theta, side)))  # line 6
        expected += [Trial((*theta, side), i - 1, i, tuning=1) for side in candidates]
        theta = (*theta, best)  # line 7
    assert found == (*theta, FINAL)
    assert set(training.trials) == set(expected)
    assert len(training.trials) == len(expected) == (stages - 1) * len(candidates)


@given(tables())
def test_halving_finds_the_same_where_early_scores_tell(
    case: tuple[int, tuple[int, ...], list[dict[int, float]]],
) -> None:
    stages, candidates, gains = case
    score = added_up(gains)
    whole, halved = Training(score), Training(score)
    found = [
        sequential_search(
            training,
            stages=stages,
            candidates=candidates,
            final_size=FINAL,
            objective=objective("accuracy"),
            halving=training is halved,
        )
        for training in (whole, halved)
    ]
    assert found[0] == found[1]
    # Every candidate is seen once at the first rung, and few at the last.
    last = [trial for trial in halved.trials if trial.end == len(trial.bandwidths)]
    assert len(last) <= len(whole.trials)
    assert all(trial.tuning == trial.end - len(trial.bandwidths) + 1 for trial in halved.trials)


def test_halving_drops_what_starts_slowly() -> None:
    """The price of stopping early: a candidate that is worst half-way is not seen again, however well it would end."""

    def train(trials: Sequence[Trial]) -> list[Outcome]:
        late = {32: (10.0, 90.0), 64: (20.0, 50.0), 128: (30.0, 40.0)}
        return [Outcome(late[trial.bandwidths[-1]][trial.end == 1], 1.0, 1.0) for trial in trials]

    options = {"stages": 2, "candidates": (32, 64, 128), "final_size": FINAL, "objective": objective("accuracy")}
    assert sequential_search(train, **options) == (32, FINAL)
    assert sequential_search(train, **options, halving=True) == (64, FINAL)


def test_of_equals_the_largest_wins() -> None:
    found = sequential_search(
        Training(lambda _: 50.0), stages=3, candidates=(32, 64), final_size=FINAL, objective=objective("accuracy")
    )
    assert found == (64, 64, FINAL)


@given(
    st.integers(2, 4),
    candidate_sets,
    st.lists(st.integers(0, 50), min_size=4, max_size=4),
    st.floats(0, 40),
    st.booleans(),
)
def test_greedy_search_is_exact_where_accuracy_rises_with_bandwidth(
    stages: int, candidates: tuple[int, ...], weights: list[int], tolerance: float, known: bool
) -> None:
    """Against line 6 by brute force: the least of all bandwidths, each stage from the last to the first."""

    def score(bandwidths: tuple[int, ...]) -> float:
        return 90 - sum(w * (FINAL - side) / FINAL for w, side in zip(weights, bandwidths, strict=False))

    training = Training(score)
    found = greedy_search(
        training,
        stages=stages,
        candidates=candidates,
        final_size=FINAL,
        baseline=90.0 if known else None,
        tolerance=tolerance,
    )
    expected = [FINAL] * stages  # line 4
    for i in range(stages - 1, 0, -1):  # line 5; the last stage keeps the final size
        feasible = [
            side
            for side in {*candidates, FINAL}
            if score(tuple([side] * i + expected[i:])) >= 90.0 - tolerance  # line 6
        ]
        expected[:i] = [min(feasible)] * i
    assert list(found) == expected
    levels = len({*candidates, FINAL})
    assert len(training.trials) <= max(0, stages + levels - 3) + (not known)
    assert all(trial.begin == 0 and trial.end == stages and trial.tuning == 0 for trial in training.trials)


@given(st.integers(2, 5), candidate_sets, st.randoms(use_true_random=False), st.booleans())
def test_greedy_search_keeps_the_accuracy_and_never_costs_more_than_said(
    stages: int, candidates: tuple[int, ...], rng: object, known: bool
) -> None:
    """On any objective: what it returns was measured to be good enough, and the price is a bound that is reached."""
    values: dict[tuple[int, ...], float] = {}

    def score(bandwidths: tuple[int, ...]) -> float:
        return values.setdefault(bandwidths, 50 + 10 * rng.random())  # type: ignore[attr-defined]

    training = Training(score)
    baseline = 52.0 if known else None
    found = greedy_search(
        training, stages=stages, candidates=candidates, final_size=FINAL, baseline=baseline, tolerance=1.0
    )
    assert list(found) == sorted(found)
    untouched = (FINAL,) * stages
    assert found == untouched or values[found] >= (52.0 if known else values[untouched]) - 1.0
    rates = rates_of(stages, "samples")
    price = rates.greedy(candidates, FINAL, baseline_known=known)
    assert len(training.trials) <= price.trainings
    assert sum(map(rates.of, training.trials)) <= price.cost + 1e-9
    assert not price.exact


def rates_of(stages: int, axis: str) -> Rates:
    relative = {side: (side / FINAL) ** 2 for side in SIDES}
    return Rates(stages=stages, epochs=200, tuning=10, axis=axis, relative=relative)  # type: ignore[arg-type]


@given(st.integers(2, 6), candidate_sets, st.sampled_from(["compute", "samples"]), st.randoms(use_true_random=False))
def test_the_price_of_a_sequential_search_is_what_its_trials_cost(
    stages: int, candidates: tuple[int, ...], axis: str, rng: object
) -> None:
    rates = rates_of(stages, axis)
    for halving in (False, True):
        training = Training(lambda _: rng.random())  # type: ignore[attr-defined]
        sequential_search(
            training,
            stages=stages,
            candidates=candidates,
            final_size=FINAL,
            objective=objective("accuracy"),
            halving=halving,
        )
        price = rates.sequential(candidates, halving=halving)
        spent = sum(map(rates.of, training.trials))
        assert price.trainings == len(training.trials)
        if price.exact:
            assert spent == pytest.approx(price.cost)
        else:
            assert spent <= price.cost + 1e-9
        assert price.exact or (halving and axis == "samples" and len(candidates) > 1)
        if halving and len(candidates) > 1 and axis == "compute":
            assert price.cost < rates.sequential(candidates).cost


@given(st.integers(2, 6), candidate_sets, st.sampled_from(["compute", "samples"]), st.booleans())
def test_a_price_in_seconds_is_that_in_epochs_where_time_follows_compute(
    stages: int, candidates: tuple[int, ...], axis: str, halving: bool
) -> None:
    rates = rates_of(stages, axis)
    timed = replace(rates, pass_seconds={side: 7 * cost for side, cost in rates.relative.items()})
    by_both = [each.sequential(candidates, halving=halving).cost for each in (rates, timed)]
    assert by_both[1] == pytest.approx(7 * by_both[0])
    by_both = [each.greedy(candidates, FINAL).cost for each in (rates, timed)]
    assert by_both[1] == pytest.approx(7 * by_both[0])


def test_small_images_that_save_no_time_make_a_stage_of_one_compute_long() -> None:
    rates = replace(rates_of(5, "compute"), pass_seconds=dict.fromkeys(SIDES, 30.0))
    # 40 equivalent epochs are as many more passes as the images are smaller; the fine-tuning's 10 are passes.
    assert rates.of(Trial((96,), 0, 1, tuning=1)) == pytest.approx((40 * (224 / 96) ** 2 + 10) * 30)
    # Which of them halving leaves is not known before.
    assert not rates.sequential((96, 224), halving=True).exact and rates.sequential((96, 224)).exact


def test_the_prices_of_the_paper() -> None:
    """Section 5.1's settings: T = 200 of T_0 = 300, T_ft = 10, N = 5; Section 6.4.2 says 2 to 3 trainings.

    With Table 6's three bandwidths it is 2, with a fourth 2.7. Section 5.1 says that Algorithm 1 trains about
    N + M - 1 times; stages N - 1 to 1 (line 5) and the baseline are at most N + M - 2.
    """
    rates = rates_of(5, "compute")
    assert rates.sequential((96, 160, 224)).cost / 300 == pytest.approx(2.0)
    assert rates.sequential((96, 160, 192, 224)).cost / 300 == pytest.approx(8 / 3)
    assert rates_of(5, "samples").greedy((96, 160, 192), FINAL).trainings == 5 + 4 - 2


def test_stages_of_one_compute_cost_the_same_whatever_the_bandwidth() -> None:
    rates = rates_of(5, "compute")
    assert {rates.of(Trial((side,), 0, 1, tuning=1)) for side in SIDES} == {50.0}
    by_samples = rates_of(5, "samples")
    assert by_samples.training(Trial((32, 224), 1, 2)) == 40.0
    assert by_samples.training(Trial((32, 224), 0, 2)) == pytest.approx(40.0 * (1 + (32 / 224) ** 2))


def test_objectives_of_table_21() -> None:
    """The three rows, on numbers whose products are worked out by hand."""
    outcomes = [
        Outcome(accuracy=60.0, loss=2.0, cost=1.0),
        Outcome(accuracy=70.0, loss=1.7, cost=4.0),
        Outcome(accuracy=80.0, loss=1.2, cost=16.0),
    ]
    assert [objective("accuracy")(outcome) for outcome in outcomes] == [60.0, 70.0, 80.0]
    assert [objective("error_time", 0.5)(outcome) for outcome in outcomes] == pytest.approx([-0.4, -0.6, -0.8])
    assert [objective("loss_time", 0.25)(outcome) for outcome in outcomes] == pytest.approx([-2.0, -1.7 * 2**0.5, -2.4])
    assert [objective("loss_time", 0.0)(outcome) for outcome in outcomes] == [-2.0, -1.7, -1.2]


@pytest.mark.parametrize("count", range(1, 20))
def test_rungs_end_with_few_on_the_whole_stage(count: int) -> None:
    shares = rungs(count)
    assert shares[-1] == 1.0 and shares == sorted(shares)
    left = count
    for _ in shares[1:]:
        left = -(-left // 2)
    assert left <= 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": 1, "candidates": (96,)}, "give 2 or more"),
        ({"stages": 3, "candidates": ()}, "at least one"),
        ({"stages": 3, "candidates": (96, 256)}, "candidate bandwidth 256"),
        ({"stages": 3, "candidates": (0,)}, "candidate bandwidth 0"),
    ],
)
def test_nothing_to_search(options: dict[str, object], message: str) -> None:
    training = Training(lambda _: 50.0)
    with pytest.raises(InputError, match=message):
        sequential_search(training, **options, final_size=FINAL, objective=objective("accuracy"))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        greedy_search(training, **options, final_size=FINAL)  # type: ignore[arg-type]
    assert not training.trials


@pytest.mark.parametrize(("name", "alpha"), [("precision", 0.5), ("loss_time", -1.0), ("loss_time", float("nan"))])
def test_objectives_refuse(name: str, alpha: float) -> None:
    with pytest.raises(InputError):
        objective(name, alpha)  # type: ignore[arg-type]


@pytest.mark.parametrize("halving", [False, True])
@pytest.mark.parametrize("name", ["accuracy", "error_time", "loss_time"])
def test_what_diverged_never_goes_on(name: str, halving: bool) -> None:
    def train(trials: Sequence[Trial]) -> list[Outcome]:
        # Only 48 px converges, and nothing is learned in the first stage.
        assert all(side == 48 for trial in trials for side in trial.bandwidths[:-1])
        return [
            Outcome(0.0, 2.0, 0.5) if trial.bandwidths[-1] == 48 else Outcome(0.0, math.inf, 0.1) for trial in trials
        ]

    objective_ = objective(name)  # type: ignore[arg-type]
    found = sequential_search(
        train, stages=3, candidates=(32, 48, 64), final_size=64, objective=objective_, halving=halving
    )
    assert found == (48, 48, 64)
