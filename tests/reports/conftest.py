from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from upchirp.curriculum import Curriculum, constant, efficienttrain_plus_plus, plan
from upchirp.reports.examples import ExampleRow, Examples

SECONDS = 300.0


def make_run(curriculum: Curriculum, budget: float, accuracy: Sequence[float], seconds: float) -> dict[str, Any]:
    """A run as `upchirp compare` sums it up: seeds one second apart, evaluated at 1/3, 2/3 and the end."""
    made = plan(curriculum, epochs=9 * budget, dataset_size=20_000, batch_size=250)
    times = [seconds + seed for seed in range(len(accuracy))]
    history = []
    for top1, end in zip(accuracy, times, strict=True):
        points = [(end * part / 3, "model", 64, top1 * part / 3) for part in (1, 2, 3)]
        points += [(end / 3, "model", bandwidth, top1 / 2) for bandwidth in made.bandwidths if bandwidth < 64]
        history.append(
            [
                {"train_seconds": t, "progress": t / end, "bandwidth": b, "weights": w, "top1": a, "loss": 1.0}
                for t, w, b, a in points
            ]
        )
    return {
        "name": curriculum.name,
        "curriculum": curriculum.name,
        "budget": budget,
        "equivalent_epochs": made.equivalent_epochs,
        "relative_compute": made.equivalent_epochs / 9,
        "mean": {"accuracy": float(np.mean(accuracy)), "of_seeds": 0.4, "margin": 1.1},
        "accuracy": list(accuracy),
        "difference": None,
        "train_seconds": times,
        "wait_share": [0.03] * len(accuracy),
        "spent": [{"computing": 0.75 * time, "waiting": 0.25 * time, "evaluating": 7.0} for time in times],
        "images_per_second": {str(side): 1000.0 - 10 * side for side in made.bandwidths},
        "folders": [f"{curriculum.name}-{budget:g}/seed{seed}" for seed in range(len(accuracy))],
        "plan": made.to_dict(),
        "history": history,
    }


@pytest.fixture
def make_summary() -> Callable[..., dict[str, Any]]:
    """Makes a summary; the curriculum crosses the baseline's accuracy at 200 s."""

    def make(*, seeds: int = 2, alone: bool = False) -> dict[str, Any]:
        spread = np.linspace(-0.5, 0.5, seeds) if seeds > 1 else np.zeros(1)
        runs = [make_run(constant(64), 1.0, (51.25 + spread).tolist(), SECONDS)]
        if not alone:
            curriculum = efficienttrain_plus_plus(64, multiple=2)
            for budget, accuracy, seconds in ((0.5, 49.0, 160.0), (0.6667, 52.0, 213.0), (1.0, 54.0, 320.0)):
                runs.append(make_run(curriculum, budget, (accuracy + spread).tolist(), seconds))
                runs[-1]["difference"] = {"points": accuracy - 51.25, "margin": 1.2, "paired": True, "seen": True}
        speedup = {
            "ratio": 1.5,
            "low": 1.4,
            "high": 1.62,
            "kind": "interpolated",
            "baseline_accuracy": 51.25,
            "baseline_seconds": SECONDS,
            "seconds": 200.0,
        }
        reading = {"name": "constant", "budget": 1.0, "accuracy": 51.25, "compute": speedup, "time": speedup}
        return {
            "model": "resnet10t",
            "data": "tiny",
            "final_size": 64,
            "batch_size": 250,
            "dataset_size": 20_000,
            "recipe": "light",
            "epochs": 9.0,
            "equal_cost": False,
            "variants": [{"name": name, "curriculum": name} for name in dict.fromkeys(run["name"] for run in runs)],
            "seeds": list(range(seeds)),
            "command": "upchirp compare --data tiny",
            "hardware": {"cpu": "Some CPU", "cores": 2, "memory_gib": 15.6, "accelerator": None},
            "versions": {"python": "3.11.2", "torch": "2.6.0"},
            "validation_images": 2000,
            "speeds_compared": {"efficienttrain_plus_plus": True},
            "disturbed": {"efficienttrain_plus_plus": []},
            "runs": runs,
            "speedup_at_equal_accuracy": None if alone else 1.5,
            "equal_accuracy": {} if alone else {"efficienttrain_plus_plus": [reading]},
            "speedups": {} if alone else {"efficienttrain_plus_plus": speedup},
        }

    return make


@pytest.fixture
def examples() -> list[Examples]:
    rng = np.random.default_rng(0)
    rows = [
        ExampleRow(
            bandwidth=side,
            progress=progress,
            magnitude=(0.0, 9.0),
            images=[rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for _ in range(3)],
        )
        for side, progress in ((28, (0.0, 0.2)), (46, (0.2, 0.6)), (64, (0.6, 1.0)))
    ]
    return [Examples(label="efficienttrain_plus_plus", rows=rows)]
