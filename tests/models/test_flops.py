import pytest
import torch
from torch import nn
from torch.nn import functional

from upchirp.errors import InputError
from upchirp.models import count_flops, count_parameters, create_model, flops_table

# Parameters (M), FLOPs at 224 (G) and computation speed-up as printed in Table 7.
TABLE_7 = {
    "resnet50": (26, 4.1, 1.49),
    "convnext_tiny": (29, 4.5, 1.49),
    "convnext_small": (50, 8.7, 1.49),
    "convnext_base": (89, 15.4, 1.49),
    "deit_tiny_patch16_224": (5, 1.3, 1.56),
    "deit_small_patch16_224": (22, 4.6, 1.52),
    "swin_tiny_patch4_window7_224": (28, 4.5, 1.51),
    "swin_small_patch4_window7_224": (50, 8.7, 1.51),
    "swin_base_patch4_window7_224": (88, 15.4, 1.50),
    "caformer_s18": (26, 4.1, 1.52),
    "caformer_s36": (39, 8.0, 1.52),
    "caformer_m36": (56, 13.2, 1.51),
}


@pytest.mark.parametrize("name", TABLE_7)
def test_table_7(name):
    parameters, flops, speedup = TABLE_7[name]
    with torch.device("meta"):
        model = create_model(name)
    assert count_parameters(model) / 1e6 == pytest.approx(parameters, abs=1)
    cost = flops_table(model, (96, 160, 224))
    assert cost[224] / 1e9 == pytest.approx(flops, abs=0.1)
    # 300 epochs against 200 equivalent ones of Table 6: a stage with share s of the budget, in pixels,
    # draws s / (B/224)^2 samples at F(B) each.
    stages = ((0.2, 96), (0.4, 160), (0.4, 224))
    spent = sum(share * cost[side] / (side / 224) ** 2 for share, side in stages)
    assert 300 * cost[224] / (200 * spent) == pytest.approx(speedup, rel=0.01)


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
