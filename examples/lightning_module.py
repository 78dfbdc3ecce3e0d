"""A Lightning module trained by curriculum.

The lines marked `# upchirp` are what the curriculum takes; the module is one as any other. Run it with

    pip install 'upchirp[lightning]'
    python examples/lightning_module.py --data DIR                  # DIR holds train/CLASS/* and val/CLASS/*
    python examples/lightning_module.py --data DIR --resume CKPT    # goes on at the very step

The plan holds all passes over the data, so it is one epoch for Lightning. Each device takes its share of a batch.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch.nn.functional import cross_entropy

import upchirp
from upchirp.lightning import Curriculum, CurriculumData  # upchirp
from upchirp.models import create_model

Labelled = tuple[torch.Tensor, torch.Tensor]


class Classifier(LightningModule):
    """A network of timm's, cross entropy and AdamW."""

    def __init__(self, model: str, size: int, classes: int) -> None:
        super().__init__()
        self.net = create_model(model, final_size=size, num_classes=classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.net(images)

    def training_step(self, batch: Labelled, index: int) -> torch.Tensor:
        images, targets = batch  # at the bandwidth, and the share of each class in them
        loss = cross_entropy(self(images), targets)
        self.log_dict({"loss": loss, "side": float(images.shape[-1])}, prog_bar=True)
        return loss

    def validation_step(self, batch: Labelled, index: int) -> None:
        images, labels = batch  # at the final size
        right = (self(images).argmax(dim=1) == labels).float().mean()
        self.log("top1", 100 * right, prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), weight_decay=0.05)


def main(
    data: str,
    resume: Path | None = None,
    *,
    model: str = "vit_tiny_patch16_224",
    size: int = 224,
    epochs: float = 90.0,
    batch_size: int = 256,
    workers: int = 4,
    save_every: int = 500,
    **trainer: Any,
) -> Trainer:
    """Train, and return Lightning's trainer; `trainer` are arguments for it."""
    seed_everything(0)
    train, val = upchirp.open_data(data, size)  # upchirp
    module = Classifier(model, size, len(train.classes))
    curriculum = upchirp.efficienttrain_plus_plus(size, multiple=upchirp.size_multiple(module.net))  # upchirp
    plan = upchirp.plan(  # upchirp
        curriculum, epochs=epochs, dataset_size=len(train), batch_size=batch_size, learning_rate=1e-3
    )
    saving = ModelCheckpoint(every_n_train_steps=save_every, save_top_k=-1)
    callbacks = [Curriculum(), EMAWeightAveraging(decay=0.999), saving]  # upchirp: Curriculum goes first
    fitting = Trainer(max_epochs=1, val_check_interval=0.1, callbacks=callbacks, **trainer)
    fitting.fit(module, datamodule=CurriculumData(train, val, plan, workers=workers), ckpt_path=resume)  # upchirp
    return fitting


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--model", default="vit_tiny_patch16_224")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--epochs", type=float, default=90.0)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--workers", type=int, default=4)
    main(**vars(parser.parse_args()))
