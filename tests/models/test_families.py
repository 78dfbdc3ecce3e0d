"""Families of timm beyond ViT and Swin V1: small ones, against models that timm builds at the size."""

import copy
import math

import numpy as np
import pytest
import timm
import torch
from timm.models.gcvit import GlobalContextVit
from timm.models.mvitv2 import MultiScaleVit, MultiScaleVitCfg
from timm.models.visformer import Visformer
from timm.models.volo import VOLO
from torch import nn

from upchirp.errors import InputError
from upchirp.models import check_sizes, create_model, fit_to_bandwidth, size_multiple
from upchirp.models.meta import shapes_only

VIT = {"embed_dim": 12, "depth": 1, "num_heads": 3}
SWIN = {"embed_dim": 12, "depths": (1, 2, 1, 1), "num_heads": (1, 2, 3, 3)}
MAXVIT = {"embed_dim": (32, 32, 32, 32), "depths": (1, 1, 1, 1), "stem_width": 8}
STAGES = {"embed_dims": (12, 12, 24, 24), "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)}


def mvit(size):
    config = MultiScaleVitCfg(
        depths=(1, 1, 1, 1), embed_dim=(8, 8, 16, 16), num_heads=(1, 1, 2, 2), use_cls_token=True, use_abs_pos=True
    )
    model = MultiScaleVit(config, img_size=size, num_classes=4)
    nn.init.normal_(model.pos_embed)
    return model


def built_by_timm(name, windows=None, **kwargs):
    """A builder: size -> model; `windows` gives timm's arguments at a size, by the published windows' share."""

    def build(size):
        sized = {"img_size": size} if windows is None else windows(size)
        return timm.create_model(name, num_classes=4, **kwargs, **sized)

    return build


BUILDERS = {
    "beit": built_by_timm("beit_base_patch16_224", **VIT),
    "beit_shared": built_by_timm("beit_base_patch16_224", **VIT, use_rel_pos_bias=False, use_shared_rel_pos_bias=True),
    "relpos_mlp": built_by_timm("vit_relpos_small_patch16_224", **VIT),
    "relpos_bias": built_by_timm(
        "vit_relpos_small_patch16_224", **VIT, rel_pos_type="bias", class_token=True, global_pool="token"
    ),
    "swinv2": built_by_timm(
        "swinv2_tiny_window8_256", lambda size: {"img_size": size, "window_size": size // 32}, **SWIN
    ),
    "swinv2_cr": built_by_timm("swinv2_cr_tiny_224", **SWIN),
    "maxvit": built_by_timm("maxvit_tiny_tf_224", **MAXVIT),
    "maxvit_mlp": built_by_timm("maxvit_rmlp_pico_rw_256", **MAXVIT),
    "coatnet": built_by_timm("coatnet_bn_0_rw_224", **MAXVIT),
    "efficientvit_msra": built_by_timm(
        "efficientvit_m0",
        lambda size: {"img_size": size, "window_size": (size // 32,) * 3},
        embed_dim=(16, 16, 16),
        depth=(1, 1, 1),
        num_heads=(2, 2, 2),
        key_dim=(4, 4, 4),
    ),
    "levit": built_by_timm("levit_128s", embed_dim=(16, 16, 16), depth=(1, 1, 1), num_heads=(2, 2, 2), key_dim=4),
    "levit_conv": built_by_timm(
        "levit_conv_128s", embed_dim=(16, 16, 16), depth=(1, 1, 1), num_heads=(2, 2, 2), key_dim=4
    ),
    "tiny_vit": built_by_timm(
        "tiny_vit_5m_224", lambda size: {"window_sizes": (7, size // 32, size // 16, size // 32)}, **STAGES
    ),
    "davit": built_by_timm("davit_tiny", lambda size: {"window_size": size // 32}, **STAGES),
    "twins_svt": built_by_timm("twins_svt_small", lambda size: {"wss": (size // 32,) * 4}, **STAGES),
    "gcvit": lambda size: GlobalContextVit(
        img_size=size, embed_dim=16, depths=(2, 1, 1, 1), num_heads=(1, 1, 2, 2), num_classes=4
    ),
    "mvitv2": mvit,
    "pit": built_by_timm("pit_ti_224", base_dims=(8, 8, 8), depth=(1, 1, 1), heads=(1, 2, 2)),
    "volo": lambda size: VOLO(
        layers=(1, 1, 1, 1), img_size=size, embed_dims=(12, 24, 24, 24), num_heads=(1, 2, 2, 2), num_classes=4
    ),
    "coat": built_by_timm(
        "coat_lite_tiny", embed_dims=[16, 16, 16, 16], serial_depths=[1, 1, 1, 1], num_heads=8, mlp_ratios=[1, 1, 1, 1]
    ),
    "visformer": lambda size: Visformer(
        img_size=size, init_channels=8, embed_dim=24, depth=(1, 1, 1), num_heads=2, num_classes=4
    ),
    "cait": built_by_timm("cait_xxs24_224", **VIT),
}
BUFFERS_ONLY = {"relpos_mlp", "swinv2", "swinv2_cr", "maxvit_mlp", "davit", "twins_svt", "coat"}


def randomized(build, size):
    torch.manual_seed(0)
    model = build(size)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


def check_across(build, sizes):
    model = randomized(build, sizes[0]).eval()
    # Run before and after, so that anything remembered from one size would show at the next.
    for size in sizes:
        fit_to_bandwidth(model, size)
        images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            output = model(images)
        fresh = build(size)
        fresh.load_state_dict(model.state_dict(), strict=True)
        with torch.no_grad():
            torch.testing.assert_close(output, fresh.eval()(images), rtol=0, atol=0)
        for (key, mine), (_, theirs) in zip(model.named_buffers(), fresh.named_buffers(), strict=True):
            assert torch.equal(mine, theirs), key


@pytest.mark.parametrize("family", BUILDERS)
def test_fitted_model_is_a_model_built_at_the_size(family):
    check_across(BUILDERS[family], (64, 128, 96))


@pytest.mark.parametrize("family", ["swinv2", "swinv2_cr"])
def test_windows_of_one_patch_grow_and_shift(family):
    check_across(BUILDERS[family], (32, 96, 32))


def test_partitions_of_another_share_keep_it():
    def build(size):
        sides = {"transformer_window_size": (size // 64,) * 2, "transformer_grid_size": (size // 32,) * 2}
        return timm.create_model("maxvit_tiny_tf_224", img_size=size, num_classes=4, **MAXVIT, **sides)

    check_across(build, (64, 128))
    with pytest.raises(InputError, match="multiples of 64 only"):
        fit_to_bandwidth(build(64), 96)


def test_twins_for_the_smallest_images_keep_their_windowed_attention():
    # timm builds another attention where windows are one cell.
    with torch.device("meta"):
        model = create_model("twins_svt_small", final_size=32, **STAGES)
        assert model.state_dict().keys() == BUILDERS["twins_svt"](64).state_dict().keys()


def weights(old, new):
    """The (new, old) matrix of linear interpolation at cell centres, edges repeated."""
    matrix = np.zeros((new, old))
    for i in range(new):
        x = min(max((i + 0.5) * old / new - 0.5, 0), old - 1)
        left = int(x)
        matrix[i, left] += 1 - (x - left)
        matrix[i, min(left + 1, old - 1)] += x - left
    return matrix


def expected(name, values, shape):
    """What `values` of the parameter `name` are at the new `shape`, by two matrix products on its map of cells."""
    old = values.detach().double().numpy()
    leaf = name.rpartition(".")[2]
    if leaf in ("rel_pos_h", "rel_pos_w"):
        result = weights(len(old), shape[0]) @ old
    elif leaf == "pos_embed" and old.ndim == 4 and old.shape[1] == old.shape[2]:
        result = np.einsum("ia,jb,nabc->nijc", weights(old.shape[1], shape[1]), weights(old.shape[2], shape[2]), old)
    elif old.ndim == 4 or (old.ndim == 3 and leaf == "relative_position_bias_table"):
        result = np.einsum(
            "ia,jb,...ab->...ij", weights(old.shape[-2], shape[-2]), weights(old.shape[-1], shape[-1]), old
        )
    else:
        # Cells along one dimension, with what belongs to class tokens before (positions) or after them (tables).
        axis = {"pos_embed": 1, "attention_biases": 1, "relative_position_bias_table": 0}[leaf]
        cells, wanted = np.moveaxis(old, axis, 0), shape[axis]
        side, new = math.isqrt(len(cells)), math.isqrt(wanted)
        kept = len(cells) - side**2
        assert kept == wanted - new**2
        before = kept if leaf == "pos_embed" else 0
        grid = cells[before : before + side**2].reshape(side, side, *cells.shape[1:])
        grid = np.einsum("ia,jb,ab...->ij...", weights(side, new), weights(side, new), grid)
        parts = [cells[:before], grid.reshape(new**2, *cells.shape[1:]), cells[before + side**2 :]]
        result = np.moveaxis(np.concatenate(parts), 0, axis)
    return torch.from_numpy(result)


@pytest.mark.parametrize("family", BUILDERS)
def test_moments_and_average_follow(family):
    torch.manual_seed(0)
    model = BUILDERS[family](64).train()
    ema = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, amsgrad=True)

    def step(size):
        output = model(torch.randn(2, 3, size, size))
        loss = sum(logits.square().mean() for logits in (output if isinstance(output, tuple) else (output,)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    loss = step(64)
    before = {name: (p, p.detach().clone(), dict(optimizer.state[p])) for name, p in model.named_parameters()}
    average = {name: p.detach().clone() for name, p in ema.named_parameters()}
    fit_to_bandwidth(model, 96, optimizer, ema)
    changed = 0
    for (name, parameter), (_, smoothed) in zip(model.named_parameters(), ema.named_parameters(), strict=True):
        same, values, state = before[name]
        assert parameter is same
        if parameter.shape == values.shape:
            assert torch.equal(parameter, values), name
            continue
        changed += 1
        pairs = [(parameter, values), (smoothed, average[name])]
        pairs += [(optimizer.state[parameter][key], state[key]) for key in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")]
        for resized, old in pairs:
            wanted = expected(name, old, parameter.shape)
            tolerance = 1e-5 * wanted.abs().max().item()
            torch.testing.assert_close(resized.detach().double(), wanted, rtol=1e-5, atol=tolerance, msg=name)
        assert (optimizer.state[parameter]["exp_avg_sq"] >= 0).all()
    assert bool(changed) != (family in BUFFERS_ONLY)
    assert loss.isfinite() and step(96).isfinite()


@pytest.mark.parametrize(
    ("family", "multiple", "bad"),
    [
        *((family, 32, 80) for family in ("maxvit", "coatnet", "swinv2", "swinv2_cr", "efficientvit_msra", "mvitv2")),
        *((family, 32, 80) for family in ("tiny_vit", "davit", "twins_svt", "gcvit", "coat", "visformer")),
        *((family, 16, 72) for family in ("beit", "relpos_bias", "levit", "volo", "cait")),
        ("pit", 8, 68),
    ],
)
def test_sizes_that_timm_would_pad_or_cut_are_refused(family, multiple, bad):
    with shapes_only():
        model = BUILDERS[family](64)
    assert size_multiple(model) == multiple
    check_sizes(model, [32, 64, 96])
    with pytest.raises(InputError, match=f"side {bad} .*multiples of {multiple} only.*nearest that work"):
        check_sizes(model, [bad])
    with pytest.raises(InputError, match=f"multiples of {multiple} only"):
        fit_to_bandwidth(model, bad)


def test_models_are_created_with_windows_of_their_share():
    small = {
        "davit_tiny": STAGES,
        "tiny_vit_5m_224": STAGES,
        "twins_svt_small": STAGES,
        "efficientvit_m0": {"depth": (1, 1, 1)},
        "maxvit_pico_rw_256": MAXVIT,
    }
    with torch.device("meta"):
        for name, arguments in small.items():
            model = create_model(name, final_size=96, **arguments)
            sides = {
                getattr(module, attribute)
                for module in model.modules()
                for attribute in ("ws", "window_size", "window_resolution", "partition_size")
                if hasattr(module, attribute)
            }
            # TinyViT has one stage with windows twice as wide.
            assert sides <= {3, (3, 3), 6}, name


def test_windows_that_would_be_padded_are_refused():
    model = timm.create_model("samvit_base_patch16_224", img_size=64, num_classes=4, window_size=2, **VIT)
    with pytest.raises(InputError, match="would pad its grid of 5 x 5 to windows of 2 x 2"):
        fit_to_bandwidth(model, 80)
    check_sizes(model, [96])


def test_model_that_scales_images_up_again_is_refused():
    with shapes_only():
        model = timm.create_model("crossvit_tiny_240", depth=[[1, 1, 0]] * 3)
    check_sizes(model, [240])
    with pytest.raises(InputError, match="scales every image to side 240 itself"):
        fit_to_bandwidth(model, 96)
    with pytest.raises(InputError, match=r"side 96 .*scales every image"):
        check_sizes(model, [96])


class Unknown(nn.Module):
    """Replaces its own parameter when it is set to a size, as timm does."""

    def __init__(self, side):
        super().__init__()
        self.embed = nn.Conv2d(3, 4, 8, stride=8)
        self.places = nn.Parameter(torch.zeros((side // 8) ** 2, 4))

    def set_input_size(self, img_size):
        self.places = nn.Parameter(torch.zeros((img_size[0] // 8) ** 2, 4))

    def forward(self, images):
        return (self.embed(images).flatten(2).transpose(1, 2) + self.places).mean(1)


def test_what_is_unknown_is_refused_and_nothing_changes():
    model = Unknown(32)
    places = model.places
    with pytest.raises(InputError, match=r"replaces parameter places.*see upchirp\.models\.ResizableInput"):
        fit_to_bandwidth(model, 64)
    assert model.places is places and places.shape == (16, 4)


def test_table_of_another_form_is_refused_and_nothing_changes():
    model = BUILDERS["beit"](64)
    attention = model.blocks[0].attn
    attention.relative_position_bias_table = nn.Parameter(torch.zeros(51, 3))
    with pytest.raises(InputError, match=r"table of shape \(51, 3\) for windows of 4 x 4"):
        fit_to_bandwidth(model, 96)
    assert model.patch_embed.img_size == (64, 64)
