"""Masked autoencoding as a task: pixels (MAE, He et al., 2022) or histograms of gradients (MaskFeat, Wei et al., 2022).

The pre-training of Table 15 is this one with `hog`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from upchirp.data import Augmentation, Targets
from upchirp.data.device.sending import to_device
from upchirp.errors import InputError
from upchirp.training.methods.masked_autoencoder import (
    MaskedAutoencoder,
    Predicted,
    Seeded,
    check_drops_tokens,
    initialise,
    patch_side,
)
from upchirp.training.methods.pictures import pictures_of
from upchirp.training.methods.targets import patch_targets, target_width
from upchirp.training.recipes.groups import Pretraining

_EPSILON = 1e-6


@dataclass(frozen=True, kw_only=True)
class MaskedAutoencoding(Pretraining):
    """Most patches of an image are hidden, and the model says what they hold; labels play no part.

    >>> from upchirp.models import create_model
    >>> vit = create_model("vit_tiny_patch16_224", depth=1, embed_dim=24, num_classes=0)
    >>> task = MaskedAutoencoding(target="hog", decoder_depth=1, decoder_width=32)
    >>> model = task.around(vit, fresh=True)
    >>> labels = torch.zeros(2, dtype=torch.int64)
    >>> shown, asked = task.ask(torch.randn(2, 3, 224, 224), Targets.of(labels), np.array([1, 2], np.uint64))
    >>> task.loss(model(shown), asked).shape
    torch.Size([2])
    """

    labelled = False
    figures = {"explained": 100.0, "loss": 1.0}  # noqa: RUF012  a constant
    best = "explained"

    def outputs(self, classes: int) -> int | None:
        """None at all: the encoder has no classifier."""
        return 0

    def around(self, model: nn.Module, *, fresh: bool) -> nn.Module:
        """A masked autoencoder with the model as its encoder."""
        if isinstance(model, MaskedAutoencoder):
            return model
        check_drops_tokens(model)
        if fresh:
            model.apply(initialise)
        return MaskedAutoencoder(
            model,
            width=target_width(self.target, patch_side(model)),
            mask_ratio=self.mask_ratio,
            least_visible=self.least_visible,
            decoder_depth=self.decoder_depth,
            decoder_width=self.decoder_width,
        )

    def exported(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> tuple[nn.Module, dict[str, Tensor]]:
        """The encoder."""
        whole = _autoencoder(model)
        return whole.encoder, whole.exported(tensors)

    def check(self, model: nn.Module, size: int, classes: int) -> None:
        """Look whether it predicts what is asked."""
        whole = _autoencoder(model)
        wanted = target_width(self.target, whole.patch)
        if whole.predict.out_features != wanted:
            raise InputError(
                f"the model predicts {whole.predict.out_features} numbers of a patch, and {self.target} are {wanted}: "
                "give the encoder alone"
            )

    def ask(self, inputs: Tensor, targets: Targets, seeds: npt.NDArray[np.uint64]) -> tuple[Seeded, Tensor]:
        """The images and the seeds of their masks; what is hidden is compared with the images themselves."""
        return Seeded(inputs, to_device(seeds.view(np.int64), inputs.device)), inputs

    def loss(self, outputs: Predicted, asked: Tensor) -> Tensor:
        """The mean squared error over the hidden patches of each image."""
        return _losses(outputs, self._targets(outputs, asked))

    def measure(self, outputs: Predicted, asked: Tensor) -> Tensor:
        """How much of the variation among an image's hidden patches is explained, no less than 0, and the loss."""
        targets, hidden = self._targets(outputs, asked), outputs.hidden
        mean = (targets * hidden[..., None]).sum(dim=1, keepdim=True) / hidden.sum(dim=1)[:, None, None]
        spread = _mean_hidden((targets - mean).square().mean(dim=-1), hidden)
        losses = _losses(outputs, targets)
        explained = (1 - losses / (spread + _EPSILON)).clamp(min=0)
        return torch.stack([explained.sum(), losses.sum()])

    def guesses(self, outputs: Any) -> Tensor | None:
        """None: there are no classes."""
        return None

    def pictures(
        self, model: nn.Module, inputs: Tensor, seeds: npt.NDArray[np.uint64], seen: Augmentation
    ) -> Mapping[str, Tensor]:
        """What is seen, and what the rest is taken for."""
        shown, images = self.ask(inputs, Targets.of(torch.zeros(len(inputs))), seeds)
        return pictures_of(images, model(shown), self.target, seen.mean, seen.std)

    def _targets(self, outputs: Predicted, images: Tensor) -> Tensor:
        side = round(outputs.patches.shape[1] ** 0.5)
        return patch_targets(images, self.target, images.shape[-1] // side)


def _autoencoder(model: nn.Module) -> MaskedAutoencoder:
    if not isinstance(model, MaskedAutoencoder):
        raise InputError(f"{type(model).__name__} is no masked autoencoder: give a vision transformer of timm's")
    return model


def _losses(outputs: Predicted, targets: Tensor) -> Tensor:
    """The mean squared error over the hidden patches of each image, (N,)."""
    return _mean_hidden((outputs.patches.float() - targets).square().mean(dim=-1), outputs.hidden)


def _mean_hidden(values: Tensor, hidden: Tensor) -> Tensor:
    """The mean of each image's values (N, patches) over its hidden patches."""
    return (values * hidden).sum(dim=1) / hidden.sum(dim=1)
