"""One training by the command, to whose weights the adapters of other libraries are to come, bit by bit."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from safetensors.torch import load_file
from tests.runs import settings
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from upchirp import Augmentation, LearningRate, Plan, TrainConfig, efficienttrain_plus_plus, plan, train
from upchirp.data import Targets
from upchirp.training import Classification, Task

RATE = 1e-3
ROWS, PARTS = 16, 2
"""Images in a step, and the parts in which their gradients are added up."""
EPOCHS = 2
WARMUP = 0.5
AUGMENTATION = Augmentation(mixup=0.8, cutmix=1.0, reprob=0.25, smoothing=0.1)
AVERAGE = 0.9


class Commanded(NamedTuple):
    """What the command trained by, and what it came to."""

    plan: Plan
    weights: dict[str, Tensor]
    average: dict[str, Tensor]


class Shares(Classification):
    """The loss of other libraries: torch's own, of the shares of the classes. Sums of ours round otherwise."""

    def loss(self, outputs: Tensor, asked: Targets) -> Tensor:
        return cross_entropy(outputs, asked.dense(outputs.shape[1]), reduction="none")


def net(dropout: float = 0.1) -> nn.Module:
    """A small vision transformer, always with the same weights, whose positions are resized."""
    torch.manual_seed(0)
    model: nn.Module = timm.create_model("test_vit3", img_size=64, num_classes=2, depth=2, drop_rate=dropout)
    return model


def planned(images: int, epochs: float = EPOCHS) -> Plan:
    """The plan that the command makes, as one makes it for a loop of one's own."""
    return plan(
        efficienttrain_plus_plus(64, multiple=16),
        epochs=epochs,
        dataset_size=images,
        batch_size=ROWS,
        learning_rate=RATE,
        schedule=LearningRate(warmup=WARMUP),
    )


def command(data: Path, output: Path, model: nn.Module, task: Task | None = None, **changes: Any) -> Plan:
    """Train a model by the command, in another library's memory order: the plan that it was trained by."""
    usual = {
        "epochs": EPOCHS, "batch_size": ROWS, "micro_batch": ROWS // PARTS, "lr": RATE, "warmup": WARMUP,
        "opt": "adamw", "weight_decay": 0.0, "clip_grad": None, "amp": False, "channels_last": False, "drop_path": 0.0,
        "model_ema_decay": AVERAGE, "model_ema_warmup": None, "evaluations": 2,
    }  # fmt: skip
    config = TrainConfig.from_flat(settings(data=str(data), output=str(output), **{**usual, **changes}))
    return train(replace(config, augmentation=AUGMENTATION), model=model, task=task).plan


def commanded(data: Path, output: Path) -> Commanded:
    """What the command comes to with the net, and the loss and the average of other libraries."""
    model = net()
    plan = command(data, output, model, Shares())
    return Commanded(plan, model.state_dict(), load_file(output / "model_ema.safetensors"))
