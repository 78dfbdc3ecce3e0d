import pytest
import timm
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from upchirp.errors import InputError
from upchirp.models import check_sizes, create_model


@pytest.mark.parametrize(
    "name",
    [
        "resnet10t",
        "convnext_atto",
        "caformer_s18",
        "deit_tiny_patch16_224",
        "deit_tiny_distilled_patch16_224",
        "swin_tiny_patch4_window7_224",
        "mixer_s32_224",
        "vgg11",
    ],
)
def test_takes_the_final_size(name):
    with torch.device("meta"):
        model = create_model(name, num_classes=7, final_size=64)
        assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 7) or isinstance(model(torch.zeros(2, 3, 64, 64)), tuple)
    assert all(parameter.is_meta for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "size", "windows"),
    [
        ("swin_tiny_patch4_window7_224", 64, [2, 2, 2, 2]),
        ("swin_tiny_patch4_window7_224", 384, [12, 12, 12, 12]),
        ("swin_base_patch4_window12_384", 224, [7, 7, 7, 7]),
        # S3 has one stage with windows twice as wide; every window keeps its share of the grid.
        ("swin_s3_tiny_224", 96, [3, 3, 6, 3]),
    ],
)
def test_windows_follow_the_final_size(name, size, windows):
    with torch.device("meta"):
        model = create_model(name, final_size=size)
    assert [stage.blocks[0].window_size for stage in model.layers] == [(w, w) for w in windows]


def test_draws_the_weights_timm_draws():
    torch.manual_seed(3)
    ours = create_model("vit_tiny_patch16_224", num_classes=5, final_size=64, drop_path=0.1, depth=2)
    torch.manual_seed(3)
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=5, img_size=64, drop_path_rate=0.1, depth=2)
    for (name, mine), (_, other) in zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True):
        assert torch.equal(mine, other), name


@pytest.mark.parametrize("name", ["test_vit", "cswin_tiny_224", "caformer_s18"])
def test_what_has_no_values_is_not_initialised(name):
    seen = set()

    class Looking(TorchDispatchMode):
        def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
            seen.add(operator.overloadpacket.__name__)
            return operator(*args, **(kwargs or {}))

    with torch.device("meta"), Looking():
        create_model(name, final_size=224)
    assert "empty" in seen
    assert not seen & {"uniform_", "normal_", "erfinv_", "clamp_"}


def test_drop_path_is_passed_and_zero_overrides_the_default():
    with torch.device("meta"):
        # timm's default for Swin is 0.1.
        off = create_model("swin_tiny_patch4_window7_224")
        on = create_model("swin_tiny_patch4_window7_224", drop_path=0.3)
    rates = [[m.drop_prob for m in model.modules() if type(m).__name__ == "DropPath"] for model in (off, on)]
    assert rates[0] == []
    assert max(rates[1]) == pytest.approx(0.3)


def test_drop_path_where_there_is_none():
    with torch.device("meta"):
        create_model("vgg11", drop_path=0.0)
        with pytest.raises(InputError, match="vgg11 does not take drop_path_rate"):
            create_model("vgg11", drop_path=0.1)


@pytest.mark.parametrize(
    ("name", "neighbour"),
    [
        ("resnet5O", "resnet50"),
        ("swin_tiny_patch4_window7", "swin_tiny_patch4_window7_224"),
        ("deit_tiny", "deit_"),
    ],
)
def test_unknown_name_offers_neighbours(name, neighbour):
    with pytest.raises(InputError, match=f"no model '{name}'.*{neighbour}"):
        create_model(name)


def test_unknown_name_with_no_neighbour():
    with pytest.raises(InputError, match="no model '@@@'"):
        create_model("@@@")


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "caformer_s18"])
def test_bad_argument_is_named(name):
    with pytest.raises(InputError, match=f"{name} does not take flavour"):
        create_model(name, flavour="plum")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"img_size": 64}, "set final_size"),
        ({"final_size": 0}, "final size is 0"),
        ({"drop": 1.0}, "drop_rate is 1.0"),
        ({"drop_path": -0.1}, "drop_path_rate is -0.1"),
        ({"embed_dim": 50, "num_heads": 3}, "cannot build vit_tiny_patch16_224"),
    ],
)
def test_bad_values(arguments, message):
    with pytest.raises(InputError, match=message):
        create_model("vit_tiny_patch16_224", **arguments)


@pytest.mark.parametrize(
    ("name", "size", "nearest"),
    [
        ("deit_tiny_patch16_224", 100, "96 and 112"),
        ("swin_tiny_patch4_window7_224", 100, "96 and 128"),
        ("convnext_atto", 48, "32 and 64"),
        ("resnet18", 63, "62 and 64"),
        ("convnext_atto", 20, "that work are 32"),
    ],
)
def test_size_that_would_be_cut_offers_the_nearest(name, size, nearest):
    with pytest.raises(InputError, match=f"{name} cannot take images of side {size} .*{nearest}"):
        create_model(name, final_size=size)


def test_model_fixed_to_its_size_is_made_at_it_and_refuses_others():
    with torch.device("meta"):
        mixer = create_model("mixer_s32_224", final_size=96)
    check_sizes(mixer, [96])
    with pytest.raises(InputError, match=r"mixer_s32_224 cannot take images of side 64 .*nearest that work are 96"):
        check_sizes(mixer, [64, 96])
