"""Selected passes against a slow reference that keeps scores in a dictionary and positions in a queue."""

import io
from collections import Counter, deque
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from upchirp import (
    Augmentation,
    Batch,
    BatchTransform,
    Curriculum,
    InputError,
    Loader,
    Phase,
    Plan,
    Selection,
    mixed_cross_entropy,
    plan,
)
from upchirp.data import RequestSampler
from upchirp.data.draws import pass_order, selection_draws
from upchirp.data.requests import WholePasses, requests_of
from upchirp.data.selection import KEPT, LEFT_OUT, RESCALED, SelectedPasses, choose

PLAIN = Augmentation(randaug_layers=0, mixup=0.0, cutmix=0.0)
SIZE = 50
DEFAULTS = Selection()
Losses = Callable[[Batch], torch.Tensor]


class Numbered(torch.utils.data.Dataset):
    """Every image tells its index, by its colour and its label."""

    classes = tuple(map(str, range(256)))

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(np.full((12, 12, 3), index, dtype=np.uint8)), index


def small_plan(size: int = SIZE, batch_size: int = 12, passes: float = 6.0) -> Plan:
    phases = (Phase(end=0.5, bandwidth=8), Phase(end=1.0, bandwidth=12))
    curriculum = Curriculum(name="small", axis="samples", phases=phases)
    return plan(curriculum, epochs=passes, dataset_size=size, batch_size=batch_size)


def made_up_losses(batch: Batch) -> torch.Tensor:
    """A loss of each row that differs from step to step; row by row, so that micro-batches change nothing."""
    return ((batch.indices * 37 + batch.step.index * 101) % 97).float()


def trained(
    loader: Loader, losses: Losses = made_up_losses, stop: int | None = None
) -> list[tuple[list[int], list[float]]]:
    """The images and weights of each step of a run whose losses are made up."""
    steps: list[tuple[list[int], list[float]]] = []
    for batch in loader:
        assert torch.equal(batch.labels, batch.indices), "the indices are those of other images"
        assert (batch.images[:, 0, 0, 0] == batch.indices).all()
        rows = losses(batch)
        weighted = loader.record(batch, rows)
        weights = torch.ones(len(rows)) if batch.weights is None else batch.weights
        torch.testing.assert_close(weighted, rows * weights)
        if batch.rows.start == 0:
            steps.append(([], []))
        steps[-1][0].extend(batch.indices.tolist())
        steps[-1][1].extend(weights.tolist())
        if batch.completes_step and batch.step.index + 1 == stop:
            break
    return steps


def load(run: Plan, selection: Selection | None = DEFAULTS, **options: object) -> Loader:
    settings = {"workers": 0, "augmentation": PLAIN, "seed": 3, **options}
    return Loader(Numbered(run.dataset_size), run, select=selection, **settings)


def reference(run: Plan, selection: Selection, seed: int) -> list[tuple[list[int], list[float]]]:
    """InfoBatch in exact arithmetic, one image at a time: the made-up losses above are whole numbers."""
    scores: dict[int, int] = {}
    queue: deque[tuple[int, float]] = deque()
    steps, number = [], 0
    for step in run.steps():
        while len(queue) < step.batch_size:
            draws = selection_draws(seed, number, run.dataset_size)
            for index in pass_order(run.dataset_size, seed, number).tolist():
                low = index in scores and scores[index] * len(scores) < sum(scores.values())
                if not low or step.progress >= selection.until:
                    queue.append((index, 1.0))
                elif int(draws[index]) >= selection.prune * 2**64:
                    queue.append((index, 1 / (1 - selection.prune)))
            number += 1
        rows = [queue.popleft() for _ in range(step.batch_size)]
        steps.append(([index for index, _ in rows], [weight for _, weight in rows]))
        for index, _ in rows:
            scores[index] = (index * 37 + step.index * 101) % 97
    return steps


@given(
    st.integers(1, 60),
    st.sampled_from([4, 12, 20]),
    st.sampled_from([None, 1, 2, 4]),
    st.sampled_from([0.25, 0.5, 0.75]),
    st.sampled_from([0.5, 0.875, 1.0]),
    st.integers(0, 1000),
)
@settings(max_examples=30)
def test_passes_are_those_of_the_reference(
    size: int, batch_size: int, micro_batch: int | None, prune: float, until: float, seed: int
) -> None:
    run = small_plan(size, batch_size, passes=max(6.0, 3 * batch_size / size))
    selection = Selection(prune=prune, until=until)
    got = trained(load(run, selection, seed=seed, micro_batch=micro_batch))
    expected = reference(run, selection, seed)
    assert [indices for indices, _ in got] == [indices for indices, _ in expected]
    torch.testing.assert_close([weights for _, weights in got], [weights for _, weights in expected])


scores_of_images = st.lists(st.floats(0, 20, width=32) | st.just(float("inf")), min_size=1, max_size=40)


@given(scores_of_images, st.floats(0.01, 0.99), st.integers(0, 2**63))
def test_only_low_images_are_left_out(scores: list[float], prune: float, seed: int) -> None:
    values = np.array(scores, dtype=np.float32)
    codes, mean = choose(values, selection_draws(seed, 0, len(scores)), prune)
    seen = values[np.isfinite(values)].astype(np.float64)
    assert mean is None if not len(seen) else mean == pytest.approx(seen.mean())
    high = (values >= np.float64(mean if mean is not None else 0)) | np.isinf(values)
    assert (codes[high] == KEPT).all()
    assert np.isin(codes[~high], (LEFT_OUT, RESCALED)).all()
    assert (codes != LEFT_OUT).any(), "a pass without any image"


def test_equal_scores_keep_everything() -> None:
    for value in np.random.default_rng(0).random(200, dtype=np.float32):
        scores = np.full(77, value, dtype=np.float32)
        assert (choose(scores, np.zeros(77, dtype=np.uint64), 0.5)[0] == KEPT).all()


def test_losses_that_are_not_finite_do_not_count() -> None:
    scores = np.array([1, 3, np.nan, np.inf, -np.inf], dtype=np.float32)
    codes, mean = choose(scores, np.zeros(5, dtype=np.uint64), 0.5)
    assert (codes.tolist(), mean) == ([LEFT_OUT, KEPT, KEPT, KEPT, KEPT], 2.0)


@pytest.mark.parametrize("prune", [0.25, 0.5, 0.8])
def test_the_weighted_sum_over_a_pass_is_that_of_all_images(prune: float) -> None:
    rng = np.random.default_rng(0)
    scores, values = rng.gamma(1.0, size=400).astype(np.float32), rng.standard_normal(400) + 1
    low = scores < scores.mean(dtype=np.float64)
    factors = np.array([0, 1, Selection(prune=prune).rescale])
    passes = np.array([choose(scores, selection_draws(seed, 5, 400), prune)[0] for seed in range(400)])
    # Five standard deviations, of a binomial share and of a mean of sums.
    slack = 5 * (prune * (1 - prune) / (400 * low.sum())) ** 0.5
    assert abs((passes[:, low] == LEFT_OUT).mean() - prune) < slack
    sums = (factors[passes] * values).sum(axis=1)
    assert sums.std() > 0
    assert abs(sums.mean() - values.sum()) < 5 * sums.std() / 20


def test_draws_are_frozen_and_apart_from_the_others() -> None:
    # Computed by this code when selection was added: a change here changes every published run that selects.
    assert selection_draws(0, 3, 2).tolist() == DRAWS
    firsts = {int(selection_draws(seed, number, 1)[0]) for seed in range(4) for number in range(4)}
    assert len(firsts) == 16


DRAWS = [13149901259417254022, 9156508526453341524]


def test_passes_are_whole_at_the_end_and_say_what_they_leave_out() -> None:
    run = small_plan(passes=12)
    loader = load(run, Selection(until=0.7))
    begun = []
    for batch in loader:
        loader.record(batch, made_up_losses(batch))
        begun += [(batch.step, summary) for summary in batch.passes]
    assert [summary.number for _, summary in begun] == list(range(len(begun)))
    for step, summary in begun:
        assert summary.kept + summary.left_out == SIZE
        if step.index == 0 or step.progress >= 0.7:
            assert (summary.rescaled, summary.left_out) == (0, 0)
        else:
            assert 0 < summary.left_out < SIZE / 2
            assert 0 < summary.rescaled < SIZE / 2
            assert 0 < summary.mean_score < 97
    kept = sum(summary.kept for _, summary in begun[:-1])
    rest = (run.total_samples - kept) / SIZE
    assert loader.selected.passes_until(run.total_samples) == pytest.approx(len(begun) - 1 + rest)


def test_every_image_at_or_above_the_mean_is_in_each_pass_once() -> None:
    run = small_plan(passes=20)
    order = SelectedPasses(Selection(until=1.0), SIZE, seed=1)
    loss = torch.arange(SIZE) % 10
    order.extend(run.step(0), 1)
    for step in list(run.steps())[1:6]:
        start = order.end
        order.record(torch.arange(SIZE), loss)
        (summary,) = order.extend(step, start + 1)
        indices, weights = order.take(start, order.end - start)
        counts = Counter(indices.tolist())
        assert set(counts.values()) == {1}
        assert {index for index in range(SIZE) if index % 10 >= 5} <= counts.keys()
        assert summary.left_out == SIZE - len(counts) > 0
        assert (weights == np.where(indices % 10 >= 5, 1.0, 2.0)).all()


def test_without_selection_the_order_is_that_of_before_there_was_one() -> None:
    # Computed by the code before selection was added (commit 12491de), with RequestSampler(run, seed=3).
    run = small_plan(10, 4, passes=3.0)
    indices = [request.index for batch in RequestSampler(run, seed=3) for request in batch]
    assert indices[: len(BEFORE)] == BEFORE[: len(indices)]
    assert [index for batch in load(run, None) for index in batch.indices.tolist()] == indices
    assert all(batch.weights is None and batch.passes == () for batch in load(run, None))


BEFORE = [6, 1, 8, 5, 2, 7, 9, 4, 3, 0, 2, 6, 7, 8, 4, 9, 1, 5, 0, 3, 2, 0, 3, 1, 6, 7, 8, 4]


def test_selection_changes_which_images_are_asked_for_and_no_more() -> None:
    run = small_plan()
    order, whole = SelectedPasses(Selection(), SIZE, seed=3), WholePasses(SIZE, seed=3)
    order.extend(run.step(0), SIZE)
    assert requests_of(run.step(2), order) == requests_of(run.step(2), whole)
    order.record(torch.arange(SIZE), torch.arange(SIZE))
    order.extend(run.step(6), 7 * 12)
    chosen, asked = requests_of(run.step(6), order), requests_of(run.step(6), whole)
    assert chosen != asked
    assert [request._replace(index=0) for request in chosen] == [request._replace(index=0) for request in asked]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("replays", [0, 1])
def test_workers_change_nothing(workers: int, replays: int) -> None:
    run = small_plan(passes=4).with_replay(replays, mode="mixed")
    assert trained(load(run, workers=workers, micro_batch=4)) == trained(load(run))


def test_a_sampler_asks_for_no_step_that_it_knows_in_part() -> None:
    run, order = small_plan(), SelectedPasses(DEFAULTS, SIZE)
    order.extend(run.step(0), 1)
    asked = [len(batch) for batch in RequestSampler(run, order=order, micro_batch=2)]
    assert asked == [2] * (6 * (SIZE // 12))


replay_modes = pytest.mark.parametrize(
    ("replays", "mode", "micro_batch"), [(0, "batch", None), (1, "batch", 4), (2, "mixed", 2), (4, "mixed", 1)]
)


@replay_modes
def test_going_on_at_any_step_changes_nothing(replays: int, mode: str, micro_batch: int | None) -> None:
    # A bound of 5 KiB holds the last two batches of 12 images of 8 pixels.
    run = small_plan(12, passes=13).with_replay(replays, mode=mode, gib=5 / 2**20)
    whole = trained(load(run))
    assert any(weight != 1 for _, weights in whole for weight in weights)
    for stop in range(1, run.total_steps + 1):
        first = load(run, micro_batch=micro_batch)
        assert trained(first, stop=stop) == whole[:stop]
        stored = io.BytesIO()
        torch.save(first.state_dict(), stored)
        stored.seek(0)
        state = torch.load(stored, weights_only=True)
        assert state["step"] == stop
        assert len(state["selection"]["passes"]) <= (3 if not replays else 5)
        second = load(run)
        second.load_state_dict(state)
        assert trained(second) == whole[stop:]
        assert len(second) == run.total_steps - stop


@replay_modes
def test_replayed_rows_keep_index_and_weight(replays: int, mode: str, micro_batch: int | None) -> None:
    run = small_plan(passes=9).with_replay(replays, mode=mode, final=True)
    shown: dict[tuple[int, int], list[tuple[int, float]]] = {}
    rescaled = 0
    for step, (indices, weights) in zip(run.steps(), trained(load(run, micro_batch=micro_batch)), strict=True):
        fresh = step.fresh_rows(range(12))
        for row, pair in enumerate(zip(indices, weights, strict=True)):
            if row in fresh:
                shown.setdefault((step.stage, row), []).append(pair)
            else:
                assert pair in shown[step.stage, row]
                rescaled += pair[1] > 1
    assert bool(rescaled) == bool(replays)


def test_of_an_image_that_is_there_twice_the_later_loss_counts() -> None:
    order = SelectedPasses(Selection(), 4)
    order.record(torch.tensor([2, 0, 2, 1, 2]), torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0], dtype=torch.bfloat16))
    scores = order.state_dict()["scores"]
    assert scores.dtype == torch.float32
    assert scores.tolist() == [2.0, 4.0, 5.0, float("inf")]


def test_scores_follow_the_losses_without_gradients() -> None:
    order = SelectedPasses(Selection(), 2)
    order.record(torch.tensor([1]), torch.tensor([3.0], requires_grad=True) * 2)
    assert not order.state_dict()["scores"].requires_grad


def test_a_loader_that_is_told_no_losses_says_so() -> None:
    with pytest.raises(InputError, match=r"no losses at step 4: call `losses = loader\.record"):
        list(load(small_plan()))
    with pytest.raises(InputError, match=r"no losses at step 7: .* `loader\.load_state_dict` when you resume"):
        next(iter(load(small_plan(), start_step=7)))


def test_a_loader_with_selection_is_iterated_once() -> None:
    run = small_plan(passes=1)
    loader = load(run)
    next(iter(loader))
    with pytest.raises(InputError, match="iterated once"):
        next(iter(loader))
    plain = load(run, None)
    assert len(list(plain)) == len(list(plain)) == run.total_steps


def test_a_reduced_loss_is_refused() -> None:
    for selection in (None, Selection()):
        loader = load(small_plan(), selection)
        batch = next(iter(loader))
        with pytest.raises(InputError, match=r'for 12 images: give one for each, with reduction="none"'):
            loader.record(batch, torch.tensor(1.0))


def test_states_of_other_runs_are_refused() -> None:
    run = small_plan()
    state, plain = load(run).state_dict(), load(run, None).state_dict()
    with pytest.raises(InputError, match="trained with selection and is to go on without"):
        load(run, None).load_state_dict(state)
    with pytest.raises(InputError, match="trained without selection and is to go on with"):
        load(run).load_state_dict(plain)
    with pytest.raises(InputError, match=r"prune=0\.5.*not of .*prune=0\.4"):
        load(run, Selection(prune=0.4)).load_state_dict(state)
    with pytest.raises(InputError, match="of a run by another plan"):
        load(small_plan(40)).load_state_dict(state)
    with pytest.raises(InputError, match="step 99 lies outside"):
        load(run).load_state_dict({**state, "step": 99})


@pytest.mark.parametrize(
    ("options", "message"), [({"rank": 0, "world_size": 2}, "several processes"), ({"workers": -1}, "`workers` is -1")]
)
def test_bad_loaders_get_one_line(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(small_plan(), **options)


def test_a_loop_of_ones_own_takes_one_line_more() -> None:
    """The lines that README.md adds, around a model and a checkpoint of one's own."""
    run, device = small_plan(passes=5), "cpu"
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(12, SIZE))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = load(run)
    transform = BatchTransform(loader.augmentation, seed=0)
    left_out = 0
    for batch in loader:
        inputs, targets = batch.prepare(transform, device)
        losses = mixed_cross_entropy(model(inputs), targets, reduction="none")
        loss = loader.record(batch, losses).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        left_out += sum(summary.left_out for summary in batch.passes)
    assert left_out > 0
    assert loader.state_dict()["step"] == run.total_steps
