"""A Lightning module with the curriculum added.

The lines marked `# upchirp` are what the curriculum takes. Run it with

    pip install lightning
    python examples/lightning_module.py --data DIR                  # DIR holds train/CLASS/* and val/CLASS/*
    python examples/lightning_module.py --data DIR --resume CKPT    # goes on with the batches that would have come next

The plan holds all passes over the data, so it is one epoch for Lightning. Each device takes its share of a batch. On
several devices it takes a model whose parameters keep their shapes (ResNet, ConvNeXt), as Lightning wraps it once;
`own_loop.py` shows what others take there.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning
import timm
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

import upchirp


class Counted:
    """A loader as long as the whole plan wherever it begins: Lightning counts the batches before a resume, too."""

    def __init__(self, loader: upchirp.Loader, steps: int) -> None:
        self.loader, self.steps = loader, steps
        self.state_dict, self.load_state_dict = loader.state_dict, loader.load_state_dict

    def __iter__(self) -> Iterator[upchirp.Batch]:
        return iter(self.loader)

    def __len__(self) -> int:
        return self.steps


class Curriculum(lightning.LightningModule):
    """Trains a classifier along the plan of a loader."""

    def __init__(self, net: torch.nn.Module, loader: upchirp.Loader, plan: upchirp.Plan) -> None:
        super().__init__()
        self.net, self.loader, self.plan = net, loader, plan

    def train_dataloader(self) -> "Counted":
        return Counted(self.loader, self.plan.total_steps)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.net.parameters(), weight_decay=0.05)

    def on_train_batch_start(self, batch: upchirp.Batch, index: int) -> None:
        upchirp.follow(batch.step, self.net, self.optimizers(use_pl_optimizer=False))  # upchirp

    def training_step(self, batch: upchirp.Batch, index: int) -> torch.Tensor:
        images, targets = batch.prepare(self.loader.transform, self.device)  # upchirp
        loss = upchirp.mixed_cross_entropy(self.net(images).float(), targets)  # upchirp
        self.log_dict({"loss": loss, "bandwidth": float(batch.bandwidth)}, prog_bar=True, batch_size=len(batch.rows))
        return loss

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Lightning keeps the loader's position; the model needs the shapes that were stored.
        upchirp.fit_to_bandwidth(self.net, self.plan.step(checkpoint["global_step"] - 1).bandwidth)  # upchirp


def main(
    data: str,
    resume: Path | None = None,
    *,
    model: str = "resnet50",
    size: int = 224,
    epochs: float = 90.0,
    batch_size: int = 256,
    workers: int = 4,
    save_every: int = 500,
    **trainer: Any,
) -> Curriculum:
    """Train, and return the module; `trainer` are arguments of `lightning.Trainer`."""
    lightning.seed_everything(0)
    train, val = upchirp.open_data(data, size)  # upchirp
    net = timm.create_model(model, img_size=size, num_classes=len(train.classes))
    curriculum = upchirp.efficienttrain_plus_plus(size, multiple=upchirp.size_multiple(net))  # upchirp
    plan = upchirp.plan(  # upchirp
        curriculum, epochs=epochs, dataset_size=len(train), batch_size=batch_size, learning_rate=1e-3
    )
    augmentation = upchirp.Augmentation(mixup=0.8, cutmix=1.0, reprob=0.25, smoothing=0.1)  # upchirp
    loader = upchirp.Loader(train, plan, augmentation=augmentation, workers=workers)  # upchirp
    module = Curriculum(net, loader, plan)
    saving = ModelCheckpoint(every_n_train_steps=save_every, save_top_k=-1)
    lightning.Trainer(max_epochs=1, callbacks=saving, **trainer).fit(module, ckpt_path=resume)
    result = upchirp.validate(net, val, size, augmentation=augmentation, workers=workers)  # upchirp
    print(f"top-1 {result.top1:.1f} % of {result.images} validation images at {size} px")
    return module


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--epochs", type=float, default=90.0)
    main(**vars(parser.parse_args()))
