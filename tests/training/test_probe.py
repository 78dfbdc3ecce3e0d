"""Probes: nearest neighbours and a linear classifier on features, and fine-tuning of what was pre-trained."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from tests.runs import settings, write_folder

from upchirp import InputError, TrainConfig, train
from upchirp.data import Augmentation, GeneratedSource
from upchirp.models import create_model
from upchirp.training import (
    EvalData,
    EvalLoading,
    EvaluationSet,
    Origin,
    load_weights,
    probe_weights,
    read_weights,
    recipe,
)
from upchirp.training.evaluation.feature_quality import Features, all_features, linear_classifier, nearest_neighbours

AT_ONCE = EvalLoading(workers=0)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pretrained(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short pre-training, from class folders without validation images."""
    output = tmp_path_factory.mktemp("mae") / "run"
    changes = {"regime": "pretrain", "decoder_depth": 1, "decoder_width": 32, "mixup": 0.0, "randaug_layers": 0,
               "drop": 0.0, "model_ema": False, "curriculum": "constant", "epochs": 1, "lr": 1e-3}  # fmt: skip
    train(TrainConfig.from_flat(settings(data=str(image_folder / "train"), output=str(output), **changes)))
    return output


def clusters(count: int, noise: float, seed: int) -> Features:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    values = 4 * np.eye(3, 8)[labels] + noise * rng.standard_normal((count, 8))
    return Features(torch.tensor(values, dtype=torch.float32), torch.tensor(labels))


@pytest.mark.parametrize("judge", [nearest_neighbours, linear_classifier])
def test_they_tell_what_can_be_told(judge: Any) -> None:
    """Three clusters, apart or one: chance is a third, and 1 / 9 its standard deviation over 200 images, times 3."""
    train, val = clusters(400, 0.5, 0), clusters(200, 0.5, 1)
    assert judge(train, val, device=CPU).top1 > 99
    mixed = train._replace(labels=train.labels[torch.randperm(400, generator=torch.Generator().manual_seed(0))])
    assert judge(mixed, val, device=CPU).top1 < 50
    assert judge(train, val, device=CPU) == judge(train, val, device=CPU)


def test_the_nearest_vote_by_similarity() -> None:
    """Twenty neighbours: nineteen of class 1 far off weigh less than the one of class 0 that is the same."""
    far = torch.tensor([[0.5, 1.0]]).expand(19, 2)
    train = Features(torch.cat([torch.tensor([[1.0, 0.0]]), far]), torch.tensor([0] + [1] * 19))
    val = Features(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    assert nearest_neighbours(train, val, device=CPU).top1 == 100
    close = Features(torch.cat([train.values[:1], torch.tensor([[1.0, 0.1]]).expand(19, 2)]), train.labels)
    assert nearest_neighbours(close, val, device=CPU).top1 == 0


def test_features_are_those_of_the_model() -> None:
    seen = Augmentation(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    source = GeneratedSource("val", size=64, num_images=4, num_classes=2)
    images = EvaluationSet(source, 64, seen, workers=0, crop_pct=1.0)
    model = create_model("test_vit", num_classes=0, final_size=64, depth=1).eval()
    (batch,) = images
    inputs = (batch.images / 255 - 0.5) / 0.25
    with torch.no_grad():
        tokens = model.forward_features(inputs)
    for pooled, expected in (("head", tokens[:, 0]), ("mean", tokens[:, 1:].mean(dim=1))):
        found = all_features(model, images, pooled=pooled, device=CPU)  # type: ignore[arg-type]
        torch.testing.assert_close(found.values, expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(InputError, match="has no patches"):
        all_features(timm.create_model("test_resnet"), images, pooled="mean", device=CPU)


def test_weights_of_any_training_are_probed(pretrained: Path, uninterrupted: Path, image_folder: Path) -> None:
    """Images whose colour tells the class, so that even these weights know it."""
    of_run = probe_weights(Origin(run=pretrained), loading=AT_ONCE)
    assert of_run["knn"]["top1"] == of_run["linear"]["top1"] == 100
    assert (of_run["images"], of_run["val_images"]) == (58, 6) and of_run["features"] == "the mean of the patches"
    supervised = probe_weights(
        Origin(weights=uninterrupted / "model.safetensors"),
        EvalData(data=str(image_folder)),
        knn=False,
        most_images=20,
        loading=AT_ONCE,
    )
    assert supervised["features"] == "what the classifier is shown" and "knn" not in supervised
    assert (supervised["images"], supervised["val_images"]) == (20, 16)


def test_it_is_fine_tuned_as_published(pretrained: Path, image_folder: Path, tmp_path: Path) -> None:
    config = TrainConfig.from_flat({
        "regime": "mae", "weights": str(pretrained / "model.safetensors"), "data": str(image_folder), "epochs": 0.5,
        "output": str(tmp_path / "run"), "workers": 0, "device": "cpu", "evaluations": 1,
    })  # fmt: skip
    assert config.model_kwargs == {"global_pool": "avg", "depth": 2} and config.final_size == 64
    assert config.optimization.layer_decay == 0.65 and config.augmentation.mixup == 0.8
    result = train(config)
    tuned = load_file(result.output / "model.safetensors")
    assert "fc_norm.weight" in tuned and "norm.weight" not in tuned and tuned["head.weight"].shape == (2, 64)
    timm.create_model(f"local-dir:{result.output}", pretrained=True)


def test_large_ones_are_tuned_less() -> None:
    large = recipe("auto", "vit_large_patch16_224", "mae")
    assert (large.optimization.layer_decay, large.epochs, large.optimization.drop_path) == (0.75, 50, 0.1)
    base = recipe("auto", "vit_base_patch16_224", "mae")
    assert (base.optimization.layer_decay, base.epochs, base.optimization.lr_base) == (0.65, 100, 5e-4)


def test_published_checkpoints_load(tmp_path: Path) -> None:
    """timm's names of MAE's weights, and those of the authors' own file with its decoder."""
    torch.manual_seed(0)
    published = timm.create_model("vit_base_patch16_224.mae", img_size=64, depth=1, embed_dim=48, num_heads=3)
    tensors = published.state_dict()
    assert "norm.weight" in tensors and "head.weight" not in tensors
    save_file(tensors, tmp_path / "timm.safetensors")
    decoder = {"mask_token": torch.zeros(1, 1, 8), "decoder_embed.weight": torch.zeros(8, 48)}
    torch.save({"model": {**tensors, **decoder}}, tmp_path / "authors.pth")
    options: dict[str, Any] = {"depth": 1, "embed_dim": 48, "num_heads": 3, "global_pool": "avg"}
    for name, left_out in (("timm.safetensors", set()), ("authors.pth", set(decoder))):
        model = create_model("vit_base_patch16_224", num_classes=5, final_size=64, **options)
        loaded = load_weights(model, read_weights(tmp_path / name), 64, new_head=True)
        assert torch.equal(model.state_dict()["blocks.0.attn.qkv.weight"], tensors["blocks.0.attn.qkv.weight"])
        assert torch.equal(model.fc_norm.weight, torch.ones(48)) and loaded.size == 64
        # That a head on the mean of all tokens has a norm of its own is as intended.
        assert set(loaded.left_out) == left_out


def test_bad_input_is_told(pretrained: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`most_images` is 0: it must be 1 or more"):
        probe_weights(Origin(run=pretrained), most_images=0)
    with pytest.raises(InputError, match="no data"):
        probe_weights(Origin(weights=pretrained / "model.safetensors"))
    flat = write_folder(tmp_path / "data", train=1, val=1) / "train" / "cat"
    with pytest.raises(InputError, match="no class folders"):
        probe_weights(Origin(run=pretrained), EvalData(data=str(flat)))
