"""The names that other libraries have for the same parameters.

Each function takes a timm model's state and returns it under the other library's names, classifier included where
that library has one.
"""

import re
from collections.abc import Mapping, Sequence

import torch
import torchvision

from upchirp.errors import InputError

State = Mapping[str, torch.Tensor]

TORCHVISION = {
    **{f"resnet{depth}": f"resnet{depth}" for depth in (18, 34, 50, 101, 152)},
    **{name: name for name in ("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d")},
    **{name: name for name in ("wide_resnet50_2", "wide_resnet101_2")},
    **{f"convnext_{size}": f"convnext_{size}" for size in ("tiny", "small", "base", "large")},
    **{f"swin_{size}_patch4_window7_224": f"swin_{size[0]}" for size in ("tiny", "small", "base")},
    "vit_base_patch16_224": "vit_b_16",
    "vit_base_patch32_224": "vit_b_32",
    "vit_large_patch16_224": "vit_l_16",
    "deit_base_patch16_224": "vit_b_16",
}
"""torchvision's name of a model by timm's."""
RESNETS = tuple(name for name in TORCHVISION if name.startswith(("res", "wide")))
"""The ResNets that mmdetection and detectron2 build as torchvision does: timm has others by that name."""
_CONVNEXT_BLOCK = {"conv_dw": "block.0", "norm": "block.2", "mlp.fc1": "block.3", "mlp.fc2": "block.5"}
_SWIN_MLP = {"fc1": "0", "fc2": "3"}
_VIT = [
    (r"patch_embed\.proj\.", "conv_proj."),
    (r"cls_token$", "class_token"),
    (r"pos_embed$", "encoder.pos_embedding"),
    (r"blocks\.(\d+)\.norm([12])\.", r"encoder.layers.encoder_layer_\1.ln_\2."),
    (r"blocks\.(\d+)\.attn\.qkv\.", r"encoder.layers.encoder_layer_\1.self_attention.in_proj_"),
    (r"blocks\.(\d+)\.attn\.proj\.", r"encoder.layers.encoder_layer_\1.self_attention.out_proj."),
    (r"blocks\.(\d+)\.mlp\.fc1\.", r"encoder.layers.encoder_layer_\1.mlp.0."),
    (r"blocks\.(\d+)\.mlp\.fc2\.", r"encoder.layers.encoder_layer_\1.mlp.3."),
    (r"norm\.", "encoder.ln."),
    (r"head\.", "heads.head."),
]


def for_torchvision(model: str, state: State, *, final_size: int) -> dict[str, torch.Tensor]:
    """A state that `torchvision.models.get_model(TORCHVISION[model], num_classes=...)` loads strictly.

    Args:
        model: timm's name.
        state: the model's.
        final_size: input side, pixels; a ViT there is made for one (`image_size`).

    Raises:
        InputError: a model that torchvision does not have, or has with other arguments.
    """
    if model not in TORCHVISION:
        raise InputError(f"torchvision has no {model}: it has {', '.join(sorted(TORCHVISION))}")
    if model.startswith("convnext"):
        renamed = {_torchvision_convnext(name): tensor for name, tensor in state.items()}
    elif model.startswith("swin"):
        renamed = {_torchvision_swin(name, _depths(state)): tensor for name, tensor in state.items()}
    elif model.startswith(("vit", "deit")):
        renamed = {_first(_VIT, name): tensor for name, tensor in state.items()}
    else:
        renamed = dict(state)
    options = {"image_size": final_size} if model.startswith(("vit", "deit")) else {}
    classes = len(list(state.values())[-1])
    with torch.device("meta"):
        wanted = torchvision.models.get_model(TORCHVISION[model], num_classes=classes, **options).state_dict()
    made = {}
    for name, expected in wanted.items():
        if name.endswith("relative_position_index"):
            continue
        if name not in renamed or renamed[name].numel() != expected.numel():
            raise InputError(f"this {model} is not torchvision's: {name} is missing there or of another shape")
        made[name] = renamed[name].reshape(expected.shape)
    if any(name.endswith("relative_position_index") for name in wanted):
        # Torchvision keeps what it works out itself.
        filled = torchvision.models.get_model(TORCHVISION[model], num_classes=classes).state_dict()
        made |= {name: filled[name] for name in wanted if name.endswith("relative_position_index")}
    return made


def for_mmdet(model: str, state: State) -> dict[str, torch.Tensor]:
    """A backbone's state under the names of its authors, which mmdetection and mmsegmentation load.

    Swin and PVT: their `convert_weights=True` (mmdet/models/backbones/swin.py and pvt.py) brings the authors' names
    into theirs. A ResNet has torchvision's names there (`style="pytorch"`).

    Raises:
        InputError: any other model.
    """
    if model.startswith("swin_"):
        # The authors close a stage with what timm opens the next one with.
        return {
            re.sub(
                r"^layers\.(\d+)\.downsample\.", lambda found: f"layers.{int(found[1]) - 1}.downsample.", name
            ): tensor
            for name, tensor in _without(state, "head.").items()
        }
    if model.startswith("pvt_"):
        return {_official_pvt(name): tensor for name, tensor in _without(state, "head.").items()}
    if model in RESNETS:
        return _without(state, "fc.")
    raise InputError(
        f"no names of mmdetection are known for {model}: they are for Swin, PVT, and of ResNets for "
        + ", ".join(RESNETS)
    )


def for_detectron2(model: str, state: State) -> dict[str, torch.Tensor]:
    """A ResNet's state under the names of detectron2 (detectron2/modeling/backbone/resnet.py).

    Its configuration then needs `RESNETS.STRIDE_IN_1X1 False`, RGB input and this model's mean and deviation.

    Raises:
        InputError: any other model.
    """
    if model not in RESNETS:
        raise InputError(f"no names of detectron2 are known for {model}: they are for {', '.join(RESNETS)}")
    renamed = {}
    for name, tensor in _without(state, "fc.").items():
        if name.endswith("num_batches_tracked"):
            continue
        other = re.sub(r"^(conv1|bn1)", r"stem.\1", name)
        other = re.sub(r"^layer(\d)", lambda found: f"res{int(found[1]) + 1}", other)
        other = other.replace(".downsample.0.", ".shortcut.").replace(".downsample.1.", ".shortcut.norm.")
        renamed[re.sub(r"\.bn(\d)\.", r".conv\1.norm.", other)] = tensor
    return renamed


def _without(state: State, prefix: str) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith(prefix)}


def _first(rules: Sequence[tuple[str, str]], name: str) -> str:
    for pattern, other in rules:
        if re.match(pattern, name):
            return re.sub(rf"^{pattern}", other, name)
    return name


def _torchvision_convnext(name: str) -> str:
    """Torchvision's name of a ConvNeXt's parameter.

    >>> _torchvision_convnext("stages.2.blocks.1.mlp.fc1.weight"), _torchvision_convnext("stages.1.downsample.0.bias")
    ('features.5.1.block.3.weight', 'features.2.0.bias')
    """
    if found := re.fullmatch(r"stages\.(\d+)\.blocks\.(\d+)\.gamma", name):
        return f"features.{2 * int(found[1]) + 1}.{found[2]}.layer_scale"
    if found := re.fullmatch(r"stages\.(\d+)\.blocks\.(\d+)\.(conv_dw|norm|mlp\.fc1|mlp\.fc2)\.(\w+)", name):
        return f"features.{2 * int(found[1]) + 1}.{found[2]}.{_CONVNEXT_BLOCK[found[3]]}.{found[4]}"
    if found := re.fullmatch(r"stages\.(\d+)\.downsample\.(.*)", name):
        return f"features.{2 * int(found[1])}.{found[2]}"
    return (
        name.replace("stem.", "features.0.").replace("head.norm.", "classifier.0.").replace("head.fc.", "classifier.2.")
    )


def _torchvision_swin(name: str, depths: int) -> str:
    """Torchvision's name of a Swin's parameter.

    >>> _torchvision_swin("layers.1.downsample.norm.bias", 4), _torchvision_swin("layers.1.blocks.0.mlp.fc2.bias", 4)
    ('features.2.norm.bias', 'features.3.0.mlp.3.bias')
    """
    if found := re.fullmatch(r"layers\.(\d+)\.downsample\.(.*)", name):
        return f"features.{2 * int(found[1])}.{found[2]}"
    if found := re.fullmatch(r"layers\.(\d+)\.blocks\.(\d+)\.(.*)", name):
        inner = re.sub(r"mlp\.(fc\d)", lambda mlp: f"mlp.{_SWIN_MLP[mlp[1]]}", found[3])
        return f"features.{2 * int(found[1]) + 1}.{found[2]}.{inner}"
    name = name.replace("patch_embed.proj.", "features.0.0.").replace("patch_embed.norm.", "features.0.2.")
    return name.replace("head.fc.", "head.")


def _depths(state: State) -> int:
    return 1 + max(int(name.split(".")[1]) for name in state if name.startswith("layers."))


def _official_pvt(name: str) -> str:
    """The authors' name of a PVT's parameter; the inverse of `upchirp.models.pvt.official`.

    >>> _official_pvt("stages.1.blocks.0.attn.q.weight"), _official_pvt("stages.3.cls_token")
    ('block2.0.attn.q.weight', 'cls_token')
    """
    if name.startswith("patch_embed."):
        return name.replace("patch_embed.", "patch_embed1.", 1)
    found = re.fullmatch(r"stages\.(\d+)\.(.*)", name)
    if found is None:
        return name
    number, inner = int(found[1]) + 1, found[2]
    if inner == "cls_token":
        return inner
    if inner.startswith("downsample."):
        return inner.replace("downsample.", f"patch_embed{number}.", 1)
    return inner.replace("blocks.", f"block{number}.", 1) if inner.startswith("blocks.") else f"{inner}{number}"
