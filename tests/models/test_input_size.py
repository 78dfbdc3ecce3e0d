import copy

import numpy as np
import pytest
import timm
import torch
from timm.optim import Lamb
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn import functional

from upchirp.errors import InputError
from upchirp.models import GridChange, at_size, check_sizes, create_model, fit_to_bandwidth, size_multiple

SWIN = "swin_tiny_patch4_window7_224"
SMALL = {
    "deit_tiny_patch16_224": {"embed_dim": 24, "depth": 1, "num_heads": 3},
    "deit_tiny_distilled_patch16_224": {"embed_dim": 24, "depth": 1, "num_heads": 3},
    # Registers, and positions for patches only.
    "vit_tiny_patch16_224": {
        "embed_dim": 24,
        "depth": 1,
        "num_heads": 3,
        "reg_tokens": 2,
        "no_embed_class": True,
    },
    SWIN: {"embed_dim": 12, "depths": (1, 2, 1, 1), "num_heads": (1, 2, 3, 3)},
}
OPTIMIZERS = {
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=1e-3, amsgrad=True),
    "adamw_fused": lambda parameters: torch.optim.AdamW(parameters, lr=1e-3, fused=True),
    "lamb": lambda parameters: Lamb(parameters, lr=1e-3),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=1e-2, momentum=0.9, nesterov=True),
}


def small(name, final_size=96, seed=0, **kwargs):
    torch.manual_seed(seed)
    return create_model(name, num_classes=4, final_size=final_size, **SMALL.get(name, {}), **kwargs)


def step(model, optimizer, size, seed=0):
    """One training step; the loss is returned, so that the caller can keep its graph alive."""
    generator = torch.Generator().manual_seed(seed)
    output = model(torch.randn(2, 3, size, size, generator=generator))
    output = output[0] if isinstance(output, tuple) else output
    loss = functional.cross_entropy(output, torch.tensor([0, 3]))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


def positions(model):
    """The parameters that depend on the size: name -> (parameter, tokens in front)."""
    found = {}
    for name, parameter in model.named_parameters():
        if name.endswith("pos_embed"):
            area = model.patch_embed.num_patches
            found[name] = (parameter, parameter.shape[1] - area)
        elif name.endswith("relative_position_bias_table"):
            found[name] = (parameter, 0)
    assert found
    return found


def half_pixel_weights(old, new):
    """The (new, old) matrix of linear interpolation at cell centres."""
    weights = np.zeros((new, old))
    for i in range(new):
        x = min(max((i + 0.5) * old / new - 0.5, 0), old - 1)
        left = int(x)
        weights[i, left] += 1 - (x - left)
        weights[i, min(left + 1, old - 1)] += x - left
    return weights


def expected(values, prefix, entries):
    """Interpolate the square grid in `values`, (1, T, C) or (T, C), to `entries`, by matrix products."""
    flat = values.detach().double().numpy().reshape(-1, values.shape[-1])
    old = int((len(flat) - prefix) ** 0.5)
    new = int((entries - prefix) ** 0.5)
    weights = half_pixel_weights(old, new)
    grid = flat[prefix:].reshape(old, old, -1)
    resized = np.einsum("ia,jb,abc->ijc", weights, weights, grid).reshape(new * new, -1)
    return torch.from_numpy(np.concatenate([flat[:prefix], resized]).reshape(*values.shape[:-2], entries, -1))


@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
@pytest.mark.parametrize("name", SMALL)
def test_training_across_bandwidths(name, optimizer_name):
    model = small(name)
    optimizer = OPTIMIZERS[optimizer_name](model.parameters())
    ema = ModelEmaV3(model, decay=0.5)
    identities = [id(parameter) for parameter in model.parameters()]
    loss = None
    for old, new in ((96, 160), (160, 224)):
        for seed in range(2):
            loss = step(model, optimizer, old, seed)
            ema.update(model)
        gradients = {key: p.grad.clone() for key, (p, _) in positions(model).items()}
        before = copy.deepcopy({key: (p.data, dict(optimizer.state[p]), k) for key, (p, k) in positions(model).items()})
        average = {key: p.clone() for key, (p, _) in positions(ema.module).items()}
        others = {key: p.clone() for key, p in model.named_parameters() if key not in before}

        fit_to_bandwidth(model, new, optimizer, ema)

        assert [id(parameter) for parameter in model.parameters()] == identities
        assert [id(p) for group in optimizer.param_groups for p in group["params"]] == identities
        for key, (parameter, _) in positions(model).items():
            values, state, prefix = before[key]
            assert parameter.shape != values.shape
            entries = parameter.shape[-2]
            assert parameter.requires_grad
            torch.testing.assert_close(
                parameter.grad.double(), expected(gradients[key], prefix, entries), rtol=0, atol=1e-6
            )
            torch.testing.assert_close(parameter.data.double(), expected(values, prefix, entries), rtol=0, atol=1e-6)
            smoothed = positions(ema.module)[key][0]
            torch.testing.assert_close(smoothed.double(), expected(average[key], prefix, entries), rtol=0, atol=1e-6)
            moments = {k: v for k, v in state.items() if torch.is_tensor(v) and v.numel() > 1}
            assert moments
            for moment, old_values in moments.items():
                resized = optimizer.state[parameter][moment]
                assert resized.shape == parameter.shape
                torch.testing.assert_close(
                    resized.double(), expected(old_values, prefix, entries), rtol=1e-5, atol=1e-9
                )
                if moment.endswith("_sq"):
                    assert (resized >= 0).all()
        for key, parameter in model.named_parameters():
            if key in others:
                assert torch.equal(parameter, others[key]), key
        # The loss of the last step, and with it the old graph, is still alive here, as in most loops.
        assert loss is not None
        loss = step(model, optimizer, new)
        ema.update(model)
        assert loss.isfinite()
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("size", [96, 128, 224])
@pytest.mark.parametrize("name", SMALL)
def test_fitted_model_is_a_model_built_at_the_size(name, size):
    # Built where windows are one patch wide, so that shifted windows must come into being.
    model = small(name, final_size=32).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    fit_to_bandwidth(model, 160)
    fit_to_bandwidth(model, size)
    windows = {"window_size": size // 32} if name == SWIN else {}
    fresh = timm.create_model(name, num_classes=4, img_size=size, **SMALL[name], **windows).eval()
    fresh.load_state_dict(model.state_dict(), strict=True)
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(model(images), fresh(images), rtol=0, atol=0)
    for (key, mine), (_, theirs) in zip(model.named_buffers(), fresh.named_buffers(), strict=True):
        assert torch.equal(mine, theirs), key


@pytest.mark.parametrize("name", [*SMALL, "resnet10t", "convnext_atto"])
def test_current_size_changes_nothing(name):
    model = small(name)
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    step(model, optimizer, 96)
    state = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    pointers = [(p.data_ptr(), p.grad.data_ptr()) for p in model.parameters() if p.grad is not None]
    fit_to_bandwidth(model, 96, optimizer, copy.deepcopy(model))
    assert [(p.data_ptr(), p.grad.data_ptr()) for p in model.parameters() if p.grad is not None] == pointers
    torch.testing.assert_close((model.state_dict(), optimizer.state_dict()), state, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["resnet10t", "convnext_atto"])
def test_models_that_need_nothing(name):
    model = small(name)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    step(model, optimizer, 96)
    state = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    fit_to_bandwidth(model, 64, optimizer, copy.deepcopy(model))
    torch.testing.assert_close((model.state_dict(), optimizer.state_dict()), state, rtol=0, atol=0)
    assert step(model, optimizer, 64).isfinite()


def test_average_lags_and_catches_up():
    model = small("deit_tiny_patch16_224")
    ema = copy.deepcopy(model)
    fit_to_bandwidth(model, 64)
    fit_to_bandwidth(model, 64, ema=ema)
    assert torch.equal(ema.pos_embed, model.pos_embed)


@pytest.mark.parametrize("wrap", [torch.optim.swa_utils.AveragedModel, copy.deepcopy, ModelEmaV3])
def test_wrappers_of_an_average(wrap):
    model = small("deit_tiny_patch16_224")
    ema = wrap(model)
    fit_to_bandwidth(model, 64, ema=ema)
    inner = getattr(ema, "module", ema)
    assert torch.equal(inner.pos_embed, model.pos_embed)


def test_average_of_something_else():
    with pytest.raises(InputError, match="moving average is a Linear"):
        fit_to_bandwidth(small("deit_tiny_patch16_224"), 64, ema=nn.Linear(1, 1))


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel])
def test_wrapped_models(wrap):
    model = small("deit_tiny_patch16_224")
    # Wrapping compiles nothing: the first call would.
    fit_to_bandwidth(wrap(model), 64)
    assert model.pos_embed.shape == (1, 17, 24)
    assert size_multiple(wrap(model)) == 16
    check_sizes(wrap(model), [32])


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", SWIN])
@pytest.mark.parametrize("key", ["exp_avg_sq_row", "preconditioners"])
def test_optimizer_state_of_another_shape_is_refused_and_nothing_changes(name, key):
    model = small(name)
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    step(model, optimizer, 96)
    # The last of the parameters concerned, so that an early change to the others would show.
    parameter = list(positions(model).values())[-1][0]
    optimizer.state[parameter][key] = {
        "exp_avg_sq_row": torch.zeros(parameter.shape[-1]),
        "preconditioners": [torch.eye(3)],
    }[key]
    ema = copy.deepcopy(model)
    state = copy.deepcopy((model.state_dict(), optimizer.state_dict(), ema.state_dict()))
    with pytest.raises(InputError, match=f"AdamW keeps state '{key}'"):
        fit_to_bandwidth(model, 64, optimizer, ema)
    torch.testing.assert_close((model.state_dict(), optimizer.state_dict(), ema.state_dict()), state, rtol=0, atol=0)
    assert model.patch_embed.img_size == ema.patch_embed.img_size == (96, 96)


def test_state_of_other_parameters_does_not_matter():
    model = small("deit_tiny_patch16_224")
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    step(model, optimizer, 96)
    optimizer.state[model.head.weight]["z"] = torch.zeros_like(model.head.weight)
    fit_to_bandwidth(model, 64, optimizer)


def test_optimizer_without_state_yet():
    model = small("deit_tiny_patch16_224")
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    fit_to_bandwidth(model, 64, optimizer)
    assert not optimizer.state
    assert step(model, optimizer, 64).isfinite()


def test_frozen_positions_stay_frozen():
    model = small("deit_tiny_patch16_224")
    model.pos_embed.requires_grad_(False)
    fit_to_bandwidth(model, 64)
    assert not model.pos_embed.requires_grad and model.pos_embed.shape == (1, 17, 24)


def test_dynamic_positions_are_left_alone():
    model = small("deit_tiny_patch16_224", dynamic_img_size=True)
    before = model.pos_embed.clone()
    fit_to_bandwidth(model, 64)
    assert torch.equal(model.pos_embed, before)
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 4)


def test_rotary_positions():
    torch.manual_seed(0)
    model = create_model("eva02_tiny_patch14_224", final_size=112, depth=1, embed_dim=24, num_heads=3, num_classes=4)
    fit_to_bandwidth(model, 56)
    fresh = timm.create_model("eva02_tiny_patch14_224", img_size=56, depth=1, embed_dim=24, num_heads=3, num_classes=4)
    fresh.load_state_dict(model.state_dict(), strict=True)
    images = torch.randn(1, 3, 56, 56)
    torch.testing.assert_close(model.eval()(images), fresh.eval()(images))


@pytest.mark.parametrize(("name", "bad", "multiple"), [("deit_tiny_patch16_224", 100, 16), (SWIN, 112, 32)])
def test_bandwidth_that_patches_or_windows_do_not_divide(name, bad, multiple):
    model = small(name)
    with pytest.raises(InputError, match=f"side {bad}: its patches or windows divide multiples of {multiple} only"):
        fit_to_bandwidth(model, bad)
    with pytest.raises(InputError, match="side of 0"):
        fit_to_bandwidth(model, 0)


class Positions(nn.Module):
    """A user's own backbone with positions laid out channels first, joined in by the two methods."""

    def __init__(self, side):
        super().__init__()
        self.embed = nn.Conv2d(3, 5, 8, stride=8)
        self.side = side // 8
        self.table = nn.Parameter(torch.randn(5, self.side**2))
        self.head = nn.Linear(5, 4)

    def grid_changes(self, bandwidth):
        if bandwidth % 8:
            raise InputError(f"{bandwidth} is no multiple of 8")
        old, new = (self.side, self.side), (bandwidth // 8, bandwidth // 8)
        return [] if old == new else [GridChange(self.table, old, new, dim=1)]

    def set_bandwidth(self, bandwidth):
        self.side = bandwidth // 8

    def forward(self, images):
        return self.head((self.embed(images).flatten(2) + self.table).mean(-1))


def test_module_of_ones_own():
    torch.manual_seed(0)
    model = nn.Sequential(Positions(32))
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    step(model, optimizer, 32)
    table, before = model[0].table, model[0].table.detach().clone()
    check_sizes(model, [32, 64, 96])
    fit_to_bandwidth(model, 64, optimizer)
    assert model[0].table is table
    torch.testing.assert_close(table.data.T.double(), expected(before.T, 0, 64), rtol=0, atol=1e-6)
    assert optimizer.state[table]["exp_avg_sq"].shape == table.shape
    assert step(model, optimizer, 64).isfinite()
    with pytest.raises(InputError, match="side 60"):
        check_sizes(model, [60])


class OneSize(nn.Module):
    """Takes the size it is set to, and loses pixels unless 30 divides it."""

    size_multiple = 6

    def __init__(self, img_size):
        super().__init__()
        self.img_size = img_size
        self.side = max(img_size) if isinstance(img_size, tuple) else img_size
        self.embed = nn.Conv2d(3, 4, 5, stride=5)

    def grid_changes(self, bandwidth):
        return []

    def set_bandwidth(self, bandwidth):
        self.img_size = self.side = bandwidth

    def forward(self, images):
        if images.shape[-1] != self.side:
            raise RuntimeError("another size")
        return self.embed(images)


@pytest.mark.parametrize("img_size", [90, (90, 90)])
def test_module_of_ones_own_declares_its_size(img_size):
    model = nn.Sequential(OneSize(img_size))
    assert size_multiple(model) == 30
    with pytest.raises(InputError, match=r"side 96 .*multiples of 30 only.*nearest that work are 90 and 120"):
        check_sizes(model, [60, 96])


@pytest.mark.parametrize(
    ("name", "multiple"),
    [
        ("resnet10t", 2),
        ("resnet50", 2),
        ("convnext_atto", 32),
        ("caformer_s18", 4),
        ("deit_tiny_patch16_224", 16),
        ("vit_small_patch14_dinov2", 14),
        (SWIN, 32),
        ("inception_v3", 1),
    ],
)
def test_size_multiple(name, multiple):
    with torch.device("meta"):
        model = timm.create_model(name)
    assert size_multiple(model) == multiple


class Network(nn.Module):
    """A plain network for one size only."""

    def __init__(self, side):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 4, stride=4), nn.ReLU(), nn.Conv2d(4, 4, 2, stride=2))
        self.head = nn.Linear(4 * (side // 8) ** 2, 3)

    def forward(self, images):
        return self.head(self.features(images).flatten(1))


def test_plain_network_of_fixed_size():
    model = Network(32)
    assert size_multiple(model) == 8
    check_sizes(model, [32])
    with pytest.raises(InputError, match=r"Network cannot take images of side 24 .*nearest that work are 32"):
        check_sizes(model, [32, 24])
    with pytest.raises(InputError, match=r"side 30 .*multiples of 8 only"):
        check_sizes(model, [30])


class Valued(nn.Module):
    """Runs only where tensors have values."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 2, stride=2)

    def forward(self, images):
        return self.conv(images) if float(images.sum()) == 0.0 else images


def test_an_operator_without_meta_kernel_is_no_reason_to_refuse():
    check_sizes(Valued(), [32, 64])


def test_checking_leaves_the_model_alone():
    model = small(SWIN)
    model.train()
    seen = []
    model.register_forward_pre_hook(lambda *_: seen.append(1))
    before, rng = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    check_sizes(model, [32, 64, 224])
    size_multiple(model)
    assert not seen and model.training and model.patch_embed.img_size == (96, 96)
    assert torch.equal(torch.get_rng_state(), rng)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "bad", "nearest"),
    [("resnet10t", 95, "94 and 96"), ("deit_tiny_patch16_224", 100, "96 and 112"), (SWIN, 48, "32 and 64")],
)
def test_check_names_the_nearest_sizes(name, bad, nearest):
    model = small(name)
    check_sizes(model, [32, 64, 160])
    with pytest.raises(InputError, match=f"{name} cannot take images of side {bad} .*{nearest}"):
        check_sizes(model, [96, bad])


def test_padded_windows_are_replaced_by_the_published_rule():
    # 7 x 7 windows don't divide the 24 x 24 patches of a 96 px image: timm would pad them.
    model = timm.create_model(SWIN, num_classes=4, img_size=96, **SMALL[SWIN])
    assert size_multiple(model) == 32
    for size in (96, 64):
        fit_to_bandwidth(model, size)
        assert {block.window_size[0] for stage in model.layers for block in stage.blocks} == {size // 32}


def test_windows_of_unequal_stages_keep_their_share():
    with torch.device("meta"):
        model = create_model("swin_s3_tiny_224", final_size=224, depths=(1, 1, 1, 1), embed_dim=24)
    for size, windows in ((96, [3, 3, 6, 3]), (224, [7, 7, 14, 7])):
        fit_to_bandwidth(model, size)
        assert [stage.blocks[0].window_size[0] for stage in model.layers] == windows


def test_another_size_for_a_while_leaves_the_model_as_it_is():
    model = create_model("vit_tiny_patch16_224", depth=2, embed_dim=24, num_classes=2, final_size=64).train()
    fit_to_bandwidth(model, 32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with at_size(torch.compile(model), 64) as whole:
        assert whole(torch.zeros(1, 3, 64, 64)).shape == (1, 2)
        assert whole is not model
    with at_size(model, 32) as same:
        assert same is model
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(InputError, match="30"), at_size(model, 30):
        pass


def test_a_model_that_needs_nothing_is_looked_through_once(monkeypatch):
    def asked(module):
        raise AssertionError(type(module))

    model = create_model("test_resnet", num_classes=2)
    fit_to_bandwidth(model, 32)
    monkeypatch.setattr("upchirp.models.resizing.families._FAMILIES", (asked,))
    assert not fit_to_bandwidth(model, 32)
    model.fc = nn.Linear(4, 2)
    with pytest.raises(AssertionError, match="Linear"):
        fit_to_bandwidth(model, 32)
