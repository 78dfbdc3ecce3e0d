"""Masked autoencoders: what the network sees, what is asked of it, and whole runs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from tests.runs import Make, differing, logged, stop_after
from torch import nn

from upchirp import InputError, TrainConfig, train
from upchirp.data import Augmentation, Targets
from upchirp.data.packing import PackSettings, pack
from upchirp.models import count_flops, create_model, fit_to_bandwidth, resized_parameters
from upchirp.search import SearchConfig, estimate
from upchirp.training import Interrupted
from upchirp.training.assets.models import without_values
from upchirp.training.engine.graphs import GraphPerShape
from upchirp.training.methods.chosen import model_notes, task_of
from upchirp.training.methods.mae import MaskedAutoencoding
from upchirp.training.methods.masked_autoencoder import MaskedAutoencoder, Seeded
from upchirp.training.methods.masks import patch_order
from upchirp.training.methods.targets import in_patches

MODELS = {
    "test_vit": {"depth": 1},
    "vit_small_patch16_rope_mixed_ape_224": {"depth": 1, "embed_dim": 48, "num_heads": 2},
    "eva02_tiny_patch14_224": {"depth": 1, "embed_dim": 48, "num_heads": 2},
    "vit_medium_patch16_reg4_gap_256": {"depth": 1, "embed_dim": 48, "num_heads": 2},
}


def small(name: str = "test_vit", size: int = 64, **changes: Any) -> MaskedAutoencoder:
    torch.manual_seed(0)
    options = MODELS.get(name, {})
    if name == "vit_small_patch16_rope_mixed_ape_224":
        name = "vit_base_patch16_rope_mixed_ape_224"
    encoder = create_model(name, num_classes=0, final_size=size, **options)
    task = MaskedAutoencoding(**{"decoder_depth": 1, "decoder_width": 32, **changes})
    model = task.around(encoder, fresh=True)
    assert isinstance(model, MaskedAutoencoder)
    return model


def shown(size: int = 64, count: int = 2) -> Seeded:
    generator = torch.Generator().manual_seed(0)
    return Seeded(torch.randn(count, 3, size, size, generator=generator), torch.arange(1, count + 1))


@pytest.mark.parametrize("name", MODELS)
def test_what_is_hidden_is_not_seen(name: str) -> None:
    size = 56 if "14" in name else 64
    model, images = small(name, size).eval(), shown(size)
    predicted = model(images)
    side = size // model.patch
    assert predicted.hidden.sum(dim=1).tolist() == [12, 12]
    for kind, changes in ((True, False), (False, True)):
        patch = int(predicted.hidden[0].eq(kind).nonzero()[0])
        row, column = (model.patch * place for place in divmod(patch, side))
        other = images.images.clone()
        other[0, :, row : row + model.patch, column : column + model.patch] += 1
        differs = not torch.equal(model(Seeded(other, images.seeds)).patches[0], predicted.patches[0])
        assert differs is changes


@pytest.mark.parametrize("name", MODELS)
def test_all_of_it_learns_and_loads_in_plain_timm(name: str) -> None:
    size = 56 if "14" in name else 64
    model, images = small(name, size), shown(size)
    model(images).patches.square().mean().backward()
    assert not [key for key, parameter in model.named_parameters() if parameter.grad is None]
    task = MaskedAutoencoding()
    encoder, tensors = task.exported(model, model.state_dict())
    options = MODELS[name]
    plain = timm.create_model(encoder.default_cfg["architecture"], num_classes=0, img_size=size, **options)
    plain.load_state_dict(tensors)
    with torch.no_grad():
        expected = model.eval().encoder.forward_features(images.images)
        torch.testing.assert_close(plain.eval().forward_features(images.images), expected)


@pytest.mark.parametrize("name", ["resnet10t", "swin_tiny_patch4_window7_224", "deit_tiny_distilled_patch16_224"])
def test_a_model_that_cannot_drop_tokens_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"cannot drop tokens, .* such as vit_small_patch16_224"):
        MaskedAutoencoding().around(timm.create_model(name, num_classes=0), fresh=True)


def test_positions_are_made_anew_and_nothing_is_resized() -> None:
    model = small()
    assert not resized_parameters(model, [32, 64])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert not fit_to_bandwidth(model, 32)
    assert model(shown(32)).patches.shape == (2, 4, 108)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_fewer_are_hidden_of_small_images() -> None:
    model = small(least_visible=3)
    assert [model.visible(patches) for patches in (4, 16, 36)] == [3, 4, 9]
    with pytest.raises(InputError, match="nothing to predict: take a larger size"):
        model.visible(3)


def test_hidden_patches_cost_no_encoding() -> None:
    model = small(mask_ratio=0.75)
    plain = create_model("test_vit", num_classes=0, final_size=64, depth=1)
    whole = small(mask_ratio=0.1)
    block = count_flops(plain, 64) - 16 * 64 * 768
    assert count_flops(whole, 64) - count_flops(model, 64) > 0.6 * block


@pytest.mark.parametrize("target", ["hog", "pixels"])
def test_the_loss_is_that_of_hidden_patches(target: Any) -> None:
    task = MaskedAutoencoding(target=target, decoder_depth=1, decoder_width=32)
    model = small(target=target)
    images, asked = task.ask(shown().images, Targets.of(torch.zeros(2)), np.array([1, 2], np.uint64))
    outputs = model(images)
    exact = outputs._replace(patches=task._targets(outputs, asked))
    assert torch.equal(task.loss(exact, asked), torch.zeros(2))
    assert task.measure(exact, asked).tolist() == [2.0, 0.0]
    visible = exact.patches.clone()
    visible[~outputs.hidden] = 9.0
    assert torch.equal(task.loss(exact._replace(patches=visible), asked), torch.zeros(2))
    hidden = exact.patches + outputs.hidden[..., None]
    torch.testing.assert_close(task.loss(exact._replace(patches=hidden), asked), torch.ones(2))


def test_masks_are_those_of_the_seeds() -> None:
    task, model = MaskedAutoencoding(decoder_depth=1, decoder_width=32), small()
    seeds = np.array([2**64 - 1, 7], np.uint64)
    images, _ = task.ask(shown().images, Targets.of(torch.zeros(2)), seeds)
    order = patch_order(torch.tensor([-1, 7]), 16)
    expected = torch.ones(2, 16, dtype=torch.bool).scatter(1, order[:, :4], False)
    assert torch.equal(model(images).hidden, expected)


@pytest.fixture
def run(config: Make) -> Callable[..., TrainConfig]:
    usual = {
        "regime": "pretrain", "mixup": 0.0, "randaug_layers": 0, "drop": 0.0, "model_ema": False,
        "decoder_depth": 1, "decoder_width": 32, "model_kwargs": {"depth": 1}, "lr": 1e-3,
    }  # fmt: skip
    return lambda **changes: config(**{**usual, **changes})


def test_a_run_resumes_to_the_same_bits_and_loads_in_timm(run: Callable[..., TrainConfig], tmp_path: Path) -> None:
    whole = train(run(compile=False))
    assert whole.figure == "explained" and 0 <= whole.top1 <= 100
    lines = logged(whole.output, "evaluation")
    assert lines[-1]["loss"] < lines[0]["loss"] < 1 and {"explained", "images"} <= lines[0].keys()
    other = replace(run(), output=tmp_path / "other")
    with pytest.raises(Interrupted, match="upchirp pretrain --resume auto"):
        train(other, observers=[stop_after(5)])
    train(replace(other, resume="auto"))
    assert not differing(whole.output, other.output)
    plain = timm.create_model(f"local-dir:{whole.output}", pretrained=True)
    assert plain.num_classes == 0 and plain.pos_embed.shape == (1, 17, 64)


def test_micro_batches_change_no_mask(run: Callable[..., TrainConfig], tmp_path: Path) -> None:
    plain = {"epochs": 0.5, "curriculum": "constant", "log_interval": 1, "hflip": 0.0}
    first = [
        logged(train(run(**plain, micro_batch=size, output=str(tmp_path / str(size)))).output)[0]["loss"]
        for size in (8, 32)
    ]
    assert first[0] == pytest.approx(first[1], rel=1e-5)


def test_a_model_of_ones_own_is_taken(run: Callable[..., TrainConfig]) -> None:
    own = timm.create_model("test_vit", num_classes=0, img_size=64, depth=1)
    result = train(run(epochs=0.5, curriculum="constant"), model=own)
    assert result.figure == "explained"
    with pytest.raises(InputError, match="Sequential cannot drop tokens"):
        train(run(output=str(result.output) + "2"), model=nn.Sequential(nn.Flatten(), nn.Linear(12288, 2)))


def test_settings_of_pretraining_belong_to_it() -> None:
    with pytest.raises(InputError, match="`mask_ratio` belongs to a pre-training without labels: use"):
        TrainConfig.from_flat({"model": "resnet18", "mask_ratio": 0.5})
    with pytest.raises(InputError, match="it must lie between 0 and 1"):
        TrainConfig.from_flat({"model": "resnet18", "regime": "pretrain", "mask_ratio": 1.0})
    with pytest.raises(InputError, match="it must be a multiple of 32"):
        TrainConfig.from_flat({"model": "resnet18", "regime": "pretrain", "decoder_width": 40})


@pytest.mark.parametrize(
    "changes",
    [
        {"replay": 1},
        {"low_frequency": "crop"},
        {"early_batch": "auto", "epochs": 3, "batch_size": 16, "micro_batch": None},
        {"select": "infobatch", "epochs": 2},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_it_goes_with_the_rest(run: Callable[..., TrainConfig], changes: dict[str, Any]) -> None:
    result = train(run(**{"epochs": 1, "evaluations": 1, **changes}))
    assert all(np.isfinite(line["loss"]) for line in logged(result.output))


def test_packed_images_and_their_smaller_versions_are_read(
    run: Callable[..., TrainConfig], image_folder: Path, tmp_path: Path
) -> None:
    pack(image_folder, tmp_path / "packed", PackSettings(sizes=(32,)), workers=1)
    train_config = run(data=str(tmp_path / "packed"), epochs=2, evaluations=1)
    assert train(train_config).figure == "explained"


def test_one_graph_is_compiled_for_each_bandwidth(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs: list[int] = []
    real = torch.compile

    def count(graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        graphs.append(len(inputs))
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda model, dynamic: real(model, dynamic=dynamic, backend=count))
    torch.compiler.reset()
    model = small()
    compiled = GraphPerShape(model)
    for side in (32, 64):
        fit_to_bandwidth(model, side)
        predicted, expected = compiled(shown(side)), model(shown(side))
        assert torch.equal(predicted.hidden, expected.hidden)
        torch.testing.assert_close(predicted.patches, expected.patches)
    assert len(graphs) == 2


def test_a_search_prices_and_takes_it(run: Callable[..., TrainConfig], image_folder: Path) -> None:
    settings = SearchConfig(
        training=replace(run(), batch_size=16), stages=3, candidates=(32, 64), search_val=0.25, tuning_epochs=0.5
    )
    assert estimate(settings)["images"] == 48


def test_the_report_shows_what_was_hidden(run: Callable[..., TrainConfig]) -> None:
    result = train(run(epochs=2, report=True))
    html = (result.output / "report.html").read_text(encoding="utf-8")
    # Labels play no part.
    assert "<dt>classes</dt>" not in html
    assert 'id="answers"' in html and 'id="classes"' not in html and "% explained" in html
    for what in ("the images", "what it saw", "what was asked", "what it took the rest for"):
        assert html.count(f'alt="{what}, ') == len(result.plan.stages)


def test_pictures_of_pixels_keep_what_was_seen() -> None:
    task, model = MaskedAutoencoding(target="pixels"), small(target="pixels")
    images, seeds = shown().images.clamp(-1, 1), np.array([1, 2], np.uint64)
    with torch.no_grad():
        pictures = task.pictures(model, images, seeds, Augmentation(mean=(0.5,) * 3, std=(0.5,) * 3))
    assert list(pictures) == ["what it saw", "what it took the rest for"]
    seen, filled = (in_patches(picture, 4) for picture in pictures.values())
    hidden = model(Seeded(images, torch.tensor([1, 2]))).hidden
    true = in_patches(images * 0.5 + 0.5, 4)
    for picture in (seen, filled):
        torch.testing.assert_close(picture[~hidden], true[~hidden])
    assert (seen[hidden] == 0.5).all() and not torch.equal(filled[hidden], true[hidden])


@pytest.mark.parametrize(
    ("changes", "told"),
    [({}, True), ({"decoder_depth": 8}, False), ({"decoder_width": 64}, False), ({"regime": "imagenet1k"}, False)],
)
def test_a_decoder_that_outweighs_its_encoder_is_told_where_nobody_asked_for_it(
    changes: dict[str, Any], told: bool
) -> None:
    asked = {"model": "test_vit", "regime": "pretrain", "final_size": 64, **changes}
    choice = TrainConfig.from_flat(asked)
    model = without_values(choice, 2, task_of(choice))
    notes = model_notes(choice, model)
    assert [note.startswith("the decoder, 8 blocks of width 512") for note in notes] == [True] * told
