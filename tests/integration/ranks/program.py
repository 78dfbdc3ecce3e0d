"""What two ranks do, started by torchrun; each leaves what it saw in a file, which the tests compare."""

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from upchirp import InputError, TrainConfig, train
from upchirp.data import Augmentation, LabelSets, as_source
from upchirp.training import (
    Classification,
    Evaluation,
    EvaluationSet,
    Event,
    Interrupted,
    MultiLabel,
    Ranks,
    Stepped,
    Task,
    Trainer,
    View,
    load_config,
    open_ranks,
)
from upchirp.training.evaluation.evaluation import evaluate
from upchirp.training.parallel import sharded
from upchirp.training.run import material

MASKED = {"regime": "pretrain", "decoder_depth": 1, "decoder_width": 32, "final_size": 64, "epochs": 1}
"""What makes of a small run a pre-training without labels."""


class HalfUsed(nn.Module):
    """Trains parameters that no image reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 8, stride=8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        self.idle = nn.Linear(4, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.body(images)


class Odd:
    """13 images of two classes."""

    classes = ("cat", "dog")

    def __len__(self) -> int:
        return 13

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.full((3, 32, 32), 19 * index, dtype=torch.uint8), index % 2


def evaluation(ranks: Ranks | None) -> dict[str, float]:
    several = MultiLabel(LabelSets.of([(0,), (0, 1)], 2))
    ranked, guessed = _evaluated(ranks, several), _evaluated(ranks, Classification())
    assert guessed.predictions is not None
    return {
        **ranked.figures,
        **guessed.to_dict(),
        **{f"guess {index}": float(guess) for index, guess in enumerate(guessed.predictions.guesses)},
    }


def _evaluated(ranks: Ranks | None, task: Task) -> Evaluation:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2))
    seen = Augmentation(mean=(0.5,) * 3, std=(0.2,) * 3)
    images = EvaluationSet(as_source(Odd()), 32, seen, workers=0, batch_size=4, ranks=ranks)
    (result,) = evaluate([View("model", model, 32)], images, device=torch.device("cpu"), task=task)
    return result


def line_of(act: Callable[[], Any]) -> str:
    try:
        act()
    except (InputError, Interrupted) as error:
        return str(error)
    return "nothing was raised"


def only_here(rank: int, act: Callable[..., Any]) -> Callable[..., Any]:
    """On one rank an error instead of the act."""

    def fails(*words: Any, **options: Any) -> Any:
        if dist.get_rank() == rank:
            raise InputError(f"only rank {rank} fails")
        return act(*words, **options)

    return fails


def signalled_at(step: int, *, rank: int) -> Callable[[Event], None]:
    """An observer that sends SIGTERM to one rank after a step."""

    def observe(event: Event) -> None:
        if dist.get_rank() == rank and isinstance(event, Stepped) and event.step.index + 1 == step:
            signal.raise_signal(signal.SIGTERM)

    return observe


def digest(states: list[Any]) -> list[float]:
    """What a rank holds in the end, weight by weight and statistic by statistic."""
    state = states.pop()
    tensors = [*state.model.state_dict().values(), *state.ema.module.state_dict().values()]
    return [value.double().sum().item() for value in tensors]


def main(given: Path, output: Path, started: Path) -> dict[str, Any]:
    base = TrainConfig.from_flat(load_config(given))
    seen: dict[str, Any] = {"failures": {}}

    states: list[Any] = []
    make_state = Trainer.state

    def kept(*words: Any, **options: Any) -> Any:
        states.append(make_state(*words, **options))
        return states[-1]

    Trainer.state = kept

    def run(name: str, **changes: Any) -> TrainConfig:
        return replace(base, output=output / name, **changes)

    # Larger: torch's CPU kernels give undefined gradients where a kernel of 3 x 3 sees one pixel.
    slow = replace(base.optimization, lr_base=0.01)
    norms = {"model": "test_resnet", "model_kwargs": {}, "final_size": 128, "epochs": 1, "optimization": slow}
    selection = replace(
        base, select="infobatch", select_until=1.0, epochs=6, curriculum="constant", checkpoint_interval=5
    )
    infinite = replace(base.optimization, lr_base=1e30, clip_grad=None)

    def trained(config: TrainConfig) -> None:
        train(config)

    def digested(config: TrainConfig, **parts: Any) -> list[float]:
        train(config, **parts)
        return digest(states)

    def signal_to_parts() -> Any:
        line = line_of(lambda: train(run("sharded_started", parallel="fsdp"), observers=[signalled_at(6, rank=1)]))
        # Asked for by name: what is not is taken from the folder.
        asked = frozenset({*(base.given or ()), "parallel"})
        other = line_of(lambda: train(run("sharded_started", parallel="ddp", given=asked, resume="auto")))
        train(run("sharded_started", parallel="fsdp", resume="auto"))
        return line, other

    def faulty_data() -> Any:
        sources, material.open_sources = material.open_sources, only_here(1, material.open_sources)
        try:
            return line_of(lambda: train(run("prepare")))
        finally:
            material.open_sources = sources

    def unused() -> Any:
        torch.manual_seed(ranks.rank)
        return digested(run("unused", deterministic=False), model=HalfUsed())

    def latest() -> Any:
        values = torch.tensor([[1.0, 2.0, 3.0], [4.0, float("inf"), 6.0]][ranks.rank])
        return ranks.latest(values, torch.tensor([[7, -1, 2], [5, 9, 1]][ranks.rank])).tolist()

    scenarios: dict[str, Callable[[], Any]] = {
        "evaluation": lambda: evaluation(ranks),
        "alone": lambda: evaluation(None),
        "whole": lambda: digested(run("whole")),
        "held": lambda: digested(run("held", optimization=replace(base.optimization, head_only=0.5), early_stop=9)),
        "norms": lambda: digested(run("norms", curriculum="constant", **norms)),
        "selection": lambda: trained(replace(selection, output=output / "selection")),
        "started": lambda: trained(replace(base, output=started, resume="auto")),
        "signal": lambda: line_of(lambda: train(run("signal"), observers=[signalled_at(5, rank=1)])),
        "prepare": faulty_data,
        "infinite": lambda: line_of(lambda: train(run("infinite", optimization=infinite))),
        "batch": lambda: line_of(lambda: train(run("batch", batch_size=30, micro_batch=None))),
        "unused": unused,
        "latest": latest,
        "several": lambda: trained(run("several", data=str(output / "tags.csv"), epochs=1)),
        "masked": lambda: trained(run("masked", **MASKED)),
    }
    if sharded.is_available():
        scenarios["masked_sharded"] = lambda: trained(run("masked_sharded", parallel="fsdp", **MASKED))
        scenarios["sharded"] = lambda: trained(run("sharded", parallel="fsdp", checkpoint_interval=4))
        scenarios["sharded_signal"] = signal_to_parts
    with open_ranks() as ranks:
        for name, scenario in scenarios.items():
            try:
                seen[name] = scenario()
            except Exception:
                # The others may work all the same; a test names those that did not.
                seen["failures"][name] = traceback.format_exc()
    return seen


if __name__ == "__main__":
    torch.set_num_threads(1)
    given, output, started = map(Path, sys.argv[1:])
    result = main(given, output, started)
    (output / f"rank{os.environ['RANK']}.json").write_text(json.dumps(result))
