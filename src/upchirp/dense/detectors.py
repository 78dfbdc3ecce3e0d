"""torchvision's detectors on a trained backbone."""

from typing import Any, Literal, get_args

from torch import nn
from torchvision.models.detection import FasterRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from upchirp.dense.cascade import CascadeHeads
from upchirp.dense.fpn import LARGEST, Backbone
from upchirp.errors import InputError

DetectorKind = Literal["retinanet", "faster-rcnn", "mask-rcnn", "cascade-rcnn", "cascade-mask-rcnn"]
DETECTORS: tuple[DetectorKind, ...] = get_args(DetectorKind)

_RATIOS = (0.5, 1.0, 2.0)


def detector(
    kind: DetectorKind,
    backbone: Backbone,
    num_classes: int,
    *,
    min_size: int | tuple[int, ...] = 800,
    max_size: int = 1333,
    **options: Any,
) -> nn.Module:
    """A detector of torchvision's, with the normalisation that the backbone is used to.

    Anchors follow the levels of the pyramid: 4 times the stride in three sizes per octave for RetinaNet, 8 times for
    the others, at 1:2, 1:1 and 2:1.

    Args:
        kind: RetinaNet; Faster or Mask R-CNN; either with a cascade of three heads.
        backbone: see `upchirp.dense.backbone`.
        num_classes: classes, the background among them, as torchvision counts: labels begin at 1.
        min_size: the shorter side that images are resized to, pixels; of several, training draws one and evaluation
            takes the last.
        max_size: what the longer side may not exceed, pixels.
        options: for the class of torchvision, such as `box_detections_per_img=300`.

    Raises:
        InputError: an unknown kind, or no class besides the background.
    """
    if kind not in DETECTORS:
        raise InputError(f"`detector` is {kind!r}: choose one of {', '.join(DETECTORS)}")
    if num_classes < 2:
        raise InputError(f"`num_classes` is {num_classes}: give the number of classes and one for the background")
    shared = {
        "min_size": min_size,
        "max_size": max_size,
        "image_mean": list(backbone.mean),
        "image_std": list(backbone.std),
        **options,
    }
    levels = backbone.levels
    if kind == "retinanet":
        sizes = tuple(tuple(round(4 * level * 2 ** (third / 3)) for third in range(3)) for level in levels)
        anchors = AnchorGenerator(sizes, (_RATIOS,) * len(levels))
        # As many as the others give, and as COCO's metrics count.
        shared = {"detections_per_img": 100, **shared}
        retinanet: nn.Module = RetinaNet(backbone, num_classes, anchor_generator=anchors, **shared)
        return retinanet
    maps = [str(index) for index, level in enumerate(levels) if level <= LARGEST]
    shared |= {
        "rpn_anchor_generator": AnchorGenerator(tuple((8 * level,) for level in levels), (_RATIOS,) * len(levels)),
        "box_roi_pool": MultiScaleRoIAlign(maps, output_size=7, sampling_ratio=2),
    }
    if kind in ("mask-rcnn", "cascade-mask-rcnn"):
        pool = MultiScaleRoIAlign(maps, output_size=14, sampling_ratio=2)
        model: nn.Module = MaskRCNN(backbone, num_classes, mask_roi_pool=pool, **shared)
    else:
        model = FasterRCNN(backbone, num_classes, **shared)
    if kind.startswith("cascade"):
        model.roi_heads = CascadeHeads(model.roi_heads, backbone.out_channels, num_classes)
    return model
