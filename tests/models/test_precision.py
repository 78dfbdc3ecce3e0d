import platform

import pytest
import torch
from torch import nn

import upchirp
from upchirp import Curriculum, Phase
from upchirp.data import Augmentation
from upchirp.models import computes, precision
from upchirp.training import Optimization, Trainer
from upchirp.training.probing.probe import grey_batch

# Channels, kernel, stride, padding, groups, sides of the map. Computed in bfloat16 the first six leave garbage on CPUs
# with AVX-512; the others never did.
SHAPES = [
    (32, 3, 2, 1, 1, (1, 1)),
    (32, 7, 2, 3, 32, (1, 1)),
    (16, 3, 4, 1, 1, (2, 2)),
    (16, 3, 3, 1, 2, (3, 2)),
    (16, 5, 4, 2, 1, (14, 3)),
    (64, 3, 2, 1, 1, (4, 1)),
    (16, 3, 1, 1, 1, (1, 1)),
    (16, 3, 2, 1, 1, (2, 2)),
    (16, 7, 1, 3, 16, (3, 3)),
]


def fill_memory(shape: torch.Size) -> None:
    """Leave numbers behind where the next tensors of such sizes will be."""
    for size in (shape.numel(), shape.numel() // 2 + 1):
        _ = [torch.full((size + extra,), 7e5) for extra in (0, 1, 16, 64)]


@pytest.mark.parametrize("channels_last", [False, True], ids=["nchw", "nhwc"])
@pytest.mark.parametrize(("channels", "kernel", "stride", "padding", "groups", "sides"), SHAPES)
def test_what_sees_only_padding_gets_no_gradient(channels, kernel, stride, padding, groups, sides, channels_last):
    convolution = nn.Conv2d(channels, channels, kernel, stride, padding, groups=groups, bias=False)
    order = torch.channels_last if channels_last else torch.contiguous_format
    convolution = convolution.to(memory_format=order)
    torch.manual_seed(0)
    images = torch.randn(8, channels, *sides).to(memory_format=order)
    convolution(images).sum().backward()
    right = convolution.weight.grad
    for _ in range(10):
        convolution.weight.grad = None
        fill_memory(convolution.weight.shape)
        with upchirp.autocast("cpu", torch.bfloat16):
            outputs = convolution(images)
        outputs.float().sum().backward()
        assert outputs.dtype == torch.bfloat16
        assert convolution.weight.grad[right == 0].eq(0).all()
        torch.testing.assert_close(convolution.weight.grad, right, rtol=0.02, atol=0.05)


def test_training_leaves_alone_what_sees_only_padding():
    plan = upchirp.plan(
        Curriculum(name="small", axis="compute", phases=(Phase(end=1.0, bandwidth=2),), magnitude=(0.0, 0.0)),
        epochs=10,
        dataset_size=8,
        batch_size=8,
        learning_rate=0.1,
    )
    model = nn.Sequential(nn.Conv2d(3, 64, 2, 2), nn.Conv2d(64, 64, 3, 2, 1), nn.Flatten(), nn.Linear(64, 4))
    before = model[1].weight.detach().clone()
    trainer = Trainer(
        optimization=Optimization(opt="sgd", weight_decay=0.0, amp_dtype="bfloat16"),
        augmentation=Augmentation(mixup=0.0, cutmix=0.0, reprob=0.0, smoothing=0.0),
    )
    state = trainer.state(model, bandwidth=2, learning_rate=0.1)
    batches = (grey_batch(step, range(8), 2) for step in plan.steps())
    for _ in trainer.run(state, plan, batches):
        fill_memory(before.shape)
    changed = (model[1].weight.detach() != before).any(dim=1).any(dim=0)
    assert changed.nonzero().tolist() == [[1, 1]]


def test_only_the_convolutions_concerned_are_computed_in_float32():
    seen = []

    class Noting(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is torch.conv2d:
                seen.append((tuple(args[0].shape[2:]), torch.is_autocast_enabled("cpu")))
            return func(*args, **(kwargs or {}))

    model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1))
    with Noting(), upchirp.autocast("cpu", torch.bfloat16):
        model(torch.randn(2, 3, 4, 4))
    assert seen == [((4, 4), True), ((2, 2), True), ((1, 1), False)]
    with upchirp.autocast("cpu", None):
        assert model(torch.randn(2, 3, 4, 4)).dtype == torch.float32


@pytest.fixture
def processor(monkeypatch):
    """A processor of the kind and with the instructions asked for."""

    def make(machine: str, **instructions: bool) -> None:
        monkeypatch.setattr(platform, "machine", lambda: machine)
        for name in ("avx512_bf16", "amx_tile"):
            monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda name=name: instructions.get(name, False))
        precision._processor_has_bfloat16.cache_clear()

    yield make
    precision._processor_has_bfloat16.cache_clear()


@pytest.mark.parametrize("instruction", [None, "avx512_bf16", "amx_tile"])
def test_mixed_precision_is_what_the_processor_has_instructions_for(processor, instruction):
    processor("x86_64", **{instruction: True} if instruction else {})
    there = instruction is not None
    assert computes("cpu", torch.bfloat16) is there
    assert not computes("cpu", torch.float16)
    with upchirp.autocast("cpu"):
        outputs = nn.Linear(2, 2)(torch.ones(1, 2))
    assert outputs.dtype == (torch.bfloat16 if there else torch.float32)


@pytest.mark.parametrize("ampere", [False, True])
def test_older_gpus_have_float16_only(monkeypatch, ampere):
    # torch counts an emulation in unless it is told not to.
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: ampere or including_emulation)
    assert computes("cuda:1", torch.bfloat16) is ampere
    assert computes("cuda:1", torch.float16)
