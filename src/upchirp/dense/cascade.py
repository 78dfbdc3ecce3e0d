"""Cascade R-CNN (arXiv 1712.00726): three heads in a row, each trained on what the one before has refined."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss, maskrcnn_inference
from torchvision.ops import clip_boxes_to_image

Boxes = list[torch.Tensor]
"""Corners (x1, y1, x2, y2), pixels, (N, 4) for each image."""

STAGES = (
    (0.5, (10.0, 10.0, 5.0, 5.0), 1.0),
    (0.6, (20.0, 20.0, 10.0, 10.0), 0.5),
    (0.7, (30.0, 30.0, 15.0, 15.0), 0.25),
)
"""For each stage: the overlap (IoU) from which a box counts as found, the scale of offsets, the weight of the loss."""


class CascadeHeads(nn.Module):
    """Three of torchvision's `RoIHeads`, in place of one in its `FasterRCNN` or `MaskRCNN`.

    Offsets are the same for all classes. Class probabilities are averaged over the stages. Masks, if any, are of the
    last stage's boxes.

    Args:
        heads: the heads of a torchvision model, whose pooling, thresholds and mask branch are taken over.
        channels: of the feature pyramid.
        num_classes: classes, the background among them.
        width: of the two layers of each stage.
    """

    def __init__(self, heads: Any, channels: int, num_classes: int, width: int = 1024) -> None:
        super().__init__()
        cells = heads.box_roi_pool.output_size[0] * heads.box_roi_pool.output_size[1]
        masks = heads.mask_roi_pool, heads.mask_head, heads.mask_predictor
        self.weights = [weight for _, _, weight in STAGES]
        self.stages = nn.ModuleList(
            RoIHeads(
                heads.box_roi_pool,
                TwoMLPHead(channels * cells, width),
                _SharedOffsets(width, num_classes),
                overlap,
                overlap,
                heads.fg_bg_sampler.batch_size_per_image,
                heads.fg_bg_sampler.positive_fraction,
                scale,
                heads.score_thresh,
                heads.nms_thresh,
                heads.detections_per_img,
                *(masks if stage == len(STAGES) - 1 else ()),
            )
            for stage, (overlap, scale, _) in enumerate(STAGES)
        )

    def forward(
        self,
        features: Mapping[str, torch.Tensor],
        proposals: Boxes,
        image_shapes: list[tuple[int, int]],
        targets: Sequence[Mapping[str, torch.Tensor]] | None = None,
    ) -> tuple[list[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
        """What `RoIHeads` returns: detections when evaluating, losses when training."""
        if self.training:
            return [], self._losses(features, proposals, image_shapes, targets)
        return self._detections(features, proposals, image_shapes), {}

    def _losses(self, features: Any, proposals: Boxes, image_shapes: Any, targets: Any) -> dict[str, torch.Tensor]:
        losses = {}
        stages: list[Any] = list(self.stages)
        for index, stage in enumerate(stages[:-1]):
            proposals, _, labels, offsets = stage.select_training_samples(list(proposals), targets)
            logits, found = _predict(stage, features, proposals, image_shapes)
            of_classes, of_boxes = fastrcnn_loss(logits, found, labels, offsets)
            losses[f"loss_classifier_{index}"] = self.weights[index] * of_classes
            losses[f"loss_box_reg_{index}"] = self.weights[index] * of_boxes
            proposals = _refine(stage, found.detach(), proposals, image_shapes)
        _, own = stages[-1](features, list(proposals), image_shapes, targets)
        for name, loss in own.items():
            losses[name] = loss if name == "loss_mask" else self.weights[-1] * loss
        return losses

    def _detections(self, features: Any, proposals: Boxes, image_shapes: Any) -> list[dict[str, torch.Tensor]]:
        probabilities = []
        for stage in self.stages:
            logits, found = _predict(stage, features, proposals, image_shapes)
            probabilities.append(logits.softmax(-1))
            if stage is not self.stages[-1]:
                proposals = _refine(stage, found, proposals, image_shapes)
        # The softmax of a logarithm is what it was taken of.
        averaged = torch.stack(probabilities).mean(0).log()
        last: Any = self.stages[-1]
        parts = zip(*last.postprocess_detections(averaged, found, proposals, image_shapes), strict=True)
        detections = [{"boxes": boxes, "scores": scores, "labels": labels} for boxes, scores, labels in parts]
        if last.has_mask():
            pooled = last.mask_roi_pool(features, [one["boxes"] for one in detections], image_shapes)
            logits = last.mask_predictor(last.mask_head(pooled))
            masks = maskrcnn_inference(logits, [one["labels"] for one in detections])
            detections = [{**one, "masks": mask} for one, mask in zip(detections, masks, strict=True)]
        return detections


class _SharedOffsets(nn.Module):
    """torchvision's `FastRCNNPredictor` with one box for all classes, said once for each."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.cls_score = nn.Linear(width, num_classes)
        self.bbox_pred = nn.Linear(width, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.cls_score(x), self.bbox_pred(x).repeat(1, self.num_classes)


def _predict(stage: Any, features: Any, proposals: Boxes, image_shapes: Any) -> tuple[torch.Tensor, torch.Tensor]:
    logits, offsets = stage.box_predictor(stage.box_head(stage.box_roi_pool(features, proposals, image_shapes)))
    return logits, offsets


def _refine(stage: Any, offsets: torch.Tensor, proposals: Boxes, image_shapes: Any) -> Boxes:
    boxes = stage.box_coder.decode(offsets, proposals)[:, 0].split([len(own) for own in proposals])
    return [clip_boxes_to_image(own, shape) for own, shape in zip(boxes, image_shapes, strict=True)]
