"""A loss that is not finite, and the overflow of 16-bit gradients."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.integration.faults.conftest import Faults
from tests.runs import Make
from torch import nn

from upchirp import TrainConfig, train
from upchirp.models import create_model
from upchirp.training import Stepped, load_checkpoint

# 12 steps on small images.
SHORT: dict[str, Any] = {"final_size": 32, "curriculum": "constant", "batch_size": 16, "micro_batch": None}


class Spoiled(nn.Module):
    """A model whose output, or gradient, is multiplied by a number at one of its training steps."""

    def __init__(self, step: int, factor: float, *, gradient: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = create_model("test_vit", num_classes=2, final_size=64, depth=1)
        self.left, self.factor, self.gradient = step, factor, gradient

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.body(images)
        if not self.training:
            return logits
        self.left -= 1
        if self.left == 0 and self.gradient:
            logits.register_hook(lambda gradient: gradient * self.factor)
        return logits * self.factor if self.left == 0 and not self.gradient else logits


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite(
    faults: Faults, config: Make, latest: Callable[[TrainConfig], Path], factor: float
) -> None:
    run = config(checkpoint_interval=2, **SHORT)
    message = faults.stopped(run, model=Spoiled(6, factor))
    assert message.startswith("the loss is")
    assert "at step 6: the last good checkpoint is" in message
    assert latest(run).name == "step_000000004.pt"
    assert all(torch.isfinite(value).all() for value in load_checkpoint(latest(run))["state"]["model"].values())
    seen: list[Stepped] = []
    train(replace(run, resume="auto"), model=Spoiled(0, 1.0), observers=[seen.append])
    assert next(event.step.index for event in seen if isinstance(event, Stepped)) == 4


def test_gradients_that_overflow_in_16_bits_cost_their_step_only(faults: Faults, config: Make) -> None:
    """The loss scale starts at 65,536, so a factor of 1,000 is too much for float16, and less than a step is lost."""
    run = config(amp_dtype="float16", micro_batch=None, checkpoint_interval=1, epochs=2)
    seen: list[Any] = []
    train(run, model=Spoiled(5, 1e38, gradient=True), observers=[seen.append])
    kept = sorted((run.output / "checkpoints").glob("step_*.pt"))
    assert all(torch.isfinite(value).all() for value in load_checkpoint(kept[-1])["state"]["model"].values())
    assert load_checkpoint(kept[-1])["state"]["scaler"]["scale"] == 32768.0
    again = replace(run, output=run.output.with_name("again"))
    train(again, model=Spoiled(5, 1e38, gradient=True))
    faults.assert_same(again.output, run.output)
