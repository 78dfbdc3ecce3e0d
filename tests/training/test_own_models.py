"""Models that a user brings to `upchirp.train`."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torchvision.models import VisionTransformer

from upchirp import InputError, train
from upchirp.search import SearchConfig, search
from upchirp.training import Noted


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))

    def forward(self, images):
        return self.body(images), images


def test_outputs_are_checked_before_anything_is_written(config):
    settings = config()
    with pytest.raises(InputError, match="Pair returns a tuple of 2 in training"):
        train(settings, model=Pair())
    assert not (settings.output / "plan.json").exists()
    with pytest.raises(InputError, match="returns a list"):
        train(config(model="test_resnet", model_kwargs={"features_only": True}))
    with pytest.raises(InputError, match="Pair returns a tuple of 2 in training"):
        search(SearchConfig(training=settings), model=Pair())


def test_a_model_for_another_side_is_fitted_first(config):
    torch.manual_seed(0)
    model = VisionTransformer(
        image_size=32, patch_size=16, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=16, num_classes=2
    )
    notes = []
    result = train(
        config(curriculum="constant", epochs=1, evaluations=1, model_ema=False),
        model=torch.compile(model),
        observers=[lambda event: notes.append(event.message) if isinstance(event, Noted) else None],
    )
    assert any("left off" in note for note in notes)
    assert "encoder.pos_embedding" in load_file(result.output / "model.safetensors")
    assert result.plan.bandwidths == (64,)
    assert model.image_size == 64
    assert model.encoder.pos_embedding.shape == (1, 17, 16)
