"""Train a detector of torchvision's on a trained backbone: Pascal VOC or COCO, the usual 1x schedule, COCO's metrics.

    pip install 'upchirp[dense]'
    python examples/detection.py --data coco --weights runs/first/model.safetensors --detector mask-rcnn
    python examples/detection.py --data VOCdevkit/VOC2012 --weights timm/resnet50.a1_in1k --min-size 480

`--weights` is a run folder, a weights file or a name of timm's; without it, `--model` begins anew. The rate falls to a
tenth after 8 and after 11 of 12 epochs.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from torchmetrics.detection import MeanAveragePrecision

import upchirp
from upchirp.dense import DETECTORS, Pictures, backbone, detector, read_pictures

LEVELS = {"retinanet": (8, 16, 32, 64, 128)}
USUAL_LEVELS = (4, 8, 16, 32, 64)


def main(
    data: Path,
    weights: str | None,
    *,
    kind: str = "retinanet",
    model: str | None = None,
    model_kwargs: dict[str, Any] | None = None,
    levels: tuple[int, ...] | None = None,
    channels: int = 256,
    min_size: int = 800,
    max_size: int = 1333,
    epochs: int = 12,
    batch_size: int = 16,
    lr: float = 1e-4,
    drop_path: float = 0.0,
    val_share: float = 0.2,
    workers: int = 4,
    seed: int = 0,
    output: Path | None = None,
    **options: Any,
) -> dict[str, float]:
    """Train and evaluate; COCO's metrics, 0 to 1. `options` go to torchvision's detector."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(seed)
    masks = "mask" in kind
    splits = read_pictures(data, val_share=val_share)
    for note in splits.notes:
        print(note)
    train = Pictures(splits.train, splits.classes, masks=masks, train=True)
    val = Pictures(splits.val, splits.classes, masks=masks)
    loading: dict[str, Any] = {"num_workers": workers, "collate_fn": lists}
    loader = DataLoader(train, batch_size, shuffle=True, drop_last=len(train) >= batch_size, **loading)

    pyramid = backbone(
        weights,
        model=model,
        model_kwargs=model_kwargs,
        levels=levels or LEVELS.get(kind, USUAL_LEVELS),
        channels=channels,
        drop_path=drop_path,
    )
    net = detector(kind, pyramid, len(splits.classes) + 1, min_size=min_size, max_size=max_size, **options).to(device)
    optimizer = torch.optim.AdamW(groups(net), lr=lr)
    steps = epochs * len(loader)
    schedule = LambdaLR(optimizer, lambda step: rate(step, steps))

    for epoch in range(epochs):
        net.train()
        total = 0.0
        for images, targets in loader:
            losses = net([image.to(device) for image in images], [to(target, device) for target in targets])
            loss = sum(losses.values())
            if not loss.isfinite():
                raise SystemExit(f"the loss is {loss.item()} in epoch {epoch + 1}: try a lower --lr")
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 10.0)
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1} of {epochs}: loss {total / len(loader):.3f}", flush=True)
    if output is not None:
        torch.save({"model": net.state_dict(), "classes": splits.classes}, output)
    return evaluate(net, DataLoader(val, batch_size, **loading), device, masks=masks)


@torch.no_grad()
def evaluate(net: torch.nn.Module, loader: DataLoader, device: torch.device, *, masks: bool) -> dict[str, float]:
    """COCO's metrics on all pictures: mean average precision over overlaps, at 0.5 and 0.75, by size, and recall."""
    metric = MeanAveragePrecision(iou_type=("bbox", "segm") if masks else "bbox", backend="faster_coco_eval")
    net.eval()
    for images, targets in loader:
        found = [to(one, torch.device("cpu")) for one in net([image.to(device) for image in images])]
        for one in found if masks else ():
            one["masks"] = one["masks"].squeeze(1) > 0.5
        metric.update(found, [{**target, "masks": target["masks"].bool()} if masks else target for target in targets])
    return {name: value.item() for name, value in metric.compute().items() if "class" not in name}


def groups(net: torch.nn.Module) -> list[dict[str, Any]]:
    """Weight decay for all but biases, norms and positions."""
    parameters = [(name, parameter) for name, parameter in net.named_parameters() if parameter.requires_grad]
    bare = [parameter for name, parameter in parameters if parameter.ndim < 2 or "pos_embed" in name]
    rest = [parameter for name, parameter in parameters if parameter.ndim >= 2 and "pos_embed" not in name]
    return [{"params": rest, "weight_decay": 0.05}, {"params": bare, "weight_decay": 0.0}]


def rate(step: int, steps: int) -> float:
    """The 1x schedule, in units of the highest rate: a warm-up of 500 steps or a twentieth, then two drops."""
    warmup = min(500, max(1, steps // 20))
    if step < warmup:
        return (step + 1) / warmup
    return 0.1 ** ((step >= steps * 8 // 12) + (step >= steps * 11 // 12))


def lists(items: list[tuple[Any, Any]]) -> tuple[tuple[Any, ...], ...]:
    """The images and the targets of a batch, as lists: pictures differ in size."""
    return tuple(zip(*items, strict=True))


def to(tensors: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    return {name: tensor.to(device) for name, tensor in tensors.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder in the layout of Pascal VOC or COCO")
    parser.add_argument("--weights", help="run folder, weights file, or timm/NAME.TAG")
    parser.add_argument("--model", help="timm's name, where the weights don't say it")
    parser.add_argument("--detector", dest="kind", choices=DETECTORS, default="retinanet")
    parser.add_argument("--levels", type=int, nargs="+", help="strides of the pyramid; finer ones for small images")
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--min-size", type=int, default=800, help="shorter side of the images, pixels")
    parser.add_argument("--max-size", type=int, default=1333, help="longer side at most, pixels")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--drop-path", type=float, default=0.0)
    parser.add_argument("--val-share", type=float, default=0.2, help="where a VOC folder has no lists")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="file for the trained detector")
    try:
        found = main(**vars(parser.parse_args()))
    except upchirp.InputError as error:
        parser.error(str(error))
    for name, value in found.items():
        print(f"{name} {value:.3f}")
