"""Runs whose phases filter, reduce by other operators, or end below the final size."""

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from tests.runs import Make, differing, interrupted, logged

from upchirp import train
from upchirp.data.images.resizing import lanczos
from upchirp.spectral import downsample

EVERYTHING = """
name: everything
axis: samples
final_size: 64
phases:
  - {end: 0.3, bandwidth: 32, operator: nearest, magnitude: 2}
  - {end: 0.6, bandwidth: 64, radius: 8}
  - {end: 1.0, bandwidth: 48, operator: crop, magnitude: [4, 9]}
"""


def test_a_run_of_all_of_them_resumes_exactly_and_gives_weights_of_the_final_size(config: Make, tmp_path: Path) -> None:
    path = tmp_path / "everything.yaml"
    path.write_text(EVERYTHING)
    options = {"curriculum": str(path), "epochs": 3, "evaluations": 3}
    whole, halted = (config(output=str(tmp_path / name), **options) for name in ("whole", "halted"))
    train(whole)
    train(interrupted(halted, 3))
    assert differing(whole.output, halted.output) == []
    stages = json.loads((whole.output / "plan.json").read_text())["stages"]
    assert [(stage["bandwidth"], stage["radius"], stage["operator"]) for stage in stages] == [
        (32, None, "nearest"),
        (64, 8.0, None),
        (48, None, "crop"),
    ]
    # A plain model of the final size takes them, as Table 3 tests networks trained at one size at another.
    model = timm.create_model("test_vit", img_size=64, num_classes=2, depth=2)
    model.load_state_dict(load_file(whole.output / "model.safetensors"))
    last = [line for line in logged(whole.output, "evaluation") if line["weights"] == "model"][-2:]
    assert [line["bandwidth"] for line in last] == [64, 48]


def test_an_evaluation_at_the_bandwidth_shows_what_training_shows() -> None:
    """Figure 8: by Lanczos, as in the workers, content is where it is in training; the unaligned crop shifts it."""
    edge = torch.zeros(1, 3, 64, 64)
    edge[..., 32:] = 200.0
    seen = torch.from_numpy(lanczos(edge[0].permute(1, 2, 0).to(torch.uint8).numpy(), 28)).permute(2, 0, 1).float()
    torch.testing.assert_close(downsample(edge, 28)[0].clamp(0, 255), seen, rtol=0, atol=1.0)


@pytest.mark.parametrize(("low_frequency", "operator"), [("lanczos", "lanczos"), ("crop", "crop")])
def test_the_run_s_own_evaluation_reduces_as_its_training(
    config: Make, low_frequency: str, operator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from upchirp.training.evaluation import evaluation

    asked = []
    own = evaluation.reduced

    def reduced(images: torch.Tensor, side: int, by: str) -> torch.Tensor:
        asked.append((side, by))
        return own(images, side, by)

    monkeypatch.setattr(evaluation, "reduced", reduced)
    train(config(epochs=1, evaluations=3, low_frequency=low_frequency))
    assert asked and {by for side, by in asked if side < 64} == {operator}
