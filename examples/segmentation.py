"""Train UPerNet on a trained backbone, and evaluate it at several scales and mirrored.

    pip install 'upchirp[dense]'
    python examples/segmentation.py --data DIR --weights runs/first/model.safetensors --steps 80000

DIR holds images/train, images/val, masks/train and masks/val; a mask has the number of a class at each pixel, 255 where
there is none. The decoder is segmentation-models-pytorch's; any model with a pyramid will do, a ViT too.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from segmentation_models_pytorch.base import SegmentationHead
from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, RandomSampler
from torchmetrics.classification import MulticlassJaccardIndex
from torchvision import tv_tensors
from torchvision.transforms import v2

import upchirp
from upchirp.dense import IGNORED, FeatureMaps, MaskedImages, feature_maps_of, read_masks

SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


class UPerNet(nn.Module):
    """Images, float (N, 3, H, W) from 0 to 1 with sides of multiples of 32, to logits (N, classes, H, W)."""

    def __init__(self, maps: FeatureMaps, classes: int, channels: int = 512) -> None:
        super().__init__()
        self.maps = maps
        self.normalize = v2.Normalize(maps.mean, maps.std)
        # Its two finest inputs, at strides 1 and 2, it leaves aside.
        self.decoder = UPerNetDecoder((3, 0, *maps.channels), encoder_depth=5, decoder_channels=channels)
        self.head = SegmentationHead(channels, classes, kernel_size=1, upsampling=4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.maps(self.normalize(images))
        return self.head(self.decoder([images, images, *maps]))


def main(
    data: Path,
    weights: str | None,
    *,
    model: str | None = None,
    model_kwargs: dict[str, Any] | None = None,
    size: int = 512,
    channels: int = 512,
    steps: int = 80_000,
    batch_size: int = 16,
    lr: float = 6e-5,
    drop_path: float = 0.0,
    workers: int = 4,
    seed: int = 0,
    scales: tuple[float, ...] = SCALES,
    output: Path | None = None,
) -> dict[str, float]:
    """Train and evaluate; the mean overlap (mIoU) at one scale, and at several and mirrored, 0 to 1."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(seed)
    splits = read_masks(data)
    train = MaskedImages(splits.train, augmentation(size))
    drawn = RandomSampler(train, replacement=False, num_samples=steps * batch_size)
    loader = DataLoader(train, batch_size, sampler=drawn, num_workers=workers)
    val = DataLoader(MaskedImages(splits.val, v2.ToDtype(torch.float32, scale=True)), num_workers=workers)

    maps = feature_maps_of(weights, model=model, model_kwargs=model_kwargs, drop_path=drop_path)
    net = UPerNet(maps, splits.num_classes, channels).to(device)
    optimizer = torch.optim.AdamW(groups(net), lr=lr)
    warmup = min(1500, max(1, steps // 20))
    schedule = LambdaLR(optimizer, lambda step: min((step + 1) / warmup, 1 - step / steps))

    net.train()
    for step, (images, masks) in enumerate(loader):
        with upchirp.autocast(device):
            logits = net(images.to(device))
        loss = functional.cross_entropy(logits.float(), masks.to(device), ignore_index=IGNORED)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % max(1, steps // 100) == 0:
            print(f"step {step} of {steps}: loss {loss.item():.3f}", flush=True)
    if output is not None:
        torch.save({"model": net.state_dict(), "num_classes": splits.num_classes}, output)
    found = {"mIoU": evaluate(net, val, splits.num_classes, device)}
    if scales:
        found["mIoU, scales and mirror"] = evaluate(net, val, splits.num_classes, device, scales=scales, mirror=True)
    return found


def augmentation(size: int) -> v2.Transform:
    """Half to twice as large, cropped to `size`, mirrored, and with other colours."""
    return v2.Compose(
        [
            v2.ScaleJitter((size, size), scale_range=(0.5, 2.0)),
            v2.RandomCrop((size, size), pad_if_needed=True, fill={tv_tensors.Image: 0, tv_tensors.Mask: IGNORED}),
            v2.RandomHorizontalFlip(),
            v2.RandomPhotometricDistort(),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )


@torch.no_grad()
def evaluate(
    net: nn.Module,
    loader: DataLoader,
    classes: int,
    device: torch.device,
    *,
    scales: tuple[float, ...] = (1.0,),
    mirror: bool = False,
) -> float:
    """The mean overlap over classes; probabilities are averaged over scales and the mirror image."""
    metric = MulticlassJaccardIndex(classes, ignore_index=IGNORED).to(device)
    net.eval()
    for images, masks in loader:
        images, masks = images.to(device), masks.to(device)
        total = torch.zeros((), device=device)
        for scale in scales:
            sides = [max(32, round(side * scale / 32) * 32) for side in images.shape[-2:]]
            resized = functional.interpolate(images, size=sides, mode="bilinear", antialias=True)
            total = total + probabilities(net, resized, masks.shape[-2:])
            if mirror:
                total = total + probabilities(net, resized.flip(-1), masks.shape[-2:]).flip(-1)
        metric.update(total.argmax(1), masks)
    return metric.compute().item()


def probabilities(net: nn.Module, images: torch.Tensor, size: torch.Size) -> torch.Tensor:
    return functional.interpolate(net(images).float().softmax(1), size=size, mode="bilinear", align_corners=False)


def groups(net: nn.Module) -> list[dict[str, Any]]:
    """Weight decay for all but biases, norms and positions."""
    parameters = list(net.named_parameters())
    bare = [parameter for name, parameter in parameters if parameter.ndim < 2 or "pos_embed" in name]
    rest = [parameter for name, parameter in parameters if parameter.ndim >= 2 and "pos_embed" not in name]
    return [{"params": rest, "weight_decay": 0.01}, {"params": bare, "weight_decay": 0.0}]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", help="run folder, weights file, or timm/NAME.TAG")
    parser.add_argument("--model", help="timm's name, where the weights don't say it")
    parser.add_argument("--size", type=int, default=512, help="side of the crops, pixels, a multiple of 32")
    parser.add_argument("--channels", type=int, default=512)
    parser.add_argument("--steps", type=int, default=80_000)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--lr", type=float, default=6e-5)
    parser.add_argument("--drop-path", type=float, default=0.0)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="file for the trained network")
    try:
        found = main(**vars(parser.parse_args()))
    except upchirp.InputError as error:
        parser.error(str(error))
    for name, value in found.items():
        print(f"{name} {value:.3f}")
