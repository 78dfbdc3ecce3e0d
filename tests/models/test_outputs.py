import pytest
import timm
import torch
import torchvision
from torch import nn

from upchirp import InputError
from upchirp.models import check_outputs


class Wrapped(nn.Module):
    def __init__(self, wrap=lambda logits: logits):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 4))
        self.wrap = wrap

    def forward(self, images):
        return self.wrap(self.head(self.body(images)))


class WithLogits:
    def __init__(self, logits):
        self.logits = logits


REFUSED = {
    "a tuple": (lambda: Wrapped(lambda logits: (logits, logits)), "a tuple of 2 in training.*the logits alone"),
    "a dict": (lambda: Wrapped(lambda logits: {"logits": logits}), r'a dict in training.*model\(images\)\["logits"\]'),
    "an output of Hugging Face's": (lambda: Wrapped(WithLogits), r"a WithLogits in training.*model\(images\)\.logits"),
    "auxiliary outputs": (
        lambda: torchvision.models.googlenet(num_classes=4, init_weights=False),
        "GoogLeNetOutputs in training.*aux_logits=False",
    ),
    "features": (lambda: timm.create_model("test_resnet", features_only=True), "a list of .*without features_only"),
    "maps": (lambda: Wrapped(lambda logits: logits[..., None, None]), r"shape \(2, 4, 1, 1\) for 2 images"),
    "too few outputs": (
        lambda: Wrapped(lambda logits: logits[:, :2]),
        "2 outputs for 4 classes: make it with",
    ),
    "grey images": (lambda: timm.create_model("test_resnet", in_chans=1, num_classes=4), "1 channel, here they have 3"),
    "nothing to train": (lambda: Wrapped().requires_grad_(False), "no parameter requires a gradient"),
    "detached outputs": (lambda: Wrapped(lambda logits: logits.detach()), "depend on no parameter"),
    "a name": (lambda: "resnet18", "no torch.nn.Module"),
}


@pytest.mark.parametrize("model", REFUSED)
def test_outputs_that_are_no_logits_are_refused_in_one_line(model):
    make, message = REFUSED[model]
    with pytest.raises(InputError, match=message) as raised:
        check_outputs(make(), 64, classes=4)
    assert len(str(raised.value).splitlines()) == 1


def test_the_model_and_the_random_state_stay_as_they_are():
    # An operator that does not run without values has a copy with values decide.
    model = Wrapped(lambda logits: logits + 1 if logits.sum() > 0 else logits)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    check_outputs(model.train(), 64, classes=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_more_outputs_than_classes_are_taken_and_sizes_are_left_to_others():
    check_outputs(Wrapped(), 64, classes=3)
    check_outputs(timm.create_model("test_vit", num_classes=4), 60, classes=4)
