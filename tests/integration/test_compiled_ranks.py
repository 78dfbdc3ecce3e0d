"""A compiled run on two ranks: each compiles its graphs before the first step, cut where DDP sends gradients off."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tests.processes import finish_ranks
from torch import nn

from upchirp import TrainConfig, train
from upchirp.training import Event, Stepped

RANKS = 2


def test_two_ranks_compile_before_the_first_step(image_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "curriculum.yaml").write_text("phases: [{end: 0.5, bandwidth: 32}, {end: 1.0, bandwidth: 64}]")
    done = finish_ranks(RANKS, __file__, image_folder, tmp_path)
    assert done.returncode == 0, done.stderr
    for rank in range(RANKS):
        seen = json.loads((tmp_path / f"{rank}.json").read_text())
        assert seen["functions"] == 2, "one for each bandwidth"
        # DDP's first bucket is 1 MiB and the model has more: graphs are cut there, so that the sum begins early.
        assert seen["graphs"] == 4
        assert seen["graphs_by_step"] == [4] * seen["steps"]


class Wide(nn.Sequential):
    """Few layers, quick to compile, of which one has more parameters than DDP's first bucket."""

    def __init__(self) -> None:
        body = nn.Conv2d(3, 64, 8, stride=8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        super().__init__(*body, nn.Linear(64, 4096), nn.GELU(), nn.Linear(4096, 2))


def program(images: str, output: Path) -> None:
    graphs: list[torch.fx.GraphModule] = []
    graphs_by_step: list[int] = []

    def counting(graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable:
        graphs.append(graph)
        return graph.forward

    def observe(event: Event) -> None:
        if isinstance(event, Stepped):
            graphs_by_step.append(len(graphs))

    real = torch.compile
    torch.compile = lambda model, dynamic: real(model, dynamic=dynamic, backend=counting)  # type: ignore[assignment]
    made = TrainConfig.from_flat(
        {
            "data": images, "final_size": 64, "epochs": 1, "batch_size": 32, "micro_batch": 8, "workers": 0,
            "device": "cpu", "recipe": "light", "compile": True, "evaluations": 1, "report": False,
            "output": str(output / "run"), "curriculum": str(output / "curriculum.yaml"),
        }
    )  # fmt: skip
    run = train(made, model=Wide(), observers=[observe])
    seen = {
        "functions": torch._dynamo.utils.counters["stats"]["unique_graphs"],
        "graphs": len(graphs),
        "graphs_by_step": graphs_by_step,
        "steps": run.plan.total_steps,
    }
    (output / f"{os.environ['RANK']}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    program(sys.argv[1], Path(sys.argv[2]))
