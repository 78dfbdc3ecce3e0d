"""The parts of timm's training script, with the curriculum added.

Model, optimizer with layer decay, average of the weights, loss and gradient scaler are timm's; the data, the order of
images and the learning rate come with the plan. The lines marked `# upchirp` are what the curriculum takes. Run it with

    python examples/timm_loop.py --data DIR                         # DIR holds train/CLASS/* and val/CLASS/*
"""

import argparse

import timm
import torch
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.utils import AverageMeter, ModelEmaV3, NativeScaler

import upchirp


def main(
    data: str,
    *,
    model: str = "deit_small_patch16_224",
    size: int = 224,
    epochs: float = 90.0,
    batch_size: int = 256,
    workers: int = 4,
    layer_decay: float | None = None,
    clip_grad: float | None = 5.0,
    ema_decay: float = 0.9999,
) -> float:
    """Train, and return the top-1 of the averaged weights on the validation images."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    train, val = upchirp.open_data(data, size)  # upchirp
    net = timm.create_model(model, img_size=size, num_classes=len(train.classes), drop_path_rate=0.1).to(device)
    optimizer = create_optimizer_v2(net, opt="adamw", weight_decay=0.05, layer_decay=layer_decay)
    ema = ModelEmaV3(net, decay=ema_decay, use_warmup=True)
    scaler = NativeScaler(device=device.type)
    loss_of = SoftTargetCrossEntropy()

    curriculum = upchirp.efficienttrain_plus_plus(size, multiple=upchirp.size_multiple(net))  # upchirp
    plan = upchirp.plan(  # upchirp
        curriculum, epochs=epochs, dataset_size=len(train), batch_size=batch_size, learning_rate=1e-3
    )
    augmentation = upchirp.Augmentation(mixup=0.8, cutmix=1.0, reprob=0.25, smoothing=0.1)  # upchirp
    loader = upchirp.Loader(train, plan, augmentation=augmentation, workers=workers, device=device)  # upchirp

    losses = AverageMeter()
    for batch in loader:
        upchirp.follow(batch.step, net, optimizer, ema)  # upchirp: bandwidth, moments, average, rate of each group
        inputs, targets = batch.prepare(loader.transform, device)  # upchirp: normalised, erased, mixed
        with upchirp.autocast(device):
            logits = net(inputs)
        loss = loss_of(logits.float(), targets.dense(len(train.classes)))  # upchirp: shares of the classes, smoothed
        optimizer.zero_grad()
        scaler(loss, optimizer, clip_grad=clip_grad, parameters=net.parameters())
        ema.update(net, step=batch.step.index)
        losses.update(loss.item(), len(batch.rows))
        if batch.step.index % 10 == 0:
            print(f"{batch.progress:4.0%}  {batch.bandwidth} px  loss {losses.val:.3f} ({losses.avg:.3f})", flush=True)

    result = upchirp.validate(ema.module, val, size, augmentation=augmentation, workers=workers)  # upchirp
    print(f"top-1 {result.top1:.1f} % of {result.images} validation images at {size} px")
    return result.top1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", default="deit_small_patch16_224")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--epochs", type=float, default=90.0)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--workers", type=int, default=4)
    main(**vars(parser.parse_args()))
