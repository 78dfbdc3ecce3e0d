"""Batch norms of several ranks, and down-sampling without aliases."""

import copy

import pytest
import torch
from tests.runs import Make
from timm.layers import BatchNormAct2d
from torch import nn

from upchirp import InputError, train
from upchirp.models import create_model, fit_to_bandwidth
from upchirp.models.unused import has_unused_parameters
from upchirp.training.parallel.ranks import Ranks
from upchirp.training.parallel.whole import Replicated


def test_batch_norms_come_to_count_together_and_keep_their_weights_and_names() -> None:
    # It has plain batch norms, and timm's with an activation in them.
    model = create_model("test_efficientnet", num_classes=2, final_size=64).eval()
    assert any(isinstance(module, BatchNormAct2d) for module in model.modules())
    parameters, images = dict(model.named_parameters()), torch.randn(1, 3, 64, 64)
    before = model(images)
    for sync_bn in (False, True):
        trained = Replicated(Ranks(), sync_bn=sync_bn)
        trained.share_out([model, copy.deepcopy(model)], [64], torch.device("cpu"))
        norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        assert all(isinstance(norm, nn.SyncBatchNorm) == sync_bn for norm in norms)
        assert trained.may_redo != sync_bn
    assert all(parameter is parameters[name] for name, parameter in model.named_parameters())
    torch.testing.assert_close(model(images), before)
    # A forward pass in training would wait for the other ranks.
    assert not has_unused_parameters(model, 64)


def test_batch_norms_count_together_on_cuda_devices_alone(config: Make) -> None:
    run = config(sync_bn=True)
    with pytest.raises(InputError, match="`sync_bn` takes CUDA devices, one for each rank, and this is cpu"):
        train(run)
    assert run.output is not None
    assert not run.output.exists()
    with pytest.raises(InputError, match="`parallel='fsdp'` does not go with `sync_bn`"):
        config(sync_bn=True, parallel="fsdp", opt="adamw")


@pytest.mark.parametrize(
    ("name", "layer"), [("resnet10t", "blurpc"), ("resnet10t", "blur"), ("test_efficientnet", "blurpool")]
)
def test_blurred_down_sampling_takes_every_bandwidth(name: str, layer: str) -> None:
    torch.manual_seed(0)
    options = {"channels": (8, 8, 16, 16)} if name == "resnet10t" else {}
    model = create_model(name, num_classes=2, final_size=64, aa_layer=layer, **options)
    assert any("Blur" in type(module).__name__ for module in model.modules())
    for side in (32, 64):
        fit_to_bandwidth(model, side)
        model(torch.randn(2, 3, side, side)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_one_value_of_each_channel_is_told_in_one_line(config: Make) -> None:
    run = config(model="test_resnet", model_kwargs={}, final_size=32, batch_size=1, micro_batch=None, mixup=0.0)
    with pytest.raises(InputError, match=r"one value of each channel, .*: give a larger `batch_size`") as caught:
        train(run)
    assert "\n" not in str(caught.value)
