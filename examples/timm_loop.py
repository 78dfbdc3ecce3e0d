"""timm's training script in short, with the curriculum in place of its loader and its scheduler.

The functions for training and validation are those of timm's `train.py`, without what they print; model, optimizer with
layer decay, average of the weights, loss and gradient scaler are timm's, too. The lines marked `# upchirp` are what the
curriculum takes. The script itself takes two of them, which plan from its arguments: `timm_train.patch`. Run this with

    python examples/timm_loop.py --data DIR                         # DIR holds train/CLASS/* and val/CLASS/*
"""

import argparse

import torch
from timm.data import ImageDataset, create_loader, resolve_model_data_config
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.utils import AverageMeter, ModelEmaV3, NativeScaler, accuracy

import upchirp
from upchirp.models import create_model
from upchirp.timm import CurriculumLoader, CurriculumScheduler  # upchirp


def train_one_epoch(epoch, model, loader, optimizer, loss_fn, *, lr_scheduler, scaler, ema, clip_grad):
    model.train()
    losses = AverageMeter()
    num_updates = epoch * len(loader)
    for images, target in loader:
        with upchirp.autocast(images.device):
            output = model(images)
        loss = loss_fn(output.float(), target)
        optimizer.zero_grad()
        scaler(loss, optimizer, clip_grad=clip_grad, parameters=model.parameters())
        num_updates += 1
        ema.update(model, step=num_updates)
        losses.update(loss.item(), len(images))
        lr_scheduler.step_update(num_updates=num_updates, metric=losses.avg)
    return losses.avg, images.shape[-1]


@torch.no_grad()
def validate(model, loader):
    model.eval()
    top1 = AverageMeter()
    for images, target in loader:
        top1.update(accuracy(model(images), target)[0].item(), len(images))
    return top1


def main(
    data: str,
    *,
    model: str = "deit_small_patch16_224",
    size: int = 224,
    epochs: int = 90,
    batch_size: int = 256,
    workers: int = 4,
    layer_decay: float | None = None,
    clip_grad: float | None = 5.0,
    ema_decay: float = 0.9999,
) -> float:
    """Train, and return the top-1 of the averaged weights on the validation images."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    train, _ = upchirp.open_data(data, size)  # upchirp
    net = create_model(model, final_size=size, num_classes=len(train.classes), drop_path=0.1).to(device)
    optimizer = create_optimizer_v2(net, opt="adamw", weight_decay=0.05, layer_decay=layer_decay)
    ema = ModelEmaV3(net, decay=ema_decay, use_warmup=True)
    scaler = NativeScaler(device=device.type)

    curriculum = upchirp.efficienttrain_plus_plus(size, multiple=upchirp.size_multiple(net))  # upchirp
    plan = upchirp.plan(  # upchirp
        curriculum, epochs=epochs, dataset_size=len(train), batch_size=batch_size, learning_rate=1e-3
    )
    augmentation = upchirp.Augmentation(mixup=0.8, cutmix=1.0, reprob=0.25, smoothing=0.1)  # upchirp
    loader = upchirp.Loader(train, plan, augmentation=augmentation, workers=workers, device=device)  # upchirp
    loader_train = CurriculumLoader(loader, epochs=epochs, classes=len(train.classes), device=device)  # upchirp
    lr_scheduler = CurriculumScheduler(optimizer, loader_train, net, ema)  # upchirp: rates, and the model's size
    looks = {**resolve_model_data_config(net), "input_size": (3, size, size)}
    labels = {name: label for label, name in enumerate(train.classes)}  # timm's own order puts 9 before 10
    dataset_eval = ImageDataset(f"{data}/val", class_map=labels)
    loader_eval = create_loader(dataset_eval, batch_size=batch_size, num_workers=workers, use_prefetcher=False, **looks)

    top1 = AverageMeter()
    for epoch in range(epochs):
        parts = {"lr_scheduler": lr_scheduler, "scaler": scaler, "ema": ema, "clip_grad": clip_grad}
        loss, side = train_one_epoch(epoch, net, loader_train, optimizer, SoftTargetCrossEntropy(), **parts)
        top1 = validate(ema.module, loader_eval)
        lr_scheduler.step(epoch + 1, top1.avg)
        print(f"epoch {epoch}: {side} px, loss {loss:.3f}, top-1 {top1.avg:.1f} % of {top1.count} images", flush=True)
    return top1.avg


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", default="deit_small_patch16_224")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--epochs", type=int, default=90)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--workers", type=int, default=4)
    main(**vars(parser.parse_args()))
