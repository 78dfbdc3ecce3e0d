"""Models, batches, images and learning rates in the form that Hugging Face's `Trainer` takes them in."""

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import Dataset

from upchirp.curriculum import Plan
from upchirp.data import Augmentation, EvalTransform, Loader, Source, default_crop_pct, normalize, scale_of


def as_classifier(model: nn.Module) -> nn.Module:
    """What maps images (N, 3, S, S) to logits (N, classes), as `upchirp.validate` and `size_multiple` want it.

    Args:
        model: of transformers.
    """
    return _Classifier(model)


class _Classifier(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._options = {"interpolate_pos_encoding": True} if interpolates(model) else {}

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(pixel_values=images, **self._options).logits
        return logits


class Batches:
    """A loader's batches as a model of transformers takes them, as many as the whole plan's wherever it begins."""

    def __init__(self, loader: Loader, batches: int, classes: int, device: torch.device) -> None:
        self._loader, self._batches, self._classes, self._device = loader, batches, classes, device

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for batch in self._loader:
            images, targets = batch.prepare(self._loader.transform, self._device)
            yield {"pixel_values": images, "labels": targets.dense(self._classes)}

    def __len__(self) -> int:
        return self._batches


class Images(Dataset[dict[str, Any]]):
    """Images as evaluations see them, which Trainer shares out."""

    def __init__(self, source: Source, size: int, augmentation: Augmentation) -> None:
        self._source, self._augmentation = source, augmentation
        self._view = EvalTransform(size, default_crop_pct(size), augmentation.interpolation, augmentation.channels)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, item: int) -> dict[str, Any]:
        image, label = self._source.load(item)
        pixels = torch.from_numpy(self._view(image)).permute(2, 0, 1)[None]
        mean, std = self._augmentation.mean, self._augmentation.std
        return {"pixel_values": normalize(pixels, mean, std, scale_of(pixels))[0], "labels": label}


class Rates(LRScheduler):
    """The learning rates of a plan; with layer decay each group has its own share of them."""

    def __init__(self, optimizer: torch.optim.Optimizer, plan: Plan) -> None:
        self._plan = plan
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """The rate of each group in the step that is to come."""
        rate = self._plan.step(min(self.last_epoch, self._plan.total_steps - 1)).learning_rate
        return [rate * group.get("lr_scale", 1.0) for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """All but the plan."""
        return {name: value for name, value in super().state_dict().items() if name != "_plan"}


def interpolates(model: nn.Module) -> bool:
    """Whether a model resizes fixed positions in each pass if it is asked to."""
    return "interpolate_pos_encoding" in inspect.signature(model.forward).parameters


def top1(predicted: Any) -> dict[str, float]:
    """Percent of the images whose first guess is right, as `compute_metrics` gives it."""
    logits = predicted.predictions[0] if isinstance(predicted.predictions, tuple) else predicted.predictions
    return {"top1": 100 * float(np.mean(logits.argmax(axis=1) == predicted.label_ids))}
