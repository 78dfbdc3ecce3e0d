import copy
import math

import pytest
import timm
import torch
from timm.layers import DropPath
from timm.models import get_model_input_config, group_modules, group_parameters
from timm.optim import param_groups_weight_decay
from torch.nn import functional

from upchirp.errors import InputError
from upchirp.models import (
    check_sizes,
    create_model,
    fit_to_bandwidth,
    size_multiple,
)

DIMS, HEADS, RATIOS = (8, 16, 40, 64), (1, 2, 5, 8), (8, 4, 2, 1)
SMALL = {"embed_dims": DIMS, "depths": (1, 1, 1, 1)}


def small(size=64, seed=0, **kwargs):
    torch.manual_seed(seed)
    return timm.create_model("pvt_tiny", img_size=size, **{"num_classes": 4, **SMALL, **kwargs}).eval()


def noise(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_made_without_values():
    with torch.device("meta"):
        model = create_model("pvt_small", final_size=96)
    assert all(tensor.is_meta for tensor in model.state_dict().values())


def official_checkpoint(size=64, seed=2):
    """Random values under the names and with the shapes of the authors' repository, one layer per stage."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"cls_token": (1, 1, DIMS[3]), "norm": DIMS[3], "head": (4, DIMS[3])}
    for i, (dim, ratio, expansion) in enumerate(zip(DIMS, RATIOS, (8, 8, 4, 4), strict=True)):
        patch, before = (4, 3) if i == 0 else (2, DIMS[i - 1])
        shapes[f"pos_embed{i + 1}"] = (1, (size // (4 * 2**i)) ** 2 + (i == 3), dim)
        shapes[f"patch_embed{i + 1}.proj"] = (dim, before, patch, patch)
        shapes[f"patch_embed{i + 1}.norm"] = dim
        block = f"block{i + 1}.0"
        shapes |= {f"{block}.norm1": dim, f"{block}.norm2": dim}
        shapes |= {f"{block}.attn.q": (dim, dim), f"{block}.attn.kv": (2 * dim, dim), f"{block}.attn.proj": (dim, dim)}
        shapes |= {f"{block}.mlp.fc1": (dim * expansion, dim), f"{block}.mlp.fc2": (dim, dim * expansion)}
        if ratio > 1:
            shapes |= {f"{block}.attn.sr": (dim, dim, ratio, ratio), f"{block}.attn.norm": dim}
    values = {}
    for name, shape in shapes.items():
        if name == "cls_token" or name.startswith("pos_embed"):
            values[name] = torch.randn(shape, generator=generator)
        elif isinstance(shape, int):
            values[f"{name}.weight"] = 1 + 0.3 * torch.randn(shape, generator=generator)
            values[f"{name}.bias"] = 0.3 * torch.randn(shape, generator=generator)
        else:
            fan_in = math.prod(shape[1:])
            values[f"{name}.weight"] = torch.randn(shape, generator=generator) / fan_in**0.5
            values[f"{name}.bias"] = 0.3 * torch.randn(shape[0], generator=generator)
    return values


def linear(values, name, x):
    return x @ values[f"{name}.weight"].T + values[f"{name}.bias"]


def normalise(values, name, x):
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    return scaled * values[f"{name}.weight"] + values[f"{name}.bias"]


def merge_patches(values, name, grid):
    """A convolution with kernel = stride on (rows, columns, C), patch by patch."""
    weight, bias = values[f"{name}.weight"], values[f"{name}.bias"]
    step = weight.shape[-1]
    rows, columns = grid.shape[0] // step, grid.shape[1] // step
    merged = [
        torch.einsum("oiyx,yxi->o", weight, grid[step * r : step * (r + 1), step * c : step * (c + 1)]) + bias
        for r in range(rows)
        for c in range(columns)
    ]
    return torch.stack(merged)


def attend(values, name, x, heads, ratio):
    """Equations 2 to 4 head by head, query by query, on tokens (N, C)."""
    source = x
    if ratio > 1:
        side = math.isqrt(len(x))
        reduced = merge_patches(values, f"{name}.sr", x.reshape(side, side, -1))
        source = normalise(values, f"{name}.norm", reduced)
    queries = linear(values, f"{name}.q", x)
    keys, contents = linear(values, f"{name}.kv", source).chunk(2, dim=1)
    width = x.shape[1] // heads
    output = torch.empty_like(x)
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        for i, query in enumerate(queries[:, part]):
            scores = torch.stack([query @ key for key in keys[:, part]]) / width**0.5
            weights = scores.exp() / scores.exp().sum()
            output[i, part] = weights @ contents[:, part]
    return linear(values, f"{name}.proj", output)


def reference(values, image):
    """The whole model on one image, written out from Section 3 of the paper, with the authors' names."""
    values = {name: value.double() for name, value in values.items()}
    grid = image.double().permute(1, 2, 0)
    for i, (heads, ratio) in enumerate(zip(HEADS, RATIOS, strict=True)):
        x = normalise(values, f"patch_embed{i + 1}.norm", merge_patches(values, f"patch_embed{i + 1}.proj", grid))
        if i == 3:
            x = torch.cat([values["cls_token"][0], x])
        x = x + values[f"pos_embed{i + 1}"][0]
        block = f"block{i + 1}.0"
        x = x + attend(values, f"{block}.attn", normalise(values, f"{block}.norm1", x), heads, ratio)
        hidden = functional.gelu(linear(values, f"{block}.mlp.fc1", normalise(values, f"{block}.norm2", x)))
        x = x + linear(values, f"{block}.mlp.fc2", hidden)
        side = math.isqrt(len(x))
        grid = x[-side * side :].reshape(side, side, -1)
    return linear(values, "head", normalise(values, "norm", x)[0])


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("ratio", [1, 2, 4])
def test_attention_written_out(ratio, fused):
    torch.manual_seed(0)
    attention = small(sr_ratios=(ratio, 1, 1, 1), num_heads=(2, 2, 5, 8)).stages[0].blocks[0].attn.double()
    attention.fused_attn = fused
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    tokens = noise(2, 64, DIMS[0]).double()
    values = {f"attn.{name}": value for name, value in attention.state_dict().items()}
    expected = torch.stack([attend(values, "attn", x, 2, ratio) for x in tokens])
    torch.testing.assert_close(attention(tokens, (8, 8)), expected)


@pytest.mark.parametrize("fused", [True, False])
def test_attention_dropout_in_training_only(fused):
    attention = small(attn_drop_rate=0.5).stages[0].blocks[0].attn
    attention.fused_attn = fused
    torch.nn.init.normal_(attention.kv.weight)
    tokens = noise(1, 256, DIMS[0])
    assert torch.equal(attention(tokens, (16, 16)), attention(tokens, (16, 16)))
    attention.train()
    assert not torch.equal(attention(tokens, (16, 16)), attention(tokens, (16, 16)))


@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
def test_official_checkpoint_gives_the_paper_s_model(tmp_path, wrapper):
    values = official_checkpoint()
    path = tmp_path / "official.pth"
    torch.save(values if wrapper is None else {wrapper: values}, path)
    model = small(checkpoint_path=path).double()
    images = noise(2, 3, 64, 64).double()
    expected = torch.stack([reference(values, image) for image in images])
    torch.testing.assert_close(model(images), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("way", ["checkpoint_path", "pretrained"])
def test_official_checkpoint_of_another_size(tmp_path, way):
    values = official_checkpoint(size=64)
    path = tmp_path / "official.pth"
    torch.save(values, path)
    overlay = {"file": str(path), "num_classes": 4}
    source = {"checkpoint_path": path} if way == "checkpoint_path" else {}
    model = small(96, pretrained=way == "pretrained", pretrained_cfg_overlay=overlay, **source)
    for i, stage in enumerate(model.stages):
        old = values[f"pos_embed{i + 1}"]
        side, prefix = 64 // (4 * 2**i), int(i == 3)
        grid = old[:, prefix:].transpose(1, 2).reshape(1, DIMS[i], side, side)
        resized = functional.interpolate(grid, scale_factor=1.5, mode="bilinear").flatten(2).transpose(1, 2)
        torch.testing.assert_close(stage.pos_embed, torch.cat([old[:, :prefix], resized], dim=1))
    assert torch.equal(model.stages[3].blocks[0].mlp.fc1.weight, values["block4.0.mlp.fc1.weight"])
    assert torch.equal(model.head.weight, values["head.weight"])


@pytest.mark.parametrize("wrapper", ["model", "state_dict"])
def test_pretrained_weights_for_other_classes_and_channels(wrapper):
    values = official_checkpoint()
    # As from a URL: timm hands the file's content over as it is.
    overlay = {"state_dict": {wrapper: values}, "num_classes": 4}
    model = small(num_classes=9, in_chans=1, pretrained=True, pretrained_cfg_overlay=overlay)
    torch.testing.assert_close(model.patch_embed.proj.weight, values["patch_embed1.proj.weight"].sum(1, keepdim=True))
    assert model.head.weight.shape == (9, DIMS[3])


def test_own_checkpoint_of_another_size_stays_an_error():
    with pytest.raises(RuntimeError, match=r"size mismatch for stages\.0\.pos_embed"):
        small(96).load_state_dict(small(64).state_dict())


def test_official_positions_that_are_no_square():
    values = official_checkpoint()
    values["pos_embed2"] = values["pos_embed2"][:, :-1]
    with pytest.raises(InputError, match=r"stages\.1\.pos_embed of the checkpoint has 63 positions"):
        small().load_state_dict(values)


def test_official_names_below_a_prefix():
    wrapped = torch.nn.Sequential(small())
    wrapped.load_state_dict({f"0.{name}": value for name, value in official_checkpoint().items()})
    assert torch.equal(wrapped[0].stages[3].cls_token, official_checkpoint()["cls_token"])


@pytest.mark.parametrize("change", ["fit", "set_input_size"])
def test_fitted_model_is_a_model_built_at_the_size(change):
    model = create_model("pvt_tiny", num_classes=4, final_size=96, **SMALL).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    identities = {name: id(parameter) for name, parameter in model.named_parameters()}
    token = model.stages[3].pos_embed[:, 0].clone()
    for size in (160, 224):
        fit_to_bandwidth(model, size) if change == "fit" else model.set_input_size(img_size=(size, size))
        assert {name: id(parameter) for name, parameter in model.named_parameters()} == identities
    assert torch.equal(model.stages[3].pos_embed[:, 0], token)
    assert get_model_input_config(model)["input_size"] == (3, 224, 224)
    fresh = small(224)
    fresh.load_state_dict(model.state_dict(), strict=True)
    images = noise(2, 3, 224, 224)
    torch.testing.assert_close(model(images), fresh(images), rtol=0, atol=0)


def test_sizes_that_are_not_square():
    model, wide = small(), small((64, 96))
    model.set_input_size((64, 96))
    wide.load_state_dict(model.state_dict(), strict=True)
    images = noise(1, 3, 64, 96)
    assert torch.equal(model(images), wide(images))
    model.set_input_size()
    assert model.patch_embed.img_size == (64, 96)


def test_training_across_bandwidths():
    model = small(96, drop_path_rate=0.1).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    labels = torch.arange(4)
    losses = []
    for size in (96, 160, 224):
        fit_to_bandwidth(model, size, optimizer)
        colours = torch.eye(4, 3)[:, :, None, None].expand(4, 3, size, size)
        for step in range(5):
            loss = functional.cross_entropy(model(colours + 0.1 * noise(4, 3, size, size, seed=step)), labels)
            optimizer.zero_grad()
            loss.backward()
            without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
            assert not without
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert held == {id(parameter) for parameter in model.parameters()}
    for parameter in model.parameters():
        state = optimizer.state[parameter]
        assert state["exp_avg"].shape == state["exp_avg_sq"].shape == parameter.shape
        assert (state["exp_avg_sq"] >= 0).all() and parameter.isfinite().all()


@pytest.mark.parametrize("size", [64, 96, 224])
def test_size_multiple(size):
    model = create_model("pvt_tiny", final_size=size, num_classes=4, **SMALL)
    assert size_multiple(model) == 32
    check_sizes(model, [32, 64, 160, 224])


def test_size_multiple_of_a_stronger_reduction():
    # 4 pixels a token, 16 tokens a key.
    assert size_multiple(small(128, sr_ratios=(16, 4, 2, 1))) == 64
    with pytest.raises(InputError, match=r"side 96: .* multiples of 64 only"):
        small(96, sr_ratios=(16, 4, 2, 1))


def test_sizes_that_cannot_be_taken():
    with pytest.raises(InputError, match=r"pvt_tiny cannot take images of side 100 .*nearest that work are 96 and 128"):
        create_model("pvt_tiny", final_size=100)
    message = "PyramidVisionTransformer cannot take images of side 80: .* multiples of 32 only"
    with pytest.raises(InputError, match=message):
        small(80)
    model = small()
    before = copy.deepcopy(model.state_dict())
    for change in (lambda: fit_to_bandwidth(model, 80), lambda: model.set_input_size((64, 80))):
        with pytest.raises(InputError, match=message):
            change()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(AssertionError, match=r"Input height \(96\) doesn't match model \(64\)"):
        model(noise(1, 3, 96, 96))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depths": (1, 1, 1)}, "one value per stage"),
        ({"sr_ratios": (8, 4, 2, 2)}, "last of sr_ratios is 2: choose 1"),
        ({"num_heads": (3, 2, 5, 8)}, "3 heads do not divide 8 channels"),
        ({"global_pool": "max"}, "global_pool is 'max': choose one of 'token', 'avg', ''"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        small(**arguments)


def test_head():
    model = small()
    images = noise(2, 3, 64, 64)
    tokens = model.forward_features(images)
    assert tokens.shape == (2, 1 + 4, DIMS[3])
    features = model.forward_head(tokens, pre_logits=True)
    assert model.num_features == model.head_hidden_size == features.shape[1]
    assert torch.equal(features, tokens[:, 0])
    assert torch.equal(model.get_classifier()(features), model(images))
    model.reset_classifier(7, "avg")
    assert model.num_classes == 7
    torch.testing.assert_close(model(images), model.head(tokens[:, 1:].mean(1)))
    model.reset_classifier(0)
    torch.testing.assert_close(model(images), tokens[:, 1:].mean(1))
    model.reset_classifier(0, "")
    assert torch.equal(model(images), tokens)


def test_other_channels():
    assert small(in_chans=1)(noise(1, 1, 64, 64)).shape == (1, 4)
    assert size_multiple(small(in_chans=5)) == 32


def test_intermediates():
    model = small()
    images = noise(2, 3, 64, 64)
    final, maps = model.forward_intermediates(images)
    assert torch.equal(final, model.forward_features(images))
    assert [map.shape for map in maps] == [(2, dim, 16 // 2**i, 16 // 2**i) for i, dim in enumerate(DIMS)]
    (last,) = model.forward_intermediates(images, indices=1, norm=True, intermediates_only=True)
    # Row by row, and the class token left out.
    assert torch.equal(last[:, :, 0, 1], final[:, 2]) and torch.equal(last[:, :, 1, 0], final[:, 3])
    tokens, early = model.forward_intermediates(images, indices=[0, 1], stop_early=True)
    assert all(torch.equal(a, b) for a, b in zip(early, maps, strict=False)) and len(early) == 2
    assert torch.equal(tokens.transpose(1, 2).reshape(maps[1].shape), maps[1])
    with pytest.raises(InputError, match="output_fmt is 'NLC'"):
        model.forward_intermediates(images, output_fmt="NLC")


def test_pruned():
    model = small()
    images = noise(1, 3, 64, 64)
    maps = model.forward_intermediates(images, intermediates_only=True)
    assert model.prune_intermediate_layers([0, -3]) == [0, 1]
    assert torch.equal(model.forward_intermediates(images, intermediates_only=True)[1], maps[1])
    assert model.num_features == model(images).shape[-1] == DIMS[1]
    fit_to_bandwidth(model, 96)
    assert model(noise(1, 3, 96, 96)).shape == (1, 12 * 12, DIMS[1])
    with pytest.raises(InputError, match="choose one of 'avg', ''"):
        model.reset_classifier(3, "token")


def test_features_only():
    torch.manual_seed(0)
    backbone = timm.create_model("pvt_tiny", img_size=64, features_only=True, **SMALL).eval()
    assert backbone.feature_info.reduction() == [4, 8, 16, 32]
    assert backbone.feature_info.channels() == list(DIMS)
    for size in (64, 96):
        fit_to_bandwidth(backbone, size)
        shapes = [map.shape for map in backbone(noise(1, 3, size, size))]
        assert shapes == [(1, dim, size // 4 // 2**i, size // 4 // 2**i) for i, dim in enumerate(DIMS)]
    assert size_multiple(backbone) == 32
    some = timm.create_model("pvt_tiny", img_size=64, features_only=True, out_indices=(1, -2), **SMALL)
    assert [map.shape[1] for map in some(noise(1, 3, 64, 64))] == [DIMS[1], DIMS[2]]


def test_drop_rates():
    model = small(
        depths=(1, 2, 1, 1),
        drop_rate=0.1,
        pos_drop_rate=0.2,
        proj_drop_rate=0.3,
        attn_drop_rate=0.4,
        drop_path_rate=0.5,
    )
    rates = [module.drop_prob for module in model.modules() if isinstance(module, DropPath)]
    # Linear over the five layers, two branches each; the first has none.
    assert rates == pytest.approx([0.125, 0.125, 0.25, 0.25, 0.375, 0.375, 0.5, 0.5])
    block = model.stages[1].blocks[1]
    dropouts = (model.head_drop, model.stages[1].pos_drop, block.attn.proj_drop, block.mlp.drop2, block.attn.attn_drop)
    assert [dropout.p for dropout in dropouts] == [0.1, 0.2, 0.3, 0.3, 0.4]
    assert not any(isinstance(module, DropPath) for module in small().modules())


def test_initial_weights():
    with torch.no_grad():
        model = small(size=224, embed_dims=(64, 64, 80, 64))
    parameters = dict(model.named_parameters())
    for name in ("stages.0.pos_embed", "stages.3.cls_token", "stages.0.blocks.0.attn.kv.weight"):
        assert parameters[name].std().item() == pytest.approx(0.02, rel=0.3), name
    assert not parameters["stages.0.blocks.0.attn.kv.bias"].any()


def test_gradient_checkpointing():
    model = small(drop_path_rate=0.3, proj_drop_rate=0.2).train()
    calls = []
    for stage in model.stages:
        stage.blocks[0].attn.register_forward_pre_hook(lambda *_: calls.append(1))

    def gradients(enable):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        torch.manual_seed(5)
        model(noise(2, 3, 64, 64)).square().sum().backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    plain = gradients(False)
    assert len(calls) == 4
    recomputed = gradients(True)
    assert len(calls) == 4 + 8
    torch.testing.assert_close(recomputed, plain, rtol=0, atol=0)


@pytest.mark.parametrize(("coarse", "groups"), [(True, 4), (False, 5)])
def test_group_matcher(coarse, groups):
    model = small(depths=(1, 2, 1, 1))
    matcher = model.group_matcher(coarse=coarse)
    layer = group_parameters(model, matcher, reverse=True)
    assert layer.keys() == dict(model.named_parameters()).keys()
    last = 1 + groups
    # A stem, the stages or their layers in order, and what no pattern matched: the classifier.
    assert set(layer.values()) == set(range(last + 1))
    assert {name for name in layer if layer[name] == last} == {"head.weight", "head.bias"}
    assert {name.split(".")[0] for name in layer if layer[name] == 0} == {"patch_embed"}
    assert layer["norm.weight"] == layer["stages.3.blocks.0.mlp.fc2.bias"] == layer["stages.3.cls_token"] == last - 1
    assert layer["stages.1.downsample.proj.weight"] == layer["stages.1.pos_embed"] == 2
    assert layer["stages.1.blocks.1.norm1.weight"] == (2 if coarse else 3)
    modules = group_modules(model, matcher, reverse=True)
    assert all(layer[f"{name}.weight"] == modules[name] for name in modules if f"{name}.weight" in layer)


def test_no_weight_decay():
    model = small()
    spared = model.no_weight_decay()
    assert spared == {*(f"stages.{i}.pos_embed" for i in range(4)), "stages.3.cls_token"}
    parameters = dict(model.named_parameters())
    without, decayed = param_groups_weight_decay(model, 0.05, no_weight_decay_list=spared)
    assert {id(parameters[name]) for name in spared} <= {id(parameter) for parameter in without["params"]}
    assert len(without["params"]) + len(decayed["params"]) == len(parameters)
