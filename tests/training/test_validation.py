import pytest
import torch
from torch import nn

import upchirp
from upchirp import InputError
from upchirp.models import create_model


@pytest.fixture(scope="module")
def val(image_folder):
    return upchirp.open_data(image_folder, 64)[1]


def test_validates_at_the_final_size_whatever_the_bandwidth_is(val):
    torch.manual_seed(0)
    model = create_model("test_vit", num_classes=2, final_size=64).train()
    right = upchirp.validate(model, val, 64, workers=0)
    assert right.images == len(val) == 16
    upchirp.fit_to_bandwidth(model, 32)
    positions = model.pos_embed
    found = upchirp.validate(torch.compile(model), val, 64, workers=0, batch_size=5)
    assert found.loss == pytest.approx(right.loss, rel=0.2)
    assert model.training
    assert model.pos_embed is positions
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 2)


def test_images_are_normalised_as_in_training(val):
    class Mean(nn.Module):
        def forward(self, images):
            assert images.shape[1:] == (3, 64, 64)
            means.append(images.mean((2, 3)))
            return images.mean((2, 3))

    for mean in (0.0, 0.5):
        means = []
        augmentation = upchirp.Augmentation(mean=(mean,) * 3, std=(0.5,) * 3)
        upchirp.validate(Mean(), val, 64, augmentation=augmentation, workers=0)
        average = torch.cat(means).mean().item() * 0.5 + mean
        assert average == pytest.approx(0.4, abs=0.1)


def test_a_size_that_the_model_does_not_take(val):
    with pytest.raises(InputError, match="cannot take images of side 60"):
        upchirp.validate(create_model("test_vit", num_classes=2, final_size=64), val, 60, workers=0)


def test_outputs_that_are_no_logits_of_the_classes(val):
    class Both(nn.Module):
        def forward(self, images):
            return {"logits": images.mean((2, 3))}

    model = Both()
    with pytest.raises(
        InputError, match=r"Both returns a dict in evaluation, .* returns model\(images\)\[\"logits\"\]"
    ):
        upchirp.validate(model, val, 64, workers=0)
    assert not model._forward_hooks
    single = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1))
    with pytest.raises(InputError, match="has 1 outputs for 2 classes"):
        upchirp.validate(single, val, 64, workers=0)
    # As averages of weights are.
    frozen = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)).requires_grad_(False)
    assert upchirp.validate(frozen, val, 64, workers=0).images == 16
