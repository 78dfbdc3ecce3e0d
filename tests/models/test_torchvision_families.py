import copy

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torchvision.models import VisionTransformer
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformer, SwinTransformerBlockV2

from upchirp import InputError, fit_to_bandwidth, size_multiple
from upchirp.models import check_sizes


def swin(**changes):
    settings = {"embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2], "window_size": [7, 7], "num_classes": 4}
    return SwinTransformer(**{"patch_size": [4, 4], **settings, **changes})


def swin_v2():
    return swin(window_size=[8, 8], block=SwinTransformerBlockV2, downsample_layer=PatchMergingV2)


def vit():
    return VisionTransformer(
        image_size=64, patch_size=8, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=16, num_classes=4
    )


# The model, the side it is for, another one, and the multiple of sides.
MODELS = {"Swin": (swin, 56, 24, 8), "Swin V2": (swin_v2, 64, 24, 8), "ViT": (vit, 64, 24, 8)}


@pytest.mark.parametrize("family", MODELS)
def test_trains_at_another_side_and_comes_back_as_it_was(family):
    make, own, other, multiple = MODELS[family]
    torch.manual_seed(0)
    model = make()
    average = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters())
    assert size_multiple(model) == multiple
    check_sizes(model, [own, other])
    names = {name: value.shape for name, value in model.state_dict().items()}
    images = torch.randn(2, 3, own, own)
    right = copy.deepcopy(model).eval()(images)
    for side in (own, other, own):
        fit_to_bandwidth(model, side, optimizer, average)
        (model(torch.randn(2, 3, side, side)) - 1).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        average(torch.randn(1, 3, side, side))
    assert {name: value.shape for name, value in model.state_dict().items()} == names
    untouched = make()
    untouched.load_state_dict(model.state_dict())
    torch.testing.assert_close(untouched.eval()(images), model.eval()(images))
    assert not torch.allclose(model.eval()(images), right)


@pytest.mark.parametrize("family", ["Swin", "Swin V2"])
def test_windows_of_swin_follow_the_image_and_pad_nothing(family):
    make, own, other, _ = MODELS[family]
    model = make()
    seen = []

    def look(attention, inputs):
        seen.append((inputs[0].shape[1], attention.window_size[0], attention.shift_size[0]))

    for attention in [module for module in model.modules() if hasattr(module, "shift_size")]:
        attention.register_forward_pre_hook(look)
    for side in (other, own):
        fit_to_bandwidth(model, side)
        model(torch.zeros(1, 3, side, side))
        window = side // 8
        assert seen == [(2 * window, window, 0), (window, window, 0), (window, window, window // 2)]
        seen.clear()
    with pytest.raises(InputError, match="multiples of 8 only"):
        fit_to_bandwidth(model, own + 4)


def test_windows_of_one_cell():
    fit_to_bandwidth(model := swin(), 8)
    assert model(torch.zeros(1, 3, 8, 8)).isfinite().all()
    with pytest.raises(InputError, match="windows would be of one cell"):
        fit_to_bandwidth(swin_v2(), 8)


class OwnPositions(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 4, 16, 16)
        self.positions = nn.Parameter(torch.zeros(1, 4, 14, 14))
        self.head = nn.Linear(4, 4)

    def forward(self, images):
        return self.head((self.patches(images) + self.positions).mean((2, 3)))


def test_positions_that_nobody_knows_are_named_in_one_line():
    model = OwnPositions()
    assert fit_to_bandwidth(model, 224) is False
    with pytest.raises(InputError, match=r"OwnPositions cannot take images of side 96 .*ResizableInput") as raised:
        fit_to_bandwidth(model, 96)
    assert len(str(raised.value).splitlines()) == 1


def test_a_model_that_runs_at_no_size_is_left_to_its_owner():
    class Two(nn.Module):
        def forward(self, left, right):
            return left + right

    assert fit_to_bandwidth(Two(), 96) is False


def test_inside_distributed_data_parallel_only_what_keeps_its_parameters(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        net = vit()
        with pytest.raises(InputError, match=r"model = DistributedDataParallel\(module\)"):
            fit_to_bandwidth(DistributedDataParallel(net), 24)
        assert net.image_size == 64
        assert fit_to_bandwidth(net, 24) is True
        assert fit_to_bandwidth(DistributedDataParallel(net), 24) is False
        assert fit_to_bandwidth(DistributedDataParallel(nn.Conv2d(3, 4, 3)), 24) is False
    finally:
        torch.distributed.destroy_process_group()
