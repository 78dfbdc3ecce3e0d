import pytest
import torch
from torch import nn
from torch.nn import functional

from upchirp.errors import InputError
from upchirp.models import count_flops, count_parameters, create_model
from upchirp.models.meta import shapes_only


def test_flops_by_hand():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    )
    assert count_flops(model, 20) == 10 * 10 * 8 * 3 * 9 + 8 * 5


class Attention(nn.Module):
    """Attention over the pixels, with the fused operator."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 16, 1)

    def forward(self, images):
        tokens = self.embed(images).flatten(2).transpose(1, 2).unsqueeze(1).contiguous()
        return functional.scaled_dot_product_attention(tokens, tokens, tokens)


class Unshaped(Attention):
    """The same with an operator that needs values."""

    def forward(self, images):
        return super().forward(images) * int(images.sum() == 0)


@pytest.mark.parametrize("kind", [Attention, Unshaped])
def test_fused_attention_is_counted(kind):
    tokens = 12 * 12
    assert count_flops(kind(), 12) == tokens * 3 * 16 + 2 * tokens * tokens * 16


def test_model_is_not_touched():
    model = create_model(
        "swin_tiny_patch4_window7_224",
        final_size=64,
        embed_dim=12,
        depths=(1, 1, 1, 1),
        num_heads=(1, 1, 1, 1),
    )
    model.train()
    seen = []
    model.register_forward_hook(lambda *_: seen.append(1))
    before = {name: (id(value), value.clone()) for name, value in model.named_parameters()}
    rng = torch.get_rng_state()
    small, large = count_flops(model, 32), count_flops(model, 64)
    assert 0 < small < large
    assert model.training and not seen
    assert torch.equal(torch.get_rng_state(), rng)
    assert model.patch_embed.img_size == (64, 64)
    for name, value in model.named_parameters():
        identity, values = before[name]
        assert id(value) == identity and torch.equal(value, values)


def test_shared_parameters_count_once():
    layer = nn.Linear(3, 3)
    assert count_parameters(nn.Sequential(layer, layer)) == 12


def test_size_that_cannot_be_taken():
    with torch.device("meta"):
        model = create_model("deit_tiny_patch16_224")
    with pytest.raises(InputError, match="side 100"):
        count_flops(model, 100)


class Normed(nn.Module):
    """Norms and activations in all layouts, of which the last takes one side only."""

    def __init__(self, side: int, channels: int = 8):
        super().__init__()
        self.stem, self.batch = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(channels)
        self.tokens, self.maps = nn.LayerNorm(8), nn.LayerNorm((8, side, side))

    def forward(self, images):
        x = functional.gelu(self.batch(self.stem(images)))
        x = self.tokens(x.permute(0, 2, 3, 1))
        # The kernel of layer norms leaves its outputs contiguous, whatever it is given.
        rows = functional.silu(x.view(len(x), x.shape[1], -1))
        x = rows.view(x.shape).permute(0, 3, 1, 2)
        return self.maps(x).mean((2, 3))


def test_norms_are_not_worked_out_and_say_what_does_not_fit():
    with shapes_only():
        model = Normed(12)
    assert count_flops(model, 12) == 12 * 12 * 8 * 3 * 9
    with pytest.raises(InputError, match="normalized_shape="):
        count_flops(Normed(14), 12)
    with pytest.raises(InputError, match="running_mean should contain 8 elements not 7"):
        count_flops(Normed(12, channels=7), 12)
