from typing import Any

import pytest
import torch
from torchvision.models.detection import FasterRCNN

from upchirp import InputError
from upchirp.dense import DETECTORS, CascadeHeads, DetectorKind, backbone, detector

BOXES = torch.tensor([[8.0, 8.0, 40.0, 40.0], [30.0, 20.0, 90.0, 60.0]])


def small(kind: DetectorKind, **options: Any) -> Any:
    torch.manual_seed(0)
    levels = (8, 16, 32, 64, 128) if kind == "retinanet" else (4, 8, 16, 32, 64)
    pyramid = backbone(None, model="test_resnet", channels=8, levels=levels)
    few = {"rpn_post_nms_top_n_train": 20, "rpn_post_nms_top_n_test": 5, "box_batch_size_per_image": 8}
    options = {**({} if kind == "retinanet" else few), **options}
    return detector(kind, pyramid, 3, min_size=64, max_size=96, **options)


def target() -> dict[str, torch.Tensor]:
    masks = torch.zeros(2, 64, 96, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, BOXES.int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    return {"boxes": BOXES, "labels": torch.tensor([1, 2]), "masks": masks}


# Mask R-CNN is trained by tests/dense/test_layouts.py.
@pytest.mark.parametrize("kind", [kind for kind in DETECTORS if kind != "mask-rcnn"])
def test_each_trains_and_detects(kind: DetectorKind) -> None:
    model = small(kind)
    losses = model([torch.rand(3, 64, 96)], [target()])
    sum(losses.values()).backward()
    stem = next(model.backbone.maps.parameters())
    assert stem.grad is not None and stem.grad.abs().sum() > 0
    assert ("loss_mask" in losses) == ("mask" in kind)
    assert sum(name.startswith("loss_classifier") for name in losses) == (
        0 if kind == "retinanet" else 3 if "cascade" in kind else 1
    )
    with torch.no_grad():
        (found,) = model.eval()([torch.rand(3, 64, 96)])
    assert {"boxes", "scores", "labels"} <= found.keys() and ("masks" in found) == ("mask" in kind)


def test_images_are_normalised_as_the_weights_are_used_to() -> None:
    pyramid = backbone(None, model="test_resnet", channels=8)
    pyramid.mean, pyramid.std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    model: Any = detector("faster-rcnn", pyramid, 2)
    assert (tuple(model.transform.image_mean), tuple(model.transform.image_std)) == (pyramid.mean, pyramid.std)


def cascade() -> tuple[CascadeHeads, dict[str, torch.Tensor]]:
    """Heads that move nothing, with 0.6, 0.7 and 0.8 for class 1 in turn, and features."""
    plain: FasterRCNN = small("cascade-rcnn")
    heads: Any = plain.roi_heads
    for stage, probability in zip(heads.stages, (0.6, 0.7, 0.8), strict=True):
        for parameter in stage.box_predictor.parameters():
            torch.nn.init.zeros_(parameter)
        rest = (1 - probability) / 2
        stage.box_predictor.cls_score.bias.data = torch.tensor([rest, probability, rest]).log()
    return heads, dict(plain.backbone(torch.zeros(1, 3, 64, 96)))


@torch.no_grad()
def test_a_cascade_averages_what_its_stages_say() -> None:
    heads, features = cascade()
    (found,), losses = heads.eval()(features, [BOXES], [(64, 96)])
    best = found["scores"] > 0.5
    assert losses == {} and best.sum() == 2
    torch.testing.assert_close(found["scores"][best], torch.tensor([0.7, 0.7]))
    torch.testing.assert_close(found["boxes"][best].sort(0).values, BOXES, atol=1e-4, rtol=0)
    assert found["labels"][best].tolist() == [1, 1]


@torch.no_grad()
def test_a_stage_gets_the_boxes_that_the_one_before_has_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    heads, features = cascade()
    first, second, _ = list[Any](heads.stages)
    # A tenth of a box's width to the right: the offsets of the first stage are in tenths.
    first.box_predictor.bbox_pred.bias[0] = 1.0
    moved = BOXES + 0.1 * (BOXES[:, 2:3] - BOXES[:, 0:1]) * torch.tensor([1.0, 0.0, 1.0, 0.0])
    moved[:, 2].clamp_(max=96)
    (found,), _ = heads.eval()(features, [BOXES], [(64, 96)])
    torch.testing.assert_close(found["boxes"][found["scores"] > 0.5].sort(0).values, moved, atol=1e-4, rtol=0)

    given: list[torch.Tensor] = []
    select = second.select_training_samples
    monkeypatch.setattr(
        second, "select_training_samples", lambda boxes, *rest: given.extend(boxes) or select(boxes, *rest)
    )
    heads.train()(features, [BOXES], [(64, 96)], [target()])
    assert given and all((moved - box).abs().max(1).values.min() < 1e-4 for box in given[0])


def test_later_stages_ask_for_more_overlap() -> None:
    heads, _ = cascade()
    # Overlaps of 0.55, 0.65 and 0.75 with a box of 20 x 20.
    proposals = [torch.tensor([[0.0, 0.0, 11.0, 20.0], [0.0, 0.0, 13.0, 20.0], [0.0, 0.0, 15.0, 20.0]])]
    truth = [torch.tensor([[0.0, 0.0, 20.0, 20.0]])], [torch.tensor([2])]
    stages: Any = heads.stages
    labels = [stage.assign_targets_to_proposals(proposals, *truth)[1][0].tolist() for stage in stages]
    assert labels == [[2, 2, 2], [0, 2, 2], [0, 0, 2]]


def test_what_is_refused() -> None:
    pyramid = backbone(None, model="test_resnet", channels=8)
    with pytest.raises(InputError, match="choose one of retinanet, faster-rcnn"):
        detector("yolo", pyramid, 3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="one for the background"):
        detector("retinanet", pyramid, 1)
