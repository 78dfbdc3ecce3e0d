"""The main job on real photographs, where the project's image archive lies beside the checkout."""

from pathlib import Path

import pytest

from upchirp import TrainConfig, train
from upchirp.data.packing import PackSettings, pack, verify
from upchirp.training import Event, Noted, read_metrics

pytestmark = pytest.mark.slow

NARROW = {"channels": (8, 16, 16, 32), "stem_width": 8}
"""What makes the model learn in half the time."""


def chance(data: Path) -> float:
    """Accuracy of guessing, percent."""
    return 100 / len(list((data / "train").iterdir()))


def test_a_curriculum_learns_from_photographs(photographs: Path, tmp_path: Path) -> None:
    config = TrainConfig.from_flat(
        {
            "data": str(photographs),
            "model": "test_resnet",
            "model_kwargs": NARROW,
            "final_size": 64,
            "epochs": 10,
            "batch_size": 32,
            "lr": 8e-3,
            "recipe": "light",
            "low_frequency": "crop",
            "workers": 1,
            "device": "cpu",
            "amp": False,
            "evaluations": 2,
            "log_interval": 10,
            "output": str(tmp_path / "run"),
        }
    )
    events: list[Event] = []
    result = train(config, observers=[events.append])
    losses = [record["loss"] for record in read_metrics(result.output) if record["kind"] == "train"]
    notes = [event.message for event in events if isinstance(event, Noted)]
    assert not any("cannot read" in note for note in notes), "all of these images can be read"
    assert losses[-1] < 0.95 * losses[0]
    assert result.top1 > chance(photographs) + 5


def test_packed_photographs_train_with_replay(photographs: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    result = pack(photographs, packed, PackSettings(sizes=(24, 40), quality=75, shard_size=100), workers=1)
    assert not result.summary.left_out
    assert result.summary.reads[0].bytes < 0.9 * result.summary.reads[0].original_bytes
    assert not verify(packed, workers=1)
    config = TrainConfig.from_flat(
        {
            "data": str(packed),
            "model": "test_resnet",
            "model_kwargs": NARROW,
            "final_size": 64,
            "epochs": 10,
            "batch_size": 32,
            "lr": 8e-3,
            "recipe": "light",
            "replay": 1,
            "workers": 1,
            "device": "cpu",
            "amp": False,
            "evaluations": 2,
            "log_interval": 10,
            "output": str(tmp_path / "run"),
        }
    )
    trained = train(config)
    losses = [record["loss"] for record in read_metrics(trained.output) if record["kind"] == "train"]
    assert losses[-1] < losses[0]
    first, *_, last = trained.plan.stages
    assert first.fresh_samples == pytest.approx(first.samples / 2, abs=first.batch_size)
    assert last.fresh_samples == last.samples
    assert trained.top1 > chance(photographs) + 5
