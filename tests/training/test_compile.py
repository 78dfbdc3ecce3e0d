"""Compiled runs, with a backend that counts graphs and runs them as they are, so that no compiler is needed."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.runs import Make, differing, interrupted, notes, weights
from torch import nn

from upchirp import InputError, plan, preset, train
from upchirp.data import RequestSampler
from upchirp.training import Event, Stepped
from upchirp.training.engine.graphs import GraphPerShape
from upchirp.training.engine.memory import MicroBatches
from upchirp.training.engine.trainer import Trainer
from upchirp.training.probing.compiling import compile_ahead

pytestmark = pytest.mark.slow

Shapes = list[tuple[int, int]]
SHALLOW = {"depth": 1}
"""Graphs of one block are compiled in half the time of graphs of two."""
SWIN = {
    "model": "swin_tiny_patch4_window7_224", "final_size": 96, "low_frequency": "crop",
    "model_kwargs": {"depths": [1, 1], "embed_dim": 8, "num_heads": [1, 1]},
}  # fmt: skip


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Shapes:
    """(rows, side) of the images of each graph that is compiled from now on."""
    shapes: Shapes = []

    def counting(graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable:
        tensors = (x for x in inputs if isinstance(x, torch.Tensor) and not isinstance(x, nn.Parameter))
        (images,) = (x for x in tensors if x.ndim == 4 and x.shape[1] == 3)
        shapes.append((images.shape[0], images.shape[-1]))
        return graph.forward

    compile_by(counting, monkeypatch)
    return shapes


def compile_by(backend: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, dynamic: real(model, dynamic=dynamic, backend=backend))
    torch.compiler.reset()


def norms() -> nn.Module:
    """Convolutions with statistics, few enough to be compiled at once."""
    torch.manual_seed(0)
    body = nn.Conv2d(3, 8, 5, stride=4), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))


@pytest.mark.parametrize("changes", [{}, SWIN], ids=["norms", "swin"])
def test_all_graphs_are_compiled_before_the_first_step(config: Make, graphs: Shapes, changes: dict[str, Any]) -> None:
    def model() -> nn.Module | None:
        return None if changes else norms()

    compiled_by_step: list[int] = []
    seen: list[Event] = []

    def observe(event: Event) -> None:
        if isinstance(event, Stepped):
            compiled_by_step.append(len(graphs))
        seen.append(event)

    # Each step has two micro-batches, and the validation images fill no whole batch.
    made = config(compile=True, batch_size=48, micro_batch=24, epochs=2, evaluations=2, **changes)
    compiled = train(made, model=model(), observers=[observe])
    sides = compiled.plan.bandwidths
    assert len(sides) == 3
    assert graphs == [(24, side) for side in sides]
    assert compiled_by_step == [3] * compiled.plan.total_steps
    assert any(f"compiled 3 graphs, for {', '.join(map(str, sides))} px" in note for note in notes(seen))
    plain = config(batch_size=48, micro_batch=24, epochs=2, **changes, output=f"{made.output}-eager")
    eager = train(plain, model=model())
    assert len(graphs) == 3
    # Compiling ahead left weights, statistics, moments and random numbers alone.
    first, second = weights(compiled.output), weights(eager.output)
    for key in first:
        torch.testing.assert_close(first[key], second[key], rtol=1e-3, atol=1e-4, msg=key)


def test_a_resumed_run_compiles_what_is_left(config: Make, graphs: Shapes) -> None:
    made = config(compile=True, model_kwargs=SHALLOW, resume="auto")
    # The second stage's first.
    interrupted(made, 6)
    assert [side for _, side in graphs] == [32, 48, 64]
    graphs.clear()
    torch.compiler.reset()
    resumed = train(made)
    assert graphs == [(16, 48), (16, 64)]
    whole = train(config(compile=True, model_kwargs=SHALLOW, output=f"{made.output}-whole"))
    # The graphs of one run serve the next: only the first bandwidth's is new.
    assert graphs == [(16, 48), (16, 64), (16, 32)]
    assert not differing(resumed.output, whole.output)


def test_measuring_for_a_time_budget_compiles_the_graphs_of_the_run(config: Make, graphs: Shapes) -> None:
    run = train(config(compile=True, model_kwargs=SHALLOW, time_budget="2s", micro_batch=32))
    assert graphs == [(32, side) for side in run.plan.bandwidths]


def test_what_memory_holds_decides_the_shapes(config: Make, graphs: Shapes) -> None:
    made = config(compile=True, micro_batch=32)
    run = plan(preset("efficienttrain_plus_plus", final_size=64), epochs=3, dataset_size=64, batch_size=32)
    trainer = Trainer.of(made, torch.device("cpu"))
    model = norms()
    state = trainer.state(model, bandwidth=64, learning_rate=1e-3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    sampler = RequestSampler(run, micro_batch=32, start_step=run.stages[0].steps)
    random = torch.get_rng_state()
    line = compile_ahead(trainer, state, sampler, MicroBatches({64: 8}))
    second, last = run.bandwidths[1:]
    assert graphs == [(32, second), (8, last)]
    assert line.startswith(f"compiled 2 graphs, for {second}, {last} px")
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_more_graphs_than_torch_allows_a_function() -> None:
    graphs = []

    def counting(graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable:
        graphs.append(graph)
        return graph.forward

    model = nn.Conv2d(3, 2, 3)
    torch.compiler.reset()
    with pytest.MonkeyPatch.context() as patch:
        compile_by(counting, patch)
        forward = GraphPerShape(model)
    for side in range(8, 20):
        for _ in range(2):
            assert forward(torch.zeros(2, 3, side, side)).shape[-1] == side - 2
    assert len(graphs) == 12


def test_a_model_that_cannot_be_compiled_is_bad_input(config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable:
        raise RuntimeError("no C compiler")

    compile_by(broken, monkeypatch)
    with pytest.raises(InputError, match=r"cannot compile the model for 32 px \(no C compiler\): leave `compile` out"):
        train(config(compile=True))
