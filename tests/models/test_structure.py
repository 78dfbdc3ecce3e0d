import gc
import weakref
from functools import partial

import pytest
import timm
import torch
from torch import nn

from upchirp.models import check_outputs, check_sizes, count_flops, create_model, fit_to_bandwidth, size_multiple
from upchirp.models.structure import known_of


class Counted(nn.Module):
    """Counts its forward passes, of all its copies."""

    passes = 0

    def __init__(self, setting=None):
        super().__init__()
        self.setting = setting
        self.body = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, images):
        type(self).passes += 1
        return self.body(images)


def shared(layer):
    return nn.Sequential(layer, layer)


def tied():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    return model


@pytest.mark.parametrize(
    "ask",
    [
        size_multiple,
        lambda model: check_sizes(model, [32, 64]),
        lambda model: count_flops(model, 32),
        lambda model: check_outputs(model, 32, 4),
    ],
    ids=["multiple", "sizes", "flops", "outputs"],
)
def test_a_question_is_worked_out_once_for_all_models_of_a_structure(ask):
    setting = ask.__name__, object.__repr__(ask)
    first = ask(Counted(setting))
    passes = Counted.passes
    assert passes
    with torch.device("meta"):
        like_it = Counted(setting)
    assert ask(like_it) == ask(Counted(setting).eval()) == first
    assert Counted.passes == passes
    ask(Counted((*setting, "another")))
    assert Counted.passes > passes


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (nn.Conv2d(3, 4, 3, stride=1), nn.Conv2d(3, 4, 3, stride=2)),
        (nn.Linear(3, 4), nn.Linear(4, 3)),
        (nn.Linear(3, 4), nn.Linear(3, 4, bias=False)),
        (nn.Linear(3, 4), nn.Linear(3, 4, dtype=torch.float64)),
        (nn.Linear(3, 4), nn.Linear(3, 4).requires_grad_(False)),
        (nn.Sequential(nn.ReLU(), nn.GELU()), nn.Sequential(nn.GELU(), nn.ReLU())),
        (shared(nn.Linear(3, 3)), nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))),
        (tied(), nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))),
        *((Counted(one), Counted(other)) for one, other in [
            (1, True), (1, 2), ([1, 2], (1, 2)), ({"a": 1}, {"a": 2}), (partial(sum, start=1), partial(sum, start=2)),
            (len, sum), (nn.ReLU, nn.GELU), (torch.zeros(2), torch.zeros(3)), ("same", None),
        ]),
    ],
)  # fmt: skip
def test_structures_that_differ(one, other):
    known_of(one)["answer"] = True
    assert known_of(one) == {"answer": True}
    assert "answer" not in known_of(other)


def test_values_hooks_and_mode_are_no_part_of_it():
    one, other = (nn.Sequential(nn.Linear(3, 7), nn.BatchNorm1d(7)) for _ in range(2))
    known_of(one)["answer"] = True
    other.eval().register_forward_hook(lambda *_: None)
    assert known_of(other) == known_of(other.to("meta")) == {"answer": True}


def test_a_size_that_was_tried_is_priced():
    model = Counted("tried and priced")
    check_sizes(model, [32])
    passes = Counted.passes
    assert count_flops(model, 32) == 32 * 32 * 3 * 4
    assert Counted.passes == passes


def test_a_model_that_is_changed_is_asked_anew():
    model = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.Flatten())
    assert size_multiple(model) == 4
    flops = count_flops(model, 32)
    model[0] = nn.Conv2d(3, 4, 8, 8)
    assert size_multiple(model) == 8
    assert count_flops(model, 32) == flops
    model[0] = nn.Conv2d(3, 8, 8, 8)
    assert count_flops(model, 32) == 2 * flops


def test_what_is_known_at_one_bandwidth_is_right_at_another():
    model = create_model("swin_tiny_patch4_window7_224", final_size=64, depths=(1, 1, 1, 1), embed_dim=24)
    before = [(size_multiple(model), count_flops(model, size)) for size in (32, 64)]
    fit_to_bandwidth(model, 32)
    assert [(size_multiple(model), count_flops(model, size)) for size in (32, 64)] == before


@pytest.mark.parametrize("setting", [lambda: None, object(), [torch.zeros(2)], {"size": torch.zeros(1)}])
def test_of_settings_that_cannot_be_compared_nothing_is_kept(setting):
    model = Counted(setting)
    known_of(model)["answer"] = True
    assert known_of(model) == {}


def holders(model):
    """Models whose code holds another model."""

    class Held(nn.Linear):
        def forward(self, images):
            return model(images)

    return Counted(lambda: model), Counted(model.zero_grad), Counted(model.weight.add_), Held(3, 4)


def test_no_model_is_kept_alive():
    model = nn.Linear(3, 4)
    for holder in holders(model):
        known_of(holder)
    gone = weakref.ref(model)
    del model, holder
    gc.collect()
    assert gone() is None


def test_no_more_than_a_few_structures_are_kept():
    known_of(nn.Linear(1, 1))["answer"] = True
    for width in range(100):
        known_of(nn.Linear(2, width + 1))
    assert known_of(nn.Linear(1, 1)) == {}


def test_what_timm_was_asked_for_is_no_structure():
    with torch.device("meta"):
        usual, asked, other = (
            timm.create_model("vit_tiny_patch16_224", depth=1, embed_dim=24, **size)
            for size in ({}, {"img_size": 224}, {"img_size": 192})
        )
    known_of(usual)["answer"] = 42
    assert known_of(asked) == {"answer": 42} and known_of(other) == {}
