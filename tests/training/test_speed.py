"""Measuring what training takes: how many steps, and what is told of them, under a clock that the test drives."""

from types import SimpleNamespace

import pytest
import torch
from tests.runs import Make
from torch import Tensor, nn

from upchirp.data import open_data
from upchirp.training import Trainer, curriculum_for
from upchirp.training.assets.models import make_model
from upchirp.training.probing import speed
from upchirp.training.probing.probe import Bench


@pytest.mark.parametrize(
    ("replays", "seconds", "steps"),
    [
        (0, 1000.0, [7, 7, 7]),
        (0, 300.0, [7, 7, 5]),
        (0, 0.0, [2, 2, 2]),
        (1, 1000.0, [14, 14, 12]),
        (1, 0.0, [4, 4, 4]),
    ],
)
def test_a_slow_network_is_left_after_fewer_steps(
    config: Make, monkeypatch: pytest.MonkeyPatch, replays: int, seconds: float, steps: list[int]
) -> None:
    clock = SimpleNamespace(now=0.0)
    computed: list[int] = []

    def slowly(module: nn.Module, inputs: tuple[Tensor]) -> None:
        images, _, side, _ = inputs[0].shape
        computed.append(side)
        clock.now += images * (side / 64) ** 2

    monkeypatch.setattr(speed, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    made = config(model_kwargs={"depth": 1}, micro_batch=32, model_ema=False)
    source, _ = open_data(made.data, made.final_size)
    model = make_model(made, 2)
    model.register_forward_pre_hook(slowly)
    trainer = Trainer.of(made, torch.device("cpu"))
    curriculum = curriculum_for(model, "efficienttrain_plus_plus", made.final_size)
    told: list[tuple[int, int]] = []
    table = speed.measure_seconds(
        Bench(trainer=trainer, curriculum=curriculum, model=model, source=source),
        dict.fromkeys(curriculum.sizes, 32),
        replays,
        seconds=seconds,
        report=lambda what, done, total: told.append((done, total)),
    )
    per_image = {side: (side / 64) ** 2 for side in curriculum.sizes}
    assert {side: table(side) for side in curriculum.sizes} == pytest.approx(per_image)
    assert told[0][0] == 0
    assert told == sorted(told)
    assert [computed.count(side) for side in curriculum.sizes] == steps
